//! One step: views, teachers, student, losses, gradients.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var, backprop::GradStore};
use rand::Rng;

use super::feed::Ready;
use super::numbers::Numbers;
use super::options::FrozenStatistics;
use super::stage::{Stage, part_of};
use super::term_gradients::measure;
use crate::error::{Context, Error, Result};
use crate::face::FaceBatch;
use crate::loss::{LoggedScalar, LossInputs, Needs};
use crate::nn::kernels::backward;
use crate::nn::{Mode, Pass};
use crate::observe::Observer;
use crate::student::{BACKBONE, Part};

/// The sum over the batches of one step.
pub(super) struct StepSum<'a> {
    stage: &'a Stage<'a>,
    /// The parts that change at this step.
    parts: Vec<Part>,
    /// The variables that change, by name.
    trained: Vec<(&'a str, &'a Var)>,
    /// Whether the terms' gradients are measured.
    measures: bool,
    batches: usize,
    numbers: Numbers,
    gradients: BTreeMap<String, Tensor>,
}

impl<'a> StepSum<'a> {
    pub(super) fn new(stage: &'a Stage<'a>, step: u64, steps: u64) -> Self {
        let parts = [Part::Backbone, Part::Head].into_iter().filter(|part| stage.trains(*part, step, steps));
        let parts: Vec<Part> = parts.collect();
        let changes = |name: &str| part_of(stage.student, name).is_none_or(|part| parts.contains(&part));
        let named = stage.trained.iter().map(|(name, var)| (name.as_str(), var));
        let trained = named.filter(|(name, _)| changes(name)).collect();
        let measures = stage.options.term_gradients.is_some_and(|every| step.is_multiple_of(every));
        let (numbers, gradients) = (Numbers::new(step), BTreeMap::new());
        Self { stage, parts, trained, measures, batches: 0, numbers, gradients }
    }

    fn mode(&self, part: Part) -> Mode {
        match self.parts.contains(&part) || self.stage.options.frozen_statistics == FrozenStatistics::Moving {
            true => Mode::Train,
            false => Mode::Evaluate,
        }
    }

    pub(super) fn add(&mut self, ready: Ready, observer: &dyn Observer) -> Result<()> {
        let stage = self.stage;
        let wants = |need: fn(&Needs) -> bool| stage.terms.iter().any(|term| need(&term.needs));
        let Ready { batch, faces, views, teachers, map, labels } = ready;
        let teachers = stage.teachers.of(teachers, observer)?;
        let _pass = Pass::step(stage.seed.stream(&format!("dropout/{}", stage.name), &[batch.step]).random()).set();
        let wants_embedding = wants(|needs| needs.embedding);
        let mut inner = BTreeMap::new();
        let map = match map {
            Some(map) => Some(map),
            None if wants_embedding || wants(|needs| needs.map) => Some(self.maps(&faces, &mut inner)?),
            None => None,
        };
        let embedding = match &map {
            Some(map) if wants_embedding => Some(stage.student.head(map, self.mode(Part::Head))?),
            _ => None,
        };
        let mut embedded = BTreeMap::new();
        for view in stage.embedded_views() {
            let faces = views.get(view).ok_or_else(|| Error::component(format!("the view `{view}` was not made")))?;
            let map = self.map(stage.student.backbone(faces, self.mode(Part::Backbone))?);
            embedded.insert(view, stage.student.head(&map, self.mode(Part::Head))?);
        }
        let mut logits: BTreeMap<&str, Tensor> = BTreeMap::new();
        let mut total: Option<Tensor> = None;
        let mut measured = Vec::new();
        for term in &stage.terms {
            let needs = &term.needs;
            let inputs = LossInputs {
                teachers: term.teachers.iter().filter_map(|output| teachers.get(output)).collect(),
                map: match &needs.student_map {
                    Some(name) => inner.get(name),
                    None => map.as_ref().filter(|_| needs.map),
                },
                embedding: embedding.as_ref().filter(|_| needs.embedding),
                labels: labels.as_ref().filter(|_| needs.labels),
                centres: term.centres.as_ref(),
                logits: term.logits_of.as_deref().and_then(|other| logits.get(other)),
                denoiser: needs.denoiser.then_some((&faces, stage.student)),
                views: needs.views.iter().filter_map(|view| views.get(view)).collect(),
                embeddings_of: needs.embeddings_of.iter().filter_map(|view| embedded.get(view)).collect(),
                stream: Some(stage.seed.stream(&format!("loss/{}/{}", stage.name, term.name), &[batch.step])),
            };
            let place = || format!("loss `{}`", term.name);
            let value = term.loss.compute(&inputs).at(place)?;
            self.numbers.term(&term.name, term.weight, LoggedScalar::scalar(&value.value).at(place)?)?;
            for (detail, number) in value.details {
                self.numbers.detail(format!("{}.{detail}", term.name), number);
            }
            let weighted = (value.value * term.weight)?;
            if self.measures {
                measured.push((term.name.as_str(), weighted.clone()));
            }
            total = Some(match total {
                Some(total) => (total + weighted)?,
                None => weighted,
            });
            if let Some(tensor) = value.logits {
                logits.insert(&term.name, tensor);
            }
        }
        let total = total.ok_or_else(|| Error::component("the stage has no loss"))?;
        if self.measures {
            let of_student = self.trained.iter().filter(|(name, _)| part_of(stage.student, name).is_some());
            let of_student: Vec<&Var> = of_student.map(|(_, var)| *var).collect();
            measure(&measured, &of_student, &mut self.numbers)?;
        }
        self.collect(&backward(&total)?)?;
        self.batches += 1;
        Ok(())
    }

    /// The backbone's map, and in `inner` those on the way that losses need.
    fn maps(&self, faces: &FaceBatch, inner: &mut BTreeMap<String, Tensor>) -> Result<Tensor> {
        let (student, mode) = (self.stage.student, self.mode(Part::Backbone));
        let mut names: Vec<String> = self.stage.inner_maps().into_iter().cloned().collect();
        if names.is_empty() {
            return Ok(self.map(student.backbone(faces, mode)?));
        }
        names.push(BACKBONE.to_string());
        let mut found = student.features(faces, &names, mode)?;
        let last = found.pop().ok_or_else(|| Error::component("the student has no maps"))?;
        inner.extend(names.into_iter().zip(found.into_iter().map(|map| self.map(map))));
        Ok(self.map(last))
    }

    /// A map of the backbone; a frozen backbone leaves no graph behind.
    fn map(&self, map: Tensor) -> Tensor {
        if self.parts.contains(&Part::Backbone) { map } else { map.detach() }
    }

    fn collect(&mut self, found: &GradStore) -> Result<()> {
        for (name, var) in &self.trained {
            if let Some(gradient) = found.get(var.as_tensor()) {
                // Detached: a gradient must not hold the graph that it came from.
                let gradient = gradient.detach();
                let sum = match self.gradients.get(*name) {
                    Some(sum) => (sum + gradient)?,
                    None => gradient,
                };
                self.gradients.insert(name.to_string(), sum);
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
