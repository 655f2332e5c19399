//! YuNet and SCRFD, from an ONNX file.

use std::path::Path;

use gdrd_core::error::{Context, Error, Result};
use gdrd_core::face::{Face, Kernel};

use super::detection::{Detection, Detector, keep_best};
use super::geometry::Bounds;
use super::network::{Network, Output};
use super::{scrfd, yunet};

/// How a detector looks at photographs.
#[derive(Clone, Debug, PartialEq)]
pub struct DetectorOptions {
    /// The least score of a face, above 0 and below 1.
    pub score: f32,
    /// Boxes whose intersection over union is above this are one face; from 0 to 1.
    pub overlap: f32,
    /// A photograph whose longer side has more pixels is reduced to this for the search, 32 to 8192; faces are cut from the photograph
    /// as it is. Larger finds smaller faces, and takes time in proportion to the area.
    pub longest_side: usize,
    /// How many times a photograph may be enlarged for the search, 1 to 16, up to `longest_side`: for photographs of few pixels whose
    /// faces are smaller than about 12.
    pub enlarge: f32,
}

impl Default for DetectorOptions {
    fn default() -> Self {
        Self { score: 0.7, overlap: 0.3, longest_side: 640, enlarge: 1.0 }
    }
}

impl DetectorOptions {
    /// Whether all options are in their ranges.
    ///
    /// # Errors
    /// If one is not; the error names it.
    pub fn check(&self) -> Result<()> {
        let wrong = |name: &str, range: &str, found: &dyn std::fmt::Display| {
            Err(Error::recipe(format!("`{name}`: expected {range}, found {found}")))
        };
        match self {
            Self { score, .. } if !(*score > 0.0 && *score < 1.0) => wrong("score", "a number between 0 and 1", score),
            Self { overlap, .. } if !(0.0..=1.0).contains(overlap) => wrong("overlap", "0 to 1", overlap),
            Self { longest_side, .. } if !(32..=8192).contains(longest_side) => {
                wrong("longest_side", "32 to 8192 pixels", longest_side)
            }
            Self { enlarge, .. } if !(1.0..=16.0).contains(enlarge) => wrong("enlarge", "1 to 16", enlarge),
            _ => Ok(()),
        }
    }
}

/// A detector that tract runs on the CPU, one photograph on the thread that asks: YuNet (`face_detection_yunet_*.onnx` of OpenCV's
/// zoo, `yunet_n_*.onnx`) or SCRFD with landmarks (`scrfd_*_bnkps.onnx`, `det_10g.onnx`), told apart by their outputs. gdrd ships no
/// weights of either.
///
/// ```no_run
/// use gdrd_student::Face;
/// use gdrd_student::front_end::{Detector, DetectorOptions, OnnxDetector, align};
///
/// let detector = OnnxDetector::open("yunet.onnx", DetectorOptions::default())?;
/// let photograph = Face::new(640, 480, std::fs::read("photograph.rgb").expect("640x480 RGB bytes"))?;
/// for face in detector.detect(&photograph)? {
///     let aligned = align(&photograph, &face.landmarks, 112)?;
/// }
/// # Ok::<(), gdrd_student::Error>(())
/// ```
pub struct OnnxDetector {
    network: Network,
    family: Family,
    options: DetectorOptions,
}

/// What the outputs of a network mean.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Family {
    YuNet,
    Scrfd,
}

/// Pixels from cell to cell of each of the three grids of either.
const STRIDES: [usize; 3] = [8, 16, 32];

/// What is expected of a network, for messages.
const EXPECTED: &str = "expected YuNet (outputs cls_8, obj_8, bbox_8, kps_8, and the same for 16 and 32) or SCRFD with landmarks \
                        (nine outputs: 1, 4 and 10 values for each of two candidates in cells of 8, 16 and 32 pixels)";

impl OnnxDetector {
    /// Reads the detector in the ONNX file at `path`.
    ///
    /// # Errors
    /// If an option is out of its range, the file cannot be read or is no ONNX model, tract lacks an operator of it, or its outputs are
    /// neither those of YuNet nor of SCRFD; the error says what was expected and what was found.
    pub fn open(path: impl AsRef<Path>, options: DetectorOptions) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        Self::from_bytes(&bytes, options).at(|| format!("`{}`", path.display()))
    }

    /// The same from the bytes of an ONNX file.
    ///
    /// # Errors
    /// As [`open`](OnnxDetector::open), without the path.
    pub fn from_bytes(bytes: &[u8], options: DetectorOptions) -> Result<Self> {
        options.check()?;
        let network = Network::read(bytes)?;
        let names = STRIDES.iter().flat_map(|stride| yunet::OUTPUTS.map(|(name, _)| format!("{name}_{stride}")));
        let names: Vec<String> = names.collect();
        let family = if names.iter().all(|name| network.outputs().contains(name)) {
            Family::YuNet
        } else if network.outputs().len() == 9 {
            Family::Scrfd
        } else {
            return Err(Error::weights(format!("{EXPECTED}, found outputs {}", network.outputs().join(", "))));
        };
        let made = Self { network, family, options };
        // What is wrong with the outputs shows on any image.
        let size = made.network.fixed().unwrap_or([64, 96]);
        made.candidates(&Face::new(size[1], size[0], vec![0; 3 * size[0] * size[1]])?, size)?;
        Ok(made)
    }

    /// The size of the photograph for the search, and of the canvas that it lies on; each `[height, width]`.
    fn canvas(&self, photograph: &Face) -> ([usize; 2], [usize; 2]) {
        let sides = [photograph.height(), photograph.width()];
        let longest = sides[0].max(sides[1]);
        let mut scale = (self.options.longest_side as f32 / longest as f32).min(self.options.enlarge);
        if let Some([height, width]) = self.network.fixed() {
            scale = scale.min(height as f32 / sides[0] as f32).min(width as f32 / sides[1] as f32);
        }
        let shown = sides.map(|side| ((side as f32 * scale).round() as usize).max(1));
        // Whole cells of the coarsest grid, as OpenCV pads.
        let canvas = self.network.fixed().unwrap_or(shown.map(|side| side.next_multiple_of(32)));
        ([shown[0].min(canvas[0]), shown[1].min(canvas[1])], canvas)
    }

    /// Every candidate on a canvas, in its pixels.
    fn candidates(&self, shown: &Face, size: [usize; 2]) -> Result<Vec<Detection>> {
        let mut canvas = vec![0.0; 3 * size[0] * size[1]];
        match self.family {
            Family::YuNet => yunet::show(shown, size, &mut canvas),
            Family::Scrfd => scrfd::show(shown, size, &mut canvas),
        }
        let outputs = self.network.run(size, &canvas)?;
        let mut found = Vec::new();
        for stride in STRIDES {
            let (columns, cells) = (size[1] / stride, size[0] / stride * (size[1] / stride));
            found.extend(match self.family {
                Family::YuNet => {
                    let named = yunet::OUTPUTS.map(|(name, width)| {
                        let name = format!("{name}_{stride}");
                        find(&outputs, cells, width, size, |output| output.name == name)
                    });
                    let [class, object, boxes, points] = named;
                    yunet::candidates([class?, object?, boxes?, points?], stride, columns, self.options.score)
                }
                Family::Scrfd => {
                    let of = |width| find(&outputs, scrfd::ANCHORS * cells, width, size, |_| true);
                    let [scores, boxes, points] = scrfd::WIDTHS.map(of);
                    scrfd::candidates([scores?, boxes?, points?], stride, columns, self.options.score)
                }
            });
        }
        Ok(found)
    }
}

/// The output with this many rows and values in a row that is `wanted`.
fn find(
    outputs: &[Output],
    rows: usize,
    width: usize,
    size: [usize; 2],
    wanted: impl Fn(&Output) -> bool,
) -> Result<&Output> {
    let fits = |output: &&Output| output.values.len() == rows * width && output.shape.last() == Some(&width);
    outputs.iter().find(|output| wanted(output) && fits(output)).ok_or_else(|| {
        let found: Vec<String> = outputs.iter().map(|output| format!("{} {:?}", output.name, output.shape)).collect();
        Error::weights(format!(
            "{EXPECTED}; for an image of {}x{} pixels one of [1, {rows}, {width}] is missing, found {}",
            size[1],
            size[0],
            found.join(", ")
        ))
    })
}

impl Detector for OnnxDetector {
    fn detect(&self, photograph: &Face) -> Result<Vec<Detection>> {
        let ([height, width], canvas) = self.canvas(photograph);
        let found = match (width, height) == (photograph.width(), photograph.height()) {
            true => self.candidates(photograph, canvas)?,
            false => self.candidates(&photograph.resized_to(width, height, Kernel::Bilinear, true)?, canvas)?,
        };
        let scale = [photograph.width() as f32 / width as f32, photograph.height() as f32 / height as f32];
        let found = found.into_iter().map(|found| enlarged(&found, scale)).filter(|found| {
            found.landmarks.as_flattened().iter().all(|at| at.is_finite())
                && found.bounds.within(photograph.width(), photograph.height()).is_ok()
        });
        Ok(keep_best(found.collect(), self.options.overlap))
    }
}

/// The same face in a photograph that is so many times wider and higher.
fn enlarged(found: &Detection, [x, y]: [f32; 2]) -> Detection {
    let Bounds { left, top, width, height } = found.bounds;
    // Boxes have edges at the borders of pixels, landmarks are at the middle of one.
    let landmarks = found.landmarks.map(|[at_x, at_y]| [(at_x + 0.5) * x - 0.5, (at_y + 0.5) * y - 0.5]);
    let bounds = Bounds { left: left * x, top: top * y, width: width * x, height: height * y };
    Detection { bounds, landmarks, ..*found }
}
