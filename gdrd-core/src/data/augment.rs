//! Random changes to faces that student and teachers see alike, so that what is learned fits what is shown.

use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Mixup;
use crate::error::Result;
use crate::face::{Face, Warp};
use crate::seed::{Seed, Stream};

/// Random changes to a face, drawn anew in every epoch. All but `shift` are made to the face as the dataset has it, before any
/// view: student and teachers see the same change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Whether half of the faces are mirrored.
    pub flip: bool,
    /// The student's view alone moves by up to so many of its pixels in both directions; teachers' views do not.
    #[schemars(range(max = 64))]
    pub shift: u32,
    /// Largest move in both directions, as a share of the face's width: 0.05 is 5.6 pixels of 112.
    #[schemars(range(min = 0, max = 0.5))]
    pub translate: f64,
    /// Largest change of size: 0.1 is 0.9 to 1.1 times.
    #[schemars(range(min = 0, max = 0.9))]
    pub scale: f64,
    /// Largest rotation in degrees, both ways.
    #[schemars(range(min = 0, max = 180))]
    pub rotate: f64,
    /// Largest change of brightness and contrast: 0.2 is 0.8 to 1.2 times the contrast, and up to 0.2 of the range brighter or
    /// darker.
    #[schemars(range(min = 0, max = 1))]
    pub light: f64,
    /// How many different changes a face has in all, the first of them none. Features of teachers are stored for each. Only of
    /// use with `translate`, `scale`, `rotate` or `light`.
    #[schemars(range(min = 1, max = 1024))]
    pub draws: u32,
    /// Mixtures of two faces.
    pub mixup: Option<Mixup>,
}

impl Default for Augment {
    fn default() -> Self {
        Self { draws: 8, ..Self::none() }
    }
}

/// Which change of a face: the draw's number, zero for the face as it is, and whether it is mirrored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Variant {
    /// The draw; below [`Augment::draws_of_a_face`].
    pub draw: u32,
    /// Whether the face is mirrored.
    pub mirrored: bool,
}

/// What chance decided for one face in one epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// The change that all views share.
    pub variant: Variant,
    /// How far the student's view moves, in its pixels.
    pub shift: (i32, i32),
    /// Its share of the face that is shown: 1 unless it is mixed with another.
    pub share: f32,
}

impl Augment {
    /// Faces as they are.
    pub fn none() -> Self {
        Self { flip: false, shift: 0, translate: 0.0, scale: 0.0, rotate: 0.0, light: 0.0, draws: 1, mixup: None }
    }

    /// Faces that are mirrored if they are here, and otherwise as they are.
    pub fn mirrored_alone(&self) -> Self {
        Self { flip: self.flip, ..Self::none() }
    }

    fn changes_the_face(&self) -> bool {
        [self.translate, self.scale, self.rotate, self.light].iter().any(|most| *most > 0.0)
    }

    /// How many different changes a face has in all, mirroring apart.
    pub fn draws_of_a_face(&self) -> u32 {
        if self.changes_the_face() { self.draws } else { 1 }
    }

    /// Every variant that a face can have.
    pub fn variants(&self) -> Vec<Variant> {
        let sides: &[bool] = if self.flip { &[false, true] } else { &[false] };
        let draws = 0..self.draws_of_a_face();
        draws.flat_map(|draw| sides.iter().map(move |&mirrored| Variant { draw, mirrored })).collect()
    }

    /// The draw for the face `index` in `epoch`, with the stream for its degradation.
    pub fn draw(&self, seed: Seed, stage: &str, epoch: u64, index: usize) -> (Drawn, Stream) {
        let mut stream = seed.stream(&format!("augment/{stage}"), &[epoch, index as u64]);
        let mirrored = self.flip && stream.random::<bool>();
        let reach = self.shift as i32;
        let shift = (stream.random_range(-reach..=reach), stream.random_range(-reach..=reach));
        let draws = self.draws_of_a_face();
        let draw = if draws > 1 { stream.random_range(0..draws) } else { 0 };
        let share = self.mixup.as_ref().map_or(1.0, |mixup| {
            // A stream of its own: what else is drawn does not depend on mixtures.
            mixup.draw(&mut seed.stream(&format!("mixup/{stage}"), &[epoch, index as u64]))
        });
        (Drawn { variant: Variant { draw, mirrored }, shift, share }, stream)
    }

    /// Digest of what a variant does to a face, mirroring apart; equal for all options without a change.
    pub fn content(&self, variant: Variant) -> String {
        match variant.draw {
            0 => "as it is".to_string(),
            draw => format!("{} {} {} {} draw {draw}", self.translate, self.scale, self.rotate, self.light),
        }
    }

    /// The face with the change of a variant, mirroring apart. The change is a function of the options, the face's index and the
    /// draw's number, not of the run's seed, so that stored features serve all runs.
    ///
    /// # Errors
    /// Never for a face that is a face.
    pub(super) fn changed(&self, face: Face, index: usize, variant: Variant) -> Result<Face> {
        if variant.draw == 0 {
            return Ok(face);
        }
        let mut stream = Seed(0).stream("variant", &[index as u64, u64::from(variant.draw)]);
        let mut within = |most: f64| if most > 0.0 { stream.random_range(-most..=most) } else { 0.0 };
        let warp = Warp {
            move_x: within(self.translate),
            move_y: within(self.translate),
            scale: 1.0 + within(self.scale),
            degrees: within(self.rotate),
            contrast: 1.0 + within(self.light),
            brightness: within(self.light),
        };
        face.warped(&warp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_counted_and_repeat() {
        let augment = Augment { flip: true, translate: 0.05, draws: 3, ..Augment::none() };
        assert_eq!(augment.variants().len(), 6);
        assert_eq!(Augment { flip: true, ..Augment::default() }.variants().len(), 2);
        let face = Face::new(8, 8, (0..192).map(|i| i as u8).collect()).expect("a face");
        let variant = Variant { draw: 2, mirrored: false };
        let changed = || augment.changed(face.clone(), 5, variant).expect("a face");
        assert_eq!(changed(), changed());
        assert_ne!(changed(), face);
        assert_eq!(augment.changed(face.clone(), 5, Variant::default()).expect("a face"), face);
        assert_ne!(augment.content(variant), augment.content(Variant::default()));
    }
}
