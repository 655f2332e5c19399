//! One step: views, teachers, student, losses, gradients.

use std::collections::BTreeMap;

use candle_core::{Tensor, backprop::GradStore};
use rayon::prelude::*;

use super::stage::Stage;
use crate::data::Batch;
use crate::error::{Context, Error, Result};
use crate::face::{Face, FaceBatch};
use crate::loss::LossInputs;
use crate::nn::Mode;
use crate::observe::{Event, Flow, Observer};
use crate::seed::Seed;
use crate::student::Part;
use crate::teacher::View;

/// What a step comes to before the optimiser sees it.
pub(super) struct Done {
    pub(super) loss: f64,
    pub(super) terms: Vec<(String, f64)>,
    pub(super) norm: f64,
    gradients: BTreeMap<String, Tensor>,
}

impl Done {
    /// The gradients, shortened to the Euclidean length `longest`.
    pub(super) fn clipped(&self, longest: Option<f64>) -> Result<BTreeMap<String, Tensor>> {
        match longest {
            Some(longest) if self.norm > longest => {
                let shorten =
                    |(name, tensor): (&String, &Tensor)| Ok((name.clone(), (tensor * (longest / self.norm))?));
                self.gradients.iter().map(shorten).collect()
            }
            _ => Ok(self.gradients.clone()),
        }
    }
}

/// The sum over the batches of one step.
pub(super) struct Step<'a> {
    stage: &'a Stage<'a>,
    step: u64,
    batches: usize,
    terms: Vec<(String, f64)>,
    loss: f64,
    gradients: BTreeMap<String, Tensor>,
}

impl<'a> Step<'a> {
    pub(super) fn new(stage: &'a Stage<'a>, step: u64) -> Self {
        Self { stage, step, batches: 0, terms: Vec::new(), loss: 0.0, gradients: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, batch: &Batch, maps: Option<&FrozenMaps>) -> Result<()> {
        let stage = self.stage;
        let needs: Vec<_> = stage.terms.iter().map(|term| term.loss.needs()).collect();
        let faces = FaceBatch::from_faces(&batch.faces, stage.device)?;
        let teachers = stage.teachers.of(batch, stage.device)?;
        let wants_embedding = needs.iter().any(|n| n.embedding);
        let map = match maps {
            Some(maps) => Some(maps.gather(batch, stage)?),
            None if wants_embedding || needs.iter().any(|n| n.map) => Some(self.map(&faces)?),
            None => None,
        };
        let head_mode = if stage.trains(Part::Head) { Mode::Train } else { Mode::Evaluate };
        let embedding = match &map {
            Some(map) if wants_embedding => Some(stage.student.head(map, head_mode)?),
            _ => None,
        };
        let dataset = stage.views.dataset();
        let identities: Vec<usize> = match dataset.identities() {
            0 => Vec::new(),
            _ => batch.indices.iter().map(|&index| dataset.identity(index)).collect(),
        };
        let labels = if needs.iter().any(|n| n.labels) {
            let numbers: Vec<u32> = identities.iter().map(|&identity| identity as u32).collect();
            Some(Tensor::new(numbers, stage.device)?)
        } else {
            None
        };
        let mut logits = BTreeMap::new();
        let mut total: Option<Tensor> = None;
        for term in &stage.terms {
            let inputs = LossInputs {
                map: map.as_ref(),
                embedding: embedding.as_ref(),
                teachers: &teachers,
                labels: labels.as_ref(),
                identities: &identities,
                faces: &faces,
                student: stage.student,
                logits: &logits,
                stream: stage.seed.stream(&format!("loss/{}/{}", stage.name, term.name), &[batch.step]),
            };
            let place = || format!("loss `{}`", term.name);
            let value = term.loss.compute(&inputs).at(place)?;
            let number = f64::from(value.value.detach().to_scalar::<f32>().at(place)?);
            if !number.is_finite() {
                return Err(Error::component(format!(
                    "the loss term `{}` is {number}; no variable was changed by this step",
                    term.name
                )));
            }
            self.log(&term.name, number);
            for (detail, number) in &value.details {
                self.log(&format!("{}.{detail}", term.name), *number);
            }
            self.loss += term.weight * number;
            let weighted = (value.value * term.weight)?;
            total = Some(match total {
                Some(total) => (total + weighted)?,
                None => weighted,
            });
            if let Some(tensor) = value.logits {
                logits.insert(term.name.clone(), tensor);
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

    fn log(&mut self, name: &str, number: f64) {
        match self.terms.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += number,
            None => self.terms.push((name.to_string(), number)),
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

    pub(super) fn finish(mut self) -> Result<Done> {
        let share = 1.0 / self.batches as f64;
        if self.batches > 1 {
            for tensor in self.gradients.values_mut() {
                *tensor = (tensor.clone() * share)?;
            }
        }
        let mut squares = 0.0;
        for (name, tensor) in &self.gradients {
            let square = f64::from(tensor.sqr()?.sum_all()?.to_scalar::<f32>()?);
            if !square.is_finite() {
                return Err(Error::component(format!(
                    "the gradient of `{name}` is not finite at step {}; no variable was changed by it",
                    self.step
                )));
            }
            squares += square;
        }
        let terms = self.terms.into_iter().map(|(name, sum)| (name, sum * share)).collect();
        Ok(Done { loss: self.loss * share, terms, norm: squares.sqrt(), gradients: self.gradients })
    }
}

/// Bytes of a frozen backbone's maps that are kept in memory.
const KEPT_BYTES: usize = 1 << 30;

/// The maps of a frozen backbone, computed once for all epochs.
pub(super) struct FrozenMaps {
    shape: Vec<usize>,
    plain: Vec<f32>,
    mirrored: Vec<f32>,
}

impl FrozenMaps {
    /// Computes the maps if the backbone is frozen, views repeat, memory allows, and there is more than one epoch.
    pub(super) fn when_it_pays(stage: &Stage, steps: u64, observer: &mut dyn Observer) -> Result<Option<Self>> {
        let options = stage.options;
        let used = stage.terms.iter().any(|term| term.loss.needs().embedding || term.loss.needs().map);
        let samples = stage.views.dataset().len();
        let sides = if options.augment.flip { 2 } else { 1 };
        let map = stage.student.card().map;
        let bytes = samples * sides * map.iter().product::<usize>() * 4;
        let seen = steps as usize * options.accumulate * options.batch_size;
        let repeats =
            !stage.trains(Part::Backbone) && options.augment.shift == 0 && !stage.views.degradation().is_random();
        if !used || !repeats || bytes > KEPT_BYTES || seen <= samples * sides {
            return Ok(None);
        }
        let mut side = |flipped: bool| -> Result<Vec<f32>> {
            let mut values = Vec::with_capacity(bytes / 4 / sides);
            for start in (0..samples).step_by(options.batch_size) {
                let what =
                    if flipped { "maps of the frozen backbone, mirrored" } else { "maps of the frozen backbone" };
                let event = Event::Working { what: what.into(), done: start, total: samples };
                if observer.on(&event) == Flow::Stop {
                    return Err(Error::new(crate::error::ErrorKind::Stopped, "stopped by the user"));
                }
                let face = |index: usize| {
                    let face = stage.views.face(index, View::Low, &mut Seed(0).stream("unused", &[]))?;
                    Ok(if flipped { face.flipped() } else { face })
                };
                let end = (start + options.batch_size).min(samples);
                let faces = (start..end).into_par_iter().map(face).collect::<Result<Vec<Face>>>()?;
                let batch = FaceBatch::from_faces(&faces, stage.device)?;
                let map = stage.student.backbone(&batch, Mode::Evaluate)?.detach();
                values.extend(map.flatten_all()?.to_vec1::<f32>()?);
            }
            Ok(values)
        };
        let plain = side(false)?;
        let mirrored = if sides == 2 { side(true)? } else { Vec::new() };
        Ok(Some(Self { shape: map.to_vec(), plain, mirrored }))
    }

    fn gather(&self, batch: &Batch, stage: &Stage) -> Result<Tensor> {
        let width: usize = self.shape.iter().product();
        let mut values = Vec::with_capacity(width * batch.indices.len());
        for (&index, &flipped) in batch.indices.iter().zip(&batch.flipped) {
            let side = if flipped { &self.mirrored } else { &self.plain };
            values.extend_from_slice(&side[index * width..(index + 1) * width]);
        }
        let mut shape = vec![batch.indices.len()];
        shape.extend(&self.shape);
        Ok(Tensor::from_vec(values, shape, stage.device)?)
    }
}
