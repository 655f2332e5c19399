//! The forms of a face that networks see, made once and kept where memory allows.

use std::sync::{Arc, OnceLock};

use rand::Rng;

use super::{Dataset, Degradation};
use crate::error::{Context, Result};
use crate::face::Face;
use crate::seed::{Seed, Stream};
use crate::teacher::View;

/// Bytes of low-resolution faces that are kept in memory.
const KEPT_BYTES: usize = 1 << 30;

/// A dataset seen through a degradation.
#[derive(Clone)]
pub struct Views {
    dataset: Arc<dyn Dataset>,
    degradation: Arc<dyn Degradation>,
    low: Arc<Vec<OnceLock<Face>>>,
}

impl Views {
    /// The views of `dataset`.
    pub fn new(dataset: Arc<dyn Dataset>, degradation: Arc<dyn Degradation>) -> Self {
        let size = degradation.downscale().size;
        let kept = !degradation.is_random() && dataset.len() * 3 * size * size <= KEPT_BYTES;
        let slots = if kept { dataset.len() } else { 0 };
        Self { dataset, degradation, low: Arc::new((0..slots).map(|_| OnceLock::new()).collect()) }
    }

    /// The faces themselves.
    pub fn dataset(&self) -> &dyn Dataset {
        &*self.dataset
    }

    /// The degradation.
    pub fn degradation(&self) -> &dyn Degradation {
        &*self.degradation
    }

    /// A face in one of its forms; `random` is used by random degradations only.
    pub fn face(&self, index: usize, view: View, random: &mut Stream) -> Result<Face> {
        let slot = self.low.get(index).filter(|_| view == View::Low);
        if let Some(face) = slot.and_then(OnceLock::get) {
            return Ok(face.clone());
        }
        let place = || self.dataset.name(index);
        let face = self.dataset.face(index)?;
        let face = match view {
            View::High => face,
            View::Low => self.degradation.degrade(&face, random).at(place)?,
        };
        Ok(match slot {
            Some(slot) => slot.get_or_init(|| face).clone(),
            None => face,
        })
    }
}

/// Random changes to a face, drawn anew in every epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Whether half of the faces are mirrored; teachers see the same side.
    pub flip: bool,
    /// The student's view moves by up to so many of its pixels in both directions; teachers' views do not.
    pub shift: u32,
}

/// What chance decided for one face in one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// Whether it is mirrored.
    pub flipped: bool,
    /// How far the student's view moves, in its pixels.
    pub shift: (i32, i32),
}

impl Augment {
    /// The draw for the face `index` in `epoch`, with the stream for its degradation.
    pub fn draw(&self, seed: Seed, stage: &str, epoch: u64, index: usize) -> (Drawn, Stream) {
        let mut stream = seed.stream(&format!("augment/{stage}"), &[epoch, index as u64]);
        let flipped = self.flip && stream.random::<bool>();
        let reach = self.shift as i32;
        let shift = (stream.random_range(-reach..=reach), stream.random_range(-reach..=reach));
        (Drawn { flipped, shift }, stream)
    }
}
