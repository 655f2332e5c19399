//! The faces of a photograph: found by a detector, or the photograph itself.

use std::path::PathBuf;

use gdrd_core::error::{Error, Result};
use gdrd_core::face::Face;
use gdrd_core::observe::Observer;
use gdrd_student::front_end::{Aligned, Detector, Landmarks, TEMPLATE_SIZE};

use crate::args::Searching;

/// A face of a photograph.
pub(crate) struct Found {
    /// `[left, top, right, bottom]`, in pixels of the upright photograph.
    pub(crate) bounds: [i64; 4],
    /// How sure the detector is; 1 without one.
    #[cfg_attr(not(feature = "serve"), allow(dead_code, reason = "only the service says it"))]
    pub(crate) probability: f32,
    pub(crate) landmarks: Option<Landmarks>,
    /// Height of the face in the photograph, in pixels, at most that of an aligned face where it was found.
    pub(crate) pixels: usize,
    /// The face, upright.
    pub(crate) face: Aligned,
}

/// A photograph that is a face: the square in its middle.
pub(crate) fn whole(image: Face) -> Found {
    let (width, height) = (image.width(), image.height());
    let side = width.min(height);
    let (left, top) = ((width - side) as i64 / 2, (height - side) as i64 / 2);
    let face = image.centre_square().into();
    let bounds = [left, top, left + side as i64, top + side as i64];
    Found { bounds, probability: 1.0, landmarks: None, pixels: side, face }
}

/// The faces of a photograph with at least this score, the largest first; at most `limit` of them, or all where it is 0.
///
/// # Errors
/// If the detector fails, or gives landmarks that are one point.
pub(crate) fn faces(detector: &dyn Detector, image: &Face, score: f32, limit: usize) -> Result<Vec<Found>> {
    let mut all = detector.detect(image)?;
    all.retain(|one| one.score >= score);
    all.sort_by(|a, b| b.bounds.area().total_cmp(&a.bounds.area()));
    if limit > 0 {
        all.truncate(limit);
    }
    let found = |one: gdrd_student::front_end::Detection| {
        let bounds = one.bounds;
        let edges = [bounds.left, bounds.top, bounds.left + bounds.width, bounds.top + bounds.height];
        let face = Aligned::of(image, &one.landmarks, TEMPLATE_SIZE)?;
        Ok(Found {
            bounds: edges.map(|value| value.round() as i64),
            probability: one.score,
            landmarks: Some(one.landmarks),
            pixels: face.pixels,
            face,
        })
    };
    all.into_iter().map(found).collect()
}

/// The detector of a file or an `hf://` address, and its file.
///
/// # Errors
/// If an option is out of its range, the file cannot be had, or it is no detector.
#[cfg(feature = "align")]
pub(crate) fn detector(
    name: &str,
    searching: &Searching,
    observer: &dyn Observer,
) -> Result<(Box<dyn Detector>, PathBuf)> {
    use gdrd_core::recipe::{HUB_SCHEME, HubAddress};
    use gdrd_student::front_end::{DetectorOptions, OnnxDetector};
    use gdrd_teachers::hub::{Hub, Settings};

    let Searching { score, overlap, longest_side, enlarge, offline } = *searching;
    let options = DetectorOptions { score, overlap, longest_side, enlarge };
    options.check().map_err(|error| error.at("options of the detector"))?;
    let address = match name.starts_with(HUB_SCHEME) {
        true => Some(name.parse::<HubAddress>().map_err(|e| Error::recipe(format!("`--detector`: {e}")))?),
        false => HubAddress::of_web_address(name),
    };
    let path = match address {
        Some(address) => {
            let mut settings = Settings::from_env()?;
            if offline {
                settings.offline = Some("`--offline` forbids the network");
            }
            Hub::new(settings).get(&address, None, observer)?.path
        }
        None => PathBuf::from(name),
    };
    Ok((Box::new(OnnxDetector::open(&path, options)?), path))
}

/// No detector: this build has none.
#[cfg(not(feature = "align"))]
pub(crate) fn detector(_: &str, _: &Searching, _: &dyn Observer) -> Result<(Box<dyn Detector>, PathBuf)> {
    Err(Error::recipe(
        "`--detector`: this gdrd is built without detectors; `cargo build --release --features align` builds one with them \
         (Rust 1.91 or later, some minutes), and `gdrd data align --boxes FILE` needs none",
    ))
}
