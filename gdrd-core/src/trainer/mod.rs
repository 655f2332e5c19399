//! Training of one stage: batches in, steps out. What is trained, by which losses and how long, is the recipe's.

mod average;
mod checkpoint;
mod features;
mod feed;
mod frozen_maps;
mod numbers;
mod optimizer;
mod options;
mod run_stage;
mod schedule;
mod solve;
mod stage;
mod statistics;
mod step;
mod term_gradients;

pub(crate) use average::with_average;
pub use checkpoint::{Checkpoint, Position};
pub use features::{OutputOf, TeacherFeatures};
pub use optimizer::{AdamW, Optimizer, OptimizerConfig, Sgd};
pub use options::{FrozenStatistics, LastPhase, StageEdge, StageOptions};
pub use run_stage::{Outcome, Saving};
pub use schedule::{Constant, Cosine, OneCycle, Schedule, ScheduleConfig, StepSchedule};
pub use solve::SolvedStage;
pub use stage::{Alone, Exchange, Stage, Term};
