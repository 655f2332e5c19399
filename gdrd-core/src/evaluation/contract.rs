//! Whether a teacher is fed as its weights want.
//!
//! A wrong preprocessing contract is no error anywhere; the teacher is only worse than it could be, by a few points or by
//! twenty. So plausible contracts are scored on labelled pairs, and compared with the declared one pair by pair.

use super::Protocol;
use super::bootstrap::difference;
use super::outcome::Outcome;
use crate::context::BuildContext;
use crate::embedder::{Embedder, Embeddings};
use crate::error::{Context, Result};
use crate::face::Face;
use crate::seed::Seed;
use crate::teacher::{Colour, Preprocessing, Teacher, TeacherCard, TeacherEmbedder, prepared};

/// How a teacher might have to be fed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contract {
    /// Colour order and normalisation.
    pub preprocessing: Preprocessing,
    /// What of the face is shown.
    pub crop: Crop,
    /// Whether the face is mirrored.
    pub mirrored: bool,
}

/// What of an aligned face is shown, always at the teacher's own size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crop {
    /// All of it.
    Whole,
    /// Its middle, without a fourteenth of each side.
    Tighter,
    /// All of it with a margin of a fourteenth of each side, in which the border is repeated.
    Wider,
}

/// A contract and how the teacher does with it.
#[derive(Clone, Debug)]
pub struct Examined {
    /// The contract in words.
    pub name: String,
    /// The contract.
    pub contract: Contract,
    /// What the protocol says.
    pub outcome: Outcome,
    /// Headline minus that of the declared contract, in the headline's unit.
    pub gain: f64,
    /// Two-sided p of "no difference to the declared contract", paired bootstrap.
    pub p: f64,
}

/// The largest p, divided by the number of contracts that were tried, at which another contract counts as better.
pub const SIGNIFICANCE: f64 = 0.05;

/// Normalisations that public recognisers were trained with.
fn normalisations() -> [(&'static str, [f32; 3], [f32; 3]); 4] {
    let imagenet = Preprocessing::imagenet();
    [
        ("[-1, 1]", [0.5; 3], [0.5; 3]),
        ("ImageNet", imagenet.mean, imagenet.std),
        ("[0, 1]", [0.0; 3], [1.0; 3]),
        ("[0, 255]", [0.0; 3], [1.0 / 255.0; 3]),
    ]
}

impl Contract {
    fn plain(preprocessing: Preprocessing) -> Self {
        Self { preprocessing, crop: Crop::Whole, mirrored: false }
    }

    /// The declared contract first, then the others that are plausible: each colour order with each normalisation, and
    /// the declared ones with other crops and mirrored.
    pub fn plausible(declared: Preprocessing) -> Vec<Self> {
        let first = Self::plain(declared);
        let mut all = vec![first];
        for colour in [Colour::Rgb, Colour::Bgr] {
            for (mean, std) in
                normalisations().map(|(_, mean, std)| (mean, std)).into_iter().chain([(declared.mean, declared.std)])
            {
                let contract = Self::plain(Preprocessing { colour, mean, std, ..declared });
                if !all.contains(&contract) {
                    all.push(contract);
                }
            }
        }
        all.push(Self { crop: Crop::Tighter, ..first });
        all.push(Self { crop: Crop::Wider, ..first });
        all.push(Self { mirrored: true, ..first });
        all
    }

    /// The contract in words, such as `BGR, [-1, 1], tighter crop`.
    pub fn name(&self) -> String {
        let Preprocessing { colour, mean, std, .. } = self.preprocessing;
        let known =
            normalisations().into_iter().find(|(_, known_mean, known_std)| (*known_mean, *known_std) == (mean, std));
        let mut words = vec![
            match colour {
                Colour::Rgb => "RGB".to_string(),
                Colour::Bgr => "BGR".to_string(),
            },
            known.map_or_else(|| format!("mean {mean:?} std {std:?}"), |(name, ..)| name.to_string()),
        ];
        match self.crop {
            Crop::Whole => {}
            Crop::Tighter => words.push("tighter crop".into()),
            Crop::Wider => words.push("wider crop".into()),
        }
        if self.mirrored {
            words.push("mirrored".into());
        }
        words.join(", ")
    }

    /// The face as the contract shows it, before it is brought to the teacher's size.
    fn shown(&self, face: &Face) -> Result<Face> {
        let margin = (face.width().min(face.height()) / 14) as isize;
        let face = match self.crop {
            Crop::Whole => face.clone(),
            Crop::Tighter => with_margin(face, -margin)?,
            Crop::Wider => with_margin(face, margin)?,
        };
        Ok(if self.mirrored { face.flipped() } else { face })
    }
}

/// The face with `margin` pixels more on each side, in which the border is repeated; fewer if it is negative.
fn with_margin(face: &Face, margin: isize) -> Result<Face> {
    let (width, height) = (face.width() as isize, face.height() as isize);
    let mut pixels = Vec::with_capacity(face.pixels().len());
    for y in -margin..height + margin {
        for x in -margin..width + margin {
            let at = 3 * (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)) as usize;
            pixels.extend_from_slice(&face.pixels()[at..at + 3]);
        }
    }
    Face::new((width + 2 * margin) as usize, (height + 2 * margin) as usize, pixels)
}

/// A teacher that is fed by another contract than its own.
struct Fed<'a> {
    embedder: TeacherEmbedder<'a>,
    declared: &'a TeacherCard,
    contract: Contract,
}

impl Embedder for Fed<'_> {
    fn name(&self) -> &str {
        self.embedder.name()
    }

    fn width(&self) -> usize {
        self.embedder.width()
    }

    fn embed(&self, faces: &[Face]) -> Result<Embeddings> {
        let shown = faces.iter().map(|face| prepared(self.declared, self.contract.shown(face)?));
        self.embedder.embed_prepared(&shown.collect::<Result<Vec<_>>>()?, |batch| {
            // The teacher applies its own contract, which gives back the input that the other one made.
            self.declared.preprocessing.undo(&self.contract.preprocessing.apply(&batch)?)
        })
    }
}

/// Judges every plausible contract of a teacher by a protocol; the declared one is the first.
///
/// # Errors
/// If the teacher has no embedding, a face cannot be read, an embedding has no direction, the protocol has no outcomes item by
/// item, or the user stops.
pub fn examine(teacher: &dyn Teacher, protocol: &dyn Protocol, cx: &BuildContext) -> Result<Vec<Examined>> {
    let declared = teacher.card();
    let mut found: Vec<Examined> = Vec::new();
    for contract in Contract::plausible(declared.preprocessing) {
        let name = contract.name();
        let fed = Fed { embedder: TeacherEmbedder::new(&name, teacher, cx.device())?, declared, contract };
        let outcome = protocol.evaluate(&fed, cx).at(|| name.clone())?;
        let (gain, p) = match found.first() {
            None => (0.0, 1.0),
            Some(declared) => {
                let mut stream = Seed(7).stream("contracts", &[found.len() as u64]);
                let difference = difference(&[&outcome], &[&declared.outcome], &mut stream)?;
                (outcome.headline()?.unit.of_one() * difference.mean, difference.p)
            }
        };
        found.push(Examined { name, contract, outcome, gain, p });
    }
    Ok(found)
}

/// The contract with the highest headline above the declared one's, the more usual one of equals, and whether it is better
/// beyond chance; none if the declared one is the best.
pub fn better(examined: &[Examined]) -> Option<(&Examined, bool)> {
    let tried = examined.len().saturating_sub(1).max(1) as f64;
    // Of equals, `max_by` takes the last.
    let best = examined.iter().rev().max_by(|a, b| a.gain.total_cmp(&b.gain))?;
    (best.gain > 0.0).then_some((best, best.p <= SIGNIFICANCE / tried))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::{Device, Tensor};

    use super::*;
    use crate::data::Dataset;
    use crate::evaluation::{ProtocolConfig, Verification};
    use crate::plugin::Workbench;
    use crate::teacher::{Output, Shown, cannot_offer};

    /// Eight people whose faces differ in the red channel; green and blue are noise.
    struct Red(Vec<String>);

    impl Dataset for Red {
        fn len(&self) -> usize {
            64
        }

        fn people(&self) -> &[String] {
            &self.0
        }

        fn person(&self, index: usize) -> Option<usize> {
            Some(index / 8)
        }

        fn key(&self, index: usize) -> String {
            format!("face {index}")
        }

        fn face(&self, index: usize) -> Result<Face> {
            let noise = |salt: usize| (((index * 31 + salt) * 2_654_435_761) >> 7) as u8;
            let person = index / 8;
            let pixel =
                |at: usize| [if (person >> (at % 3)) & 1 == 1 { 220 } else { 40 }, noise(2 * at), noise(2 * at + 1)];
            Face::new(28, 28, (0..28 * 28).flat_map(pixel).collect())
        }
    }

    /// Embeds the first three pixels of the first channel that it sees.
    struct FirstChannel(TeacherCard);

    impl Teacher for FirstChannel {
        fn card(&self) -> &TeacherCard {
            &self.0
        }

        fn shape(&self, output: &Output, _: usize) -> Result<Vec<usize>> {
            match output {
                Output::Embedding => Ok(vec![3]),
                other => Err(cannot_offer(other, "`embedding`")),
            }
        }

        fn features(&self, shown: &Shown, _: &[Output]) -> Result<Vec<Tensor>> {
            let x = self.0.preprocessing.apply(shown.faces())?;
            Ok(vec![x.narrow(1, 0, 1)?.flatten_from(1)?.narrow(1, 0, 3)?])
        }
    }

    fn examined(declared: Colour) -> Vec<Examined> {
        let preprocessing = Preprocessing { colour: declared, ..Preprocessing::default() };
        let card = TeacherCard { input_size: None, preprocessing, views: vec!["high".into()], default_map: None };
        let protocol = Verification { drawn_pairs: 100, folds: 5, far: vec![], ..Verification::drawn_from("red") };
        let red: Arc<dyn Dataset> = Arc::new(Red((0..8).map(|person| format!("person {person}")).collect()));
        let bench = Workbench::new(Device::Cpu).with("dataset", "red", red);
        let cx = BuildContext::new(&bench);
        let protocol = protocol.build(&cx).expect("pairs");
        examine(&FirstChannel(card), &*protocol, &cx).expect("outcomes")
    }

    #[test]
    fn exchanged_colours_are_found() {
        let found = examined(Colour::Bgr);
        let (better, sure) = better(&found).expect("a better contract");
        assert_eq!(better.name, "RGB, [-1, 1]");
        assert!(better.gain > 20.0 && sure, "{better:?}");
    }

    #[test]
    fn a_right_contract_is_not_beaten() {
        let found = examined(Colour::Rgb);
        assert!(better(&found).is_none(), "{:?}", better(&found));
        let names: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
        let expected = [
            "RGB, [-1, 1]",
            "RGB, ImageNet",
            "RGB, [0, 1]",
            "RGB, [0, 255]",
            "BGR, [-1, 1]",
            "BGR, ImageNet",
            "BGR, [0, 1]",
            "BGR, [0, 255]",
            "RGB, [-1, 1], tighter crop",
            "RGB, [-1, 1], wider crop",
            "RGB, [-1, 1], mirrored",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn margins_repeat_the_border_and_crops_take_it_away() {
        let face = Face::new(2, 2, (0..12).collect()).expect("a face");
        let wide = with_margin(&face, 1).expect("a wider face");
        assert_eq!((wide.width(), wide.height()), (4, 4));
        assert_eq!(wide.pixels()[..12], [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]);
        assert_eq!(with_margin(&wide, -1).expect("the face"), face);
    }
}
