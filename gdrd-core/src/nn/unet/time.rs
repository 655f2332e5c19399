//! The embedding of timesteps.

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::nn::kernels::put;
use crate::nn::{Linear, Weights, silu};

/// Longest period of the sines, in timesteps.
const MAX_PERIOD: f64 = 10_000.0;

/// `[cos(t f_0), .., cos(t f_n), sin(t f_0), .., sin(t f_n)]` for each timestep: `[timesteps, width]`, width even,
/// `f_i = 10000^(-i / n)`, `n = width / 2`.
fn sinusoids(timesteps: &[f32], width: usize, device: &Device) -> Result<Tensor> {
    let half = width / 2;
    // In single precision, step by step as the reference, since the networks were trained with its rounding.
    let frequency = |i: usize| (-(MAX_PERIOD.ln() as f32) * i as f32 / half as f32).exp();
    let frequencies: Vec<f32> = (0..half).map(frequency).collect();
    let mut values = Vec::with_capacity(timesteps.len() * width);
    for t in timesteps {
        values.extend(frequencies.iter().map(|f| (t * f).cos()));
        values.extend(frequencies.iter().map(|f| (t * f).sin()));
    }
    Ok(put(&Tensor::from_vec(values, (timesteps.len(), width), &Device::Cpu)?, device)?)
}

/// `time_embed`: sinusoids, then two linear maps with SiLU between.
#[derive(Clone, Debug)]
pub(super) struct TimeEmbedding {
    first: Linear,
    second: Linear,
    channels: usize,
    device: Device,
}

impl TimeEmbedding {
    /// Weights `0` and `2`; `channels` in, `4 * channels` out.
    pub(super) fn new(channels: usize, weights: &Weights) -> Result<Self> {
        Ok(Self {
            first: Linear::new(channels, 4 * channels, true, &weights.pp(0))?,
            second: Linear::new(4 * channels, 4 * channels, true, &weights.pp(2))?,
            channels,
            device: weights.device().clone(),
        })
    }

    /// SiLU of the embedding, `[timesteps, 4 * channels]`: the form that every residual block starts from.
    pub(super) fn forward(&self, timesteps: &[f32]) -> Result<Tensor> {
        let hidden = silu(&self.first.forward(&sinusoids(timesteps, self.channels, &self.device)?)?)?;
        silu(&self.second.forward(&hidden)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_come_first() {
        let rows = sinusoids(&[0.0, 3.0], 4, &Device::Cpu).expect("rows").to_vec2::<f32>().expect("two rows");
        assert_eq!(rows[0], [1.0, 1.0, 0.0, 0.0]);
        let expected = [3f32.cos(), 0.03f32.cos(), 3f32.sin(), 0.03f32.sin()];
        assert!(rows[1].iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{rows:?}");
    }
}
