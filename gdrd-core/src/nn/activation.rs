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

/// `max(x, 0) + slope * min(x, 0)` with one slope for each channel.
#[derive(Clone, Debug)]
pub struct PRelu {
    slope: Tensor,
}

impl PRelu {
    /// `weight` `[channels]`, 0.25 when new.
    pub fn new(channels: usize, weights: &Weights) -> Result<Self> {
        Ok(Self { slope: weights.parameter("weight", channels, Init::Constant(0.25))? })
    }

    /// The activation of `x` `[batch, channels, h, w]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(kernels::prelu(x, &self.slope)?)
    }
}
