//! What the rest of the crate asks of a GPU; on another device everything here is candle's own.

use candle_core::{Device, Result, Tensor, Var, bail};

use super::cuda;
use super::epilogue::EpilogueActivation;
use super::precision::Precision;

/// The NVIDIA GPU with this number, counted from 0.
///
/// # Errors
/// If there is none, or the program was built without the feature `cuda`.
pub fn cuda_device(ordinal: usize) -> Result<Device> {
    cuda::open(ordinal)
}

/// What computes on a device, for records and keys of what was computed: `cpu`, or the GPU's name, `NVIDIA H200`.
///
/// # Errors
/// If the GPU does not say.
pub fn device_name(device: &Device) -> Result<String> {
    match cuda::name(device)? {
        Some(name) => Ok(name),
        None => Ok(format!("{:?}", device.location()).to_lowercase()),
    }
}

/// `running = (1 - momentum) running + momentum factor batch`, in place; both `[channels]`.
///
/// # Errors
/// If the shapes differ.
pub fn move_average(running: &Var, batch: &Tensor, factor: f64, momentum: f64) -> Result<()> {
    if cuda::supported(&[running.as_tensor(), batch]) {
        return cuda::move_average(running, batch, 1.0 - momentum, momentum * factor);
    }
    let batch = if factor == 1.0 { batch.clone() } else { (batch * factor)? };
    running.set(&((running.as_tensor() * (1.0 - momentum))? + (batch * momentum)?)?)
}

/// `activation(x * scale + shift + add)` in one launch, if all of it is on a GPU and nobody wants gradients. The slopes of a
/// PReLU are `slope`, whatever the activation says.
///
/// # Errors
/// If the shapes do not fit.
pub(in super::super) fn epilogue_on_gpu(
    x: &Tensor,
    (scale, shift): (Option<&Tensor>, Option<&Tensor>),
    add: Option<&Tensor>,
    activation: EpilogueActivation<'_>,
    slope: Option<&Tensor>,
) -> Result<Option<Tensor>> {
    let all = [Some(x), scale, shift, add, slope].map(|tensor| tensor.unwrap_or(x));
    if !cuda::supported(&all) || all.iter().any(|tensor| tensor.track_op()) {
        return Ok(None);
    }
    cuda::epilogue(x, (scale, shift), add, activation, slope).map(Some)
}

impl Precision {
    /// Whether `device` has it.
    ///
    /// # Errors
    /// If it has not, saying what has.
    pub fn check(self, device: &Device) -> Result<()> {
        if self == Self::Float32 {
            return Ok(());
        }
        if let Some((major, minor)) = cuda::compute_capability(device)? {
            if major < 8 {
                bail!(
                    "expected `float32` on a GPU of compute capability {major}.{minor}, found `{self}`, which needs 8.0"
                );
            }
            return Ok(());
        }
        bail!(
            "expected `float32` on the {}, found `{self}`, which needs an NVIDIA GPU (--device cuda:0)",
            if device.is_cpu() { "CPU" } else { "device" }
        )
    }
}

/// The sum of the squares of each tensor, `[tensors]`, if all of them are on a GPU.
///
/// # Errors
/// If the GPU fails.
#[cfg_attr(not(feature = "train"), allow(dead_code, reason = "the trainer's"))]
pub(crate) fn squares(tensors: &[&Tensor]) -> Result<Option<Tensor>> {
    if !tensors.is_empty() && cuda::supported(tensors) {
        return cuda::squares(tensors).map(Some);
    }
    Ok(None)
}

/// `values`, which are in main memory, on `device`, without waiting for what the device still computes.
///
/// # Errors
/// If there is no room on the device.
pub fn put(values: &Tensor, device: &Device) -> Result<Tensor> {
    if device.is_cuda() {
        return cuda::put(values, device);
    }
    values.to_device(device)
}

/// Puts tensors that are made in main memory on a device; a GPU gets them from page-locked memory while it computes.
#[cfg_attr(not(feature = "train"), allow(dead_code, reason = "the trainer's"))]
pub(crate) struct Upload {
    device: Device,
    staging: Option<cuda::Staging>,
}

#[cfg_attr(not(feature = "train"), allow(dead_code, reason = "the trainer's"))]
impl Upload {
    /// To `device`.
    ///
    /// # Errors
    /// If the GPU fails.
    pub(crate) fn new(device: &Device) -> Result<Self> {
        Ok(Self { staging: device.is_cuda().then(|| cuda::Staging::new(device)).transpose()?, device: device.clone() })
    }

    /// Whether it pays to put what a later step needs before this one computes.
    pub(crate) fn runs_ahead(&self) -> bool {
        self.staging.is_some()
    }

    /// `values`, which are in main memory, on the device. On a GPU they may be used after the next [`arrive`](Self::arrive).
    ///
    /// # Errors
    /// If there is no room on the device.
    pub(crate) fn put(&mut self, values: &Tensor) -> Result<Tensor> {
        if let Some(staging) = &mut self.staging {
            return staging.put(values);
        }
        values.to_device(&self.device)
    }

    /// What was put can be used from here on; nothing waits for it but the GPU.
    ///
    /// # Errors
    /// If the GPU fails.
    pub(crate) fn arrive(&mut self) -> Result<()> {
        if let Some(staging) = &mut self.staging {
            staging.arrive()?;
        }
        Ok(())
    }
}
