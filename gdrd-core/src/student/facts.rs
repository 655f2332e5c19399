//! What a student file says beside its network: what it was trained on, how well it recognises, how good a face is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::thresholds::Calibration;
use crate::embedder::Embeddings;
use crate::error::Result;
use crate::face::{Face, LEAST_CONTRAST, deviation};
use crate::nn::Preprocessing;

/// What a student file says beside its network. All of it may be missing: files of the first format have none of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StudentFacts {
    /// What the network does to its input by itself: colour order, mean and standard deviation, and the template that faces were
    /// aligned to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Preprocessing>,
    /// The views that the student was trained in, with every option, by their names in the recipe: its degradations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub views: BTreeMap<String, serde_json::Value>,
    /// The datasets that it was trained on, by their names in the recipe.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, Source>,
    /// The students that it began with, the last first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub began_with: Vec<Beginning>,
    /// What it achieved, by protocol.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, Vec<StatedFigure>>,
    /// How its weights were rounded, and what that cost; none for those that were measured as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounding: Option<Rounding>,
    /// From which similarity on two faces may be called one person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// What says whether a face is good enough to decide on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<QualityModel>,
}

/// A student that another began with: what it learnt from counts for that one too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// The checksum of its file.
    pub student: String,
    /// Digest of the recipe that made it.
    pub recipe: String,
    /// As in the header of its file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub teachers: BTreeMap<String, String>,
    /// As in the header of its file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub licences: BTreeMap<String, String>,
    /// The datasets that it was trained on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, Source>,
}

impl StudentFacts {
    /// The least calibrated size of a face, in pixels: of smaller ones nothing is known. 1 without thresholds.
    pub fn least_pixels(&self) -> usize {
        self.calibration.as_ref().and_then(|calibration| calibration.sizes.first()).map_or(1, |at| at.size)
    }

    /// All datasets that it was trained on, and those of the students that it began with.
    pub fn all_data(&self) -> impl Iterator<Item = (&String, &Source)> {
        self.data.iter().chain(self.began_with.iter().flat_map(|before| &before.data))
    }
}

/// A dataset that a student was trained on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Digest of everything that it is.
    pub digest: String,
    /// Its licence, where the recipe states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// What about its faces no camera took, such as `drawn by gdrd`; nothing in older files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<String>,
}

/// A figure of a protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatedFigure {
    /// Such as `accuracy`.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// The sign of its unit: `%`, or nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// Of how many items.
    pub count: usize,
}

/// Weights that were rounded to shorter numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rounding {
    /// `bfloat16` or `float16`.
    pub to: String,
    /// The mean cosine between a face's embeddings before and after, over the faces of the calibration.
    pub mean_cosine: f64,
    /// The smallest of them.
    pub least_cosine: f64,
    /// Faces that were compared.
    pub faces: usize,
    /// The first figure of each protocol before the rounding; the one after it is among the file's figures.
    pub figures_before: BTreeMap<String, StatedFigure>,
}

/// What is known of a face before it is compared, as numbers that a [`QualityModel`] weighs.
pub const QUALITY_FEATURES: [&str; 5] = ["log length", "contrast", "sharpness", "brightness", "log pixels"];

/// The place of the contrast among them.
const CONTRAST: usize = 1;
/// Standard deviations from a feature's mean beyond which nothing was measured. Features are not normally distributed, so there is
/// room.
const FAR: f64 = 6.0;

/// The chance that a face would be recognised: a linear model of [`QUALITY_FEATURES`], fitted in closed form, and a rising curve that
/// brings what it says to a share of right decisions.
///
/// Half of the calibration's people fit it, the other half measure it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QualityModel {
    /// The false match rate of the decisions.
    pub false_match_rate: f64,
    /// Means of the features.
    pub centre: [f64; 5],
    /// Their standard deviations.
    pub scale: [f64; 5],
    /// The weights of the features, less the mean and divided by the deviation.
    pub weights: [f64; 5],
    /// Added to the weighted sum.
    pub bias: f64,
    /// The sum, rising, and the share of comparisons with the same person that are right there.
    pub curve: Vec<(f64, f64)>,
    /// Faces that measured it, each at every calibrated size.
    pub measured: usize,
    /// The mean distance between the score and the share of right comparisons, over ten groups of equal size by score.
    pub calibration_error: f64,
    /// Error versus reject: the share of the worst faces that are left out, and the share of the same person's comparisons
    /// that are still missed.
    pub error_versus_reject: Vec<(f64, f64)>,
}

impl QualityModel {
    /// The features of a face as the student sees it, `small`; `length` is that of its embedding before it was brought to unit
    /// length, and `pixels` the height of the face as it came, of which the student's own size is the most that counts.
    pub fn features(small: &Face, length: f32, pixels: usize) -> [f64; 5] {
        let side = small.width().max(1);
        let grey = small.luminance();
        let mean = grey.iter().sum::<f64>() / grey.len().max(1) as f64;
        let contrast = deviation(&grey);
        let rows = grey.chunks_exact(side).flat_map(|row| row.windows(2).map(|pair| (pair[1] - pair[0]).abs()));
        let columns = grey.iter().zip(grey.iter().skip(side)).map(|(above, below)| (below - above).abs());
        let steps = (2 * side * side.saturating_sub(1)).max(1) as f64;
        let sharpness = rows.chain(columns).sum::<f64>() / steps / contrast.max(0.01);
        let length = f64::from(length).max(f64::MIN_POSITIVE).ln();
        [length, contrast, sharpness, mean, (pixels.clamp(1, small.height().max(1)) as f64).ln()]
    }

    /// The chance, in `[0, 1]`, that a face with these features is recognised as the person whom it shows, at
    /// [`false_match_rate`](Self::false_match_rate). It is 0 for a face that shows nothing, of less contrast than a step of 8 bits,
    /// and for one that is far from all that were measured: nothing is known of such faces.
    pub fn score(&self, features: &[f64; 5]) -> f64 {
        match self.knows(features) {
            true => self.chance(self.sum(features)),
            false => 0.0,
        }
    }

    /// The embeddings of `faces`, with what the model says of each face; 0 of those of fewer than `least` pixels, as far as the
    /// student's own size tells. `small` are the faces as the student sees them.
    ///
    /// # Errors
    /// If there are not as many of each.
    pub fn rate(&self, embeddings: Embeddings, faces: &[Face], small: &[Face], least: usize) -> Result<Embeddings> {
        let rows = embeddings.lengths().iter().zip(faces).zip(small);
        let rating =
            |((length, face), small): ((&f32, &Face), &Face)| self.rating(small, *length, face.height(), least);
        let ratings = rows.map(rating).collect();
        embeddings.rated(ratings)
    }

    /// The [`score`](Self::score) of a face from its [`features`](Self::features), which these are made of; 0 if it has fewer than
    /// `least` pixels.
    pub fn rating(&self, small: &Face, length: f32, pixels: usize, least: usize) -> f64 {
        // Faces of the student's size and larger ones are alike to it.
        match pixels < least.min(small.height()) {
            true => 0.0,
            false => self.score(&Self::features(small, length, pixels)),
        }
    }

    /// Whether such faces were measured.
    fn knows(&self, features: &[f64; 5]) -> bool {
        // What is no number is near to nothing.
        let near = |at: usize| (features[at] - self.centre[at]).abs() <= FAR * self.scale[at];
        features[CONTRAST] >= LEAST_CONTRAST && (0..features.len()).all(near)
    }

    /// The weighted sum.
    pub(super) fn sum(&self, features: &[f64; 5]) -> f64 {
        let term = |at: usize| self.weights[at] * (features[at] - self.centre[at]) / self.scale[at];
        self.bias + (0..features.len()).map(term).sum::<f64>()
    }

    /// The curve at a sum: straight between its points, flat beyond them.
    pub(super) fn chance(&self, sum: f64) -> f64 {
        let after = self.curve.partition_point(|(at, _)| *at <= sum);
        match (after.checked_sub(1).and_then(|at| self.curve.get(at)), self.curve.get(after)) {
            (Some((from, low)), Some((to, high))) => low + (high - low) * (sum - from) / (to - from),
            (Some((_, last)), None) => *last,
            (None, first) => first.map_or(0.0, |(_, first)| *first),
        }
    }

    /// What cannot be in a model that gdrd wrote.
    pub(super) fn wrong(&self) -> Option<String> {
        let numbers = [self.centre, self.scale, self.weights].concat();
        let curve = self.curve.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let chances = self.curve.iter().all(|(at, chance)| at.is_finite() && (0.0..=1.0).contains(chance));
        let good = numbers.iter().chain([&self.bias]).all(|number| number.is_finite())
            && self.scale.iter().all(|scale| *scale > 0.0);
        match good && curve && chances && !self.curve.is_empty() {
            true => None,
            false => Some("its quality model has numbers that none could have".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_is_straight_between_points_and_flat_beyond() {
        let model = QualityModel {
            false_match_rate: 0.01,
            centre: [0.0; 5],
            scale: [1.0; 5],
            weights: [1.0, 0.0, 0.0, 0.0, 0.0],
            bias: 0.0,
            curve: vec![(0.0, 0.2), (1.0, 0.6)],
            measured: 1,
            calibration_error: 0.0,
            error_versus_reject: Vec::new(),
        };
        let score = |x| model.score(&[x, 0.2, 0.0, 0.0, 0.0]);
        let found = [-5.0, 0.0, 0.5, 1.0, 5.0].map(score);
        assert!(found.iter().zip([0.2, 0.2, 0.4, 0.6, 0.6]).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
        assert!(model.wrong().is_none());
        // Embeddings of lengths 1 and e: the logarithms are 0 and 1.
        let rows = || Embeddings::from_rows(1, vec![1.0, std::f32::consts::E]).expect("rows");
        let faces = vec![Face::new(1, 2, vec![9, 9, 9, 200, 200, 200]).expect("a face"); 2];
        let rated = model.rate(rows(), &faces, &faces, 2).expect("rated");
        let ratings = rated.ratings().expect("ratings");
        assert!((ratings[0] - 0.2).abs() < 1e-6 && (ratings[1] - 0.6).abs() < 1e-6, "{ratings:?}");
        assert!(model.rate(rows(), &faces[..1], &faces, 2).is_err());
        assert!(QualityModel { scale: [0.0; 5], ..model.clone() }.wrong().is_some());
        assert!(QualityModel { curve: vec![(1.0, 0.2), (0.0, 0.3)], ..model }.wrong().is_some());
    }

    #[test]
    fn a_face_of_which_nothing_is_known_is_worth_nothing() {
        let model = QualityModel {
            false_match_rate: 0.01,
            centre: [0.0, 0.2, 0.4, 0.5, 2.0],
            scale: [1.0, 0.1, 0.2, 0.2, 0.5],
            weights: [0.1; 5],
            bias: 0.0,
            curve: vec![(-1.0, 0.4), (1.0, 0.8)],
            measured: 1,
            calibration_error: 0.0,
            error_versus_reject: Vec::new(),
        };
        let face = |value: fn(usize) -> u8| {
            let pixels = (0..16 * 16).flat_map(|at| [value(at); 3]).collect();
            Face::new(16, 16, pixels).expect("a face")
        };
        let (good, grey) = (face(|at| (at * 37 % 256) as u8), face(|_| 127));
        assert!(model.rating(&good, 1.0, 16, 8) > 0.4);
        assert_eq!(model.rating(&grey, 1.0, 16, 8), 0.0, "it shows nothing");
        assert_eq!((model.rating(&good, 1.0, 1, 8), model.rating(&good, 1.0, 7, 8)), (0.0, 0.0), "too small");
        assert!(model.rating(&good, 1.0, 16, 32) > 0.4, "the student sees no more of a larger one");
        assert_eq!(model.rating(&good, 1e6, 16, 8), 0.0, "far from all that were measured");
        assert_eq!(model.score(&[f64::NAN, 0.2, 0.4, 0.5, 2.0]), 0.0);
    }

    #[test]
    fn features_of_any_face_are_finite() {
        for (side, value) in [(1, 0), (1, 255), (16, 7)] {
            let face = Face::new(side, side, vec![value; 3 * side * side]).expect("a face");
            for length in [0.0, 1.0, f32::INFINITY] {
                let features = QualityModel::features(&face, length, 0);
                assert!(features.iter().all(|value| !value.is_nan()), "{features:?}");
            }
        }
    }
}
