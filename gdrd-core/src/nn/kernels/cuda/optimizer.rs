//! What the trainer does to many variables, without a launch for each elementary operation.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
use candle_core::{Result, Tensor, Var, bail};

use super::module::{blocks, each, function};
use super::storage::{room, tensor, with_floats};

/// Blocks that share the sum of one tensor's squares.
const PARTS: usize = 128;

/// The sum of the squares of each tensor, `[tensors]`.
pub(in super::super) fn squares(tensors: &[&Tensor]) -> Result<Tensor> {
    let Some(first) = tensors.first() else { bail!("there are no tensors to take the squares of") };
    let device = first.device().as_cuda_device()?;
    let (f, all) = (function(device, "squares")?, function(device, "sum_of_rows")?);
    let config = LaunchConfig { grid_dim: (PARTS as u32, 1, 1), block_dim: (1024, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: every block of every launch below writes its one part.
    let mut parts = unsafe { room::<f32>(device, tensors.len() * PARTS)? };
    for (at, tensor) in tensors.iter().enumerate() {
        with_floats([*tensor], |_, [values]| {
            let mut own = parts.slice_mut(at * PARTS..(at + 1) * PARTS);
            let n = values.len() as u32;
            // SAFETY: the kernel takes these arguments in this order, reads `n` values and writes one for each block.
            unsafe { f.call().arg(values).arg(&mut own).arg(&n).launch(config).w()? };
            Ok(())
        })?;
    }
    let width = PARTS as u32;
    // SAFETY: the kernel takes these arguments in this order; each of its blocks writes the sum of a row.
    let out = unsafe {
        let out = room::<f32>(device, tensors.len())?;
        all.call().arg(&parts).arg(&out).arg(&width).launch(blocks(tensors.len(), PARTS)).w()?;
        out
    };
    Ok(tensor(out, tensors.len(), device))
}

/// One step of stochastic gradient descent, in place: `velocity` and `weight` change. The numbers are momentum, weight decay and rate.
pub(in super::super) fn sgd(
    weight: &Var,
    velocity: &Tensor,
    gradient: &Tensor,
    numbers: [f64; 3],
    nesterov: bool,
) -> Result<()> {
    let fits = |t: &Tensor| t.is_contiguous() && t.dims() == gradient.dims();
    if ![weight.as_tensor(), velocity].into_iter().all(fits) {
        bail!("a step of SGD: weight {:?}, gradient {:?}", weight.dims(), gradient.dims());
    }
    with_floats([weight.as_tensor(), velocity, gradient], |device, [weights, velocities, gradients]| {
        let f = function(device, "sgd")?;
        let [momentum, decay, rate] = numbers.map(|number| number as f32);
        let (nesterov, n) = (i32::from(nesterov), weights.len() as u32);
        // SAFETY: the kernel takes these arguments in this order. It changes weight and velocity, memory of the GPU that no Rust
        // reference points into, in the order of the device's stream, as `Var::set` does.
        unsafe {
            let mut call = f.call();
            call.arg(weights)
                .arg(velocities)
                .arg(gradients)
                .arg(&momentum)
                .arg(&decay)
                .arg(&rate)
                .arg(&nesterov)
                .arg(&n);
            call.launch(each(weights.len())).w()?;
        }
        Ok(())
    })
}

/// `running = keep * running + take * batch`, in place.
pub(in super::super) fn move_average(running: &Var, batch: &Tensor, keep: f64, take: f64) -> Result<()> {
    if !running.is_contiguous() || running.dims() != batch.dims() {
        bail!("a running average {:?} cannot move by {:?}", running.layout(), batch.dims());
    }
    with_floats([running.as_tensor(), batch], |device, [running, batch]| {
        let (f, n) = (function(device, "move_average")?, running.len() as u32);
        let (keep, take) = (keep as f32, take as f32);
        // SAFETY: the kernel takes these arguments in this order. It changes the first, memory of the GPU that no Rust reference
        // points into, in the order of the device's stream, as `Var::set` does.
        unsafe { f.call().arg(running).arg(batch).arg(&keep).arg(&take).arg(&n).launch(each(running.len())).w()? };
        Ok(())
    })
}
