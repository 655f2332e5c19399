//! Whether two faces are of one person, at a stated false match rate.

use gdrd_core::error::{Error, Result};
use gdrd_core::student::{Compared, Threshold};

use crate::{Embedding, FaceEncoder};

/// Whether two faces are called one person.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// Whether they are: the similarity reaches the threshold.
    pub same: bool,
    /// Their cosine.
    pub similarity: f32,
    /// The threshold that it was compared with, and the rates that were measured there.
    pub threshold: Threshold,
    /// The lesser quality of the two faces; none if the student rates none. A low one says that `same` being false means little.
    pub quality: Option<f64>,
}

impl FaceEncoder {
    /// The similarity from which on two single faces of at least `pixels` pixels are called one person, where strangers are taken for
    /// one person at `false_match_rate`: 0.1, 0.01, 0.001 or 0.0001.
    ///
    /// # Errors
    /// If the file has no thresholds, or none for this rate or so few pixels.
    pub fn threshold(&self, false_match_rate: f64, pixels: usize) -> Result<Threshold> {
        self.threshold_at(false_match_rate, Compared { pixels, frames: [1, 1] })
    }

    /// The same for a face, fused of several or not, and single ones no smaller than it, such as the entries of a
    /// [`Gallery`](crate::Gallery).
    ///
    /// # Errors
    /// As [`threshold`](Self::threshold), or if more faces were fused than the student was calibrated for.
    pub fn threshold_of(&self, false_match_rate: f64, face: &Embedding) -> Result<Threshold> {
        self.threshold_at(false_match_rate, Compared { pixels: face.pixels(), frames: [face.frames(), 1] })
    }

    fn threshold_at(&self, false_match_rate: f64, compared: Compared) -> Result<Threshold> {
        let calibration = self.header().facts.calibration.as_ref().ok_or_else(|| {
            Error::weights(
                "the student's file has no thresholds; `gdrd calibrate` measures them on faces of your people",
            )
        })?;
        calibration.threshold(false_match_rate, compared)
    }

    /// Whether two faces are of one person, at a false match rate and the threshold for the smaller of them, and for as many faces as
    /// were fused into each.
    ///
    /// ```no_run
    /// # use gdrd_student::{Error, Face, FaceEncoder};
    /// # fn same(encoder: &FaceEncoder, a: &Face, b: &Face) -> Result<(), Error> {
    /// let decision = encoder.decide(&encoder.face(a)?, &encoder.face(b)?, 0.001)?;
    /// println!("{} ({:.3}, threshold {:.3})", decision.same, decision.similarity, decision.threshold.similarity);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`threshold_of`](Self::threshold_of), or if another student made one of them.
    pub fn decide(&self, a: &Embedding, b: &Embedding, false_match_rate: f64) -> Result<Decision> {
        let similarity = a.similarity(b)?;
        let compared = Compared { pixels: a.pixels().min(b.pixels()), frames: [a.frames(), b.frames()] };
        let threshold = self.threshold_at(false_match_rate, compared)?;
        let quality = a.quality().zip(b.quality()).map(|(a, b)| a.min(b));
        Ok(Decision { same: f64::from(similarity) >= threshold.similarity, similarity, threshold, quality })
    }
}
