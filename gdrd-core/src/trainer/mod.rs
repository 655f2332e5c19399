//! Training of one stage: batches in, steps out. What is trained, by which losses and how long, is the recipe's.

mod checkpoint;
mod features;
mod feed;
mod frozen_maps;
mod numbers;
mod optimizer;
mod schedule;
mod stage;
mod step;

pub use checkpoint::{Checkpoint, Position};
pub use features::TeacherFeatures;
pub use optimizer::{AdamW, Optimizer, OptimizerConfig, Sgd};
pub use schedule::{Constant, Cosine, Schedule, Step};
pub use stage::{Outcome, Stage, StageOptions, Term};
