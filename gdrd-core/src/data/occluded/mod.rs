//! Aligned faces of another dataset with something in front of them, or in another light.

mod paint;

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Attribute, Compared, Dataset, DatasetConfig};
use crate::context::BuildContext;
use crate::error::{Context, Problem, Result};
use crate::face::Face;
use crate::plugin::{DatasetName, Kind};
use crate::seed::{Seed, shuffled};

/// What is done to a face.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Occlusion {
    /// Nothing.
    Plain,
    /// Sunglasses before the eyes.
    Sunglasses,
    /// A scarf over mouth and chin.
    Scarf,
    /// A mask over nose, mouth and chin.
    Mask,
    /// Light from one side, as it falls on an ellipsoid; the other side is nearly dark.
    SideLight,
}

impl Occlusion {
    /// The value of the attribute `situation`.
    fn attribute(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Sunglasses => "sunglasses",
            Self::Scarf => "scarf",
            Self::Mask => "mask",
            Self::SideLight => "side-light",
        }
    }
}

/// Another dataset's faces, each in one of `situations`, which becomes the attribute `situation`. The faces must be square and
/// aligned to the ArcFace template (eyes at 38.3, 51.7 and 73.5, 51.5 of 112), at any size: what is painted goes by its landmarks.
/// Every person has as many faces in each situation as there can be; which ones, colours and sides are drawn by `seed`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Occluded {
    /// The dataset's name in the recipe.
    pub data: DatasetName,
    /// What is done: one for all faces, or several that are dealt out to each person's faces in turn.
    pub situations: Vec<Occlusion>,
    /// What chance depends on. It is a part of the data: the run's seed does not change it.
    #[serde(default = "default_seed")]
    #[schemars(range(max = i64::MAX as u64))]
    pub seed: u64,
}

fn default_seed() -> u64 {
    7
}

impl Kind for Occluded {
    const NAME: &'static str = "occluded";
    const PURPOSE: &'static str = "another dataset's aligned faces with sunglasses, scarf, mask or light from the side";
}

impl DatasetConfig for Occluded {
    fn check(&self) -> Vec<Problem> {
        let distinct = self.situations.iter().enumerate().all(|(at, one)| !self.situations[..at].contains(one));
        let good = !self.situations.is_empty() && distinct;
        Problem::unless(good, "situations", || {
            let found: Vec<&str> = self.situations.iter().map(|one| one.attribute()).collect();
            format!("expected at least one, each once, found {found:?}")
        })
        .into_iter()
        .collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Dataset>> {
        let inner = cx.dataset(&self.data)?;
        let mut faces: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
        for index in 0..inner.len() {
            faces.entry(inner.person(index)).or_default().push(index);
        }
        let mut situations = vec![Occlusion::Plain; inner.len()];
        for (person, faces) in faces {
            let name = person.map_or("nobody", |person| &inner.people()[person]);
            let mut stream = Seed(self.seed).stream(&format!("situations of {name}"), &[]);
            // Who has fewer faces than there are situations does not always have the first ones.
            let first = stream.random_range(0..self.situations.len() as u64) as usize;
            for (turn, place) in shuffled(&mut stream, faces.len()).into_iter().enumerate() {
                situations[faces[place]] = self.situations[(first + turn) % self.situations.len()];
            }
        }
        Ok(Box::new(OccludedFaces { inner, situations, seed: Seed(self.seed) }))
    }
}

struct OccludedFaces {
    inner: Arc<dyn Dataset>,
    situations: Vec<Occlusion>,
    seed: Seed,
}

impl Dataset for OccludedFaces {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn people(&self) -> &[String] {
        self.inner.people()
    }

    fn person(&self, index: usize) -> Option<usize> {
        self.inner.person(index)
    }

    fn key(&self, index: usize) -> String {
        self.inner.key(index)
    }

    fn place(&self, index: usize) -> String {
        self.inner.place(index)
    }

    fn attributes(&self, index: usize) -> Vec<Attribute> {
        const NAME: &str = "situation";
        let mut attributes = self.inner.attributes(index);
        attributes.retain(|(name, _)| name != NAME);
        attributes.push((NAME.into(), self.situations[index].attribute().into()));
        attributes
    }

    fn is_low_resolution(&self) -> bool {
        self.inner.is_low_resolution()
    }

    fn size(&self, index: usize) -> Option<usize> {
        self.inner.size(index)
    }

    fn face(&self, index: usize) -> Result<Face> {
        let face = self.inner.face(index)?;
        // By the face's key, so that it looks the same in every list that it is part of.
        let mut random = self.seed.stream(&format!("occlusion of {}", self.inner.key(index)), &[]);
        paint::painted(&face, self.situations[index], &mut random).at(|| self.inner.place(index))
    }

    fn made(&self) -> Vec<String> {
        let mut painted: Vec<&str> = Vec::new();
        for situation in self.situations.iter().filter(|one| **one != Occlusion::Plain) {
            if !painted.contains(&situation.attribute()) {
                painted.push(situation.attribute());
            }
        }
        painted.sort_unstable();
        let mut made = self.inner.made();
        made.extend((!painted.is_empty()).then(|| format!("painted with {}", painted.join(", "))));
        made
    }

    fn pairs(&self) -> &[Compared] {
        self.inner.pairs()
    }

    fn left_out(&self) -> &[String] {
        self.inner.left_out()
    }

    fn notes(&self) -> &[String] {
        self.inner.notes()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::data::SyntheticFaces;
    use crate::plugin::Workbench;

    fn opened(situations: &[&str], seed: u64) -> Box<dyn Dataset> {
        let faces = SyntheticFaces { identities: 3, images_per_identity: 8, size: 56, ..SyntheticFaces::default() };
        let bench = Workbench::new(Device::Cpu);
        let faces: Arc<dyn Dataset> = faces.build(&BuildContext::new(&bench)).expect("faces").into();
        let bench = bench.with("dataset", "faces", faces);
        let config = serde_json::json!({ "data": "faces", "situations": situations, "seed": seed });
        let config: Occluded = serde_json::from_value(config).expect("options");
        assert!(config.check().is_empty());
        config.build(&BuildContext::new(&bench)).expect("a dataset")
    }

    fn situations(faces: &dyn Dataset) -> Vec<String> {
        (0..faces.len()).map(|index| faces.attributes(index).remove(0).1).collect()
    }

    #[test]
    fn every_person_has_every_situation_as_often() {
        let all = ["plain", "sunglasses", "scarf", "side-light"];
        let faces = opened(&all, 1);
        let found = situations(&*faces);
        for person in found.chunks(8) {
            for one in all {
                assert_eq!(person.iter().filter(|other| *other == one).count(), 2, "{person:?}");
            }
        }
        assert_ne!(found, situations(&*opened(&all, 2)));
        assert_eq!(faces.face(3).expect("a face"), opened(&all, 1).face(3).expect("a face"));
    }

    #[test]
    fn plain_faces_are_as_they_were() {
        let (plain, scarves) = (opened(&["plain"], 1), opened(&["scarf"], 1));
        let (a, b) = (plain.face(0).expect("a face"), scarves.face(0).expect("a face"));
        assert_eq!(a.pixels()[..3 * 56 * 30], b.pixels()[..3 * 56 * 30], "above the scarf nothing changes");
        assert_ne!(a, b);
        assert_eq!((plain.len(), plain.key(9), plain.person(9)), (24, scarves.key(9), Some(1)));
    }

    #[test]
    fn situations_are_checked() {
        let wrong = |situations| Occluded { data: "faces".into(), situations, seed: 0 }.check();
        assert_eq!(wrong(Vec::new())[0].key, "situations");
        assert_eq!(wrong(vec![Occlusion::Mask; 2])[0].key, "situations");
    }
}
