//! Drawn faces as a dataset: no download, no one's photograph.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::synthetic_faces::{Identity, Nuisance, draw};
use super::{Dataset, DatasetConfig};
use crate::context::BuildContext;
use crate::error::Result;
use crate::face::Face;
use crate::plugin::Kind;

/// Faces drawn by gdrd: `identities` people with `images_per_identity` faces each. Two datasets share nobody if
/// their ranges `first_identity .. first_identity + identities` do not overlap.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyntheticFaces {
    /// Number of people.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub identities: usize,
    /// Faces of each person.
    #[schemars(range(min = 1, max = 100_000))]
    pub images_per_identity: usize,
    /// The first person's number.
    #[serde(default)]
    #[schemars(range(max = 1u64 << 62))]
    pub first_identity: u64,
    /// Height and width of a face, in pixels.
    #[serde(default = "default_size")]
    #[schemars(range(min = 8, max = 4096))]
    pub size: usize,
    /// Whether a person's skin tone, hair and beard are the same on every face. If not, they are drawn anew for each, and
    /// only the face's geometry and marks tell people apart: hard at 16 pixels, as real faces are.
    #[serde(default)]
    pub fixed_appearance: bool,
}

fn default_size() -> usize {
    112
}

impl Kind for SyntheticFaces {
    const NAME: &'static str = "synthetic-faces";
    const PURPOSE: &'static str = "faces drawn by gdrd, identity apart from pose, light, expression and occlusion";
}

impl DatasetConfig for SyntheticFaces {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Dataset>> {
        let person = |number: usize| format!("drawn person {}", self.first_identity + number as u64);
        let people = (0..self.identities).map(person).collect();
        Ok(Box::new(DrawnFaces { config: self.clone(), people }))
    }
}

struct DrawnFaces {
    config: SyntheticFaces,
    people: Vec<String>,
}

impl Dataset for DrawnFaces {
    fn len(&self) -> usize {
        self.config.identities * self.config.images_per_identity
    }

    fn people(&self) -> &[String] {
        &self.people
    }

    fn person(&self, index: usize) -> Option<usize> {
        Some(index / self.config.images_per_identity)
    }

    fn key(&self, index: usize) -> String {
        let number = index % self.config.images_per_identity + 1;
        format!("{}/face {number}", self.people[index / self.config.images_per_identity])
    }

    fn face(&self, index: usize) -> Result<Face> {
        let person = self.config.first_identity + (index / self.config.images_per_identity) as u64;
        let number = (index % self.config.images_per_identity) as u64;
        // The face's number is mixed with the person's so that two people never share their lights and poses.
        let scene = person.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number);
        let mut identity = Identity::from_seed(person);
        if !self.config.fixed_appearance {
            let other = Identity::from_seed(!scene);
            identity.hair = other.hair;
            identity.head.skin = other.head.skin;
        }
        Ok(draw(&identity, &Nuisance::from_seed(scene), self.config.size))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::context::Bare;

    #[test]
    fn people_keep_their_numbers_across_datasets() {
        let config = SyntheticFaces {
            identities: 3,
            images_per_identity: 2,
            first_identity: 10,
            size: 24,
            fixed_appearance: false,
        };
        let later = SyntheticFaces { first_identity: 11, ..config.clone() };
        let bare = Bare(Device::Cpu);
        let (cx, other) = (BuildContext::new(&bare), BuildContext::new(&bare));
        let (a, b) = (config.build(&cx).expect("data"), later.build(&other).expect("data"));
        assert_eq!(a.face(2).expect("face"), b.face(0).expect("face"));
        assert_eq!(a.people()[1], b.people()[0]);
        assert_eq!((a.len(), a.person(5)), (6, Some(2)));
    }
}
