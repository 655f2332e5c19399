//! One step: views, teachers, student, losses, gradients.

use std::collections::BTreeMap;

use candle_core::{Tensor, backprop::GradStore};

use super::feed::Ready;
use super::numbers::Numbers;
use super::stage::Stage;
use crate::error::{Context, Error, Result};
use crate::face::FaceBatch;
use crate::loss::{LoggedScalar, LossInputs, Needs};
use crate::nn::Mode;
use crate::observe::Observer;
use crate::student::Part;

/// The sum over the batches of one step.
pub(super) struct StepSum<'a> {
    stage: &'a Stage<'a>,
    batches: usize,
    numbers: Numbers,
    gradients: BTreeMap<String, Tensor>,
}

impl<'a> StepSum<'a> {
    pub(super) fn new(stage: &'a Stage<'a>, step: u64) -> Self {
        Self { stage, batches: 0, numbers: Numbers::new(step), gradients: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, ready: Ready, observer: &dyn Observer) -> Result<()> {
        let stage = self.stage;
        let wants = |need: fn(&Needs) -> bool| stage.terms.iter().any(|term| need(&term.needs));
        let Ready { batch, faces, teachers, map, labels } = ready;
        let teachers = stage.teachers.of(teachers, observer)?;
        let wants_embedding = wants(|needs| needs.embedding);
        let map = match map {
            Some(map) => Some(map),
            None if wants_embedding || wants(|needs| needs.map) => Some(self.map(&faces)?),
            None => None,
        };
        let head_mode = if stage.trains(Part::Head) { Mode::Train } else { Mode::Evaluate };
        let embedding = match &map {
            Some(map) if wants_embedding => Some(stage.student.head(map, head_mode)?),
            _ => None,
        };
        let mut logits: BTreeMap<&str, Tensor> = BTreeMap::new();
        let mut total: Option<Tensor> = None;
        for term in &stage.terms {
            let needs = &term.needs;
            let inputs = LossInputs {
                teachers: term.teachers.iter().filter_map(|output| teachers.get(output)).collect(),
                map: map.as_ref().filter(|_| needs.map),
                embedding: embedding.as_ref().filter(|_| needs.embedding),
                labels: labels.as_ref().filter(|_| needs.labels),
                centres: term.centres.as_ref(),
                logits: term.logits_of.as_deref().and_then(|other| logits.get(other)),
                denoiser: needs.denoiser.then_some((&faces, stage.student)),
                stream: Some(stage.seed.stream(&format!("loss/{}/{}", stage.name, term.name), &[batch.step])),
            };
            let place = || format!("loss `{}`", term.name);
            let value = term.loss.compute(&inputs).at(place)?;
            self.numbers.term(&term.name, term.weight, LoggedScalar::scalar(&value.value).at(place)?)?;
            for (detail, number) in value.details {
                self.numbers.detail(format!("{}.{detail}", term.name), number);
            }
            let weighted = (value.value * term.weight)?;
            total = Some(match total {
                Some(total) => (total + weighted)?,
                None => weighted,
            });
            if let Some(tensor) = value.logits {
                logits.insert(&term.name, tensor);
            }
        }
        let total = total.ok_or_else(|| Error::component("the stage has no loss"))?;
        self.collect(&total.backward()?)?;
        self.batches += 1;
        Ok(())
    }

    /// The student's map; a frozen backbone leaves no graph behind.
    fn map(&self, faces: &FaceBatch) -> Result<Tensor> {
        if self.stage.trains(Part::Backbone) {
            self.stage.student.backbone(faces, Mode::Train)
        } else {
            Ok(self.stage.student.backbone(faces, Mode::Evaluate)?.detach())
        }
    }

    fn collect(&mut self, found: &GradStore) -> Result<()> {
        for (name, var) in &self.stage.trained {
            if let Some(gradient) = found.get(var.as_tensor()) {
                // Detached: a gradient must not hold the graph that it came from.
                let gradient = gradient.detach();
                let sum = match self.gradients.get(name) {
                    Some(sum) => (sum + gradient)?,
                    None => gradient,
                };
                self.gradients.insert(name.clone(), sum);
            }
        }
        Ok(())
    }

    /// The gradients' mean over the batches, shortened to the Euclidean length `longest`, and the numbers for the log.
    pub(super) fn finish(mut self, longest: Option<f64>) -> Result<(BTreeMap<String, Tensor>, Numbers)> {
        let share = 1.0 / self.batches as f64;
        if self.batches > 1 {
            for tensor in self.gradients.values_mut() {
                *tensor = (tensor.clone() * share)?;
            }
        }
        self.numbers.gradients(&self.gradients, self.batches)?;
        Ok((self.numbers.clipped(self.gradients, longest)?, self.numbers))
    }
}
