//! A step of stochastic gradient descent, in place.

use candle_core::{Result, Tensor, Var};

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

/// Changes `weight` and `velocity` where they are, if they are float32 on the CPU or on a GPU; says whether it did.
///
/// # Errors
/// If the shapes differ.
pub fn sgd(weight: &Var, velocity: &Tensor, gradient: &Tensor, step: &SgdStep) -> Result<bool> {
    #[cfg(feature = "cuda")]
    if super::cuda::supported(&[weight.as_tensor(), gradient, velocity]) {
        super::cuda::sgd(weight, velocity, gradient, step)?;
        return Ok(true);
    }
    let weight = weight.as_detached_tensor();
    if !can_change(&[&weight, gradient]) || !can_change(&[velocity]) {
        return Ok(false);
    }
    let (momentum, decay, rate) = (step.momentum as f32, step.weight_decay as f32, step.rate as f32);
    change3(velocity, gradient, &weight, |v, g, w| momentum * v + (g + decay * w))?;
    if step.nesterov {
        change3(&weight, velocity, gradient, |w, v, g| w - rate * ((g + decay * w) + momentum * v))?;
    } else {
        change2(&weight, velocity, |w, v| w - rate * v)?;
    }
    Ok(true)
}
