//! What a detector finds.

use gdrd_core::error::Result;
use gdrd_core::face::Face;

use super::geometry::{Bounds, Landmarks};

/// A face in a photograph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Where it is; the box may reach beyond the border.
    pub bounds: Bounds,
    /// Its eyes, nose and mouth.
    pub landmarks: Landmarks,
    /// How sure the detector is, from 0 to 1; numbers of different detectors do not compare.
    pub score: f32,
}

/// Something that finds faces and five landmarks in photographs. Many threads may share one.
///
/// ```
/// use gdrd_student::front_end::{Aligned, Bounds, Detection, Detector, TEMPLATE};
/// use gdrd_student::{Face, Result};
///
/// /// A passport booth: the face is always at the same place.
/// struct Booth;
///
/// impl Detector for Booth {
///     fn detect(&self, _: &Face) -> Result<Vec<Detection>> {
///         let bounds = Bounds { left: 130.0, top: 80.0, width: 80.0, height: 100.0 };
///         let landmarks = TEMPLATE.map(|[x, y]| [x + 114.0, y + 70.0]);
///         Ok(vec![Detection { bounds, landmarks, score: 1.0 }])
///     }
/// }
///
/// let photograph = Face::new(400, 300, vec![128; 3 * 400 * 300])?;
/// let found = Booth.detect(&photograph)?;
/// assert_eq!(Aligned::of(&photograph, &found[0].landmarks, 112)?.pixels, 112);
/// # Ok::<(), gdrd_student::Error>(())
/// ```
pub trait Detector: Send + Sync {
    /// The faces in a photograph of any size, those that the detector is most sure of first; none is no error.
    ///
    /// # Errors
    /// If the detector fails.
    fn detect(&self, photograph: &Face) -> Result<Vec<Detection>>;
}

/// The candidates that are most sure of a face each, in that order: whatever overlaps a better one by more than `overlap`
/// (intersection over union) is the same face, seen again.
#[cfg(any(feature = "front-end", test))]
pub(super) fn keep_best(mut candidates: Vec<Detection>, overlap: f32) -> Vec<Detection> {
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Detection> = Vec::new();
    for candidate in candidates {
        if kept.iter().all(|other| other.bounds.overlap(&candidate.bounds) <= overlap) {
            kept.push(candidate);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::super::geometry::TEMPLATE;
    use super::*;

    #[test]
    fn one_face_is_kept_once() {
        let at = |left: f32, score: f32| Detection {
            bounds: Bounds { left, top: 0.0, width: 10.0, height: 10.0 },
            landmarks: TEMPLATE,
            score,
        };
        let kept = keep_best(vec![at(0.0, 0.7), at(2.0, 0.9), at(30.0, 0.8), at(9.0, 0.6)], 0.3);
        assert_eq!(kept, [at(2.0, 0.9), at(30.0, 0.8), at(9.0, 0.6)]);
    }
}
