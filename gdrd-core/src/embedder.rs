//! Anything that turns faces into vectors.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::face::Face;

/// Vectors of unit length, one a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    width: usize,
    values: Vec<f32>,
    lengths: Vec<f32>,
    /// One a row, or none at all.
    ratings: Vec<f64>,
}

impl Embeddings {
    /// Embeddings from rows of `width` values, each brought to unit length.
    ///
    /// # Errors
    /// If the count is not a multiple of `width`, or a row is zero or not finite.
    pub fn from_rows(width: usize, mut values: Vec<f32>) -> Result<Self> {
        if width == 0 || !values.len().is_multiple_of(width) {
            return Err(Error::component(format!("expected rows of {width} values, found {} values", values.len())));
        }
        let mut lengths = Vec::with_capacity(values.len() / width);
        for (row, vector) in values.chunks_exact_mut(width).enumerate() {
            let length = vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            if !length.is_finite() || length == 0.0 {
                return Err(Error::component(format!(
                    "embedding {row} has length {length}, expected a finite positive one"
                )));
            }
            vector.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
            lengths.push(length as f32);
        }
        Ok(Self { width, values, lengths, ratings: Vec::new() })
    }

    /// No embeddings of `width` values, to which others are appended.
    pub fn none(width: usize) -> Self {
        Self { width, values: Vec::new(), lengths: Vec::new(), ratings: Vec::new() }
    }

    /// Adds the rows of `other`. Ratings stay only if the rows of both have them.
    ///
    /// # Errors
    /// If they have another width.
    pub fn append(&mut self, other: Self) -> Result<()> {
        if other.width != self.width {
            return Err(Error::component(format!("expected rows of {} values, found {}", self.width, other.width)));
        }
        if self.ratings.len() == self.len() && other.ratings.len() == other.len() {
            self.ratings.extend(other.ratings);
        } else {
            self.ratings.clear();
        }
        self.values.extend(other.values);
        self.lengths.extend(other.lengths);
        Ok(())
    }

    /// The same with a rating of each face: the chance, in `[0, 1]`, that it is recognised, by a student's quality model.
    ///
    /// # Errors
    /// If there is not one for each row, or one is no chance.
    pub fn rated(self, ratings: Vec<f64>) -> Result<Self> {
        if ratings.len() != self.len() {
            let (found, rows) = (ratings.len(), self.len());
            return Err(Error::component(format!("expected a rating for each of {rows} embeddings, found {found}")));
        }
        match ratings.iter().position(|rating| !(0.0..=1.0).contains(rating)) {
            Some(at) => {
                Err(Error::component(format!("rating of embedding {at}: expected 0 to 1, found {}", ratings[at])))
            }
            None => Ok(Self { ratings, ..self }),
        }
    }

    /// The chance, in `[0, 1]`, that the face of each row is recognised; none if whoever embedded has no quality model.
    pub fn ratings(&self) -> Option<&[f64]> {
        (!self.is_empty() && self.ratings.len() == self.len()).then_some(&self.ratings)
    }

    /// The same without ratings.
    #[must_use]
    pub fn unrated(&self) -> Self {
        Self { ratings: Vec::new(), ..self.clone() }
    }

    /// The length of each row before it was brought to unit length: what the network gave is row times length.
    pub fn lengths(&self) -> &[f32] {
        &self.lengths
    }

    /// Values in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All values, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// One row.
    ///
    /// # Errors
    /// If there is no such row.
    pub fn row(&self, at: usize) -> Result<&[f32]> {
        match at < self.len() {
            true => Ok(self.known(at)),
            false => Err(Error::component(format!("expected a row below {}, found {at}", self.len()))),
        }
    }

    /// A row whose number was made from the number of rows.
    ///
    /// # Panics
    /// If there is no such row.
    pub(crate) fn known(&self, at: usize) -> &[f32] {
        &self.values[at * self.width..(at + 1) * self.width]
    }

    /// Several rows, which show one person, as one: see [`fuse`].
    ///
    /// # Errors
    /// As [`fuse`], and if there is no such row.
    pub fn fused(&self, rows: &[usize]) -> Result<Vec<f32>> {
        let ratings = self.ratings();
        let one = |&row: &usize| Ok((self.row(row)?, ratings.map(|ratings| ratings[row])));
        let all = rows.iter().map(one).collect::<Result<Vec<_>>>()?;
        fuse(all.iter().copied())
    }

    /// The cosine similarity of two rows, in `[-1, 1]`.
    ///
    /// # Errors
    /// If there is no such row.
    pub fn similarity(&self, left: usize, right: usize) -> Result<f32> {
        Ok(self.row(left)?.iter().zip(self.row(right)?).map(|(a, b)| a * b).sum())
    }
}

/// Several faces of one person, such as the frames of a track, as one vector of unit length: the direction of the sum of their
/// unit-length vectors, each weighted by its rating where all have one (and by 0.01 where that is less: a face of no quality at all
/// still says something where there is nothing else).
///
/// # Errors
/// If there are none, or they cancel each other out.
pub fn fuse<'a>(faces: impl Iterator<Item = (&'a [f32], Option<f64>)> + Clone) -> Result<Vec<f32>> {
    let rated = faces.clone().all(|(_, rating)| rating.is_some());
    let mut sum: Vec<f64> = Vec::new();
    for (values, rating) in faces {
        let weight = rating.filter(|_| rated).map_or(1.0, |rating| rating.max(0.01));
        sum.resize(values.len(), 0.0);
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * f64::from(*value));
    }
    if sum.is_empty() {
        return Err(Error::data("expected at least one face, found none"));
    }
    let length = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
    match length.is_finite() && length > 1e-6 {
        true => Ok(sum.into_iter().map(|value| (value / length) as f32).collect()),
        false => Err(Error::data("the faces cancel each other out: they are not of one person")),
    }
}

/// Faces in, unit vectors out: a student, a teacher, or anybody's model. Evaluation sees only this.
///
/// An embedder brings faces of any size to its own input size itself.
///
/// ```
/// use gdrd_core::embedder::{Embedder, Embeddings};
/// use gdrd_core::error::Result;
/// use gdrd_core::face::Face;
///
/// /// The colour of the first pixel.
/// struct FirstPixel;
///
/// impl Embedder for FirstPixel {
///     fn name(&self) -> &str {
///         "first pixel"
///     }
///     fn width(&self) -> usize {
///         3
///     }
///     fn embed(&self, faces: &[Face]) -> Result<Embeddings> {
///         let values = faces.iter().flat_map(|face| face.pixels()[..3].iter().map(|value| f32::from(*value)));
///         Embeddings::from_rows(3, values.collect())
///     }
/// }
///
/// let red = Face::new(1, 1, vec![9, 0, 0])?;
/// let yellow = Face::new(1, 1, vec![9, 9, 0])?;
/// let found = FirstPixel.embed(&[red, yellow])?;
/// assert!((found.similarity(0, 1)? - 0.5f32.sqrt()).abs() < 1e-6);
/// # Ok::<(), gdrd_core::error::Error>(())
/// ```
pub trait Embedder {
    /// What reports call it.
    fn name(&self) -> &str;

    /// Values in an embedding; none for a network that only denoises.
    fn width(&self) -> usize;

    /// The embeddings of `faces`, in their order.
    fn embed(&self, faces: &[Face]) -> Result<Embeddings>;

    /// The network behind it, if that denoises.
    fn denoiser(&self) -> Option<&dyn Denoiser> {
        None
    }
}

/// A network that finds the noise in faces.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use gdrd_core::embedder::Denoiser;
/// use gdrd_core::error::Result;
/// use gdrd_core::face::{Face, Kernel};
///
/// /// Takes all that it sees for noise.
/// struct All;
///
/// impl Denoiser for All {
///     fn whole(&self, face: &Face) -> Result<Face> {
///         face.resized(8, Kernel::Bicubic, true)
///     }
///     fn denoise(&self, noisy: &Tensor, _: &[f32]) -> Result<Tensor> {
///         Ok(noisy.narrow(1, 0, 3)?)
///     }
/// }
///
/// let noisy = Tensor::ones((2, 6, 8, 8), candle_core::DType::F32, &Device::Cpu)?;
/// assert_eq!(All.denoise(&noisy, &[0.0, 999.0])?.dims(), [2, 3, 8, 8]);
/// # Ok::<(), gdrd_core::error::Error>(())
/// ```
pub trait Denoiser {
    /// A face as the network is shown it, before the noise.
    ///
    /// # Errors
    /// If it cannot be brought to the network's size.
    fn whole(&self, face: &Face) -> Result<Face>;

    /// The noise in `noisy` `[batch, 3, size, size]`, of values about `[-1, 1]`, at a timestep for each of 0 to 999; a network with
    /// a condition has its three channels behind those of `noisy`.
    ///
    /// # Errors
    /// If the shapes do not fit the network.
    fn denoise(&self, noisy: &Tensor, timesteps: &[f32]) -> Result<Tensor>;
}

/// An embedder that sums the embeddings of a face and of its mirror image, as LFW protocols do.
pub struct FlipFused<'a>(pub &'a dyn Embedder);

impl FlipFused<'_> {
    /// Itself where mirror images count, else the embedder of the face alone.
    pub fn when(&self, flip: bool) -> &dyn Embedder {
        if flip { self } else { self.0 }
    }
}

impl Embedder for FlipFused<'_> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn width(&self) -> usize {
        self.0.width()
    }

    fn embed(&self, faces: &[Face]) -> Result<Embeddings> {
        let plain = self.0.embed(faces)?;
        let mirrored = self.0.embed(&faces.iter().map(Face::flipped).collect::<Vec<_>>())?;
        let sums = plain.values.iter().zip(&mirrored.values).map(|(a, b)| a + b).collect();
        let fused = Embeddings::from_rows(plain.width, sums)?;
        // A face is rated as it came, not as its mirror image.
        if plain.ratings.is_empty() { Ok(fused) } else { fused.rated(plain.ratings) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct FirstPixels;

    impl Embedder for FirstPixels {
        fn name(&self) -> &str {
            "first pixels"
        }

        fn width(&self) -> usize {
            3
        }

        fn embed(&self, faces: &[Face]) -> Result<Embeddings> {
            Embeddings::from_rows(3, faces.iter().flat_map(|f| f.pixels()[..3].iter().map(|p| f32::from(*p))).collect())
        }
    }

    #[test]
    fn rows_have_unit_length_and_zero_is_refused() {
        let rows = Embeddings::from_rows(2, vec![3.0, 4.0, 0.0, 2.0]).expect("rows");
        assert_eq!(rows.values(), [0.6, 0.8, 0.0, 1.0]);
        assert!((rows.similarity(0, 1).expect("rows") - 0.8).abs() < 1e-6);
        assert!(Embeddings::from_rows(2, vec![0.0, 0.0]).is_err());
    }

    #[test]
    fn rows_that_there_are_not_are_errors() {
        let rows = Embeddings::from_rows(2, vec![3.0, 4.0, 0.0, 2.0]).expect("rows");
        assert_eq!(rows.row(1).expect("a row"), [0.0, 1.0]);
        for at in [2, usize::MAX] {
            let errors = [
                rows.row(at).map(drop),
                rows.similarity(0, at).map(drop),
                rows.similarity(at, 0).map(drop),
                rows.fused(&[0, at]).map(drop),
            ];
            for error in errors {
                let text = error.expect_err("no such row").to_string();
                assert_eq!(text, format!("expected a row below 2, found {at}"));
            }
        }
        assert!(Embeddings::none(2).row(0).is_err());
    }

    #[test]
    fn ratings_stay_where_all_rows_have_them() {
        let rows = |ratings: &[f64]| {
            let rows = Embeddings::from_rows(1, vec![1.0; ratings.len()]).expect("rows");
            rows.rated(ratings.to_vec()).expect("chances")
        };
        let mut all = Embeddings::none(1);
        assert_eq!(all.ratings(), None);
        all.append(rows(&[0.5])).expect("one width");
        all.append(rows(&[0.0, 1.0])).expect("one width");
        assert_eq!(all.ratings(), Some(&[0.5, 0.0, 1.0][..]));
        all.append(Embeddings::from_rows(1, vec![1.0]).expect("a row")).expect("one width");
        all.append(rows(&[0.5])).expect("one width");
        assert_eq!((all.ratings(), all.len()), (None, 5));
        let error = rows(&[0.5]).rated(vec![1.5]).expect_err("no chance").to_string();
        assert!(error.contains("rating of embedding 0: expected 0 to 1, found 1.5"), "{error}");
        assert!(rows(&[0.5]).rated(vec![]).is_err() && rows(&[0.5]).rated(vec![f64::NAN]).is_err());
    }

    #[test]
    fn flip_fusion_sees_both_sides() {
        let face = Face::new(2, 1, vec![10, 0, 0, 0, 10, 0]).expect("two pixels");
        let fused = FlipFused(&FirstPixels).embed(&[face]).expect("embedding");
        let half = 0.5f32.sqrt();
        assert!(fused.values().iter().zip([half, half, 0.0]).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn faces_count_by_their_quality() {
        let rows = Embeddings::from_rows(2, vec![1.0, 0.0, 0.0, 3.0, -1.0, 0.0]).expect("rows");
        let half = 0.5f32.sqrt();
        assert_eq!(rows.fused(&[0, 1]).expect("a sum"), [half, half]);
        assert!(rows.fused(&[0, 2]).expect_err("nothing left").to_string().contains("cancel"));
        assert!(rows.fused(&[]).is_err());
        let rated = rows.rated(vec![0.8, 0.6, 0.0]).expect("ratings");
        let found = rated.fused(&[0, 1]).expect("a sum");
        assert!((found[0] - 0.8).abs() < 1e-6 && (found[1] - 0.6).abs() < 1e-6, "{found:?}");
        assert_eq!(rated.fused(&[2]).expect("a sum"), [-1.0, 0.0]);
    }
}
