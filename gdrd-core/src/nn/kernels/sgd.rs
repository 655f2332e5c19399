//! A step of stochastic gradient descent, in place.

use candle_core::{Result, Tensor, Var, bail};

use super::cuda;
use super::{can_change, change2, change3};

/// What [`sgd`] does: g' = g + weight_decay w; v = momentum v + g'; w -= rate v, or with Nesterov w -= rate (g' + momentum v).
#[derive(Clone, Copy, Debug)]
pub struct SgdStep {
    /// Share of the velocity that is kept.
    pub momentum: f64,
    /// Pull of every parameter towards zero.
    pub weight_decay: f64,
    /// The learning rate.
    pub rate: f64,
    /// Whether to look ahead.
    pub nesterov: bool,
}

/// Changes `weight` and `velocity` where they are.
///
/// # Errors
/// If they are not contiguous float32 on the CPU or on an NVIDIA GPU, or the shapes differ.
pub fn sgd(weight: &Var, velocity: &Tensor, gradient: &Tensor, step: &SgdStep) -> Result<()> {
    if cuda::supported(&[weight.as_tensor(), gradient, velocity]) {
        let numbers = [step.momentum, step.weight_decay, step.rate];
        return cuda::sgd(weight, velocity, gradient, numbers, step.nesterov);
    }
    let weight = weight.as_detached_tensor();
    if !can_change(&[&weight, gradient]) || !can_change(&[velocity]) {
        bail!(
            "a step of SGD needs contiguous float32 on one device, found a weight {:?} on {:?} and a velocity {:?} on {:?}",
            weight.dtype(),
            weight.device().location(),
            velocity.dtype(),
            velocity.device().location()
        );
    }
    let (momentum, decay, rate) = (step.momentum as f32, step.weight_decay as f32, step.rate as f32);
    change3(velocity, gradient, &weight, |v, g, w| momentum * v + (g + decay * w))?;
    if step.nesterov {
        change3(&weight, velocity, gradient, |w, v, g| w - rate * ((g + decay * w) + momentum * v))?;
    } else {
        change2(&weight, velocity, |w, v| w - rate * v)?;
    }
    Ok(())
}
