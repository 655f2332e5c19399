//! Attention over all pixels of a feature map.

use candle_core::{D, Tensor};

use crate::error::Result;
use crate::nn::{GroupNorm, Init, Weights};

/// A 1x1 convolution over tokens, with the weight of a one-dimensional convolution.
#[derive(Clone, Debug)]
struct TokenMap {
    weight: Tensor,
    bias: Tensor,
}

impl TokenMap {
    /// `weight` `[outputs, inputs, 1]`, `bias` `[outputs]`.
    fn new(inputs: usize, outputs: usize, init: Init, weights: &Weights) -> Result<Self> {
        let weight = weights.parameter("weight", (outputs, inputs, 1), init)?;
        Ok(Self { weight, bias: weights.parameter("bias", outputs, Init::Constant(0.0))? })
    }

    /// `[tokens, inputs]` to `[tokens, outputs]`.
    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        Ok(tokens.matmul(&self.weight.squeeze(2)?.t()?)?.broadcast_add(&self.bias)?)
    }
}

/// Residual self-attention with group normalisation.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    norm: GroupNorm,
    qkv: TokenMap,
    proj_out: TokenMap,
    heads: usize,
    new_order: bool,
}

impl Attention {
    /// Weights `norm`, `qkv` and `proj_out` (zero when new); `heads` must divide `channels`.
    pub(super) fn new(
        channels: usize,
        heads: usize,
        groups: usize,
        new_order: bool,
        weights: &Weights,
    ) -> Result<Self> {
        let init = Init::Uniform { bound: 1.0 / (channels as f32).sqrt() };
        Ok(Self {
            norm: GroupNorm::new(groups, channels, &weights.pp("norm"))?,
            qkv: TokenMap::new(channels, 3 * channels, init, &weights.pp("qkv"))?,
            proj_out: TokenMap::new(channels, channels, Init::Constant(0.0), &weights.pp("proj_out"))?,
            heads,
            new_order,
        })
    }

    /// `x` plus the attention of `x`, `[batch, channels, h, w]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, channels, h, w) = x.dims4()?;
        let (length, width) = (h * w, channels / self.heads);
        let tokens = self.norm.forward(x)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        let qkv = self.qkv.forward(&tokens.reshape((batch * length, channels))?)?;
        // The old order keeps query, key and value of a head together; the new one keeps all queries together.
        let (parts, part_axis) = if self.new_order {
            (qkv.reshape((batch, length, 3, self.heads, width))?, 2)
        } else {
            (qkv.reshape((batch, length, self.heads, 3, width))?, 3)
        };
        let part = |index: usize| -> Result<Tensor> {
            Ok(parts.narrow(part_axis, index, 1)?.squeeze(part_axis)?.transpose(1, 2)?.contiguous()?)
        };
        // Both factors are scaled, as in the reference, so that the products stay small.
        let scale = 1.0 / (width as f64).sqrt().sqrt();
        let (query, key, value) = ((part(0)? * scale)?, (part(1)? * scale)?, part(2)?);
        let mixed = softmax(&query.matmul(&key.t()?)?)?.matmul(&value)?;
        let mixed = mixed.transpose(1, 2)?.reshape((batch * length, channels))?;
        let out = self.proj_out.forward(&mixed)?.reshape((batch, length, channels))?;
        Ok((x + out.transpose(1, 2)?.reshape((batch, channels, h, w))?)?)
    }
}

/// Softmax over the last axis.
fn softmax(x: &Tensor) -> Result<Tensor> {
    // The result does not depend on the shift, so no gradient goes through it.
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    Ok(shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)?)
}
