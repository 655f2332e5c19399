//! What a recipe says of a stage, beside its optimiser, schedule and losses.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::Augment;
use crate::error::{Error, Problem, Result};
use crate::student::Part;

/// Bounds of a factor of the learning rate.
fn rate() -> serde_json::Value {
    serde_json::json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1_000_000 })
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
    /// Whether features of teachers are stored on disk and read from there. If not, teachers run at every step.
    pub store_features: bool,
}

impl Default for StageOptions {
    fn default() -> Self {
        Self {
            trains: vec![Part::Backbone, Part::Head],
            rates: BTreeMap::new(),
            data: "train".into(),
            view: None,
            epochs: None,
            steps: None,
            batch_size: 96,
            accumulate: 1,
            learning_rate: 0.05,
            warmup_steps: 0,
            clip_norm: None,
            augment: Augment { flip: true, ..Augment::default() },
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
                "a batch of {} needs as many faces, the data has {samples}",
                self.batch_size
            )));
        }
        let batches = |epochs: f64| (epochs * per_epoch as f64 / self.accumulate as f64).round() as u64;
        Ok(self.steps.unwrap_or_else(|| batches(self.epochs.unwrap_or(1.0))).max(1))
    }
}
