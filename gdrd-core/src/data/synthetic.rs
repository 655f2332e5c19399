//! Drawn faces as a dataset: no download, no one's photograph.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::synthetic_faces::{Identity, Nuisance, draw};
use super::{Dataset, DatasetConfig};
use crate::error::{Problem, Result};
use crate::face::Face;
use crate::registry::Kind;

/// Raised when the same numbers give other pictures, so that features of old ones are not taken for theirs.
const VERSION: u64 = 2;

/// Faces drawn by gdrd: `identities` people with `images_per_identity` faces each. Two datasets share nobody if
/// their ranges `first_identity .. first_identity + identities` do not overlap.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyntheticFaces {
    /// Number of people.
    pub identities: usize,
    /// Faces of each person.
    pub images_per_identity: usize,
    /// The first person's number.
    #[serde(default)]
    pub first_identity: u64,
    /// Height and width of a face, in pixels.
    #[serde(default = "default_size")]
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
    fn check(&self) -> Vec<Problem> {
        [
            Problem::within("identities", self.identities, 1..=100_000_000),
            Problem::within("images_per_identity", self.images_per_identity, 1..=100_000),
            Problem::within("first_identity", self.first_identity, 0..=1 << 62),
            Problem::within("size", self.size, 8..=4096),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn build(&self) -> Result<Box<dyn Dataset>> {
        let mut hash = Sha256::new();
        hash.update(b"synthetic-faces");
        for number in [
            VERSION,
            self.identities as u64,
            self.images_per_identity as u64,
            self.first_identity,
            self.size as u64,
            u64::from(self.fixed_appearance),
        ] {
            hash.update(number.to_le_bytes());
        }
        Ok(Box::new(Drawn { config: self.clone(), fingerprint: crate::digest::hex(&hash.finalize()) }))
    }
}

struct Drawn {
    config: SyntheticFaces,
    fingerprint: String,
}

impl Dataset for Drawn {
    fn len(&self) -> usize {
        self.config.identities * self.config.images_per_identity
    }

    fn identities(&self) -> usize {
        self.config.identities
    }

    fn identity(&self, index: usize) -> usize {
        index / self.config.images_per_identity
    }

    fn name(&self, index: usize) -> String {
        let number = index % self.config.images_per_identity + 1;
        format!("drawn person {}, face {number}", self.config.first_identity + self.identity(index) as u64)
    }

    fn find(&self, _: &str, _: usize) -> Option<usize> {
        None
    }

    fn face(&self, index: usize) -> Result<Face> {
        let person = self.config.first_identity + self.identity(index) as u64;
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

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let (a, b) = (config.build().expect("data"), later.build().expect("data"));
        assert_eq!(a.face(2).expect("face"), b.face(0).expect("face"));
        assert_ne!(a.fingerprint(), b.fingerprint());
        assert_eq!((a.len(), a.identity(5)), (6, 2));
    }
}
