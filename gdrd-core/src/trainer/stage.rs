//! A stage: which part is trained, on what, for how long; and the loop over its steps.

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::{Device, Tensor, Var};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::features::TeacherFeatures;
use super::feed::Feed;
use super::frozen_maps::FrozenMaps;
use super::numbers::Numbers;
use super::optimizer::Optimizer;
use super::schedule::Schedule;
use super::step::Step;
use crate::data::{Augment, Loader, Plan, Views};
use crate::error::{Context, Error, ErrorKind, Problem, Result};
use crate::loss::Loss;
use crate::nn::kernels::Precision;
use crate::observe::{Event, Flow, Observer};
use crate::seed::Seed;
use crate::student::{Part, Student};

/// The plain options of a stage; its optimiser, schedule and losses stand beside them in the recipe.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StageOptions {
    /// Parts of the student that change; the others are frozen, running statistics included.
    pub trains: Vec<Part>,
    /// The dataset's name in the recipe.
    pub data: String,
    /// Passes over the dataset; give either this or `steps`.
    pub epochs: Option<f64>,
    /// Optimiser steps; give either this or `epochs`.
    pub steps: Option<u64>,
    /// Faces in a batch; 96 in the paper.
    pub batch_size: usize,
    /// Batches whose gradients are averaged for one step.
    pub accumulate: usize,
    /// Learning rate before the schedule; 0.05 in the paper.
    pub learning_rate: f64,
    /// Steps in which the learning rate rises from zero.
    pub warmup_steps: u64,
    /// Longest gradient, Euclidean, over all variables; longer ones are shortened.
    pub clip_norm: Option<f64>,
    /// Random changes to faces.
    pub augment: Augment,
    /// Whether features of teachers are stored on disk and read from there. If not, teachers run at every step.
    pub store_features: bool,
}

impl Default for StageOptions {
    fn default() -> Self {
        Self {
            trains: vec![Part::Backbone, Part::Head],
            data: "train".into(),
            epochs: None,
            steps: None,
            batch_size: 96,
            accumulate: 1,
            learning_rate: 0.05,
            warmup_steps: 0,
            clip_norm: None,
            augment: Augment { flip: true, shift: 0 },
            store_features: true,
        }
    }
}

impl StageOptions {
    /// What is wrong with the options.
    pub fn check(&self) -> Vec<Problem> {
        let length = match (self.epochs, self.steps) {
            (Some(epochs), None) => {
                let good = epochs > 0.0 && epochs <= 1e6;
                Problem::unless(good, "epochs", || format!("expected above 0 and at most 1e6, found {epochs}"))
            }
            (None, Some(steps)) => Problem::within("steps", steps, 1..=1_000_000_000),
            _ => Some(Problem::new("epochs", "expected exactly one of `epochs` and `steps`")),
        };
        [
            length,
            Problem::unless(!self.trains.is_empty(), "trains", || "expected `backbone`, `head` or both".into()),
            Problem::within("batch_size", self.batch_size, 2..=1 << 20),
            Problem::within("accumulate", self.accumulate, 1..=1_000_000_000),
            Problem::within("warmup_steps", self.warmup_steps, 0..=1_000_000_000),
            Problem::unless(self.augment.shift <= 512, "augment", || {
                format!("expected a `shift` of at most 512 pixels, found {}", self.augment.shift)
            }),
            Problem::unless(self.learning_rate > 0.0, "learning_rate", || {
                format!("expected above 0, found {}", self.learning_rate)
            }),
            Problem::unless(self.clip_norm.is_none_or(|norm| norm > 0.0), "clip_norm", || "expected above 0".into()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Optimiser steps on a dataset of `samples` faces.
    ///
    /// # Errors
    /// If the dataset does not fill one batch.
    pub fn total_steps(&self, samples: usize) -> Result<u64> {
        let per_epoch = samples / self.batch_size;
        if per_epoch == 0 {
            return Err(Error::data(format!(
                "a batch of {} needs as many faces, the data has {samples}",
                self.batch_size
            )));
        }
        let batches = |epochs: f64| (epochs * per_epoch as f64 / self.accumulate as f64).round() as u64;
        Ok(self.steps.unwrap_or_else(|| batches(self.epochs.unwrap_or(1.0))).max(1))
    }
}

/// A weighted loss of a stage.
pub struct Term {
    /// Its name in the recipe.
    pub name: String,
    /// Its factor in the sum.
    pub weight: f64,
    /// The loss.
    pub loss: Box<dyn Loss>,
}

/// A stage that is ready to run.
pub struct Stage<'a> {
    /// Its name in the recipe.
    pub name: &'a str,
    /// Its options.
    pub options: &'a StageOptions,
    /// The student.
    pub student: &'a dyn Student,
    /// Everything that gradients change in this stage, by name.
    pub trained: BTreeMap<String, Var>,
    /// What training changes without a gradient. A step that is broken off leaves it as the step before did.
    pub buffers: BTreeMap<String, Var>,
    /// The objective, in an order in which logits are there before they are used.
    pub terms: Vec<Term>,
    /// What teachers say.
    pub teachers: TeacherFeatures<'a>,
    /// Changes the variables.
    pub optimizer: Box<dyn Optimizer>,
    /// Factor of the learning rate.
    pub schedule: &'a dyn Schedule,
    /// The faces.
    pub views: &'a Views,
    /// The run's seed.
    pub seed: Seed,
    /// Threads that read faces.
    pub workers: usize,
    /// Where tensors are.
    pub device: &'a Device,
    /// What products may round to on a GPU.
    pub precision: Precision,
    /// Steps between checkpoints. On a GPU the numbers of a step are read, told and checked to be finite some steps later, but
    /// before the next checkpoint.
    pub checkpoint_steps: u64,
}

/// Steps on a GPU whose numbers are read together, at most.
const READ_TOGETHER: usize = 16;

/// A step that has been made and not told.
struct Made {
    step: u64,
    rate: f64,
    numbers: Numbers,
}

/// How a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are made.
    Finished,
    /// The observer wanted to stop after this many steps.
    Stopped(u64),
}

impl Stage<'_> {
    /// The steps of the whole stage.
    pub fn steps(&self) -> Result<u64> {
        self.options.total_steps(self.views.dataset().len())
    }

    /// Runs the steps from `from` on. After every step `save` is told how many are done and may write a checkpoint;
    /// it is given the optimiser.
    ///
    /// # Errors
    /// If a loss is not finite (the error names the step and the term), or anything below fails. The variables are
    /// then as the step before left them; on a GPU, where numbers are read late, some steps more may have been made.
    pub fn run(
        &mut self,
        from: u64,
        observer: &mut dyn Observer,
        save: &mut dyn FnMut(u64, &dyn Optimizer, bool) -> Result<()>,
    ) -> Result<Outcome> {
        let steps = self.steps()?;
        let options = self.options;
        let accumulate = options.accumulate as u64;
        let _precision = self.precision.set();
        let maps = FrozenMaps::when_it_pays(self, steps, observer)?;
        let plan = Plan {
            seed: self.seed,
            stage: self.name.to_string(),
            batch_size: options.batch_size,
            samples: self.views.dataset().len(),
            augment: options.augment,
        };
        let range = from * accumulate..steps * accumulate;
        let loader = Loader::start(self.views.clone(), plan, self.teachers.wanted(), range, self.workers)?;
        let mut feed = Feed::new(loader, maps, self.device)?;
        let (mut made, mut since) = (Vec::new(), Instant::now());
        for step in from..steps {
            let found = match self.step(step, &mut feed, observer) {
                Err(error) if error.kind() == ErrorKind::Stopped => {
                    // Steps that a GPU has made are told and checked before they are saved.
                    if !made.is_empty() {
                        self.tell(&mut made, &mut since, steps, observer)?;
                    }
                    if step > from {
                        save(step, &*self.optimizer, true)?;
                    }
                    return Ok(Outcome::Stopped(step));
                }
                found => found,
            };
            let (gradients, numbers) = found.at(|| format!("stage `{}`, step {step}", self.name))?;
            let rate = self.rate(step, steps);
            self.optimizer.step(&self.trained, &gradients, rate)?;
            made.push(Made { step, rate, numbers });
            let done = step + 1;
            let is_due = made.len() == READ_TOGETHER || done == steps || done.is_multiple_of(self.checkpoint_steps);
            let stop = (!self.device.is_cuda() || is_due) && self.tell(&mut made, &mut since, steps, observer)?;
            save(done, &*self.optimizer, stop)?;
            if stop {
                return Ok(Outcome::Stopped(done));
            }
        }
        Ok(Outcome::Finished)
    }

    /// Tells the steps that were made; says whether the run shall stop.
    fn tell(&self, made: &mut Vec<Made>, since: &mut Instant, steps: u64, observer: &mut dyn Observer) -> Result<bool> {
        let options = self.options;
        let last = made.last().map_or(0, |made| made.step);
        let read = |Made { step, rate, numbers }: Made| {
            let read = numbers.read(last).at(|| format!("stage `{}`, step {step}", self.name))?;
            Ok::<_, Error>((step, rate, read))
        };
        let (count, all) = (made.len(), made.drain(..).map(read).collect::<Vec<_>>());
        let seconds = since.elapsed().as_secs_f64();
        *since = Instant::now();
        let images = options.batch_size * options.accumulate * count;
        let mut stop = false;
        for told in all {
            let (step, rate, read) = told?;
            let event = Event::StepDone {
                stage: self.name.to_string(),
                step: step + 1,
                steps,
                loss: read.loss,
                terms: read.terms,
                rate,
                gradient_norm: read.norm,
                images_per_second: images as f64 / seconds.max(1e-9),
            };
            stop |= observer.on(&event) == Flow::Stop;
        }
        Ok(stop && last + 1 < steps)
    }

    fn step(
        &self,
        step: u64,
        feed: &mut Feed,
        observer: &mut dyn Observer,
    ) -> Result<(BTreeMap<String, Tensor>, Numbers)> {
        let mut sum = Step::new(self, step);
        let mut before = Vec::new();
        for batch in 0..self.options.accumulate {
            let ready = match feed.next(self, observer) {
                Err(error) if error.kind() == ErrorKind::Stopped => {
                    self.buffers.values().zip(&before).try_for_each(|(var, tensor)| var.set(tensor))?;
                    return Err(error);
                }
                ready => ready?,
            };
            if batch == 0 && self.options.accumulate > 1 {
                before = self.buffers.values().map(|var| var.copy()).collect::<candle_core::Result<_>>()?;
            }
            sum.add(ready)?;
        }
        sum.finish(self.options.clip_norm)
    }

    fn rate(&self, step: u64, steps: u64) -> f64 {
        let options = self.options;
        let warm = if step < options.warmup_steps { (step + 1) as f64 / options.warmup_steps as f64 } else { 1.0 };
        options.learning_rate * warm * self.schedule.factor(step as f64 / steps as f64)
    }

    /// Whether this stage trains `part`.
    pub fn trains(&self, part: Part) -> bool {
        self.options.trains.contains(&part)
    }
}
