//! The fully connected layer.

use candle_core::Tensor;

use super::conv::{Frozen, freeze};
use super::inference::{Map, Plan};
use super::kernels::{self, FrozenConv};
use super::weights::{Init, Weights};
use super::{Activation, BatchNorm};
use crate::error::Result;

/// `y = x W^T + b`, `[batch, in]` to `[batch, out]`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    frozen: Frozen,
}

impl Linear {
    /// `weight` `[out, in]` and, if asked for, `bias` `[out]`; both uniform within `1/sqrt(in)`, as in PyTorch.
    pub fn new(inputs: usize, outputs: usize, bias: bool, weights: &Weights) -> Result<Self> {
        let init = Init::Uniform { bound: 1.0 / (inputs as f32).sqrt() };
        let weight = weights.parameter("weight", (outputs, inputs), init)?;
        let bias = bias.then(|| weights.parameter("bias", outputs, init)).transpose()?;
        Ok(Self { weight, bias, frozen: Frozen::new(weights.are_frozen()) })
    }

    /// The weight, `[out, in]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The map of `x`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if kernels::linear_is_convolution(x, &self.weight)?
            && let Some(frozen) = self.frozen.of(x, || self.freeze(None, &Activation::Identity))?
        {
            let x = x.unsqueeze(2)?.unsqueeze(3)?;
            return Ok(frozen.forward(&x, None)?.squeeze(3)?.squeeze(2)?);
        }
        let y = kernels::linear(x, &self.weight)?;
        match &self.bias {
            Some(bias) => Ok(y.broadcast_add(bias)?),
            None => Ok(y),
        }
    }

    /// The layer as a convolution of maps of one pixel, with what follows it.
    fn freeze(&self, norm: Option<&BatchNorm>, activation: &Activation) -> Result<FrozenConv> {
        let weight = self.weight.unsqueeze(2)?.unsqueeze(3)?;
        freeze(&weight, (1, 0, 1), self.bias.as_ref(), norm, activation)
    }

    /// The layer, perhaps a normalisation, and an activation as part of a network's inference form.
    pub fn plan(&self, plan: &mut Plan, x: Map, norm: Option<&BatchNorm>, activation: &Activation) -> Result<Map> {
        plan.conv(x, self.freeze(norm, activation)?, None)
    }
}
