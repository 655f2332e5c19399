//! Options of a run as a whole: the recipe's table `[run]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::nn::kernels::Precision;

/// Options of a run as a whole.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunOptions {
    /// Every random number of the run follows from it; 7 in the paper.
    #[schemars(range(max = i64::MAX as u64))]
    pub seed: u64,
    /// Steps between checkpoints; there is one at the end of every stage too.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub checkpoint_steps: u64,
    /// How many checkpoints stay.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub keep_checkpoints: usize,
    /// Threads that read and degrade faces.
    #[schemars(range(min = 1, max = 256))]
    pub workers: usize,
    /// Whether the student file holds half-precision numbers, at half the size.
    pub half_precision: bool,
    /// What convolutions and fully connected layers round factors to in training, on a GPU. On the CPU `float32` is the only
    /// one; large layers on AMX tiles then take factors of 17 bits (see README, Speed). Sums and weights are float32, as are
    /// stored features and the evaluation.
    pub precision: Precision,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            seed: 7,
            checkpoint_steps: 500,
            keep_checkpoints: 2,
            workers: 2,
            half_precision: false,
            precision: Precision::Float32,
        }
    }
}
