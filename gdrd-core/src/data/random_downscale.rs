//! A reduction whose size and filter are drawn anew for each face and epoch.

use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Degradation, DegradationConfig};
use crate::context::BuildContext;
use crate::degrade::Downscale;
use crate::error::{Problem, Result};
use crate::face::{Face, Kernel};
use crate::plugin::Kind;
use crate::seed::Stream;

/// A face is reduced to one of `sizes` by one of `kernels`, and brought from there to `size`, the student's input, by `kernel`.
/// Evaluation and the student file reduce to `size` at once, by `kernel`.
///
/// Teachers' features of such a view are not stored, and a student that saw many sizes serves faces of all of them
/// (Lee et al., F-SKD, draw 14 to 112 pixels; Lai and Lam 8, 12 and 16).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RandomDownscale {
    /// Height and width that are left, in pixels.
    #[schemars(range(min = 4, max = 512))]
    pub size: usize,
    /// Filter of the reduction in evaluation, and of the way from a drawn size to `size`.
    pub kernel: Kernel,
    /// Whether that filter widens with the reduction (PIL) or not (OpenCV).
    pub antialias: bool,
    /// Sizes that are drawn, in pixels, each as likely; one that stands twice is twice as likely.
    #[schemars(inner(range(min = 2, max = 512)))]
    pub sizes: Vec<usize>,
    /// Filters that are drawn, likewise.
    pub kernels: Vec<Kernel>,
    /// Share of the faces whose drawn filter widens with the reduction, 0 to 1.
    #[schemars(range(min = 0, max = 1))]
    pub antialiased: f64,
    /// Share of the faces that are reduced as in evaluation, 0 to 1.
    #[schemars(range(min = 0, max = 1))]
    pub plain: f64,
}

impl Default for RandomDownscale {
    fn default() -> Self {
        let Downscale { size, kernel, antialias } = Downscale::default();
        Self {
            size,
            kernel,
            antialias,
            sizes: vec![12, 14, 16, 20, 24, 32],
            kernels: vec![Kernel::Box, Kernel::Bilinear, Kernel::Bicubic, Kernel::Lanczos3],
            antialiased: 0.5,
            plain: 0.0,
        }
    }
}

impl Kind for RandomDownscale {
    const NAME: &'static str = "random-downscale";
    const PURPOSE: &'static str = "reduction to a random size by a random filter";
}

impl RandomDownscale {
    fn plain(&self) -> Downscale {
        Downscale { size: self.size, kernel: self.kernel, antialias: self.antialias }
    }
}

impl DegradationConfig for RandomDownscale {
    fn check(&self) -> Vec<Problem> {
        let sizes = !self.sizes.is_empty() && self.sizes.iter().all(|size| (2..=512).contains(size));
        let share = |key: &'static str, value: f64| {
            Problem::unless((0.0..=1.0).contains(&value), key, || format!("expected 0 to 1, found {value}"))
        };
        let own = [
            Problem::unless(sizes, "sizes", || format!("expected sizes of 2 to 512 pixels, found {:?}", self.sizes)),
            Problem::unless(!self.kernels.is_empty(), "kernels", || "expected at least one filter".into()),
            share("antialiased", self.antialiased),
            share("plain", self.plain),
        ];
        self.plain().check().into_iter().chain(own.into_iter().flatten()).collect()
    }

    fn build(&self, _: &BuildContext) -> Result<Box<dyn Degradation>> {
        Ok(Box::new(Drawing { plain: self.plain(), options: self.clone() }))
    }
}

struct Drawing {
    plain: Downscale,
    options: RandomDownscale,
}

impl Degradation for Drawing {
    fn downscale(&self) -> Option<&Downscale> {
        Some(&self.plain)
    }

    fn is_random(&self) -> bool {
        true
    }

    fn degrade(&self, face: &Face, random: &mut Stream) -> Result<Face> {
        let options = &self.options;
        // Drawn in any case: what one face draws says nothing of what it would have drawn with other options.
        let (plain, antialiased) = (random.random::<f64>(), random.random::<f64>());
        let size = options.sizes[random.random_range(0..options.sizes.len())];
        let kernel = options.kernels[random.random_range(0..options.kernels.len())];
        if plain < options.plain {
            return self.plain.apply(face);
        }
        let small = Downscale { size, kernel, antialias: antialiased < options.antialiased }.apply(face)?;
        self.plain.apply(&small)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::context::Bare;
    use crate::seed::Seed;

    fn built(options: &RandomDownscale) -> Box<dyn Degradation> {
        let bare = Bare(candle_core::Device::Cpu);
        options.build(&BuildContext::new(&bare)).expect("a degradation")
    }

    fn face() -> Face {
        let noise = |at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8;
        Face::new(48, 48, (0..48 * 48 * 3).map(noise).collect()).expect("a face")
    }

    fn small(options: &RandomDownscale, number: u64) -> Face {
        built(options).degrade(&face(), &mut Seed(7).stream("test", &[number])).expect("small")
    }

    #[test]
    fn every_size_and_filter_is_drawn_and_all_come_out_at_the_students_size() {
        let options = RandomDownscale {
            sizes: vec![8, 24],
            kernels: vec![Kernel::Box, Kernel::Bicubic],
            ..RandomDownscale::default()
        };
        let mut possible = BTreeSet::new();
        for (size, kernel, antialias) in [8, 24]
            .into_iter()
            .flat_map(|s| [Kernel::Box, Kernel::Bicubic].map(|k| (s, k)))
            .flat_map(|(s, k)| [(s, k, true), (s, k, false)])
        {
            let first = Downscale { size, kernel, antialias }.apply(&face()).expect("small");
            possible.insert(Downscale::default().apply(&first).expect("small").pixels().to_vec());
        }
        assert_eq!(possible.len(), 8, "every draw differs");
        let found: BTreeSet<Vec<u8>> = (0..200).map(|number| small(&options, number).pixels().to_vec()).collect();
        assert_eq!(found, possible);
        assert_eq!(small(&options, 3), small(&options, 3));
        assert!(built(&options).is_random());
    }

    #[test]
    fn plain_faces_are_those_of_evaluation() {
        let plain = Downscale::default().apply(&face()).expect("small");
        let options = |plain| RandomDownscale { plain, sizes: vec![8], ..RandomDownscale::default() };
        assert!((0..20).all(|number| small(&options(1.0), number) == plain));
        let half = (0..400).filter(|number| small(&options(0.5), *number) == plain).count();
        // Four standard deviations.
        assert!((160..=240).contains(&half), "{half}");
        assert_eq!(built(&options(0.0)).downscale(), Some(&Downscale::default()));
    }

    #[test]
    fn options_out_of_bounds_are_named() {
        let wrong = RandomDownscale {
            size: 0,
            sizes: Vec::new(),
            kernels: Vec::new(),
            antialiased: 1.5,
            plain: f64::NAN,
            ..RandomDownscale::default()
        };
        let keys: Vec<&str> = wrong.check().iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["size", "sizes", "kernels", "antialiased", "plain"]);
        assert!(RandomDownscale::default().check().is_empty());
    }
}
