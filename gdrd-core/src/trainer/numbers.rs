//! What a step tells the log, and whether it was finite.

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::loss::LoggedScalar;
use crate::nn::kernels::squares;

/// The numbers of one step. On a GPU they are read some steps later, so that no step waits.
pub(super) struct Numbers {
    step: u64,
    batches: usize,
    /// In the order in which they came; those with a weight are terms of the objective.
    entries: Vec<(String, Option<f64>, LoggedScalar)>,
    norm: Norm,
}

/// The Euclidean norm of the gradient.
enum Norm {
    Known(f64),
    /// The squares of each variable's gradient, `[variables]`, and the variables' names.
    Later(Tensor, Vec<String>),
}

/// The numbers as they are logged.
pub(super) struct Read {
    pub(super) loss: f64,
    pub(super) terms: Vec<(String, f64)>,
    pub(super) norm: f64,
}

impl Numbers {
    pub(super) fn new(step: u64) -> Self {
        Self { step, batches: 0, entries: Vec::new(), norm: Norm::Known(0.0) }
    }

    /// Takes note of a term of the objective.
    ///
    /// # Errors
    /// If it is known already that it is not finite.
    pub(super) fn term(&mut self, name: &str, weight: f64, number: LoggedScalar) -> Result<()> {
        if let Some(number) = number.known().filter(|number| !number.is_finite()) {
            return Err(Error::component(format!(
                "the loss term `{name}` is {number}; no variable was changed by this step"
            )));
        }
        self.entries.push((name.to_string(), Some(weight), number));
        Ok(())
    }

    pub(super) fn detail(&mut self, name: String, number: LoggedScalar) {
        self.entries.push((name, None, number));
    }

    /// Takes note of the gradients of a step that had so many batches.
    ///
    /// # Errors
    /// If it is known already that one is not finite.
    pub(super) fn gradients(&mut self, gradients: &BTreeMap<String, Tensor>, batches: usize) -> Result<()> {
        self.batches = batches;
        let tensors: Vec<&Tensor> = gradients.values().collect();
        if let Some(squares) = squares(&tensors)? {
            self.norm = Norm::Later(squares, gradients.keys().cloned().collect());
            return Ok(());
        }
        let mut total = 0.0;
        for (name, tensor) in gradients {
            let square = f64::from(tensor.sqr()?.sum_all()?.to_scalar::<f32>()?);
            if !square.is_finite() {
                return Err(Error::component(format!(
                    "the gradient of `{name}` is not finite at step {}; no variable was changed by it",
                    self.step
                )));
            }
            total += square;
        }
        self.norm = Norm::Known(total.sqrt());
        Ok(())
    }

    /// The gradients, shortened to the Euclidean length `longest`.
    pub(super) fn clipped(
        &self,
        gradients: BTreeMap<String, Tensor>,
        longest: Option<f64>,
    ) -> Result<BTreeMap<String, Tensor>> {
        let Some(longest) = longest else { return Ok(gradients) };
        match &self.norm {
            Norm::Known(norm) if *norm > longest => {
                let shorten = |(name, tensor): (String, Tensor)| Ok((name, (tensor * (longest / norm))?));
                gradients.into_iter().map(shorten).collect()
            }
            Norm::Known(_) => Ok(gradients),
            Norm::Later(squares, _) => {
                let factor = (squares.sum_all()?.sqrt()?.recip()? * longest)?.minimum(1.0)?;
                let shorten = |(name, tensor): (String, Tensor)| Ok((name, tensor.broadcast_mul(&factor)?));
                gradients.into_iter().map(shorten).collect()
            }
        }
    }

    /// All numbers; waits for the device where it has them. `made` steps have been made since the stage began.
    ///
    /// # Errors
    /// If one is not finite.
    pub(super) fn read(&self, made: u64) -> Result<Read> {
        let share = 1.0 / self.batches as f64;
        let (mut loss, mut terms) = (0.0, Vec::<(String, f64)>::new());
        for (name, weight, number) in &self.entries {
            let number = number.read()?;
            if let Some(weight) = weight {
                if !number.is_finite() {
                    return Err(self.late(&format!("the loss term `{name}` is {number}"), made));
                }
                loss += weight * number;
            }
            match terms.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += number,
                None => terms.push((name.clone(), number)),
            }
        }
        terms.iter_mut().for_each(|(_, sum)| *sum *= share);
        let norm = match &self.norm {
            Norm::Known(norm) => *norm,
            Norm::Later(squares, names) => {
                let squares = squares.to_vec1::<f32>()?;
                if let Some(at) = squares.iter().position(|square| !square.is_finite()) {
                    return Err(self.late(&format!("the gradient of `{}` is not finite", names[at]), made));
                }
                squares.iter().map(|square| f64::from(*square)).sum::<f64>().sqrt()
            }
        };
        Ok(Read { loss: loss * share, terms, norm })
    }

    /// What is wrong with a step after which others were made.
    fn late(&self, what: &str, made: u64) -> Error {
        Error::component(format!(
            "{what} at step {}; it was read after step {made}, and the newest checkpoint is from before it",
            self.step
        ))
    }
}
