//! Drawn faces as a dataset: no download, no one's photograph.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::synthetic_faces::{Camera, Identity, Nuisance, Situation, draw};
use super::{Attribute, Dataset, DatasetConfig};
use crate::context::BuildContext;
use crate::error::{Problem, Result};
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
    /// What is special about the faces, for protocols: `plain`, `glasses`, `scarf`, `side-light`, or `mixed`, all of them in turn.
    /// Faces then have the attribute `situation`.
    #[serde(default)]
    pub situation: Situation,
    /// Number of days on which each person's faces were taken, one after the other. On one day skin tone, hair and beard, clothes,
    /// background and camera stay the same; faces have the attribute `session`, from `1`. When left out, each face has a day of its own.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100_000))]
    pub sessions: Option<usize>,
}

impl Default for SyntheticFaces {
    /// One face, by chance.
    fn default() -> Self {
        Self {
            identities: 1,
            images_per_identity: 1,
            first_identity: 0,
            size: default_size(),
            fixed_appearance: false,
            situation: Situation::Any,
            sessions: None,
        }
    }
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
        let most = self.images_per_identity.max(1);
        Problem::within("sessions", self.sessions.unwrap_or(1), 1..=most).into_iter().collect()
    }

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

    fn made(&self) -> Vec<String> {
        vec!["drawn by gdrd".into()]
    }

    fn attributes(&self, index: usize) -> Vec<Attribute> {
        let number = (index % self.config.images_per_identity) as u64;
        let situation = self.config.situation.of_face(number).attribute();
        let session = self.session(number).map(|session| ("session".into(), (session + 1).to_string()));
        situation.map(|value| ("situation".into(), value.into())).into_iter().chain(session).collect()
    }

    fn face(&self, index: usize) -> Result<Face> {
        let person = self.config.first_identity + (index / self.config.images_per_identity) as u64;
        let number = (index % self.config.images_per_identity) as u64;
        // The face's number is mixed with the person's so that two people never share their lights and poses.
        let scene = person.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number);
        let mut identity = Identity::from_seed(person);
        let mut nuisance = Nuisance::from_seed(scene);
        // A day is mixed otherwise, so that it is never a face's scene.
        let day = self.session(number).map(|session| {
            person.wrapping_mul(0xd1b5_4a32_d192_ed03).wrapping_add(session).wrapping_mul(0x2545_f491_4f6c_dd1d)
        });
        if let Some(day) = day {
            let Nuisance { background, camera, .. } = Nuisance::from_seed(day);
            nuisance.background = background;
            nuisance.camera = Camera { noise: nuisance.camera.noise, seed: nuisance.camera.seed, ..camera };
        }
        if !self.config.fixed_appearance {
            let other = Identity::from_seed(!day.unwrap_or(scene));
            identity.hair = other.hair;
            identity.head.skin = other.head.skin;
        }
        let nuisance = nuisance.in_situation(self.config.situation.of_face(number), scene);
        Ok(draw(&identity, &nuisance, self.config.size))
    }
}

impl DrawnFaces {
    /// The day on which a person's face of this number was taken, from zero, if there are days.
    fn session(&self, number: u64) -> Option<u64> {
        let sessions = self.config.sessions? as u64;
        Some(number * sessions / self.config.images_per_identity as u64)
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
            ..SyntheticFaces::default()
        };
        let later = SyntheticFaces { first_identity: 11, ..config.clone() };
        let bare = Bare(Device::Cpu);
        let (cx, other) = (BuildContext::new(&bare), BuildContext::new(&bare));
        let (a, b) = (config.build(&cx).expect("data"), later.build(&other).expect("data"));
        assert_eq!(a.face(2).expect("face"), b.face(0).expect("face"));
        assert_eq!(a.people()[1], b.people()[0]);
        assert_eq!((a.len(), a.person(5)), (6, Some(2)));
    }

    fn opened(situation: Situation, sessions: Option<usize>) -> Box<dyn Dataset> {
        let config = SyntheticFaces {
            identities: 2,
            images_per_identity: 8,
            size: 32,
            situation,
            sessions,
            ..SyntheticFaces::default()
        };
        config.build(&BuildContext::new(&Bare(Device::Cpu))).expect("data")
    }

    #[test]
    fn situations_and_sessions_are_attributes() {
        let faces = opened(Situation::Mixed, Some(2));
        let value = |index: usize, name: &str| {
            faces.attributes(index).into_iter().find(|(found, _)| found == name).map(|(_, value)| value)
        };
        let of_one: Vec<_> = (8..13).filter_map(|index| value(index, "situation")).collect();
        assert_eq!(of_one, ["plain", "glasses", "scarf", "side-light", "plain"]);
        let of_one: Vec<_> = (8..16).filter_map(|index| value(index, "session")).collect();
        assert_eq!(of_one, ["1", "1", "1", "1", "2", "2", "2", "2"]);
        assert!(opened(Situation::Any, None).attributes(0).is_empty());
    }

    #[test]
    fn the_background_stays_for_a_session() {
        let faces = opened(Situation::Plain, Some(2));
        // The upper corner is background; noise and light differ from face to face.
        let corner = |index: usize| {
            let face = faces.face(index).expect("a face");
            let bytes = (0..6).flat_map(|y| face.pixels()[3 * 32 * y..][..12].to_vec()).map(f64::from);
            bytes.sum::<f64>() / 72.0
        };
        let within = (corner(0) - corner(1)).abs() + (corner(4) - corner(5)).abs();
        let between = (corner(0) - corner(4)).abs() + (corner(1) - corner(5)).abs();
        assert!(between > within, "{within} within and {between} between sessions");
        let days = SyntheticFaces { sessions: Some(3), ..SyntheticFaces::default() };
        assert_eq!(days.check()[0].key, "sessions");
    }
}
