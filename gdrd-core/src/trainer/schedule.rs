//! How the learning rate changes: pure functions of progress, so that there is nothing to save.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::BuildContext;
use crate::error::{Problem, Result};
use crate::plugin::Kind;

/// A factor of the learning rate: a pure function of progress.
///
/// ```
/// use gdrd_core::trainer::{Constant, Schedule};
///
/// assert_eq!(Constant {}.factor(0.5), 1.0);
/// ```
pub trait Schedule: Send + Sync {
    /// The factor when the share `progress` (0 to below 1) of the stage is done.
    fn factor(&self, progress: f64) -> f64;
}

/// What a recipe says of a schedule.
pub trait ScheduleConfig: Send + Sync {
    /// What is wrong with the options.
    fn check(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// The schedule.
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Schedule>>;
}

/// Always 1.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Constant {}

impl Kind for Constant {
    const NAME: &'static str = "constant";
    const PURPOSE: &'static str = "the learning rate stays";
}

impl ScheduleConfig for Constant {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Schedule>> {
        Ok(Box::new(self.clone()))
    }
}

impl Schedule for Constant {
    fn factor(&self, _: f64) -> f64 {
        1.0
    }
}

/// A factor of `gamma` after each milestone. The paper's annealing rate is 0.1; its milestones are not given.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StepSchedule {
    /// Shares of the stage, 0 to 1, after which the rate falls.
    #[schemars(inner(range(min = 0, max = 1)))]
    pub milestones: Vec<f64>,
    /// What it is multiplied with.
    #[schemars(range(min = 0, max = 1000))]
    pub gamma: f64,
}

impl Default for StepSchedule {
    fn default() -> Self {
        Self { milestones: vec![0.5, 0.75, 0.9], gamma: 0.1 }
    }
}

impl Kind for StepSchedule {
    const NAME: &'static str = "step";
    const PURPOSE: &'static str = "the learning rate falls at milestones";
}

impl ScheduleConfig for StepSchedule {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Schedule>> {
        Ok(Box::new(self.clone()))
    }
}

impl Schedule for StepSchedule {
    fn factor(&self, progress: f64) -> f64 {
        self.gamma.powi(self.milestones.iter().filter(|m| progress >= **m).count() as i32)
    }
}

/// Half a cosine from 1 down to `end`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cosine {
    /// The factor at the end.
    #[schemars(range(min = 0, max = 1000))]
    pub end: f64,
}

impl Kind for Cosine {
    const NAME: &'static str = "cosine";
    const PURPOSE: &'static str = "the learning rate falls along half a cosine";
}

impl ScheduleConfig for Cosine {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Schedule>> {
        Ok(Box::new(self.clone()))
    }
}

impl Schedule for Cosine {
    fn factor(&self, progress: f64) -> f64 {
        self.end + (1.0 - self.end) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_by_hand() {
        let step = StepSchedule { milestones: vec![0.5, 0.75], gamma: 0.1 };
        assert_eq!(step.factor(0.49), 1.0);
        assert!((step.factor(0.5) - 0.1).abs() < 1e-12 && (step.factor(0.8) - 0.01).abs() < 1e-12);
        let cosine = Cosine { end: 0.2 };
        assert!((cosine.factor(0.0) - 1.0).abs() < 1e-12 && (cosine.factor(0.5) - 0.6).abs() < 1e-12);
    }
}
