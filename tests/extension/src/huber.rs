//! A loss with a variable of its own: the Huber distance between two embeddings.

use candle_core::Tensor;
use gdrd_core::context::BuildContext;
use gdrd_core::error::Result;
use gdrd_core::loss::{Loss, LossConfig, LossInputs, LossValue, Needs, Wanted};
use gdrd_core::nn::Linear;
use gdrd_core::plugin::Kind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The Huber distance between the teacher's embedding and a learned linear map of the student's: squares up to `delta`,
/// straight lines beyond, the mean over all values.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Huber {
    /// The teacher's name in the recipe; may be left out when only one has embeddings.
    teacher: Option<String>,
    /// Where the square becomes a straight line.
    #[schemars(range(max = 1000), extend("exclusiveMinimum" = 0))]
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
    /// Everything that the loss is given, at its build and at every step; a teacher that the recipe does not have is an error of
    /// `gdrd check`.
    fn needs(&self) -> Needs {
        Needs::embedding_and(self.teacher.as_ref(), Wanted::Embedding)
    }

    /// Called before the first step: whatever does not fit is an error here, not in the middle of a run.
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let stage = cx.stage()?;
        // Variables made through `cx.weights()` are trained and stand in checkpoints, not in the student file.
        let (from, to) = (stage.embedding_width()?, stage.teachers[0].width());
        let connector = Linear::new(from, to, true, &cx.weights()?.pp("connector"))?;
        Ok(Box::new(Live { delta: self.delta, connector }))
    }
}

struct Live {
    delta: f64,
    connector: Linear,
}

impl Loss for Live {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let found = self.connector.forward(inputs.embedding()?)?;
        Ok(huber(&found, inputs.teacher(0)?, self.delta)?.into())
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
    use std::rc::Rc;

    use candle_core::Device;
    use gdrd_core::loss::{Offered, StageFacts};
    use gdrd_core::nn::Weights;
    use gdrd_core::plugin::Workbench;
    use gdrd_core::student::StudentCard;
    use gdrd_core::teacher::Output;

    use super::*;

    #[test]
    fn both_branches_by_hand() {
        let zero = Tensor::new(&[0f32, 0.0], &Device::Cpu).expect("tensor");
        let far = Tensor::new(&[0.5f32, -3.0], &Device::Cpu).expect("tensor");
        let value = huber(&far, &zero, 1.0).and_then(|t| Ok(t.to_scalar::<f32>()?)).expect("value");
        assert!((value - (0.125 + 2.5) / 2.0).abs() < 1e-6, "{value}");
    }

    #[test]
    fn it_is_built_for_its_stage_and_takes_what_it_asked_for() {
        let student = StudentCard { input_size: 16, map: [4, 4, 4], embedding: Some(2) };
        let offered = Offered { teacher: "colours".into(), output: Output::Embedding, shape: vec![3] };
        let facts = StageFacts {
            name: "distil".into(),
            student,
            people: 0,
            images: Vec::new(),
            faces: 1,
            teachers: vec![offered],
            views: Vec::new(),
        };
        let bench = Workbench::new(Device::Cpu);
        let ones = Rc::new(|_: &str, count, _| vec![1.0; count]);
        let build = |weights: &Weights| {
            Huber::default().build(&BuildContext::new(&bench).with_weights(weights).with_facts(&facts))
        };
        let (loss, variables) = Weights::create(&Device::Cpu, ones, build).expect("a loss");
        assert_eq!(variables.parameters["connector.weight"].dims(), [3, 2]);
        let embedding = Tensor::new(&[[1f32, 2.0]], &Device::Cpu).expect("an embedding");
        let target = Tensor::new(&[[4f32, 4.0, 6.0]], &Device::Cpu).expect("a target");
        let inputs = LossInputs { teachers: vec![&target], embedding: Some(&embedding), ..LossInputs::default() };
        // 1 + 2 + 1 is 4: gaps of 0, 0 and 2.
        let value = loss.compute(&inputs).and_then(|found| Ok(found.value.to_scalar::<f32>()?)).expect("a value");
        assert!((value - 1.5 / 3.0).abs() < 1e-6, "{value}");
        assert!(loss.compute(&LossInputs::default()).is_err(), "nothing is there that was not asked for");
        assert_eq!(Huber::default().needs().teachers.len(), 1);
    }
}
