//! From a photograph or a video frame to the faces that a student takes.
//!
//! A photograph is a [`Face`](crate::Face) of any size: `width` x `height` pixels of RGB, upright. Whoever decodes it turns it as its
//! EXIF orientation says (`image`'s `ImageDecoder::orientation` and `DynamicImage::apply_orientation`; the `gdrd` command does).
//!
//! * With the cargo feature `front-end`, [`OnnxDetector`] finds faces with five landmarks: YuNet or SCRFD from an ONNX file, run by
//!   tract on the CPU. Another detector is a [`Detector`].
//! * [`Aligned::of`] brings a face with landmarks upright to 112x112 pixels, as recognisers are trained, and keeps how many pixels it has
//!   in the photograph, which thresholds and quality depend on. [`align`] gives the image alone, as `gdrd data align` writes it.
//! * [`crop`] cuts out a face of which only a box is known, from a tracker for example: a box is enough where a face is too small for
//!   landmarks.
//!
//! Without the feature everything here but the detectors is there, and no crate is added.

mod aligned;
mod detection;
#[cfg(feature = "front-end")]
mod detector;
mod geometry;
#[cfg(feature = "front-end")]
mod network;
#[cfg(feature = "front-end")]
mod scrfd;
mod warp;
#[cfg(feature = "front-end")]
mod yunet;

pub use aligned::{Aligned, AsFace};
pub use detection::{Detection, Detector};
#[cfg(feature = "front-end")]
pub use detector::{DetectorOptions, OnnxDetector};
pub use geometry::{Bounds, Landmarks, Similarity, TEMPLATE, TEMPLATE_SIZE, similarity, template};
pub use warp::{align, crop, warp};
