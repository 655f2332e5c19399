//! Two-dimensional convolution.

use candle_core::Tensor;

use super::kernels;
use super::weights::{Init, Weights};
use crate::error::Result;

/// Stride, padding, groups and bias of a [`Conv2d`].
#[derive(Clone, Copy, Debug)]
pub struct ConvConfig {
    /// Step between outputs, in pixels; both directions.
    pub stride: usize,
    /// Zeros around the input, in pixels; all four sides.
    pub padding: usize,
    /// Groups of channels that do not mix; as many as channels is a depthwise convolution.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

impl Default for ConvConfig {
    fn default() -> Self {
        Self { stride: 1, padding: 0, groups: 1, bias: false }
    }
}

/// A convolution, `[batch, in, h, w]` to `[batch, out, h', w']`.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    config: ConvConfig,
}

impl Conv2d {
    /// `weight` `[out, in / groups, kernel, kernel]` (He normal over the outputs, as PyTorch's
    /// ResNets) and, if asked for, `bias` `[out]`.
    pub fn new(inputs: usize, outputs: usize, kernel: usize, config: ConvConfig, weights: &Weights) -> Result<Self> {
        let fan_out = outputs * kernel * kernel / config.groups;
        let init = Init::Normal { std: (2.0 / fan_out as f32).sqrt() };
        Self::with_init(inputs, outputs, kernel, config, init, weights)
    }

    /// As [`Conv2d::new`], with a new weight filled by `init`; a new bias is zero.
    pub fn with_init(
        inputs: usize,
        outputs: usize,
        kernel: usize,
        config: ConvConfig,
        init: Init,
        weights: &Weights,
    ) -> Result<Self> {
        let weight = weights.parameter("weight", (outputs, inputs / config.groups, kernel, kernel), init)?;
        let bias = config.bias.then(|| weights.parameter("bias", outputs, Init::Constant(0.0))).transpose()?;
        Ok(Self { weight, bias, config })
    }

    /// The 3x3 convolution that keeps the size at stride 1.
    pub fn same3(inputs: usize, outputs: usize, stride: usize, bias: bool, weights: &Weights) -> Result<Self> {
        Self::new(inputs, outputs, 3, ConvConfig { stride, padding: 1, groups: 1, bias }, weights)
    }

    /// The convolution of `x`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let ConvConfig { stride, padding, groups, .. } = self.config;
        let y = kernels::conv2d(x, &self.weight, stride, padding, groups)?;
        match &self.bias {
            Some(bias) => Ok(kernels::scale_shift(&y, &bias.ones_like()?, bias)?),
            None => Ok(y),
        }
    }
}
