//! Circumstances that protocols ask about: what covers the face, and where the light comes from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::draws::Draws;
use super::nuisance::{Glasses, Nuisance, Scarf};

/// What is special about the faces of a dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Situation {
    /// Nothing: glasses, scarves, caps and light come by chance, and faces have no attribute `situation`.
    #[default]
    Any,
    /// Nothing is worn, and the light comes from the front.
    Plain,
    /// Sunglasses cover the eyes.
    Glasses,
    /// A scarf covers the mouth.
    Scarf,
    /// The light comes from the side.
    SideLight,
    /// A person's faces are in turn plain, with glasses, with a scarf and lit from the side.
    Mixed,
}

impl Situation {
    /// The situation of the face number `number` of a person, from zero.
    pub(in crate::data) fn of_face(self, number: u64) -> Self {
        match self {
            Self::Mixed => [Self::Plain, Self::Glasses, Self::Scarf, Self::SideLight][number as usize % 4],
            other => other,
        }
    }

    /// The value of the attribute `situation`, if the face has it.
    pub(in crate::data) fn attribute(self) -> Option<&'static str> {
        match self {
            Self::Any | Self::Mixed => None,
            Self::Plain => Some("plain"),
            Self::Glasses => Some("glasses"),
            Self::Scarf => Some("scarf"),
            Self::SideLight => Some("side-light"),
        }
    }
}

impl Nuisance {
    /// These circumstances in a situation. What the situation adds is drawn from a stream of `seed` that nothing else uses.
    #[must_use]
    pub fn in_situation(mut self, situation: Situation, seed: u64) -> Self {
        if situation == Situation::Any {
            return self;
        }
        let mut draws = Draws::new(seed, 3);
        let d = &mut draws;
        (self.glasses, self.scarf, self.cap) = (None, None, None);
        self.light.azimuth = d.range(-0.4, 0.4);
        self.light.elevation = d.range(0.3, 0.8);
        self.light.ambient = d.range(0.45, 0.65);
        match situation {
            Situation::Glasses => {
                self.glasses = Some(Glasses {
                    half_width: d.range(12.0, 14.0),
                    half_height: d.range(8.5, 11.0),
                    roundness: d.range(0.0, 1.0),
                    thickness: d.range(0.6, 1.5),
                    colour: [0.01, 0.01, 0.012],
                    dark: d.range(0.88, 0.97),
                });
            }
            Situation::Scarf => {
                let mut colour = || [d.range(0.0, 0.8), d.range(0.0, 0.8), d.range(0.0, 0.8)].map(|c: f32| c * c);
                let (colour, stripes) = (colour(), colour());
                self.scarf = Some(Scarf { top: d.range(3.0, 10.0), colour, stripes, pattern: d.range(0.0, 1.0) });
            }
            Situation::SideLight => {
                let side = if d.chance(0.5) { 1.0 } else { -1.0 };
                self.light.azimuth = side * d.range(1.0, 1.3);
                self.light.elevation = d.range(0.0, 0.4);
                self.light.strength = d.range(0.9, 1.1);
                self.light.ambient = d.range(0.1, 0.2);
            }
            Situation::Any | Situation::Plain | Situation::Mixed => {}
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Identity, draw};
    use super::*;
    use crate::face::Face;

    fn face(situation: Situation, seed: u64) -> Face {
        draw(&Identity::from_seed(5), &Nuisance::from_seed(seed).in_situation(situation, seed), 112)
    }

    /// Mean brightness of a part of the face.
    fn brightness(face: &Face, columns: std::ops::Range<usize>, rows: std::ops::Range<usize>) -> f64 {
        let count = (columns.len() * rows.len() * 3) as f64;
        let row = |y: usize| face.pixels()[3 * (112 * y + columns.start)..3 * (112 * y + columns.end)].iter();
        rows.flat_map(row).map(|byte| f64::from(*byte)).sum::<f64>() / count
    }

    #[test]
    fn any_changes_nothing() {
        assert_eq!(face(Situation::Any, 3), draw(&Identity::from_seed(5), &Nuisance::from_seed(3), 112));
    }

    #[test]
    fn each_situation_is_seen() {
        for seed in 0..6 {
            let plain = face(Situation::Plain, seed);
            let changed = |other: &Face, rows: std::ops::Range<usize>| {
                let part = 3 * 112 * rows.start..3 * 112 * rows.end;
                let (a, b) = (&plain.pixels()[part.clone()], &other.pixels()[part]);
                a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
            };
            let glasses = face(Situation::Glasses, seed);
            assert!(changed(&glasses, 44..60) > 3.0 * changed(&glasses, 85..100), "glasses, seed {seed}");
            let scarf = face(Situation::Scarf, seed);
            assert!(changed(&scarf, 85..105) > 3.0 * changed(&scarf, 40..55), "scarf, seed {seed}");
            let lit = face(Situation::SideLight, seed);
            let (left, right) = (brightness(&lit, 30..50, 60..80), brightness(&lit, 62..82, 60..80));
            assert!(left / right > 1.3 || right / left > 1.3, "light, seed {seed}: {left} and {right}");
        }
    }
}
