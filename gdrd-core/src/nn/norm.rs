//! Batch and group normalisation.

use candle_core::{DType, Device, Tensor, Var};

use super::pass::Pass;
use super::weights::{Init, Weights};
use super::{Map, Mode, Plan, kernels};
use crate::error::Result;

/// Batch normalisation over `[batch, channels, h, w]` or `[batch, channels]`, with PyTorch's names and defaults.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Var,
    running_var: Var,
    eps: f64,
}

impl BatchNorm {
    /// `weight`, `bias`, `running_mean` and `running_var`, each `[channels]`; `eps` is 1e-5.
    pub fn new(channels: usize, weights: &Weights) -> Result<Self> {
        Ok(Self {
            weight: weights.parameter("weight", channels, Init::Constant(1.0))?,
            bias: weights.parameter("bias", channels, Init::Constant(0.0))?,
            running_mean: weights.buffer("running_mean", channels, 0.0)?,
            running_var: weights.buffer("running_var", channels, 1.0)?,
            eps: 1e-5,
        })
    }

    /// As [`BatchNorm::new`] without `weight` and `bias` (PyTorch's `affine=False`): they are one and zero, and not trained.
    pub fn without_affine(channels: usize, weights: &Weights) -> Result<Self> {
        let weight = Tensor::ones(channels, DType::F32, weights.device())?;
        Ok(Self {
            bias: weight.zeros_like()?,
            weight,
            running_mean: weights.buffer("running_mean", channels, 0.0)?,
            running_var: weights.buffer("running_var", channels, 1.0)?,
            eps: 1e-5,
        })
    }

    /// Normalises `x`: by the batch's own statistics in [`Mode::Train`] (and moves the running ones), by the
    /// running ones in [`Mode::Evaluate`].
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        if mode == Mode::Evaluate {
            let (scale, shift) = self.scale_and_shift()?;
            return Ok(kernels::scale_shift(x, &scale, &shift)?);
        }
        self.count(x, kernels::batch_norm_train(x, &self.weight, &self.bias, self.eps)?)
    }

    /// `relu` of what [`forward`](Self::forward) gives in [`Mode::Train`], or of that and `add`.
    pub(super) fn train_relu(&self, x: &Tensor, add: Option<&Tensor>) -> Result<Tensor> {
        self.count(x, kernels::batch_norm_relu_train(x, &self.weight, &self.bias, add, self.eps)?)
    }

    /// Moves the running statistics by those of a batch.
    fn count(&self, x: &Tensor, (y, mean, var): (Tensor, Tensor, Tensor)) -> Result<Tensor> {
        self.move_by(x.elem_count() / self.weight.elem_count(), &mean, &var)?;
        Ok(y)
    }

    /// Moves the running statistics by mean and biased variance of `count` values.
    pub(super) fn move_by(&self, count: usize, mean: &Tensor, var: &Tensor) -> Result<()> {
        let (count, momentum) = (count as f64, Pass::now().momentum);
        kernels::move_average(&self.running_mean, mean, 1.0, momentum)?;
        Ok(kernels::move_average(&self.running_var, var, count / (count - 1.0).max(1.0), momentum)?)
    }

    /// Factors, summands, and what is added to variances.
    pub(super) fn parameters(&self) -> (&Tensor, &Tensor, f64) {
        (&self.weight, &self.bias, self.eps)
    }

    /// The normalisation in [`Mode::Evaluate`] as part of a network's inference form.
    pub fn plan(&self, plan: &mut Plan, x: Map) -> Result<Map> {
        let (scale, shift) = self.scale_and_shift()?;
        Ok(plan.scale_shift(x, scale.to_vec1()?, shift.to_vec1()?))
    }

    /// What it is in [`Mode::Evaluate`]: `scale * x + shift`, each `[channels]`.
    pub(super) fn scale_and_shift(&self) -> Result<(Tensor, Tensor)> {
        // Detached, because what follows from a variable keeps everything before it for the gradient.
        let (mean, var) = (self.running_mean.as_detached_tensor(), self.running_var.as_detached_tensor());
        let scale = (&self.weight / (var + self.eps)?.sqrt()?)?;
        let shift = (&self.bias - (mean * &scale)?)?;
        Ok((scale, shift))
    }
}

/// Each channel of `x` `[batch, channels, h, w]` with zero mean and unit variance over the batch; `eps` is added to the
/// variance.
pub fn standardise(x: &Tensor, eps: f64) -> Result<Tensor> {
    let ones = Tensor::ones(x.dim(1)?, DType::F32, x.device())?;
    Ok(kernels::batch_norm_train(x, &ones, &ones.zeros_like()?, eps)?.0)
}

/// Group normalisation over `[batch, channels, h, w]`, as in PyTorch.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// `weight` and `bias`, each `[channels]`; `groups` must divide `channels`; `eps` is 1e-5.
    pub fn new(groups: usize, channels: usize, weights: &Weights) -> Result<Self> {
        Self::with_eps(groups, channels, 1e-5, weights)
    }

    /// As [`GroupNorm::new`], with another number added to the variances.
    pub fn with_eps(groups: usize, channels: usize, eps: f64, weights: &Weights) -> Result<Self> {
        Ok(Self {
            weight: weights.parameter("weight", channels, Init::Constant(1.0))?,
            bias: weights.parameter("bias", channels, Init::Constant(0.0))?,
            groups,
            eps,
        })
    }

    /// Normalises each group of each sample of `x`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.apply(x, None, false)
    }

    /// The SiLU of the normalised `x`; with a modulation `(scale, shift)`, each `[batch or 1, channels]`, of
    /// `y * (1 + scale) + shift` instead.
    pub fn forward_silu(&self, x: &Tensor, modulation: Option<(&Tensor, &Tensor)>) -> Result<Tensor> {
        self.apply(x, modulation, true)
    }

    fn apply(&self, x: &Tensor, modulation: Option<(&Tensor, &Tensor)>, silu: bool) -> Result<Tensor> {
        let (weight, bias) = (self.weight.unsqueeze(0)?, self.bias.unsqueeze(0)?);
        let (scale, shift) = match modulation {
            None => (weight, bias),
            Some((scale, shift)) => {
                let scale = (scale + 1.0)?;
                (weight.broadcast_mul(&scale)?, bias.broadcast_mul(&scale)?.broadcast_add(shift)?)
            }
        };
        let has_kernel = match x.device() {
            Device::Cpu => true,
            device => device.is_cuda() && x.elem_count() > 0,
        };
        let here = |t: &Tensor| t.dtype() == DType::F32 && !t.track_op();
        if has_kernel && [x, &scale, &shift].into_iter().all(here) {
            return Ok(kernels::group_norm(x, self.groups, self.eps, &scale, &shift, silu)?);
        }
        let y = self.normalised(x)?;
        let (batch, channels, height, width) = x.dims4()?;
        let each = |values: &Tensor| values.broadcast_as((batch, channels))?.contiguous()?.flatten_all();
        // Every channel of every sample is a channel of one large sample.
        let flat = y.reshape((1, batch * channels, height, width))?;
        let y = kernels::scale_shift(&flat, &each(&scale)?, &each(&shift)?)?.reshape(x.shape())?;
        if silu { super::silu(&y) } else { Ok(y) }
    }

    fn normalised(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, channels) = (x.dim(0)?, x.dim(1)?);
        // Each group of each sample is a channel of one large sample, normalised by its own statistics.
        let groups = batch * self.groups;
        let flat = x.reshape((1, groups, channels / self.groups, ()))?;
        Ok(standardise(&flat, self.eps)?.reshape(x.shape())?)
    }
}
