//! Two-dimensional convolution.

use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Tensor};

use super::inference::{Map, Plan};
use super::kernels::{self, FrozenConv, Link, LinkActivation};
use super::weights::{Init, Weights};
use super::{Activation, BatchNorm, Mode};
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
    frozen: Frozen,
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
        Ok(Self { weight, bias, config, frozen: Frozen::new(weights.are_frozen()) })
    }

    /// The 3x3 convolution that keeps the size at stride 1.
    pub fn same3(inputs: usize, outputs: usize, stride: usize, bias: bool, weights: &Weights) -> Result<Self> {
        Self::new(inputs, outputs, 3, ConvConfig { stride, padding: 1, groups: 1, bias }, weights)
    }

    /// Takes every `stride`th pixel of each channel: one weight of 1, which nobody trains.
    pub(super) fn subsample(channels: usize, stride: usize, device: &Device) -> Result<Self> {
        let weight = Tensor::ones((channels, 1, 1, 1), DType::F32, device)?;
        let config = ConvConfig { stride, groups: channels, ..ConvConfig::default() };
        Ok(Self { weight, bias: None, config, frozen: Frozen::new(false) })
    }

    /// The low band of one level of Haar's wavelet transform, which halves height and width: half the sum of each 2x2 pixels.
    /// Nobody trains it.
    pub fn haar_low(channels: usize, device: &Device) -> Result<Self> {
        let weight = Tensor::full(0.5f32, (channels, 1, 2, 2), device)?;
        let config = ConvConfig { stride: 2, groups: channels, ..ConvConfig::default() };
        Ok(Self { weight, bias: None, config, frozen: Frozen::new(false) })
    }

    /// The convolution, perhaps a normalisation, and an activation as part of a network's inference form.
    pub fn plan(&self, plan: &mut Plan, x: Map, norm: Option<&BatchNorm>, activation: &Activation) -> Result<Map> {
        plan.conv(x, self.freeze(norm, activation)?, None)
    }

    /// The convolution of `x`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_add(x, None)
    }

    /// The convolution of `x`, and `add`, where there is one, which has the output's shape.
    pub fn forward_add(&self, x: &Tensor, add: Option<&Tensor>) -> Result<Tensor> {
        let ConvConfig { stride, padding, groups, .. } = self.config;
        if let Some(frozen) = self.frozen.of(x, || self.freeze(None, &Activation::Identity))? {
            return Ok(frozen.forward(x, add)?);
        }
        let mut y = kernels::conv2d(x, &self.weight, stride, padding, groups)?;
        if (self.bias.is_some() || add.is_some())
            && let Some(y) = kernels::epilogue_on_gpu(
                &y,
                (None, self.bias.as_ref()),
                add,
                kernels::EpilogueActivation::Identity,
                None,
            )?
        {
            return Ok(y);
        }
        if let Some(bias) = &self.bias {
            y = kernels::scale_shift(&y, &bias.ones_like()?, bias)?;
        }
        match add {
            Some(add) => Ok((y + add)?),
            None => Ok(y),
        }
    }

    /// The convolution with its bias, perhaps a normalisation, and an activation, as one operation.
    fn freeze(&self, norm: Option<&BatchNorm>, activation: &Activation) -> Result<FrozenConv> {
        let ConvConfig { stride, padding, groups, .. } = self.config;
        freeze(&self.weight, (stride, padding, groups), self.bias.as_ref(), norm, activation)
    }
}

/// A convolution with what follows it as one operation.
pub(super) fn freeze(
    weight: &Tensor,
    sizes: (usize, usize, usize),
    bias: Option<&Tensor>,
    norm: Option<&BatchNorm>,
    activation: &Activation,
) -> Result<FrozenConv> {
    let scale_shift = match (norm.map(BatchNorm::scale_and_shift).transpose()?, bias) {
        (Some((scale, shift)), None) => Some((scale, shift)),
        (Some((scale, shift)), Some(bias)) => Some((scale.clone(), ((bias * scale)? + shift)?)),
        (None, Some(bias)) => Some((bias.ones_like()?, bias.clone())),
        (None, None) => None,
    };
    let values = |(scale, shift): (Tensor, Tensor)| candle_core::Result::Ok((scale.to_vec1()?, shift.to_vec1()?));
    let slopes;
    let activation = match activation {
        Activation::Identity => kernels::EpilogueActivation::Identity,
        Activation::Relu => kernels::EpilogueActivation::Relu,
        Activation::Relu6 => kernels::EpilogueActivation::Relu6,
        Activation::PRelu(prelu) => {
            slopes = prelu.slope.to_vec1::<f32>()?;
            kernels::EpilogueActivation::PRelu(&slopes)
        }
    };
    Ok(FrozenConv::new(weight, sizes, scale_shift.map(values).transpose()?, activation)?)
}

/// A convolution, its batch normalisation and its activation, [`Conv2d`], [`BatchNorm`] and [`Activation`] in a row. With the
/// weights of a file, evaluation does all of it as one operation.
#[derive(Clone, Debug)]
pub struct ConvNorm {
    conv: Conv2d,
    norm: BatchNorm,
    /// What follows.
    pub activation: Activation,
    frozen: Frozen,
}

impl ConvNorm {
    /// The three in a row.
    pub fn new(conv: Conv2d, norm: BatchNorm, activation: Activation) -> Self {
        let frozen = Frozen::new(conv.frozen.on_cpu.is_some());
        Self { conv, norm, activation, frozen }
    }

    /// The layer's output for `x`; `add`, where there is one, has the output's shape and is added before the activation.
    pub fn forward(&self, x: &Tensor, add: Option<&Tensor>, mode: Mode) -> Result<Tensor> {
        if mode == Mode::Evaluate
            && let Some(frozen) = self.frozen.of(x, || self.freeze())?
        {
            return Ok(frozen.forward(x, add)?);
        }
        let y = self.conv.forward(x)?;
        if let (Mode::Train, Activation::Relu) = (mode, &self.activation) {
            return self.norm.train_relu(&y, add);
        }
        if mode == Mode::Evaluate
            && let Some(y) = self.epilogue_on_gpu(&y, add)?
        {
            return Ok(y);
        }
        let y = self.norm.forward(&y, mode)?;
        match (add, &self.activation) {
            (Some(add), Activation::Relu) => Ok(kernels::add_relu(&y, add)?),
            (Some(add), activation) => activation.forward(&(y + add)?),
            (None, activation) => activation.forward(&y),
        }
    }
}

impl ConvNorm {
    /// The layer as a link of a chain; none with a bias.
    pub(super) fn link(&self) -> Option<Link<'_>> {
        let ConvConfig { stride, padding, groups, bias } = self.conv.config;
        let (gamma, beta, eps) = self.norm.parameters();
        let activation = match &self.activation {
            Activation::Identity => LinkActivation::Identity,
            Activation::Relu => LinkActivation::Relu,
            Activation::Relu6 => LinkActivation::Relu6,
            Activation::PRelu(prelu) => LinkActivation::PRelu(&prelu.slope),
        };
        let weight = &self.conv.weight;
        (!bias).then_some(Link { weight, gamma, beta, eps, stride, padding, groups, activation })
    }

    /// Moves the running statistics by those of a batch.
    pub(super) fn count(&self, found: &kernels::BatchStatistics) -> Result<()> {
        self.norm.move_by(found.count, &found.mean, &found.var)
    }

    fn freeze(&self) -> Result<FrozenConv> {
        self.conv.freeze(Some(&self.norm), &self.activation)
    }

    /// The layer as part of a network's inference form; `add` as in [`forward`](Self::forward).
    pub fn plan(&self, plan: &mut Plan, x: Map, add: Option<Map>) -> Result<Map> {
        plan.conv(x, self.freeze()?, add)
    }

    /// Normalisation, addition and activation of `y` in one launch, where there is a kernel for it and nobody wants gradients.
    fn epilogue_on_gpu(&self, y: &Tensor, add: Option<&Tensor>) -> Result<Option<Tensor>> {
        if !y.device().is_cuda() || y.track_op() {
            return Ok(None);
        }
        let made;
        // Weights of a file stay as they are; those of a student between two steps of its training do not.
        let (scale, shift) = match &self.frozen.on_gpu {
            None => {
                made = self.norm.scale_and_shift()?;
                &made
            }
            Some(cell) => match cell.get() {
                Some(kept) => kept,
                None => {
                    let made = self.norm.scale_and_shift()?;
                    cell.get_or_init(|| made)
                }
            },
        };
        let (activation, slope) = match &self.activation {
            Activation::Identity => (kernels::EpilogueActivation::Identity, None),
            Activation::Relu => (kernels::EpilogueActivation::Relu, None),
            Activation::Relu6 => (kernels::EpilogueActivation::Relu6, None),
            Activation::PRelu(prelu) => (kernels::EpilogueActivation::PRelu(&[]), Some(&prelu.slope)),
        };
        Ok(kernels::epilogue_on_gpu(y, (Some(scale), Some(shift)), add, activation, slope)?)
    }
}

/// The form of a layer whose weights nobody trains, made when it is used for the first time; none for one that is trained.
#[derive(Clone, Debug)]
pub(super) struct Frozen {
    on_cpu: Option<Arc<OnceLock<FrozenConv>>>,
    /// Factors and summands of a layer's normalisation.
    on_gpu: Option<Arc<OnceLock<(Tensor, Tensor)>>>,
}

impl Frozen {
    pub(super) fn new(is_frozen: bool) -> Self {
        Self { on_cpu: is_frozen.then(Arc::default), on_gpu: is_frozen.then(Arc::default) }
    }

    /// The form, if it can take `x`: float32 on the CPU, and nobody wants its gradient.
    pub(super) fn of(&self, x: &Tensor, make: impl FnOnce() -> Result<FrozenConv>) -> Result<Option<&FrozenConv>> {
        let Some(cell) = &self.on_cpu else { return Ok(None) };
        if x.track_op() || x.dtype() != DType::F32 || !matches!(x.device(), Device::Cpu) {
            return Ok(None);
        }
        match cell.get() {
            Some(frozen) => Ok(Some(frozen)),
            None => {
                let made = make()?;
                Ok(Some(cell.get_or_init(|| made)))
            }
        }
    }
}
