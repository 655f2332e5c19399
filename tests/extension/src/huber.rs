//! A loss with a variable of its own: the Huber distance between two embeddings.

use candle_core::Tensor;
use gdrd_core::error::{Problem, Result};
use gdrd_core::loss::{Loss, LossConfig, LossContext, LossInputs, LossValue, Needs, embedding_width};
use gdrd_core::nn::{Linear, Weights};
use gdrd_core::plugin::Kind;
use gdrd_core::teacher::Output;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The Huber distance between the teacher's embedding and a learned linear map of the student's: squares up to `delta`,
/// straight lines beyond, the mean over all values.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Huber {
    /// The teacher's name in the recipe; may be left out when only one has embeddings.
    teacher: Option<String>,
    /// Where the square becomes a straight line.
    delta: f64,
}

impl Default for Huber {
    fn default() -> Self {
        Self { teacher: None, delta: 1.0 }
    }
}

impl Kind for Huber {
    const NAME: &'static str = "huber";
    const PURPOSE: &'static str = "Huber distance between embeddings";
}

impl LossConfig for Huber {
    fn check(&self) -> Vec<Problem> {
        let found = || format!("expected a positive number, found {}", self.delta);
        Problem::unless(self.delta > 0.0, "delta", found).into_iter().collect()
    }

    /// With this a wrong name is an error of `gdrd check`, at its place in the recipe.
    fn teachers(&self) -> Vec<&str> {
        self.teacher.as_deref().into_iter().collect()
    }

    /// Called before the first step: whatever does not fit is an error here, not in the middle of a run.
    fn build(&self, context: &dyn LossContext, weights: &Weights) -> Result<Box<dyn Loss>> {
        let teacher = context.only_teacher(self.teacher.as_deref(), &Output::Embedding)?;
        let target = context.teacher_shape(&teacher, &Output::Embedding)?.iter().product();
        // Variables made through `weights` are trained and stand in checkpoints, not in the student file.
        let connector = Linear::new(embedding_width(context)?, target, true, &weights.pp("connector"))?;
        Ok(Box::new(Live { teacher, delta: self.delta, connector }))
    }
}

struct Live {
    teacher: String,
    delta: f64,
    connector: Linear,
}

impl Loss for Live {
    fn needs(&self) -> Needs {
        Needs { teachers: vec![(self.teacher.clone(), Output::Embedding)], embedding: true, ..Needs::default() }
    }

    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let target = inputs.teacher(&self.teacher, &Output::Embedding)?;
        let value = huber(&self.connector.forward(inputs.embedding()?)?, target, self.delta)?;
        Ok(value.into())
    }
}

/// `d^2 / 2` up to `delta`, `delta (|d| - delta / 2)` beyond, the mean over all values.
fn huber(found: &Tensor, target: &Tensor, delta: f64) -> Result<Tensor> {
    let gap = (found - target)?.abs()?;
    let near = gap.minimum(delta)?;
    // With n = min(|d|, delta) both branches are n (|d| - n / 2).
    Ok((&near * (gap - (&near * 0.5)?)?)?.mean_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn both_branches_by_hand() {
        let zero = Tensor::new(&[0f32, 0.0], &Device::Cpu).expect("tensor");
        let far = Tensor::new(&[0.5f32, -3.0], &Device::Cpu).expect("tensor");
        let value = huber(&far, &zero, 1.0).and_then(|t| Ok(t.to_scalar::<f32>()?)).expect("value");
        assert!((value - (0.125 + 2.5) / 2.0).abs() < 1e-6, "{value}");
    }
}
