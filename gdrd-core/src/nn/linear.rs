//! The fully connected layer.

use candle_core::Tensor;

use super::weights::{Init, Weights};
use crate::error::Result;

/// `y = x W^T + b`, `[batch, in]` to `[batch, out]`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// `weight` `[out, in]` and, if asked for, `bias` `[out]`; both uniform within `1/sqrt(in)`, as in PyTorch.
    pub fn new(inputs: usize, outputs: usize, bias: bool, weights: &Weights) -> Result<Self> {
        let init = Init::Uniform { bound: 1.0 / (inputs as f32).sqrt() };
        let weight = weights.parameter("weight", (outputs, inputs), init)?;
        let bias = bias.then(|| weights.parameter("bias", outputs, init)).transpose()?;
        Ok(Self { weight, bias })
    }

    /// The weight, `[out, in]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    fn product(&self, x: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(y) = super::kernels::linear_on_gpu(x, &self.weight)? {
            return Ok(y);
        }
        Ok(x.matmul(&self.weight.t()?)?)
    }

    /// The map of `x`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.product(x)?;
        match &self.bias {
            Some(bias) => Ok(y.broadcast_add(bias)?),
            None => Ok(y),
        }
    }
}
