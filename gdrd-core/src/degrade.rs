//! From a face as it was photographed to a face of very few pixels.

use serde::{Deserialize, Serialize};

use crate::embedder::{Embedder, Embeddings};
use crate::error::{Problem, Result};
use crate::face::{Face, Kernel};

/// How a face loses its resolution: one named object for training, evaluation and the student file.
///
/// The paper says "resize to 16x16" and no more. We take PIL's antialiased bicubic as the default; the kernel
/// alone moves accuracies by points, so it stands in every lock file, report and student.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Downscale {
    /// Height and width that are left, in pixels.
    #[cfg_attr(feature = "train", schemars(range(min = 4, max = 512)))]
    pub size: usize,
    /// Filter of the reduction.
    pub kernel: Kernel,
    /// Whether the filter widens with the reduction (PIL) or not (OpenCV).
    pub antialias: bool,
}

impl Default for Downscale {
    fn default() -> Self {
        Self { size: 16, kernel: Kernel::Bicubic, antialias: true }
    }
}

impl Downscale {
    /// What is wrong with these options.
    pub fn check(&self) -> Vec<Problem> {
        let good = (4..=512).contains(&self.size);
        Problem::unless(good, "size", || format!("expected 4 to 512 pixels, found {}", self.size)).into_iter().collect()
    }

    /// The small face.
    ///
    /// # Errors
    /// If the face is not square.
    pub fn apply(&self, face: &Face) -> Result<Face> {
        face.square()?.resized(self.size, self.kernel, self.antialias)
    }
}

/// An embedder behind a degradation: what one has who gives small faces to a network made for large ones.
pub struct Degraded<'a> {
    name: String,
    inner: &'a dyn Embedder,
    downscale: Downscale,
}

impl<'a> Degraded<'a> {
    /// `inner`, shown only faces that `downscale` has made small.
    pub fn new(inner: &'a dyn Embedder, downscale: Downscale) -> Self {
        let name = format!("{} on upsampled {size}x{size} faces", inner.name(), size = downscale.size);
        Self { name, inner, downscale }
    }
}

impl Embedder for Degraded<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn width(&self) -> usize {
        self.inner.width()
    }

    fn embed(&self, faces: &[Face]) -> Result<Embeddings> {
        let small = faces.iter().map(|face| self.downscale.apply(face)).collect::<Result<Vec<_>>>()?;
        self.inner.embed(&small)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_face_comes_out_at_the_asked_size() {
        let face = Face::new(40, 40, vec![9; 4800]).expect("a face");
        let small = Downscale::default().apply(&face).expect("small");
        assert_eq!((small.width(), small.pixels()[0]), (16, 9));
    }

    #[test]
    fn a_size_of_nothing_is_a_problem() {
        assert_eq!(Downscale { size: 0, ..Default::default() }.check()[0].key, "size");
    }
}
