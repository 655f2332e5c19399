//! What a recipe says of a stage, beside its optimiser, schedule and losses.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::{Augment, Targets};
use crate::error::{Error, Problem, Result};
use crate::student::Part;

/// Bounds of a factor of the learning rate.
fn rate() -> serde_json::Value {
    serde_json::json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1_000_000 })
}

/// Bounds of a share of a stage.
fn share() -> serde_json::Value {
    serde_json::json!({ "type": "number", "minimum": 0, "exclusiveMaximum": 1 })
}

/// The plain options of a stage; its optimiser, schedule and losses stand beside them in the recipe.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StageOptions {
    /// Parts of the student that change; the others are frozen, running statistics included.
    pub trains: Vec<Part>,
    /// Factors of the learning rate for parts of the student, 1 where none is given: `{ backbone = 0.1 }`. A part that does not
    /// change is left out of `trains`.
    #[schemars(extend("additionalProperties" = rate()))]
    pub rates: BTreeMap<Part, f64>,
    /// Shares of the stage, 0 to below 1, in which a part that it trains is frozen yet: `{ backbone = 0.3 }`.
    #[schemars(extend("additionalProperties" = share()))]
    pub frozen_until: BTreeMap<Part, f64>,
    /// What normalisation does in a part while it is frozen.
    pub frozen_statistics: FrozenStatistics,
    /// When running means and variances of the whole student are estimated again, over the stage's data: at its `begin`, at its
    /// `end`, or both.
    pub estimate_statistics: Vec<StageEdge>,
    /// Share of itself that a moving average of the student's parameters keeps at each step, such as 0.999. The stage leaves the
    /// average behind, with running statistics estimated again.
    #[schemars(extend("exclusiveMinimum" = 0), extend("exclusiveMaximum" = 1))]
    pub ema: Option<f64>,
    /// The dataset's name in the recipe.
    pub data: String,
    /// The view that the student sees; the student's own when left out.
    pub view: Option<String>,
    /// Passes over the dataset; give either this or `steps`.
    #[schemars(range(max = 1_000_000), extend("exclusiveMinimum" = 0))]
    pub epochs: Option<f64>,
    /// Optimiser steps; give either this or `epochs`.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub steps: Option<u64>,
    /// Faces in a batch; 96 in the paper.
    #[schemars(range(min = 2, max = 1 << 20))]
    pub batch_size: usize,
    /// Images of a person that come one after the other, so that a batch has pairs and triplets: a batch of 96 has 24 people with
    /// 4 images. An epoch still sees every face once; who has fewer images comes with those. All faces in random order when left
    /// out.
    #[schemars(range(min = 2, max = 1 << 20))]
    pub images_per_person: Option<usize>,
    /// Batches whose gradients are averaged for one step.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub accumulate: usize,
    /// Learning rate before the schedule; 0.05 in the paper.
    #[schemars(range(max = 1e30), extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Steps in which the learning rate rises from zero.
    #[schemars(range(max = 1_000_000_000))]
    pub warmup_steps: u64,
    /// Longest gradient, Euclidean, over all variables; longer ones are shortened.
    #[schemars(range(max = 1e30), extend("exclusiveMinimum" = 0))]
    pub clip_norm: Option<f64>,
    /// Random changes to faces.
    pub augment: Augment,
    /// The last share of the stage, if faces are shown otherwise in it: `{ share = 0.2, view = "low" }`.
    pub last: Option<LastPhase>,
    /// Steps from one measurement of the terms' gradients to the next: their lengths, and the cosines between them. A step that
    /// measures takes a backward pass more for each term.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub term_gradients: Option<u64>,
    /// Whether features of teachers are stored on disk and read from there. If not, teachers run at every step.
    pub store_features: bool,
}

/// What normalisation does in a part that does not change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FrozenStatistics {
    /// It normalises by the running statistics, and keeps them.
    #[default]
    Kept,
    /// It normalises by those of the batch, and the running ones move, as in training.
    Moving,
}

/// An end of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StageEdge {
    /// Before its first step.
    Begin,
    /// After its last step.
    End,
}

/// The end of a stage, in which faces are shown otherwise than before.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LastPhase {
    /// Its share of the stage's steps, above 0 and below 1.
    #[schemars(extend("exclusiveMinimum" = 0), extend("exclusiveMaximum" = 1))]
    pub share: f64,
    /// The view that the student sees; the stage's when left out.
    #[serde(default)]
    pub view: Option<String>,
    /// Whether faces go on to change by `augment`; if not, they are at most mirrored.
    #[serde(default)]
    pub augment: bool,
}

impl Default for StageOptions {
    fn default() -> Self {
        Self {
            trains: vec![Part::Backbone, Part::Head],
            rates: BTreeMap::new(),
            frozen_until: BTreeMap::new(),
            frozen_statistics: FrozenStatistics::Kept,
            estimate_statistics: Vec::new(),
            ema: None,
            data: "train".into(),
            view: None,
            epochs: None,
            steps: None,
            batch_size: 96,
            images_per_person: None,
            accumulate: 1,
            learning_rate: 0.05,
            warmup_steps: 0,
            clip_norm: None,
            augment: Augment { flip: true, ..Augment::default() },
            last: None,
            term_gradients: None,
            store_features: true,
        }
    }
}

impl StageOptions {
    /// What is wrong with the options.
    pub fn check(&self) -> Vec<Problem> {
        let length = match (self.epochs, self.steps) {
            (Some(_), None) | (None, Some(_)) => None,
            (Some(_), Some(_)) => {
                Some(Problem::new("epochs", "expected exactly one of `epochs` and `steps`, found both"))
            }
            (None, None) => Some(Problem::new("epochs", "expected exactly one of `epochs` and `steps`, found neither")),
        };
        [
            length,
            Problem::unless(!self.trains.is_empty(), "trains", || {
                "expected `backbone`, `head` or both, found none".into()
            }),
            Problem::unless(self.rates.keys().all(|part| self.trains.contains(part)), "rates", || {
                "expected parts that the stage trains".into()
            }),
            Problem::unless(self.frozen_until.keys().all(|part| self.trains.contains(part)), "frozen_until", || {
                "expected parts that the stage trains".into()
            }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Optimiser steps on a dataset of `samples` faces.
    ///
    /// # Errors
    /// If the dataset does not fill one batch.
    pub fn total_steps(&self, samples: usize) -> Result<u64> {
        let per_epoch = samples / self.batch_size;
        if per_epoch == 0 {
            return Err(Error::data(format!(
                "a batch of {} needs as many faces, the data has {samples}; choose a smaller `batch_size`",
                self.batch_size
            )));
        }
        let batches = |epochs: f64| (epochs * per_epoch as f64 / self.accumulate as f64).round() as u64;
        Ok(self.steps.unwrap_or_else(|| batches(self.epochs.unwrap_or(1.0))).max(1))
    }

    /// The first of `steps` steps that changes a part; none if the stage does not train it.
    pub fn first_change(&self, part: Part, steps: u64) -> Option<u64> {
        let share = self.frozen_until.get(&part).copied().unwrap_or(0.0);
        self.trains.contains(&part).then(|| (share * steps as f64).round() as u64)
    }

    /// The first of `steps` steps that belongs to the last phase, and how faces are changed there; none without such a phase.
    pub(super) fn last_phase(&self, steps: u64) -> Option<(u64, &LastPhase, Augment)> {
        let last = self.last.as_ref()?;
        let first = steps - (last.share * steps as f64).round() as u64;
        let augment = if last.augment { self.augment.clone() } else { self.augment.mirrored_alone() };
        Some((first, last, augment))
    }

    /// Whether teachers have to see the faces of a step because nothing that is stored is of such faces.
    pub fn shows_mixtures_to_teachers(&self) -> bool {
        self.augment.mixup.as_ref().is_some_and(|mixup| mixup.targets == Targets::Teacher)
    }

    /// Whether running statistics are estimated again at this end of the stage.
    pub(super) fn estimates(&self, edge: StageEdge) -> bool {
        self.estimate_statistics.contains(&edge) || (edge == StageEdge::End && self.ema.is_some())
    }
}
