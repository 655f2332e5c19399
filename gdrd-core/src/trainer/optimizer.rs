//! Optimisers whose state can be saved: candle's SGD has no momentum, and its AdamW keeps its moments to itself.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use candle_core::{Device, Tensor, Var};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::BuildContext;
use crate::error::{Error, Problem, Result};
use crate::nn::kernels::{self, SgdStep, can_change, change2, change3};
use crate::plugin::Kind;

/// Changes variables by their gradients.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use candle_core::{Device, Tensor, Var};
/// use gdrd_core::context::{Bare, BuildContext};
/// use gdrd_core::trainer::{OptimizerConfig, Sgd};
///
/// let plain = Sgd { momentum: 0.0, weight_decay: 0.0, nesterov: false };
/// let mut optimizer = plain.build(&BuildContext::new(&Bare(Device::Cpu)))?;
/// let weight = Var::new(&[1f32], &Device::Cpu)?;
/// let gradient = Tensor::new(&[2f32], &Device::Cpu)?;
/// let named = |name: &str| name.to_string();
/// let parameters = BTreeMap::from([(named("w"), weight.clone())]);
/// optimizer.step(&parameters, &BTreeMap::from([(named("w"), gradient)]), &|_| 0.1)?;
/// assert_eq!(weight.to_vec1::<f32>()?, [0.8]);
/// # Ok::<(), gdrd_core::error::Error>(())
/// ```
pub trait Optimizer {
    /// One step; `rate` is the learning rate of a variable by its name. A variable without a gradient stays as it is.
    ///
    /// # Errors
    /// If the device fails.
    fn step(
        &mut self,
        parameters: &BTreeMap<String, Var>,
        gradients: &BTreeMap<String, Tensor>,
        rate: &dyn Fn(&str) -> f64,
    ) -> Result<()>;

    /// Everything that the next step depends on, by name. The tensors are the optimiser's own: the next step changes them.
    fn state(&self) -> BTreeMap<String, Tensor>;

    /// Takes up a state that [`state`](Optimizer::state) gave.
    ///
    /// # Errors
    /// If it is the state of another optimiser.
    fn restore(&mut self, state: BTreeMap<String, Tensor>) -> Result<()>;

    /// The stage has made its last step: what stands in the parameters then is what it leaves behind. Nothing changes unless an
    /// optimiser says more.
    ///
    /// # Errors
    /// If the device fails.
    fn finish(&mut self, parameters: &BTreeMap<String, Var>) -> Result<()> {
        let _ = parameters;
        Ok(())
    }
}

/// What a recipe says of an optimiser.
///
/// ```
/// use candle_core::Device;
/// use gdrd_core::context::{Bare, BuildContext};
/// use gdrd_core::trainer::{OptimizerConfig, Sgd};
///
/// let sgd = Sgd { momentum: 2.0, ..Sgd::default() };
/// assert_eq!(sgd.check()[0].key, "momentum");
/// let optimizer = Sgd::default().build(&BuildContext::new(&Bare(Device::Cpu)))?;
/// assert!(optimizer.state().is_empty(), "nothing is kept before the first step");
/// # Ok::<(), gdrd_core::error::Error>(())
/// ```
pub trait OptimizerConfig: Send + Sync {
    /// What is wrong with the options.
    fn check(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// A new optimiser.
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Optimizer>>;
}

/// Stochastic gradient descent as PyTorch's: g' = g + weight_decay w; v = momentum v + g'; w -= rate v
/// (with Nesterov: w -= rate (g' + momentum v)).
///
/// The paper names no optimiser; momentum 0.9 and weight decay 5e-4 are those of CRD's experiments, whose learning rate
/// and annealing rate it shares.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sgd {
    /// Share of the last step's direction that is kept.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub momentum: f64,
    /// Pull of every parameter towards zero.
    #[schemars(range(min = 0, max = 1000))]
    pub weight_decay: f64,
    /// Whether to look ahead.
    pub nesterov: bool,
}

impl Default for Sgd {
    fn default() -> Self {
        Self { momentum: 0.9, weight_decay: 5e-4, nesterov: false }
    }
}

impl Kind for Sgd {
    const NAME: &'static str = "sgd";
    const PURPOSE: &'static str = "stochastic gradient descent with momentum and weight decay";
}

impl OptimizerConfig for Sgd {
    fn check(&self) -> Vec<Problem> {
        let good = !self.nesterov || self.momentum > 0.0;
        Problem::unless(good, "nesterov", || "needs a momentum above 0".into()).into_iter().collect()
    }

    fn build(&self, _: &BuildContext) -> Result<Box<dyn Optimizer>> {
        Ok(Box::new(SgdState { config: self.clone(), velocity: BTreeMap::new() }))
    }
}

struct SgdState {
    config: Sgd,
    velocity: BTreeMap<String, Tensor>,
}

impl Optimizer for SgdState {
    fn step(
        &mut self,
        parameters: &BTreeMap<String, Var>,
        gradients: &BTreeMap<String, Tensor>,
        rate: &dyn Fn(&str) -> f64,
    ) -> Result<()> {
        let Sgd { momentum, weight_decay, nesterov } = self.config;
        for (name, gradient) in gradients {
            let step = SgdStep { momentum, weight_decay, rate: rate(name), nesterov };
            let velocity = match self.velocity.entry(name.clone()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(gradient.zeros_like()?),
            };
            beside(velocity, gradient)?;
            kernels::sgd(&parameters[name], velocity, gradient, &step)?;
        }
        Ok(())
    }

    fn state(&self) -> BTreeMap<String, Tensor> {
        self.velocity.iter().map(|(name, tensor)| (format!("velocity.{name}"), tensor.clone())).collect()
    }

    fn restore(&mut self, state: BTreeMap<String, Tensor>) -> Result<()> {
        self.velocity = stripped(state, "velocity.")?;
        Ok(())
    }
}

/// AdamW as PyTorch's: decoupled weight decay, bias-corrected moments, eps outside the root.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdamW {
    /// Decay of the mean gradient.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub beta1: f64,
    /// Decay of the mean square gradient.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub beta2: f64,
    /// Added to the root of the mean square.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub eps: f64,
    /// Pull of every parameter towards zero.
    #[schemars(range(min = 0, max = 1000))]
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

impl Kind for AdamW {
    const NAME: &'static str = "adamw";
    const PURPOSE: &'static str = "Adam with decoupled weight decay";
}

impl OptimizerConfig for AdamW {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Optimizer>> {
        Ok(Box::new(AdamWState { config: self.clone(), steps: BTreeMap::new(), moments: BTreeMap::new() }))
    }
}

impl AdamW {
    /// The parameter and its moments after a step, the `steps`th.
    fn moved(
        &self,
        parameter: &Tensor,
        [mean, square]: &[Tensor; 2],
        gradient: &Tensor,
        rate: f64,
        steps: u32,
    ) -> Result<(Tensor, [Tensor; 2])> {
        let Self { beta1, beta2, eps, weight_decay } = *self;
        let corrected = |beta: f64| 1.0 - beta.powi(steps as i32);
        let mean = ((mean * beta1)? + (gradient * (1.0 - beta1))?)?;
        let square = ((square * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
        let root = ((&square / corrected(beta2))?.sqrt()? + eps)?;
        let step = ((&mean / corrected(beta1))? / root)?;
        Ok((((parameter * (1.0 - rate * weight_decay))? - (step * rate)?)?, [mean, square]))
    }

    /// The same on the CPU, where they are.
    fn change(
        &self,
        parameter: &Tensor,
        [mean, square]: &[Tensor; 2],
        gradient: &Tensor,
        rate: f64,
        steps: u32,
    ) -> Result<()> {
        let Self { beta1, beta2, eps, weight_decay } = *self;
        let corrected = |beta: f64| (1.0 / (1.0 - beta.powi(steps as i32))) as f32;
        let (unbias1, unbias2) = (corrected(beta1), corrected(beta2));
        let (keep1, take1, keep2, take2) = (beta1 as f32, (1.0 - beta1) as f32, beta2 as f32, (1.0 - beta2) as f32);
        let (keep, rate, eps) = ((1.0 - rate * weight_decay) as f32, rate as f32, eps as f32);
        change2(mean, gradient, |mean, g| mean * keep1 + g * take1)?;
        change2(square, gradient, |square, g| square * keep2 + g * g * take2)?;
        change3(parameter, mean, square, |w, mean, square| {
            w * keep - mean * unbias1 / ((square * unbias2).sqrt() + eps) * rate
        })?;
        Ok(())
    }
}

struct AdamWState {
    config: AdamW,
    /// Steps of each variable: one that had no gradient at a step has made fewer.
    steps: BTreeMap<String, u32>,
    /// The means of the gradients and of their squares.
    moments: BTreeMap<String, [Tensor; 2]>,
}

impl Optimizer for AdamWState {
    fn step(
        &mut self,
        parameters: &BTreeMap<String, Var>,
        gradients: &BTreeMap<String, Tensor>,
        rate: &dyn Fn(&str) -> f64,
    ) -> Result<()> {
        for (name, gradient) in gradients {
            let var = &parameters[name];
            let parameter = var.as_detached_tensor();
            let steps = self.steps.entry(name.clone()).or_insert(0);
            *steps += 1;
            let zeros = || Ok::<_, Error>([gradient.zeros_like()?, gradient.zeros_like()?]);
            let moments = match self.moments.entry(name.clone()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(zeros()?),
            };
            for moment in &mut *moments {
                beside(moment, gradient)?;
            }
            if can_change(&[&parameter, &moments[0], &moments[1], gradient]) {
                self.config.change(&parameter, moments, gradient, rate(name), *steps)?;
            } else {
                let (moved, next) = self.config.moved(&parameter, moments, gradient, rate(name), *steps)?;
                var.set(&moved)?;
                *moments = next;
            }
        }
        Ok(())
    }

    fn state(&self) -> BTreeMap<String, Tensor> {
        let count = |(name, steps): (&String, &u32)| {
            let counted = Tensor::from_slice(&[*steps], 1, &Device::Cpu).expect("one number is a tensor of one");
            (format!("steps.{name}"), counted)
        };
        let named = |(name, [mean, square]): (&String, &[Tensor; 2])| {
            [(format!("mean.{name}"), mean.clone()), (format!("square.{name}"), square.clone())]
        };
        self.moments.iter().flat_map(named).chain(self.steps.iter().map(count)).collect()
    }

    fn restore(&mut self, state: BTreeMap<String, Tensor>) -> Result<()> {
        let (steps, moments): (BTreeMap<_, _>, BTreeMap<_, _>) =
            state.into_iter().partition(|(name, _)| name.starts_with("steps."));
        let (square, mean) = moments.into_iter().partition(|(name, _)| name.starts_with("square."));
        let (steps, mean, square) =
            (stripped(steps, "steps.")?, stripped(mean, "mean.")?, stripped(square, "square.")?);
        if !(steps.keys().eq(mean.keys()) && steps.keys().eq(square.keys())) {
            return Err(Error::weights(format!(
                "expected `steps`, `mean` and `square` of the same variables, found {}, {} and {}",
                steps.len(),
                mean.len(),
                square.len()
            )));
        }
        let number = |(name, tensor): (String, Tensor)| Ok((name, tensor.to_vec1::<u32>()?[0]));
        self.steps = steps.into_iter().map(number).collect::<Result<_>>()?;
        self.moments = mean.into_iter().zip(square.into_values()).map(|((name, m), s)| (name, [m, s])).collect();
        Ok(())
    }
}

/// A state that was read from a checkpoint, where the gradients are.
pub(super) fn beside(state: &mut Tensor, gradient: &Tensor) -> Result<()> {
    if !gradient.device().same_device(state.device()) {
        *state = state.to_device(gradient.device())?;
    }
    Ok(())
}

fn stripped(state: BTreeMap<String, Tensor>, prefix: &str) -> Result<BTreeMap<String, Tensor>> {
    let strip = |(name, tensor): (String, Tensor)| match name.strip_prefix(prefix) {
        Some(rest) => Ok((rest.to_string(), tensor)),
        None => Err(Error::weights(format!("`{name}` is not the state of this optimiser (expected `{prefix}...`)"))),
    };
    state.into_iter().map(strip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Bare;

    fn built(config: &dyn OptimizerConfig) -> Box<dyn Optimizer> {
        config.build(&BuildContext::new(&Bare(Device::Cpu))).expect("an optimiser")
    }

    fn run(config: &dyn OptimizerConfig, restart_after: usize) -> (Vec<f32>, BTreeMap<String, Tensor>) {
        let var = Var::new(&[1f32, -2.0], &Device::Cpu).expect("variable");
        let parameters = BTreeMap::from([("w".to_string(), var.clone())]);
        let mut optimizer = built(config);
        for step in 0..4 {
            if step == restart_after {
                let state = optimizer.state();
                optimizer = built(config);
                optimizer.restore(state).expect("state");
            }
            let gradient = (var.as_detached_tensor() * 2.0).expect("gradient of w^2");
            let gradients = BTreeMap::from([("w".to_string(), gradient)]);
            optimizer.step(&parameters, &gradients, &|_| 0.1).expect("step");
        }
        (var.to_vec1().expect("values"), optimizer.state())
    }

    #[test]
    fn a_restored_optimiser_goes_on_to_the_bit() {
        assert_eq!(run(&Sgd::default(), 2).0, run(&Sgd::default(), 9).0);
        assert_eq!(run(&AdamW::default(), 2).0, run(&AdamW::default(), 9).0);
    }

    #[test]
    fn the_state_holds_no_graph() {
        // A velocity that remembered how it was made would keep every step's tensors alive.
        for config in [&Sgd::default() as &dyn OptimizerConfig, &AdamW::default()] {
            let var = Var::new(&[1f32, -2.0], &Device::Cpu).expect("variable");
            let parameters = BTreeMap::from([("w".to_string(), var.clone())]);
            let gradients = BTreeMap::from([("w".to_string(), var.as_detached_tensor())]);
            let mut optimizer = built(config);
            for _ in 0..3 {
                optimizer.step(&parameters, &gradients, &|_| 0.1).expect("step");
            }
            assert!(optimizer.state().values().all(|tensor| !tensor.track_op()));
        }
    }

    #[test]
    fn the_state_of_another_optimiser_is_refused() {
        let (sgd, mut adam) = (run(&Sgd::default(), 9).1, run(&AdamW::default(), 9).1);
        assert!(built(&Sgd::default()).restore(adam.clone()).is_err());
        assert!(built(&AdamW::default()).restore(sgd).is_err());
        adam.remove("steps.w");
        assert!(built(&AdamW::default()).restore(adam).is_err());
    }
}
