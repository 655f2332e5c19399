//! Aligned faces that know how large they were in their photographs.

use gdrd_core::error::Result;
use gdrd_core::face::Face;

use super::geometry::{Landmarks, similarity, template};
use super::warp::warp;

/// A face that was cut out of a photograph and brought to another size.
///
/// Give it to [`FaceEncoder::face`](crate::FaceEncoder::face) as it is. A face of 10 pixels that is enlarged to 112 is still one of 10:
/// thresholds and quality are those of its size in the photograph.
///
/// ```
/// use gdrd_student::Face;
/// use gdrd_student::front_end::{Aligned, TEMPLATE};
///
/// let photograph = Face::new(64, 64, vec![90; 3 * 64 * 64])?;
/// let landmarks = TEMPLATE.map(|[x, y]| [x / 8.0 + 20.0, y / 8.0 + 20.0]);
/// let aligned = Aligned::of(&photograph, &landmarks, 112)?;
/// assert_eq!((aligned.face.height(), aligned.pixels), (112, 14));
/// # Ok::<(), gdrd_student::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aligned {
    /// The face, upright.
    pub face: Face,
    /// Height of the face in the photograph, in pixels, at most that of [`face`](Self::face).
    pub pixels: usize,
}

impl Aligned {
    /// The face with these landmarks, upright at `size`x`size` pixels, as [`align`](super::align) gives it.
    ///
    /// # Errors
    /// As [`align`](super::align).
    pub fn of(photograph: &Face, landmarks: &Landmarks, size: usize) -> Result<Self> {
        let transform = similarity(landmarks, &template(size))?;
        let face = warp(photograph, &transform, size)?;
        let pixels = (size as f64 / transform.scale()).round() as usize;
        Ok(Self { face, pixels: pixels.clamp(1, size) })
    }
}

/// A face that nobody enlarged.
impl From<Face> for Aligned {
    fn from(face: Face) -> Self {
        Self { pixels: face.height(), face }
    }
}

/// What a [`FaceEncoder`](crate::FaceEncoder) takes: a [`Face`], which has the pixels that it shows, or one that was enlarged and knows
/// how many it had, such as [`Aligned`].
///
/// ```
/// use gdrd_student::Face;
/// use gdrd_student::front_end::AsFace;
///
/// /// A face from a camera that doubles its pixels.
/// struct Doubled(Face);
///
/// impl AsFace for Doubled {
///     fn as_face(&self) -> (&Face, usize) {
///         (&self.0, self.0.height() / 2)
///     }
/// }
///
/// let face = Doubled(Face::new(32, 32, vec![90; 3 * 32 * 32])?);
/// assert_eq!(face.as_face().1, 16);
/// # Ok::<(), gdrd_student::Error>(())
/// ```
pub trait AsFace {
    /// The face, and the height in pixels that it had where it comes from.
    fn as_face(&self) -> (&Face, usize);
}

impl AsFace for Face {
    fn as_face(&self) -> (&Face, usize) {
        (self, self.height())
    }
}

impl AsFace for Aligned {
    fn as_face(&self) -> (&Face, usize) {
        (&self.face, self.pixels)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use gdrd_core::student::{
        Calibration, Comparisons, QualityModel, STUDENT_FORMAT, SizeCalibration, StudentHeader, Threshold,
    };

    use super::super::geometry::TEMPLATE;
    use super::*;
    use crate::FaceEncoder;

    /// A student with thresholds for 8 and 16 pixels, whose quality is a quarter of the pixels' logarithm.
    fn encoder() -> FaceEncoder {
        let bytes = include_bytes!("../../../tests/files/student-format-1.safetensors");
        let (mut header, tensors) = StudentHeader::from_bytes(bytes).expect("a student");
        header.format = STUDENT_FORMAT;
        let at = |size, similarity| {
            let threshold = Threshold { false_match_rate: 0.01, similarity, true_match_rate: None };
            let thresholds = vec![threshold];
            let single = Comparisons { different_pairs: 9, different_people: 9, same_pairs: 9, thresholds };
            SizeCalibration { size, single, fused: Vec::new() }
        };
        let sizes = vec![at(8, 0.75), at(16, 0.5)];
        header.facts.calibration =
            Some(Calibration { data: "d".into(), digest: "x".into(), faces: 9, people: 9, sizes });
        header.facts.quality = Some(QualityModel {
            false_match_rate: 0.01,
            centre: [0.0; 5],
            scale: [1.0; 5],
            weights: [0.0, 0.0, 0.0, 0.0, 1.0],
            bias: 0.0,
            curve: vec![(0.0, 0.0), (4.0, 1.0)],
            measured: 1,
            calibration_error: 0.0,
            error_versus_reject: Vec::new(),
        });
        FaceEncoder::from_bytes(&header.to_bytes(&tensors).expect("bytes"), &Device::Cpu).expect("a student")
    }

    #[test]
    fn an_enlarged_face_is_judged_by_its_pixels_in_the_photograph() {
        let photograph = Face::new(64, 64, (0..3 * 64 * 64).map(|at| (at * 7 % 251) as u8).collect()).expect("pixels");
        let small = TEMPLATE.map(|point| point.map(|at| at * 10.0 / 112.0 + 20.0));
        let aligned = Aligned::of(&photograph, &small, 112).expect("a face");
        assert_eq!((aligned.face.height(), aligned.pixels), (112, 10));
        let encoder = encoder();
        let too_many = Aligned { pixels: 999, ..aligned.clone() };
        for (embedding, pixels, threshold, counted) in [
            (encoder.face(&aligned), 10, 0.75, 10f64),
            // An image alone has what it shows, and none shows more.
            (encoder.face(&aligned.face), 112, 0.5, 16.0),
            (encoder.face(&too_many), 112, 0.5, 16.0),
        ] {
            let embedding = embedding.expect("an embedding");
            assert_eq!(embedding.pixels(), pixels);
            let decision = encoder.decide(&embedding, &embedding, 0.01).expect("a threshold");
            assert_eq!(decision.threshold.similarity, threshold, "{pixels} pixels");
            let quality = embedding.quality().expect("it is rated");
            assert!((quality - counted.ln() / 4.0).abs() < 1e-9, "{pixels} pixels: {quality}");
        }
    }

    #[test]
    fn a_reduced_face_has_the_pixels_that_are_left() {
        let photograph = Face::new(300, 300, vec![90; 3 * 300 * 300]).expect("pixels");
        let large = TEMPLATE.map(|point| point.map(|at| at * 2.0));
        for size in [16, 112] {
            assert_eq!(Aligned::of(&photograph, &large, size).expect("a face").pixels, size);
        }
        assert!(Aligned::of(&photograph, &large, 0).is_err());
        assert_eq!(Aligned::from(photograph).pixels, 300);
    }
}
