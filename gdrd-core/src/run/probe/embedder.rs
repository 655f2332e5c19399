//! Features with a linear map behind them, as embedders that share one pass of the network.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::source::{Source, Tap};
use crate::closed_form::Solution;
use crate::digest;
use crate::embedder::{Embedder, Embeddings};
use crate::error::{Error, Result};
use crate::face::Face;

/// A face, by its size and the sha256 of its pixels.
type Key = (usize, String);

/// A source and the map of each of its taps. What was embedded once is kept: protocols ask for the same faces for each tap.
pub(super) struct Mapped<'a> {
    source: &'a Source,
    taps: &'a [Tap],
    solutions: &'a [Solution],
    kept: Mutex<BTreeMap<Key, Vec<Vec<f32>>>>,
}

impl<'a> Mapped<'a> {
    pub(super) fn new(source: &'a Source, taps: &'a [Tap], solutions: &'a [Solution]) -> Self {
        Self { source, taps, solutions, kept: Mutex::default() }
    }

    /// The embedder of the tap at `at`.
    pub(super) fn tap(&'a self, at: usize, name: String) -> Result<One<'a>> {
        Ok(One { all: self, at, name, width: self.solutions[at].bias.dim(0)? })
    }

    /// The rows of a tap for faces that are embedded where they are not kept.
    fn rows(&self, faces: &[Face], at: usize) -> Result<Vec<f32>> {
        let keys: Vec<Key> =
            faces.iter().map(|face| (face.width(), digest::hex(&digest::of_bytes(face.pixels())))).collect();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let missing: Vec<usize> = (0..faces.len()).filter(|&face| !kept.contains_key(&keys[face])).collect();
        if !missing.is_empty() {
            let new: Vec<Face> = missing.iter().map(|&face| faces[face].clone()).collect();
            let features = self.source.features(&new, self.taps)?;
            let mut rows: Vec<Vec<Vec<f32>>> = missing.iter().map(|_| Vec::with_capacity(features.len())).collect();
            for (features, solution) in features.iter().zip(self.solutions) {
                let mapped = solution.apply(features)?.to_vec2::<f32>()?;
                rows.iter_mut().zip(mapped).for_each(|(of_face, row)| of_face.push(row));
            }
            kept.extend(missing.iter().map(|&face| keys[face].clone()).zip(rows));
        }
        let row = |key: &Key| kept.get(key).map(|rows| rows[at].clone());
        let rows: Option<Vec<Vec<f32>>> = keys.iter().map(row).collect();
        rows.map(|rows| rows.concat()).ok_or_else(|| Error::component("a face was embedded and not kept"))
    }
}

/// One tap with its map.
pub(super) struct One<'a> {
    all: &'a Mapped<'a>,
    at: usize,
    name: String,
    width: usize,
}

impl Embedder for One<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn width(&self) -> usize {
        self.width
    }

    fn embed(&self, faces: &[Face]) -> Result<Embeddings> {
        Embeddings::from_rows(self.width, self.all.rows(faces, self.at)?)
    }
}
