//! What a page shows of a run, as data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{SolvedLayer, StageCurves};
use crate::evaluation::{Measured, Role};

/// A finished run, as its folder has it.
#[derive(Clone, Debug, Default)]
pub struct RunView {
    /// The recipe's name.
    pub name: String,
    /// The seed.
    pub seed: i64,
    /// Pixels of the student's view, if the recipe says so.
    pub size: Option<i64>,
    /// Its protocols, by name.
    pub protocols: BTreeMap<String, ProtocolView>,
    /// What was measured, by protocol.
    pub measured: BTreeMap<String, Vec<Measured>>,
    /// The log of the stages that were trained.
    pub curves: Vec<StageCurves>,
    /// The stages that were solved.
    pub solved: Vec<(String, SolvedLayer)>,
    /// What was seen of faces; none if the run wrote none.
    pub insight: Option<Insight>,
    /// The sheet of samples, as PNG.
    pub samples: Option<Vec<u8>>,
    /// What the numbers rest on, a line each.
    pub provenance: Vec<String>,
    /// The resolved recipe.
    pub recipe: String,
}

/// A protocol of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProtocolView {
    /// Its kind, such as `verification`.
    pub kind: String,
    /// The kinds of the datasets that it names, such as `synthetic-faces`; of one that shows others' faces, theirs.
    pub data: Vec<String>,
    /// Digest of everything that it is: items of runs that share it can be compared one by one.
    pub content: String,
    /// What else tells it from another's of this kind, such as how many people there are, a few words each.
    pub facts: Vec<String>,
}

/// What a run saw of faces when it was over: `insight.json`. All of it but `milliseconds` follows from the student file, the teachers
/// and the data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Insight {
    /// The dataset whose faces were embedded; empty if no protocol names one with people.
    pub data: String,
    /// How many faces.
    pub faces: usize,
    /// Of how many people.
    pub people: usize,
    /// The people in the plane, by the numbers that points have.
    pub shown: Vec<String>,
    /// The embedders: the student, then teachers.
    pub embedders: Vec<Seen>,
    /// The student's worst mistakes, by protocol.
    pub mistakes: BTreeMap<String, Mistaken>,
}

/// One embedder in an [`Insight`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// What reports call it.
    pub embedder: String,
    /// Whose embeddings these are.
    pub role: Role,
    /// Mean squared distance of two faces of a person.
    pub alignment: Option<f64>,
    /// Logarithm of the mean of `exp(-2 d^2)` over all pairs.
    pub uniformity: Option<f64>,
    /// Median time of one face, its preparation among it, in milliseconds.
    pub milliseconds: f64,
    /// Each face in the plane, t-SNE: number of its person, x, y.
    pub points: Vec<(usize, f64, f64)>,
}

/// The student's worst mistakes of a protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mistaken {
    /// What was judged wrongly.
    #[serde(default = "pairs")]
    pub what: String,
    /// Mistakes in all.
    pub count: usize,
    /// The worst ones.
    pub worst: Vec<Confused>,
}

/// Runs of before knew mistakes of pairs alone.
fn pairs() -> String {
    "pairs".into()
}

/// A pair of faces that was judged wrongly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confused {
    /// Whether they are of the same person.
    pub same: bool,
    /// Cosine similarity.
    pub similarity: f64,
    /// The two faces.
    pub faces: [ShownFace; 2],
}

/// A face on a page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShownFace {
    /// What lists call it.
    pub key: String,
    /// A PNG of at most 112 pixels, in base64.
    pub whole: String,
    /// A PNG of what the student sees, in base64.
    pub small: String,
}

impl Insight {
    /// The same without what a clock said.
    pub(crate) fn without_time(mut self) -> Self {
        self.embedders.iter_mut().for_each(|seen| seen.milliseconds = 0.0);
        self
    }
}

/// The names of runs, with their seeds; those that would be alike have the run's place among all too.
pub(super) fn titles(runs: &[RunView]) -> Vec<String> {
    let plain = |run: &RunView| format!("{}, seed {}", run.name, run.seed);
    let title = |(at, run): (usize, &RunView)| {
        let title = plain(run);
        match runs.iter().filter(|other| plain(other) == title).count() {
            1 => title,
            _ => format!("{title}, run {}", at + 1),
        }
    };
    runs.iter().enumerate().map(title).collect()
}

impl RunView {
    /// What the student scores by a protocol.
    pub(super) fn student(&self, protocol: &str) -> Option<&Measured> {
        self.measured.get(protocol)?.iter().find(|row| row.role == Role::Student)
    }
}
