//! The result of an evaluation as it is written down: `evaluation/<protocol>.json` of a run.

use serde::{Deserialize, Serialize};

use super::roc::RocPoint;
use crate::error::{Error, Result};

/// The most points of a ROC curve that are kept.
pub const ROC_POINTS: usize = 200;

/// One named figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// What it is, such as `accuracy` or `tar-at-far-1e-2`; unique among the scores of a result.
    pub name: String,
    /// The figure, in `unit`.
    pub value: f64,
    /// The unit: `%`, `cosine`, or empty.
    pub unit: String,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// Lower end of the 95 % interval, if one was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Upper end of the 95 % interval, if one was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
}

/// Everything that one protocol says about one embedder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// Number of pairs that were judged.
    pub pairs: usize,
    /// The figures, in the order in which they are shown.
    pub scores: Vec<Score>,
    /// The ROC curve, thinned to at most [`ROC_POINTS`] points; empty if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roc: Vec<RocPoint>,
    /// For each pair whether it was called rightly; in the file a string of `0` and `1`. Two results
    /// on the same pairs can be compared by [`paired_difference`](super::bootstrap::paired_difference).
    #[serde(default, with = "bits", skip_serializing_if = "Vec::is_empty")]
    pub correct: Vec<bool>,
}

impl Score {
    /// A rate in `[0, 1]`, where more is better, as per cent.
    pub fn percent(name: impl Into<String>, rate: f64) -> Self {
        Self {
            name: name.into(),
            value: 100.0 * rate,
            unit: "%".to_string(),
            higher_is_better: true,
            low: None,
            high: None,
        }
    }

    /// The score with its 95 % interval, in the score's own unit.
    #[must_use]
    pub fn between(mut self, low: f64, high: f64) -> Self {
        (self.low, self.high) = (Some(low), Some(high));
        self
    }
}

impl Scores {
    /// The score of that name.
    pub fn get(&self, name: &str) -> Option<&Score> {
        self.scores.iter().find(|score| score.name == name)
    }

    /// The result as JSON, ending with a line break; equal results give equal bytes.
    ///
    /// # Errors
    /// If a number is not finite (JSON has none such), names repeat, there are more than
    /// [`ROC_POINTS`] points, or `correct` is neither empty nor as long as there are pairs.
    pub fn to_json(&self) -> Result<String> {
        self.check()?;
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::data(format!("scores as JSON: {e}")))?;
        Ok(text + "\n")
    }

    /// Reads what [`Scores::to_json`] wrote; numbers come back to the last bit or one beside it.
    ///
    /// # Errors
    /// If the text is not such JSON, or as `to_json`.
    pub fn from_json(text: &str) -> Result<Self> {
        let scores: Self = serde_json::from_str(text).map_err(|e| Error::data(format!("scores as JSON: {e}")))?;
        scores.check()?;
        Ok(scores)
    }

    fn check(&self) -> Result<()> {
        for (at, score) in self.scores.iter().enumerate() {
            for value in [Some(score.value), score.low, score.high].into_iter().flatten() {
                if !value.is_finite() {
                    return Err(Error::data(format!(
                        "score `{}`: expected a finite number, found {value}",
                        score.name
                    )));
                }
            }
            if self.scores[..at].iter().any(|other| other.name == score.name) {
                return Err(Error::data(format!("score `{}`: expected one of that name, found two", score.name)));
            }
        }
        if self.roc.len() > ROC_POINTS {
            let found = self.roc.len();
            return Err(Error::data(format!("ROC curve: expected at most {ROC_POINTS} points, found {found}")));
        }
        let finite = |point: &RocPoint| [point.threshold, point.far, point.tar].iter().all(|value| value.is_finite());
        if let Some(at) = self.roc.iter().position(|point| !finite(point)) {
            return Err(Error::data(format!(
                "ROC curve, point {at}: expected finite numbers, found {:?}",
                self.roc[at]
            )));
        }
        if !self.correct.is_empty() && self.correct.len() != self.pairs {
            return Err(Error::data(format!(
                "expected a 0 or 1 for each of {} pairs, found {}",
                self.pairs,
                self.correct.len()
            )));
        }
        Ok(())
    }
}

/// A list of booleans as a string of `0` and `1`.
mod bits {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bits: &[bool], serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = bits.iter().map(|&bit| if bit { '1' } else { '0' }).collect();
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<bool>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bit = |(at, c)| match c {
            '0' => Ok(false),
            '1' => Ok(true),
            other => Err(D::Error::custom(format!("`correct`, character {at}: expected 0 or 1, found {other:?}"))),
        };
        text.chars().enumerate().map(bit).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores() -> Scores {
        Scores {
            pairs: 4,
            scores: vec![
                Score::percent("accuracy", 0.75).between(50.0, 100.0),
                Score { unit: "cosine".to_string(), ..Score::percent("threshold", 0.0025) },
            ],
            roc: vec![RocPoint { threshold: 0.5, far: 0.0, tar: 1.0 }],
            correct: vec![true, false, true, true],
        }
    }

    #[test]
    fn json_holds_everything() {
        let text = scores().to_json().expect("finite");
        assert!(text.contains("\"correct\": \"1011\""), "{text}");
        assert!(text.find("accuracy") < text.find("threshold") && text.ends_with("}\n"), "{text}");
        assert_eq!(Scores::from_json(&text).expect("read back"), scores());
        assert_eq!(scores().get("threshold").map(|score| score.value), Some(0.25));
        assert_eq!(scores().get("absent"), None);
    }

    #[test]
    fn what_json_cannot_hold_is_refused() {
        let mut result = scores();
        result.scores[1].high = Some(f64::NAN);
        let error = result.to_json().expect_err("NaN");
        assert_eq!(error.to_string(), "score `threshold`: expected a finite number, found NaN");
        let mut result = scores();
        result.roc[0].far = f64::INFINITY;
        assert!(result.to_json().is_err());
        let mut result = scores();
        result.roc = vec![result.roc[0]; ROC_POINTS + 1];
        assert!(result.to_json().is_err());
        let mut result = scores();
        result.scores[1].name = "accuracy".to_string();
        assert!(result.to_json().is_err());
        let mut result = scores();
        result.correct.pop();
        assert!(result.to_json().is_err());
    }

    #[test]
    fn damaged_files_are_refused() {
        let text = scores().to_json().expect("finite");
        let error = Scores::from_json(&text.replace("1011", "10x1")).expect_err("x");
        assert!(error.to_string().contains("character 2: expected 0 or 1, found 'x'"), "{error}");
        assert!(Scores::from_json(&text.replace("\"pairs\"", "\"pears\"")).is_err());
    }
}
