//! Activations and the projection to unit length.

use candle_core::{D, Tensor};

use super::kernels;
use super::weights::{Init, Weights};
use crate::error::Result;

/// `max(x, 0)`.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    Ok(kernels::relu(x)?)
}

/// `max(a + b, 0)`, the end of a residual block.
pub fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(kernels::add_relu(a, b)?)
}

/// `x * sigmoid(x)`.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    Ok(kernels::silu(x)?)
}

/// The rows of `x` `[batch, width]` divided by their Euclidean length (at least 1e-12).
pub fn l2_normalise(x: &Tensor) -> Result<Tensor> {
    let length = x.sqr()?.sum_keepdim(D::Minus1)?.affine(1.0, 1e-24)?.sqrt()?;
    Ok(x.broadcast_div(&length)?)
}

/// The activation at the end of a layer.
#[derive(Clone, Debug)]
pub enum Activation {
    /// None.
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// A slope for each channel below zero.
    PRelu(PRelu),
}

impl Activation {
    /// The activation of `x` `[batch, channels, h, w]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Identity => Ok(x.clone()),
            Self::Relu => relu(x),
            Self::Relu6 => Ok(kernels::relu6(x)?),
            Self::PRelu(prelu) => prelu.forward(x),
        }
    }
}

/// `max(x, 0) + slope * min(x, 0)` with one slope for each channel.
#[derive(Clone, Debug)]
pub struct PRelu {
    pub(super) slope: Tensor,
}

impl PRelu {
    /// `weight` `[channels]`, 0.25 when new; a file may have `[1]`, a slope that all channels share.
    pub fn new(channels: usize, weights: &Weights) -> Result<Self> {
        if weights.shape("weight").is_some_and(|shape| shape.dims() == [1]) {
            let slope = weights.parameter("weight", 1, Init::Constant(0.25))?;
            return Ok(Self { slope: slope.broadcast_as(channels)?.contiguous()? });
        }
        Ok(Self { slope: weights.parameter("weight", channels, Init::Constant(0.25))? })
    }

    /// The activation of `x` `[batch, channels, h, w]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(kernels::prelu(x, &self.slope)?)
    }
}
