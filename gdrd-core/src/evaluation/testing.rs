//! Faces of one colour and an embedder that sees it, for the tests of protocols.

use std::sync::Arc;

use candle_core::Device;

use super::Protocol;
use crate::context::BuildContext;
use crate::data::{Attribute, Dataset};
use crate::embedder::{Embedder, Embeddings};
use crate::error::Result;
use crate::face::Face;
use crate::plugin::Workbench;

/// Faces of one pixel.
pub(super) struct Coloured {
    people: Vec<String>,
    faces: Vec<(Option<usize>, [u8; 3])>,
    attributes: Vec<(&'static str, Vec<&'static str>)>,
}

impl Coloured {
    /// Faces with the name of each one's person; nobody knows those without a name.
    pub(super) fn of(faces: &[(&str, [u8; 3])]) -> Self {
        let mut people: Vec<String> = Vec::new();
        let mut number = |name: &str| {
            if name.is_empty() {
                return None;
            }
            let found = people.iter().position(|known| known == name);
            Some(found.unwrap_or_else(|| {
                people.push(name.to_string());
                people.len() - 1
            }))
        };
        let faces = faces.iter().map(|(name, colour)| (number(name), *colour)).collect();
        Self { people, faces, attributes: Vec::new() }
    }

    /// With the value of an attribute for each face; those with an empty one lack it.
    pub(super) fn with(mut self, attribute: &'static str, values: &[&'static str]) -> Self {
        self.attributes.push((attribute, values.to_vec()));
        self
    }
}

impl Dataset for Coloured {
    fn len(&self) -> usize {
        self.faces.len()
    }

    fn people(&self) -> &[String] {
        &self.people
    }

    fn person(&self, index: usize) -> Option<usize> {
        self.faces[index].0
    }

    fn key(&self, index: usize) -> String {
        format!("face {index} of {}", self.len())
    }

    fn attributes(&self, index: usize) -> Vec<Attribute> {
        let half = if 2 * index < self.len() { "first" } else { "second" };
        let values = self.attributes.iter().map(|(name, values)| (name.to_string(), values[index].to_string()));
        std::iter::once(("half".into(), half.into())).chain(values.filter(|(_, value)| !value.is_empty())).collect()
    }

    fn face(&self, index: usize) -> Result<Face> {
        Face::new(1, 1, self.faces[index].1.to_vec())
    }
}

/// An embedding is a face's colour.
pub(super) struct Pixel;

impl Embedder for Pixel {
    fn name(&self) -> &str {
        "pixel"
    }

    fn width(&self) -> usize {
        3
    }

    fn embed(&self, faces: &[Face]) -> Result<Embeddings> {
        Embeddings::from_rows(
            3,
            faces.iter().flat_map(|face| face.pixels()[..3].iter().map(|v| f32::from(*v))).collect(),
        )
    }
}

/// A workbench with the datasets `known` and `asked`.
pub(super) fn bench(known: Coloured, asked: Coloured) -> Workbench {
    let part = |faces: Coloured| -> Arc<dyn Dataset> { Arc::new(faces) };
    Workbench::new(Device::Cpu).with("dataset", "known", part(known)).with("dataset", "asked", part(asked))
}

/// What a protocol shows of `Pixel`'s mistakes: the indices of the two faces and whether they are of one person; and their number.
pub(super) fn shown_mistakes(protocol: &dyn Protocol, cx: &BuildContext) -> (Vec<(usize, usize, bool)>, usize) {
    let outcome = protocol.evaluate(&Pixel, cx).expect("an outcome");
    let found = protocol.mistakes(&Pixel, &outcome, cx).expect("mistakes").expect("of a search");
    assert_eq!(found.what, "probes");
    let shown = found.worst.iter().map(|mistake| (mistake.faces[0].index, mistake.faces[1].index, mistake.same));
    (shown.collect(), found.count)
}
