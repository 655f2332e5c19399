//! The blocks of diffusers' encoders: candle-transformers' own, which are written for the names of diffusers' files, with the
//! weights that [`Weights`] finds, so that every misfit of a file is reported.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::{Module, VarBuilder};
use candle_transformers::models::stable_diffusion::embeddings::{TimestepEmbedding, Timesteps};
use candle_transformers::models::stable_diffusion::resnet::{ResnetBlock2D, ResnetBlock2DConfig};
use gdrd_core::error::Result;
use gdrd_core::nn::{Conv2d, ConvConfig, GroupNorm, Init, Linear, Weights};

/// A 3x3 convolution with bias.
pub(super) fn conv3(inputs: usize, outputs: usize, weights: &Weights) -> Result<Conv2d> {
    Conv2d::same3(inputs, outputs, 1, true, weights)
}

/// A 1x1 convolution with bias.
pub(super) fn conv1(inputs: usize, outputs: usize, weights: &Weights) -> Result<Conv2d> {
    Conv2d::new(inputs, outputs, 1, ConvConfig { bias: true, ..ConvConfig::default() }, weights)
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

/// Layers that a block of candle-transformers asks for, taken from [`Weights`].
struct Layers<'a> {
    weights: &'a Weights,
    found: HashMap<String, Tensor>,
}

impl<'a> Layers<'a> {
    fn of(weights: &'a Weights) -> Self {
        Self { weights, found: HashMap::new() }
    }

    /// The layer `name`: a weight of this shape, and a bias of its first dimension.
    fn with(mut self, name: &str, shape: &[usize]) -> Result<Self> {
        for (part, shape) in [("weight", shape), ("bias", &shape[..1])] {
            let tensor = self.weights.pp(name).parameter(part, shape, Init::Constant(0.0))?;
            self.found.insert(format!("{name}.{part}"), tensor);
        }
        Ok(self)
    }

    fn build(self) -> VarBuilder<'static> {
        let device = self.weights.device().clone();
        VarBuilder::from_tensors(self.found, DType::F32, &device)
    }
}

/// `ResnetBlock2D`: normalisation, SiLU, convolution, twice, with the time added between and a skip connection around.
#[derive(Clone, Debug)]
pub(super) struct Residual(Arc<ResnetBlock2D>);

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
        let mut layers = Layers::of(weights)
            .with("norm1", &[inputs])?
            .with("conv1", &[outputs, inputs, 3, 3])?
            .with("norm2", &[outputs])?
            .with("conv2", &[outputs, outputs, 3, 3])?;
        if let Some(width) = time {
            layers = layers.with("time_emb_proj", &[outputs, width])?;
        }
        if inputs != outputs {
            layers = layers.with("conv_shortcut", &[outputs, inputs, 1, 1])?;
        }
        let config = ResnetBlock2DConfig {
            out_channels: Some(outputs),
            temb_channels: time,
            groups: norms.groups,
            eps: norms.eps,
            ..ResnetBlock2DConfig::default()
        };
        Ok(Self(Arc::new(ResnetBlock2D::new(layers.build(), inputs, config)?)))
    }

    /// The block's output for `x` `[batch, inputs, h, w]` and `time` `[1, width]`.
    pub(super) fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Result<Tensor> {
        Ok(self.0.forward(x, time)?)
    }
}

/// `Attention`, as the image networks use it: over all pixels, with normalisation before and a skip connection around.
///
/// Ours, because candle-transformers 0.11 refuses several heads on the CPU and answers with other values than diffusers.
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

/// `time_proj` and `time_embedding` of one timestep: `[1, 4 * channels]`, before the SiLU that every residual block starts from.
/// Weights `linear_1` and `linear_2`.
pub(super) fn time_embedding(
    timestep: usize,
    channels: usize,
    flip_sin_to_cos: bool,
    freq_shift: f64,
    weights: &Weights,
) -> Result<Tensor> {
    let width = 4 * channels;
    let layers = Layers::of(weights).with("linear_1", &[width, channels])?.with("linear_2", &[width, width])?;
    let embedding = TimestepEmbedding::new(layers.build(), channels, width)?;
    let step = Tensor::new(&[timestep as f32], &Device::Cpu)?;
    let sinusoids = Timesteps::new(channels, flip_sin_to_cos, freq_shift).forward(&step)?;
    Ok(embedding.forward(&sinusoids.to_device(weights.device())?)?)
}
