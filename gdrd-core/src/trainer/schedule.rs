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
///
/// ```
/// use candle_core::Device;
/// use gdrd_core::context::{Bare, BuildContext};
/// use gdrd_core::error::Result;
/// use gdrd_core::plugin::Kind;
/// use gdrd_core::trainer::{Schedule, ScheduleConfig};
///
/// /// Falls in a straight line to zero.
/// #[derive(Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(deny_unknown_fields)]
/// struct Straight {}
///
/// impl Kind for Straight {
///     const NAME: &'static str = "straight";
///     const PURPOSE: &'static str = "the learning rate falls in a straight line";
/// }
///
/// impl Schedule for Straight {
///     fn factor(&self, progress: f64) -> f64 {
///         1.0 - progress
///     }
/// }
///
/// impl ScheduleConfig for Straight {
///     fn build(&self, _: &BuildContext) -> Result<Box<dyn Schedule>> {
///         Ok(Box::new(self.clone()))
///     }
/// }
///
/// let schedule = Straight {}.build(&BuildContext::new(&Bare(Device::Cpu)))?;
/// assert_eq!(schedule.factor(0.25), 0.75);
/// # Ok::<(), gdrd_core::error::Error>(())
/// ```
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
        half_cosine(1.0, self.end, progress)
    }
}

/// Up along half a cosine from `start` to 1, then down along another to `end` (Smith and Topin, 2018). The shape is PyTorch's
/// `OneCycleLR`; the optimiser's momentum stays as it is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OneCycle {
    /// Share of the stage in which the rate rises, 0 to below 1.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub rise: f64,
    /// The factor at the beginning.
    #[schemars(range(min = 0, max = 1000))]
    pub start: f64,
    /// The factor at the end.
    #[schemars(range(min = 0, max = 1000))]
    pub end: f64,
}

impl Default for OneCycle {
    fn default() -> Self {
        Self { rise: 0.1, start: 0.04, end: 4e-6 }
    }
}

impl Kind for OneCycle {
    const NAME: &'static str = "one-cycle";
    const PURPOSE: &'static str = "the learning rate rises, then falls, along halves of cosines";
}

impl ScheduleConfig for OneCycle {
    fn check(&self) -> Vec<Problem> {
        let factor = |key: &'static str, value: f64| {
            Problem::unless((0.0..=1.0).contains(&value), key, || format!("expected 0 to 1, found {value}"))
        };
        let rise = Problem::unless((0.0..1.0).contains(&self.rise), "rise", || {
            format!("expected a share of the stage, 0 to below 1, found {}", self.rise)
        });
        [rise, factor("start", self.start), factor("end", self.end)].into_iter().flatten().collect()
    }

    fn build(&self, _: &BuildContext) -> Result<Box<dyn Schedule>> {
        Ok(Box::new(self.clone()))
    }
}

impl Schedule for OneCycle {
    fn factor(&self, progress: f64) -> f64 {
        match progress < self.rise {
            true => half_cosine(self.start, 1.0, progress / self.rise),
            false => half_cosine(1.0, self.end, (progress - self.rise) / (1.0 - self.rise)),
        }
    }
}

/// Half a cosine between two factors; `share` is 0 at the first and 1 at the second.
fn half_cosine(from: f64, to: f64, share: f64) -> f64 {
    to + (from - to) * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
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
        let cycle = OneCycle { rise: 0.2, start: 0.5, end: 0.1 };
        for (progress, factor) in [(0.0, 0.5), (0.1, 0.75), (0.2, 1.0), (0.6, 0.55), (1.0, 0.1)] {
            assert!((cycle.factor(progress) - factor).abs() < 1e-12, "{} at {progress}", cycle.factor(progress));
        }
        assert_eq!(OneCycle { rise: 0.0, ..cycle }.factor(0.0), 1.0);
    }

    #[test]
    fn options_out_of_bounds_are_named() {
        let wrong = OneCycle { rise: 1.0, start: f64::NAN, end: -0.1 };
        assert_eq!(wrong.check().iter().map(|problem| problem.key).collect::<Vec<_>>(), ["rise", "start", "end"]);
        assert!(OneCycle::default().check().is_empty());
    }
}
