//! Normalisation on the GPU.

use std::sync::{Arc, OnceLock};

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, PushKernelArg};
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{CpuStorage, CudaStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::super::channels::Channels;
use super::super::epilogue::EpilogueActivation;
use super::module::{blocks, each, function, optional};
use super::storage::{no_cpu, room, tensor, view, with_floats};

type View<'a> = CudaView<'a, f32>;

/// `(y, mean, var)`, as the CPU's.
pub(in super::super) fn batch_norm_train(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    channels: Channels,
    eps: f64,
) -> Result<(Tensor, Tensor, Tensor)> {
    train(x, gamma, beta, None, channels, eps, false)
}

/// `(relu(y), mean, var)` or `(relu(add + y), mean, var)`, as the CPU's.
pub(in super::super) fn batch_norm_relu_train(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    add: Option<&Tensor>,
    channels: Channels,
    eps: f64,
) -> Result<(Tensor, Tensor, Tensor)> {
    train(x, gamma, beta, add, channels, eps, true)
}

fn train(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    add: Option<&Tensor>,
    channels: Channels,
    eps: f64,
    relu: bool,
) -> Result<(Tensor, Tensor, Tensor)> {
    let statistics = Arc::new(OnceLock::new());
    let operation = BatchNormOp { channels, eps, relu, statistics: statistics.clone() };
    let x = x.contiguous()?;
    let y = match add {
        None => x.apply_op3(&gamma.contiguous()?, &beta.contiguous()?, operation)?,
        Some(add) => x.apply_op3(&Tensor::stack(&[gamma, beta], 0)?, &add.contiguous()?, AddBatchNorm(operation))?,
    };
    let Some(statistics) = statistics.get() else { bail!("batch normalisation left no statistics") };
    let of = |row: usize| statistics.narrow(0, row * channels.count, channels.count);
    Ok((y, of(0)?, of(1)?))
}

/// `x * scale [c] + shift [c]`.
pub(in super::super) fn scale_shift(x: &Tensor, scale: &Tensor, shift: &Tensor, channels: Channels) -> Result<Tensor> {
    x.contiguous()?.apply_op3(&scale.contiguous()?, &shift.contiguous()?, ScaleShift { channels })
}

/// `activation(x * scale + shift + add)` in one pass, without gradients; the slopes of a PReLU stand beside it as a tensor.
pub(in super::super) fn epilogue(
    x: &Tensor,
    (scale, shift): (Option<&Tensor>, Option<&Tensor>),
    add: Option<&Tensor>,
    activation: EpilogueActivation<'_>,
    slope: Option<&Tensor>,
) -> Result<Tensor> {
    let parameters: Vec<&Shape> = [scale, shift, slope].into_iter().flatten().map(Tensor::shape).collect();
    let channels = Channels::new("epilogue", x.shape(), &parameters)?;
    if let Some(add) = add.filter(|add| add.dims() != x.dims()) {
        bail!("epilogue: shapes {:?} and {:?} differ", x.dims(), add.dims());
    }
    let code = match (activation, slope) {
        (EpilogueActivation::Identity, _) => 0,
        (EpilogueActivation::Relu, _) => 1,
        (EpilogueActivation::Relu6, _) => 2,
        (EpilogueActivation::PRelu(_), Some(_)) => 3,
        (EpilogueActivation::PRelu(_), None) => bail!("epilogue: a PReLU needs its slopes"),
    };
    // What is missing is there as `x` and not handed on.
    let [a, b, c, d] = [scale, shift, add, slope].map(|tensor| tensor.unwrap_or(x));
    with_floats([x, a, b, c, d], |device, [values, a, b, c, d]| {
        let given = |tensor: Option<&Tensor>, view| tensor.map(|_| view);
        let slope = given(slope, d);
        let out =
            run_epilogue(device, &channels, values, given(scale, a), given(shift, b), given(add, c), (code, slope))?;
        Ok(tensor(out, x.shape(), device))
    })
}

/// The kernel `epilogue`.
pub(super) fn run_epilogue(
    device: &CudaDevice,
    channels: &Channels,
    x: &View<'_>,
    scale: Option<&View<'_>>,
    shift: Option<&View<'_>>,
    add: Option<&View<'_>>,
    (activation, slope): (i32, Option<&View<'_>>),
) -> Result<CudaSlice<f32>> {
    let (f, len) = (function(device, "epilogue")?, x.len());
    let (count, plane, n) = (channels.count as u32, channels.plane as u32, len as u32);
    // SAFETY: the kernel takes these arguments in this order; it reads `n` values of `x` and of `add`, one for each channel of the
    // other inputs, and writes `n`.
    unsafe {
        let out = room::<f32>(device, len)?;
        let mut call = f.call();
        call.arg(x);
        optional!(call, scale);
        optional!(call, shift);
        optional!(call, add);
        optional!(call, slope);
        call.arg(&out).arg(&count).arg(&plane).arg(&n).arg(&activation).launch(each(len)).w()?;
        Ok(out)
    }
}

/// `silu(y * scale + shift)`, or without the SiLU, with `y` the groups of `x` normalised; no gradient.
pub(in super::super) fn group_norm(
    x: &Tensor,
    groups: usize,
    eps: f64,
    scale: &Tensor,
    shift: &Tensor,
    silu: bool,
) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let row = if scale.dim(0)? == 1 { 0 } else { channels as u32 };
    let values = channels / groups * height * width;
    with_floats([x, scale, shift], |device, [view, scales, shifts]| {
        let f = function(device, "group_norm")?;
        let (c, g, plane, silu) = (channels as u32, groups as u32, (height * width) as u32, i32::from(silu));
        // SAFETY: the kernel takes these arguments in this order; its blocks, one for each group of each sample, write all values.
        let out = unsafe {
            let out = room::<f32>(device, view.len())?;
            let mut call = f.call();
            call.arg(view).arg(scales).arg(shifts).arg(&out).arg(&c).arg(&g).arg(&plane).arg(&row).arg(&eps).arg(&silu);
            call.launch(blocks(batch * groups, values)).w()?;
            out
        };
        Ok(tensor(out, x.shape(), device))
    })
}

struct BatchNormOp {
    channels: Channels,
    eps: f64,
    relu: bool,
    /// All means, all variances, all `1 / sqrt(var + eps)`.
    statistics: Arc<OnceLock<Tensor>>,
}

impl BatchNormOp {
    fn forward(
        &self,
        device: &CudaDevice,
        x: &View<'_>,
        (gamma, beta): (&View<'_>, &View<'_>),
        add: Option<&View<'_>>,
    ) -> Result<CudaStorage> {
        let Channels { batch, count, plane, .. } = self.channels;
        let f = function(device, "batch_norm")?;
        let sizes = [batch, count, plane].map(|size| size as u32);
        let relu = i32::from(self.relu);
        // SAFETY: the kernel takes these arguments in this order; its blocks, one for each channel, write all of both outputs.
        let (out, statistics) = unsafe {
            let (out, statistics) = (room::<f32>(device, x.len())?, room::<f32>(device, 3 * count)?);
            let mut call = f.call();
            call.arg(x).arg(gamma).arg(beta);
            optional!(call, add);
            call.arg(&out).arg(&statistics).arg(&sizes[0]).arg(&sizes[1]).arg(&sizes[2]).arg(&self.eps).arg(&relu);
            call.launch(blocks(count, pieces(batch, plane))).w()?;
            (out, statistics)
        };
        // An operation runs forward once.
        let _ = self.statistics.set(tensor(statistics, 3 * count, device));
        Ok(CudaStorage::wrap_cuda_slice(out, device.clone()))
    }

    /// The gradients of `x`, of an addition, and of gamma and beta `[2c]`.
    fn backward(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        grad: &Tensor,
        behind: Behind<'_>,
    ) -> Result<(Tensor, Option<Tensor>, Tensor)> {
        let Some(statistics) = self.statistics.get() else { bail!("batch normalisation has no statistics") };
        gradients(&self.channels, x, gamma, grad, Some(statistics), behind)
    }
}

/// How often a block takes values of its channel: four at a time where the maps allow it.
fn pieces(batch: usize, plane: usize) -> usize {
    if plane.is_multiple_of(4) { batch * plane / 4 } else { batch * plane }
}

/// What follows a normalisation in one operation with it.
enum Behind<'a> {
    Nothing,
    /// A ReLU; the normalisation's beta.
    Relu(&'a Tensor),
    /// An addition and a ReLU; the ReLU's result.
    AddRelu(&'a Tensor),
}

/// The kernel `norm_gradients`; only the first values of `gamma` are read, one for each channel.
fn gradients(
    channels: &Channels,
    x: &Tensor,
    gamma: &Tensor,
    grad: &Tensor,
    statistics: Option<&Tensor>,
    behind: Behind<'_>,
) -> Result<(Tensor, Option<Tensor>, Tensor)> {
    let Channels { batch, count, plane, .. } = *channels;
    let (result, beta) = match behind {
        Behind::Nothing => (None, None),
        Behind::Relu(beta) => (None, Some(beta)),
        Behind::AddRelu(result) => (Some(result), None),
    };
    let stand_ins = [x, gamma, grad, result.unwrap_or(x), statistics.unwrap_or(x), beta.unwrap_or(x)];
    with_floats(stand_ins, |device, [values, gammas, grads, results, statistics_view, betas]| {
        let f = function(device, "norm_gradients")?;
        let (results, statistics) = (result.map(|_| results), statistics.map(|_| statistics_view));
        let betas = beta.map(|_| betas);
        let sizes = [batch, count, plane].map(|size| size as u32);
        // SAFETY: the kernel takes these arguments in this order; its blocks, one for each channel, write all of the outputs.
        let (dx, da, dp) = unsafe {
            let (dx, dp) = (room::<f32>(device, values.len())?, room::<f32>(device, 2 * count)?);
            let da = if result.is_some() { Some(room::<f32>(device, values.len())?) } else { None };
            let mut call = f.call();
            call.arg(values).arg(grads);
            optional!(call, results);
            optional!(call, statistics);
            call.arg(gammas);
            optional!(call, betas);
            call.arg(&dx);
            optional!(call, da.as_ref());
            call.arg(&dp).arg(&sizes[0]).arg(&sizes[1]).arg(&sizes[2]);
            call.launch(blocks(count, pieces(batch, plane))).w()?;
            (dx, da, dp)
        };
        let da = da.map(|values| tensor(values, x.shape(), device));
        Ok((tensor(dx, x.shape(), device), da, tensor(dp, 2 * count, device)))
    })
}

impl CustomOp3 for BatchNormOp {
    fn name(&self) -> &'static str {
        "gdrd-batch-norm-cuda"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        no_cpu(self.name())
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        xl: &Layout,
        gamma: &CudaStorage,
        gl: &Layout,
        beta: &CudaStorage,
        bl: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let out = self.forward(&x.device, &view(x, xl)?, (&view(gamma, gl)?, &view(beta, bl)?), None)?;
        Ok((out, xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let behind = if self.relu { Behind::Relu(beta) } else { Behind::Nothing };
        let (dx, _, dp) = self.backward(x, gamma, grad, behind)?;
        let count = self.channels.count;
        Ok((Some(dx), Some(dp.narrow(0, 0, count)?), Some(dp.narrow(0, count, count)?)))
    }
}

/// The same with an addition and a ReLU; its second argument is all of gamma, then all of beta.
struct AddBatchNorm(BatchNormOp);

impl CustomOp3 for AddBatchNorm {
    fn name(&self) -> &'static str {
        "gdrd-batch-norm-add-relu-cuda"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        no_cpu(self.name())
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        xl: &Layout,
        parameters: &CudaStorage,
        pl: &Layout,
        add: &CudaStorage,
        al: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (count, parameters) = (self.0.channels.count, view::<f32>(parameters, pl)?);
        let (gamma, beta) = (parameters.slice(..count), parameters.slice(count..));
        let out = self.0.forward(&x.device, &view(x, xl)?, (&gamma, &beta), Some(&view(add, al)?))?;
        Ok((out, xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        parameters: &Tensor,
        _: &Tensor,
        result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, da, dp) = self.0.backward(x, parameters, grad, Behind::AddRelu(result))?;
        Ok((Some(dx), Some(dp.reshape(parameters.shape())?), da))
    }
}

struct ScaleShift {
    channels: Channels,
}

impl CustomOp3 for ScaleShift {
    fn name(&self) -> &'static str {
        "gdrd-scale-shift-cuda"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        no_cpu(self.name())
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        xl: &Layout,
        scale: &CudaStorage,
        sl: &Layout,
        shift: &CudaStorage,
        hl: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (scale, shift) = (view(scale, sl)?, view(shift, hl)?);
        let out = run_epilogue(&x.device, &self.channels, &view(x, xl)?, Some(&scale), Some(&shift), None, (0, None))?;
        Ok((CudaStorage::wrap_cuda_slice(out, x.device.clone()), xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        scale: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, _, dp) = gradients(&self.channels, x, scale, grad, None, Behind::Nothing)?;
        let count = self.channels.count;
        Ok((Some(dx), Some(dp.narrow(0, 0, count)?), Some(dp.narrow(0, count, count)?)))
    }
}
