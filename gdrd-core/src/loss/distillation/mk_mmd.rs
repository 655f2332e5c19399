//! Embeddings whose distribution is the teacher's.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::BuildContext;
use crate::error::{Problem, Result};
use crate::loss::{About, Loss, LossConfig, LossInputs, LossValue, Needs, Wanted, squared_distances};
use crate::nn::{Linear, l2_normalise};
use crate::plugin::Kind;

/// The maximum mean discrepancy with several kernels, MK-MMD (Long et al., ICML 2015), between a batch's embeddings
/// by the student and by the teacher: `mean k(S, S) + mean k(T, T) - 2 mean k(S, T)`, where k is the mean of Gaussian
/// kernels whose widths double from one to the next, about the mean square distance of all these embeddings. It
/// compares distributions and not face with face.
///
/// The paper's table has a system `Mkmmd` and cites for it a work on teacher assistants that has no such loss; this
/// is the loss of that name. Unit vectors, and a linear map where the widths differ, are ours.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MkMmd {
    /// The teacher's name in the recipe; may be left out when only one has embeddings.
    pub teacher: Option<String>,
    /// Number of kernels, 1 to 16.
    #[schemars(range(min = 1, max = 16))]
    pub kernels: u32,
}

impl Default for MkMmd {
    fn default() -> Self {
        Self { teacher: None, kernels: 5 }
    }
}

impl Kind for MkMmd {
    const NAME: &'static str = "mk-mmd";
    const PURPOSE: &'static str = "the distribution of embeddings is the teacher's (multi-kernel MMD)";
}

impl LossConfig for MkMmd {
    fn check(&self) -> Vec<Problem> {
        Problem::within("kernels", self.kernels, 1..=16).into_iter().collect()
    }

    fn needs(&self) -> Needs {
        Needs::embedding_and(self.teacher.as_ref(), Wanted::Embedding)
    }

    fn about(&self) -> About {
        About { equation: "mean k(S, S) + mean k(T, T) - 2 mean k(S, T)", memory: "4 b^2" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let stage = cx.stage()?;
        let (width, target) = (stage.embedding_width()?, stage.teachers[0].width());
        let differ = width != target;
        let connector = differ.then(|| Linear::new(width, target, true, &cx.weights()?.pp("connector"))).transpose()?;
        Ok(Box::new(Discrepancy { connector, kernels: self.kernels }))
    }
}

struct Discrepancy {
    connector: Option<Linear>,
    kernels: u32,
}

impl Loss for Discrepancy {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let student = match &self.connector {
            Some(connector) => l2_normalise(&connector.forward(inputs.embedding()?)?)?,
            None => l2_normalise(inputs.embedding()?)?,
        };
        Ok(discrepancy(&student, &l2_normalise(inputs.teacher(0)?)?, self.kernels)?.into())
    }
}

fn discrepancy(student: &Tensor, teacher: &Tensor, kernels: u32) -> Result<Tensor> {
    let batch = student.dim(0)?;
    let all = Tensor::cat(&[student, teacher], 0)?;
    let squares = squared_distances(&all, &all)?;
    // The mean over pairs of different embeddings, without a gradient, in the middle of the widths.
    let pairs = (2 * batch * (2 * batch - 1)) as f64;
    let width = ((squares.detach().sum_all()? / pairs)? + 1e-12)?;
    let scaled = squares.broadcast_div(&width)?;
    let mut kernel = scaled.zeros_like()?;
    for at in 0..kernels {
        let factor = 2f64.powi(at as i32 - (kernels / 2) as i32);
        kernel = (kernel + (&scaled * (-1.0 / factor))?.exp()?)?;
    }
    // +1 within the student's and within the teacher's, -1 between them.
    let within = |first: usize, second: usize| -> Result<Tensor> {
        Ok(kernel.narrow(0, first * batch, batch)?.narrow(1, second * batch, batch)?.mean_all()?)
    };
    let same = (within(0, 0)? + within(1, 1)?)?;
    let between = (within(0, 1)? + within(1, 0)?)?;
    Ok(((same - between)? / f64::from(kernels))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_same_faces_in_another_order_cost_nothing() {
        let rows = Tensor::new(&[[1f32, 0.0], [0.0, 1.0], [0.6, 0.8]], &Device::Cpu).expect("rows");
        let turned = Tensor::new(&[[0.6f32, 0.8], [1.0, 0.0], [0.0, 1.0]], &Device::Cpu).expect("rows");
        let far = Tensor::new(&[[-1f32, 0.0], [0.0, -1.0], [-0.6, -0.8]], &Device::Cpu).expect("rows");
        let of = |other: &Tensor| discrepancy(&rows, other, 5).and_then(|t| Ok(t.to_scalar::<f32>()?)).expect("value");
        assert!(of(&turned).abs() < 1e-6, "{}", of(&turned));
        assert!(of(&far) > 0.3, "{}", of(&far));
    }
}
