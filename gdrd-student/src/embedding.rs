//! One face's embedding, and several of them as one.

use std::sync::Arc;

use gdrd_core::embedder::fuse;
use gdrd_core::error::{Error, Result};

/// A face as a student's vector of unit length.
///
/// It knows which student made it: vectors of two students have nothing to say to each other, and comparing them is an error.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    values: Vec<f32>,
    pixels: usize,
    frames: usize,
    quality: Option<f64>,
    student: Arc<str>,
}

impl Embedding {
    pub(crate) fn new(values: Vec<f32>, pixels: usize, quality: Option<f64>, student: Arc<str>) -> Self {
        Self { values, pixels, frames: 1, quality, student }
    }

    /// The values, of unit length.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The height of the face as it came, in pixels, before [`Aligned`](crate::front_end::Aligned) enlarged it; of several faces the
    /// least.
    pub fn pixels(&self) -> usize {
        self.pixels
    }

    /// How many faces were [fused](Self::fused) into it: 1 for a single one. Similarities of fused faces are higher, those of strangers
    /// too, so they have thresholds of their own.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// The chance, in `[0, 1]`, that the face is recognised as the person whom it shows, at the false match rate of the student's
    /// quality model; none if its file has no such model. It is 0 where nothing is known: below the least calibrated size, and where
    /// the face shows nothing or is far from all that were measured.
    pub fn quality(&self) -> Option<f64> {
        self.quality
    }

    /// The digest of the student that made it.
    pub fn student(&self) -> &str {
        &self.student
    }

    /// The cosine with another face of the same student, in `[-1, 1]`.
    ///
    /// # Errors
    /// If another student made it.
    pub fn similarity(&self, other: &Self) -> Result<f32> {
        self.same_student(other)?;
        Ok(dot(&self.values, &other.values).clamp(-1.0, 1.0))
    }

    /// Several faces of one person, such as the frames of a track, as one: their sum, each weighed by its quality where the
    /// student rates it. The result's quality is that of the best of them, and its pixels are those of the smallest.
    ///
    /// A threshold for single faces lets through several times as many strangers where one face is fused of four, so
    /// [`FaceEncoder::decide`](crate::FaceEncoder::decide) and [`threshold_of`](crate::FaceEncoder::threshold_of) take that for as many
    /// faces, and are an error where the student's file has none.
    ///
    /// ```no_run
    /// # use gdrd_student::{Embedding, Error, Face, FaceEncoder};
    /// # fn track(encoder: &FaceEncoder, frames: &[Face]) -> Result<Embedding, Error> {
    /// let of_frames = encoder.faces(frames)?;
    /// Embedding::fused(&of_frames)
    /// # }
    /// ```
    ///
    /// # Errors
    /// If there are none, several students made them, or they cancel each other out.
    pub fn fused(faces: &[Self]) -> Result<Self> {
        let Some(first) = faces.first() else { return Err(Error::data("expected at least one face, found none")) };
        faces.iter().try_for_each(|face| first.same_student(face))?;
        let values = fuse(faces.iter().map(|face| (&face.values[..], face.quality)))?;
        let rated = faces.iter().all(|face| face.quality.is_some());
        let quality = faces.iter().filter_map(|face| face.quality).reduce(f64::max).filter(|_| rated);
        let pixels = faces.iter().map(|face| face.pixels).min().unwrap_or(first.pixels);
        let frames = faces.iter().map(|face| face.frames).sum();
        Ok(Self { values, pixels, frames, quality, student: first.student.clone() })
    }

    fn same_student(&self, other: &Self) -> Result<()> {
        match self.student == other.student && self.values.len() == other.values.len() {
            true => Ok(()),
            false => Err(of_two_students(&self.student, &other.student)),
        }
    }
}

/// What is said of vectors that cannot be compared.
pub(crate) fn of_two_students(one: &str, other: &str) -> Error {
    let short = |digest: &str| digest.chars().take(12).collect::<String>();
    let (one, other) = (short(one), short(other));
    Error::data(format!("embeddings of two students, {one} and {other}, cannot be compared; embed the faces with one"))
}

/// The sum of products, in sixteen lanes.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0f32; LANES];
    let (a_rest, b_rest) = (a.chunks_exact(LANES).remainder(), b.chunks_exact(LANES).remainder());
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(values: &[f32], quality: Option<f64>, student: &str) -> Embedding {
        Embedding::new(values.to_vec(), 16, quality, student.into())
    }

    #[test]
    fn students_are_not_mixed() {
        let (a, b) = (face(&[1.0, 0.0], None, "one"), face(&[1.0, 0.0], None, "two"));
        assert_eq!(a.similarity(&a).expect("one student"), 1.0);
        for error in [a.similarity(&b).map(|_| ()), Embedding::fused(&[a, b]).map(|_| ())] {
            assert!(error.expect_err("two students").to_string().contains("two students, one and two"));
        }
    }

    #[test]
    fn better_frames_count_more() {
        let (good, bad) = (face(&[1.0, 0.0], Some(0.9), "s"), face(&[0.0, 1.0], Some(0.1), "s"));
        let fused = Embedding::fused(&[good.clone(), bad]).expect("a face");
        assert!(fused.similarity(&good).expect("one student") > 0.99 && fused.quality() == Some(0.9));
        assert_eq!((good.frames(), fused.frames()), (1, 2));
        assert_eq!(Embedding::fused(&[fused.clone(), good.clone()]).expect("a face").frames(), 3);
        let even = Embedding::fused(&[good, face(&[0.0, 1.0], None, "s")]).expect("a face");
        assert!((even.values()[0] - even.values()[1]).abs() < 1e-6 && even.quality().is_none());
        assert!(Embedding::fused(&[]).is_err());
        let opposite = [face(&[1.0, 0.0], None, "s"), face(&[-1.0, 0.0], None, "s")];
        assert!(Embedding::fused(&opposite).expect_err("nothing left").to_string().contains("cancel"));
    }

    #[test]
    fn sums_of_any_length_are_right() {
        for length in [1, 15, 16, 17, 512] {
            let a: Vec<f32> = (0..length).map(|at| at as f32).collect();
            let expected: f32 = a.iter().sum();
            assert_eq!(dot(&a, &vec![1.0; length]), expected);
        }
    }
}
