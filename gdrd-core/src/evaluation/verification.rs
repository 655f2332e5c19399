//! One-to-one verification, as on LFW.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bootstrap::accuracy_interval;
use super::folds::{best_threshold, fold_accuracy};
use super::pair_list::PairList;
use super::pairs::{Pair, generated};
use super::roc::Roc;
use super::scores::{ROC_POINTS, Score, Scores};
use super::similarity::cosines;
use super::{Protocol, ProtocolConfig};
use crate::data::Dataset;
use crate::embedder::{Embedder, FlipFused};
use crate::error::{Context, Error, Problem, Result};
use crate::recipe::RecipePath;
use crate::registry::Kind;
use crate::seed::Seed;

/// Are two faces of the same person? Pairs come from an LFW-style list, or are drawn from the dataset.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// The dataset's name in the recipe.
    pub data: String,
    /// A list in the format of LFW's `pairs.txt`; pairs are drawn when left out.
    #[serde(default)]
    pub pairs: Option<RecipePath>,
    /// Number of pairs to draw, half of them of the same person.
    #[serde(default = "default_drawn")]
    pub drawn_pairs: usize,
    /// Folds of drawn pairs; a list brings its own.
    #[serde(default = "default_folds")]
    pub folds: usize,
    /// Whether the embeddings of a face and of its mirror image are summed.
    #[serde(default)]
    pub flip: bool,
    /// False accept rates at which the true accept rate is reported.
    #[serde(default = "default_far")]
    pub far: Vec<f64>,
}

fn default_drawn() -> usize {
    6000
}

fn default_folds() -> usize {
    10
}

fn default_far() -> Vec<f64> {
    vec![0.01, 0.001]
}

impl Kind for Verification {
    const NAME: &'static str = "verification";
    const PURPOSE: &'static str = "one-to-one verification by folds, ROC, TAR at FAR, EER (LFW)";
}

impl ProtocolConfig for Verification {
    fn check(&self) -> Vec<Problem> {
        let rates = self.far.iter().all(|far| *far > 0.0 && *far < 1.0);
        [
            Problem::unless(self.folds >= 2, "folds", || format!("expected at least 2, found {}", self.folds)),
            Problem::unless(self.drawn_pairs >= 2 * self.folds, "drawn_pairs", || {
                format!("expected at least two a fold, found {} for {} folds", self.drawn_pairs, self.folds)
            }),
            Problem::unless(rates, "far", || format!("expected rates between 0 and 1, found {:?}", self.far)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn data(&self) -> &str {
        &self.data
    }

    fn prepare(&self, dataset: &dyn Dataset) -> Result<Box<dyn Protocol>> {
        let pairs = match &self.pairs {
            Some(path) => PairList::read(path)?.resolve(|name, number| dataset.find(name, number))?,
            None if dataset.identities() == 0 => {
                return Err(Error::data("pairs can only be drawn from a dataset with identities"));
            }
            None => {
                let identities: Vec<usize> = (0..dataset.len()).map(|index| dataset.identity(index)).collect();
                // Not the run's seed: the pairs are a part of the measure, not of the experiment.
                generated(&identities, self.drawn_pairs, self.folds, &mut Seed(7).stream("verification pairs", &[]))?
            }
        };
        Ok(Box::new(Live { config: self.clone(), pairs }))
    }
}

struct Live {
    config: Verification,
    pairs: Vec<Pair>,
}

/// Faces that are embedded at once.
const BATCH: usize = 96;

impl Protocol for Live {
    fn evaluate(
        &self,
        embedder: &dyn Embedder,
        dataset: &dyn Dataset,
        report: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<Scores> {
        let mut used: Vec<usize> = self.pairs.iter().flat_map(|pair| [pair.left, pair.right]).collect();
        used.sort_unstable();
        used.dedup();
        let fused = FlipFused(embedder);
        let embedder: &dyn Embedder = if self.config.flip { &fused } else { embedder };
        let mut values = Vec::with_capacity(used.len() * embedder.width());
        for (at, batch) in used.chunks(BATCH).enumerate() {
            report(at * BATCH, used.len())?;
            use rayon::prelude::*;
            let faces = batch.par_iter().map(|&index| dataset.face(index)).collect::<Result<Vec<_>>>()?;
            let found = embedder.embed(&faces).at(|| format!("embedding by {}", embedder.name()))?;
            values.extend_from_slice(found.values());
        }
        report(used.len(), used.len())?;
        let row = |index: usize| used.binary_search(&index).expect("every index of a pair was collected");
        let pairs: Vec<Pair> =
            self.pairs.iter().map(|pair| Pair { left: row(pair.left), right: row(pair.right), ..*pair }).collect();
        self.score(&cosines(&values, embedder.width(), &pairs)?)
    }
}

impl Live {
    fn score(&self, similarities: &[f64]) -> Result<Scores> {
        let same: Vec<bool> = self.pairs.iter().map(|pair| pair.same).collect();
        let folds: Vec<usize> = self.pairs.iter().map(|pair| pair.fold).collect();
        let by_fold = fold_accuracy(similarities, &same, &folds)?;
        let best = best_threshold(similarities, &same)?;
        let correct: Vec<bool> = by_fold.correct.clone();
        let interval = accuracy_interval(&correct, 1000, &mut Seed(7).stream("accuracy interval", &[]))?;
        let roc = Roc::new(similarities, &same)?;
        let plain = |name: &str, value: f64, unit: &str, higher_is_better: bool| Score {
            name: name.into(),
            value,
            unit: unit.into(),
            higher_is_better,
            low: None,
            high: None,
        };
        let mut scores = vec![
            Score::percent("accuracy", by_fold.mean).between(100.0 * interval.low, 100.0 * interval.high),
            plain("accuracy standard error over folds", 100.0 * by_fold.standard_error, "%", false),
            Score::percent("accuracy at the single best threshold", best.accuracy),
            plain("best threshold", best.value, "cosine", true),
        ];
        for far in &self.config.far {
            if let Some(point) = roc.at_far(*far) {
                scores.push(Score::percent(format!("TAR at FAR {far}"), point.tar));
            }
        }
        scores.push(plain("equal error rate", 100.0 * roc.equal_error_rate(), "%", false));
        scores.push(plain("area under the ROC curve", roc.area(), "", true));
        Ok(Scores { pairs: same.len(), scores, roc: roc.thinned(ROC_POINTS), correct })
    }
}
