//! The student as the average of its own past.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};

use super::optimizer::{Optimizer, beside};
use crate::error::{Error, Result};
use crate::nn::kernels::{can_change, change2};

/// An optimiser that keeps a moving average of the student's parameters, and leaves that behind.
///
/// After n steps the average is sum of decay^(n-k) (1 - decay) w_k / (1 - decay^n) over the steps k: Adam's correction for a sum
/// that begins at zero, so that short stages are averages of what they made and not of what they began with.
pub(super) struct Averaged {
    inner: Box<dyn Optimizer>,
    decay: f64,
    steps: u32,
    sums: BTreeMap<String, Tensor>,
}

/// Before the names of what the inner optimiser keeps, and of what is kept here.
const INNER: &str = "inner.";
const SUM: &str = "average.";
const STEPS: &str = "averaged-steps";

/// An optimiser that leaves an average behind, if the stage wants one.
pub(crate) fn with_average(inner: Box<dyn Optimizer>, decay: Option<f64>) -> Box<dyn Optimizer> {
    match decay {
        Some(decay) => Box::new(Averaged::new(inner, decay)),
        None => inner,
    }
}

impl Averaged {
    /// `decay` is the share of the average that a step keeps, above 0 and below 1.
    pub(super) fn new(inner: Box<dyn Optimizer>, decay: f64) -> Self {
        Self { inner, decay, steps: 0, sums: BTreeMap::new() }
    }
}

impl Optimizer for Averaged {
    fn step(
        &mut self,
        parameters: &BTreeMap<String, Var>,
        gradients: &BTreeMap<String, Tensor>,
        rate: &dyn Fn(&str) -> f64,
    ) -> Result<()> {
        self.inner.step(parameters, gradients, rate)?;
        self.steps += 1;
        let (keep, take) = (self.decay, 1.0 - self.decay);
        for (name, var) in parameters.iter().filter(|(name, _)| name.starts_with("student.")) {
            let value = var.as_detached_tensor();
            if !self.sums.contains_key(name) {
                self.sums.insert(name.clone(), value.zeros_like()?);
            }
            let Some(sum) = self.sums.get_mut(name) else { continue };
            beside(sum, &value)?;
            if can_change(&[sum, &value]) {
                let (keep, take) = (keep as f32, take as f32);
                change2(sum, &value, |sum, value| sum * keep + value * take)?;
            } else {
                *sum = ((&*sum * keep)? + (value * take)?)?;
            }
        }
        Ok(())
    }

    fn state(&self) -> BTreeMap<String, Tensor> {
        let inner = self.inner.state().into_iter().map(|(name, tensor)| (format!("{INNER}{name}"), tensor));
        let sums = self.sums.iter().map(|(name, tensor)| (format!("{SUM}{name}"), tensor.clone()));
        let steps = Tensor::from_slice(&[self.steps], 1, &Device::Cpu).expect("one number is a tensor of one");
        inner.chain(sums).chain([(STEPS.to_string(), steps)]).collect()
    }

    fn restore(&mut self, state: BTreeMap<String, Tensor>) -> Result<()> {
        let (mut inner, mut sums, mut steps) = (BTreeMap::new(), BTreeMap::new(), None);
        for (name, tensor) in state {
            if let Some(name) = name.strip_prefix(INNER) {
                inner.insert(name.to_string(), tensor);
            } else if let Some(name) = name.strip_prefix(SUM) {
                sums.insert(name.to_string(), tensor);
            } else if name == STEPS {
                steps = Some(tensor.to_vec1::<u32>()?[0]);
            } else {
                return Err(Error::weights(format!("`{name}` is not the state of an optimiser with an average")));
            }
        }
        self.steps = steps.ok_or_else(|| Error::weights(format!("the state of the average has no `{STEPS}`")))?;
        self.sums = sums;
        self.inner.restore(inner)
    }

    fn finish(&mut self, parameters: &BTreeMap<String, Var>) -> Result<()> {
        self.inner.finish(parameters)?;
        let factor = 1.0 / (1.0 - self.decay.powi(self.steps as i32));
        for (name, sum) in &self.sums {
            let var = parameters.get(name);
            let var = var.ok_or_else(|| Error::component(format!("no variable is called `{name}`")))?;
            var.set(&(sum * factor)?.to_device(var.device())?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{OptimizerConfig, Sgd};
    use super::*;
    use crate::context::{Bare, BuildContext};

    fn averaged() -> Averaged {
        let plain = Sgd { momentum: 0.5, weight_decay: 0.0, nesterov: false };
        Averaged::new(plain.build(&BuildContext::new(&Bare(Device::Cpu))).expect("an optimiser"), 0.75)
    }

    /// Steps with gradients 1, 2, 3, 4; the student's variable after each, and after the end.
    fn run(restart_after: usize) -> (Vec<f64>, f32, f32) {
        let var = |value: f32| Var::new(&[value], &Device::Cpu).expect("a variable");
        let (student, loss) = (var(1.0), var(1.0));
        let parameters =
            BTreeMap::from([("student.w".to_string(), student.clone()), ("loss.w".to_string(), loss.clone())]);
        let value = |var: &Var| var.to_vec1::<f32>().expect("a value")[0];
        let mut optimizer = averaged();
        let mut path = Vec::new();
        for step in 0..4 {
            if step == restart_after {
                let state = optimizer.state();
                optimizer = averaged();
                optimizer.restore(state).expect("its own state");
            }
            let gradient = Tensor::new(&[step as f32 + 1.0], &Device::Cpu).expect("a gradient");
            let gradients = parameters.keys().map(|name| (name.clone(), gradient.clone())).collect();
            optimizer.step(&parameters, &gradients, &|_| 0.1).expect("a step");
            path.push(f64::from(value(&student)));
        }
        optimizer.finish(&parameters).expect("an end");
        (path, value(&student), value(&loss))
    }

    #[test]
    fn the_student_ends_as_the_weighted_mean_of_its_steps() {
        let (path, student, loss) = run(9);
        let weights: Vec<f64> = (0..4).map(|k| 0.75f64.powi(3 - k)).collect();
        let mean = path.iter().zip(&weights).map(|(value, weight)| value * weight).sum::<f64>();
        let mean = mean / weights.iter().sum::<f64>();
        assert!((f64::from(student) - mean).abs() < 1e-6, "{student}, expected {mean}");
        assert!((f64::from(loss) - path[3]).abs() < 1e-9, "variables of losses are not averaged");
        assert_eq!(run(2).1.to_bits(), student.to_bits(), "after a restart the same");
    }

    #[test]
    fn the_state_of_another_optimiser_is_refused() {
        let plain = Sgd::default().build(&BuildContext::new(&Bare(Device::Cpu))).expect("an optimiser");
        assert!(averaged().restore(plain.state()).is_err());
        let foreign = BTreeMap::from([("velocity.w".to_string(), Tensor::new(&[1f32], &Device::Cpu).expect("one"))]);
        assert!(averaged().restore(foreign).is_err());
    }
}
