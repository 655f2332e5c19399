//! The blocks of diffusers' encoders, under the names of its files.

use candle_core::{D, Device, Tensor};
use gdrd_core::error::Result;
use gdrd_core::nn::{Conv2d, ConvConfig, GroupNorm, Linear, Weights, silu};

/// A 3x3 convolution with bias.
pub(super) fn conv3(inputs: usize, outputs: usize, weights: &Weights) -> Result<Conv2d> {
    Conv2d::same3(inputs, outputs, 1, true, weights)
}

/// A 1x1 convolution with bias.
pub(super) fn conv1(inputs: usize, outputs: usize, weights: &Weights) -> Result<Conv2d> {
    Conv2d::new(inputs, outputs, 1, ConvConfig { bias: true, ..ConvConfig::default() }, weights)
}

/// `ResnetBlock2D`: normalisation, SiLU, convolution, twice, with the time added between and a skip connection around.
#[derive(Clone, Debug)]
pub(super) struct Residual {
    norm1: GroupNorm,
    conv1: Conv2d,
    time: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    skip: Option<Conv2d>,
}

/// What the group normalisations of a network share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Norms {
    pub(super) groups: usize,
    pub(super) eps: f64,
}

impl Norms {
    /// One of them, over `channels`.
    pub(super) fn layer(self, channels: usize, weights: &Weights) -> Result<GroupNorm> {
        GroupNorm::with_eps(self.groups, channels, self.eps, weights)
    }
}

impl Residual {
    /// Weights `norm1`, `conv1`, `time_emb_proj` where there is a time of that width, `norm2`, `conv2` and, where the
    /// channels change, `conv_shortcut`.
    pub(super) fn new(
        inputs: usize,
        outputs: usize,
        time: Option<usize>,
        norms: Norms,
        weights: &Weights,
    ) -> Result<Self> {
        let time = time.map(|width| Linear::new(width, outputs, true, &weights.pp("time_emb_proj"))).transpose()?;
        let skip = (inputs != outputs).then(|| conv1(inputs, outputs, &weights.pp("conv_shortcut"))).transpose()?;
        Ok(Self {
            norm1: norms.layer(inputs, &weights.pp("norm1"))?,
            conv1: conv3(inputs, outputs, &weights.pp("conv1"))?,
            time,
            norm2: norms.layer(outputs, &weights.pp("norm2"))?,
            conv2: conv3(outputs, outputs, &weights.pp("conv2"))?,
            skip,
        })
    }

    /// The block's output for `x` `[batch, inputs, h, w]` and `time` `[1, width]`, after SiLU.
    pub(super) fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Result<Tensor> {
        let mut h = self.conv1.forward(&self.norm1.forward_silu(x, None)?)?;
        if let (Some(map), Some(time)) = (&self.time, time) {
            h = h.broadcast_add(&map.forward(time)?.unsqueeze(D::Minus1)?.unsqueeze(D::Minus1)?)?;
        }
        let skip = self.skip.as_ref().map(|skip| skip.forward(x)).transpose()?;
        self.conv2.forward_add(&self.norm2.forward_silu(&h, None)?, Some(skip.as_ref().unwrap_or(x)))
    }
}

/// `Attention`, as the image networks use it: over all pixels, with normalisation before and a skip connection around.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    norm: GroupNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    heads: usize,
}

impl Attention {
    /// Weights `group_norm`, `to_q`, `to_k`, `to_v` and `to_out.0`; `heads` must divide `channels`.
    pub(super) fn new(channels: usize, heads: usize, norms: Norms, weights: &Weights) -> Result<Self> {
        let map = |name: &str| Linear::new(channels, channels, true, &weights.pp(name));
        Ok(Self {
            norm: norms.layer(channels, &weights.pp("group_norm"))?,
            query: map("to_q")?,
            key: map("to_k")?,
            value: map("to_v")?,
            out: map("to_out.0")?,
            heads,
        })
    }

    /// `x` plus the attention of `x`, `[batch, channels, h, w]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, channels, h, w) = x.dims4()?;
        let (length, width) = (h * w, channels / self.heads);
        let tokens = self.norm.forward(x)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        let tokens = tokens.reshape((batch * length, channels))?;
        let split = |map: &Linear| -> Result<Tensor> {
            let y = map.forward(&tokens)?.reshape((batch, length, self.heads, width))?;
            Ok(y.transpose(1, 2)?.contiguous()?)
        };
        let scale = 1.0 / (width as f64).sqrt();
        let scores = (split(&self.query)? * scale)?.matmul(&split(&self.key)?.t()?)?;
        let shares = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let shares = shares.broadcast_div(&shares.sum_keepdim(D::Minus1)?)?;
        let mixed = shares.matmul(&split(&self.value)?)?.transpose(1, 2)?.reshape((batch * length, channels))?;
        let out = self.out.forward(&mixed)?.reshape((batch, length, channels))?;
        Ok((x + out.transpose(1, 2)?.reshape((batch, channels, h, w))?)?)
    }
}

/// `Downsample2D`: a 3x3 convolution of stride 2.
#[derive(Clone, Debug)]
pub(super) struct Halve {
    conv: Conv2d,
    padding: usize,
}

impl Halve {
    /// Weights `conv`. With a `padding` of 1 the image gets a border on all sides; with 0, on the right and at the bottom.
    pub(super) fn new(channels: usize, padding: usize, weights: &Weights) -> Result<Self> {
        let config = ConvConfig { stride: 2, padding, groups: 1, bias: true };
        Ok(Self { conv: Conv2d::new(channels, channels, 3, config, &weights.pp("conv"))?, padding })
    }

    /// Height and width after it; zero if the image is too small.
    pub(super) fn size(&self, size: usize) -> usize {
        if self.padding == 0 { size / 2 } else { size.div_ceil(2) }
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self.padding {
            0 => self.conv.forward(&x.pad_with_zeros(2, 0, 1)?.pad_with_zeros(3, 0, 1)?),
            _ => self.conv.forward(x),
        }
    }
}

/// `time_proj` and `time_embedding`: sinusoids, then two linear maps with SiLU between.
#[derive(Clone, Debug)]
pub(super) struct Time {
    linear_1: Linear,
    linear_2: Linear,
    channels: usize,
    flip_sin_to_cos: bool,
    freq_shift: f64,
}

impl Time {
    /// Weights `linear_1` and `linear_2`; `channels` in, `4 * channels` out.
    pub(super) fn new(channels: usize, flip_sin_to_cos: bool, freq_shift: f64, weights: &Weights) -> Result<Self> {
        Ok(Self {
            linear_1: Linear::new(channels, 4 * channels, true, &weights.pp("linear_1"))?,
            linear_2: Linear::new(4 * channels, 4 * channels, true, &weights.pp("linear_2"))?,
            channels,
            flip_sin_to_cos,
            freq_shift,
        })
    }

    /// SiLU of the embedding, `[1, 4 * channels]`: the form that every residual block starts from.
    pub(super) fn forward(&self, timestep: usize, device: &Device) -> Result<Tensor> {
        let half = self.channels / 2;
        // In single precision, as the reference.
        let exponent = |i: usize| -(10_000f64.ln() as f32) * i as f32 / (half as f64 - self.freq_shift) as f32;
        let angles: Vec<f32> = (0..half).map(|i| timestep as f32 * exponent(i).exp()).collect();
        let (sines, cosines) = (angles.iter().map(|a| a.sin()), angles.iter().map(|a| a.cos()));
        let values: Vec<f32> =
            if self.flip_sin_to_cos { cosines.chain(sines).collect() } else { sines.chain(cosines).collect() };
        let sinusoids = Tensor::from_vec(values, (1, self.channels), device)?;
        silu(&self.linear_2.forward(&silu(&self.linear_1.forward(&sinusoids)?)?)?)
    }
}
