//! The loop over a stage's steps.

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::Tensor;

use super::feed::Feed;
use super::frozen_maps::FrozenMaps;
use super::numbers::Numbers;
use super::optimizer::Optimizer;
use super::options::StageEdge;
use super::stage::{Kept, Stage, factor};
use super::step::StepSum;
use crate::data::Loader;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::observe::{Event, Flow, Observer};

/// Steps on a GPU whose numbers are read together, at most.
const READ_TOGETHER: usize = 16;

/// A step that has been made and not told.
struct Made {
    step: u64,
    rate: f64,
    numbers: Numbers,
}

/// Why a stage offers to be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saving {
    /// A step was made.
    Step,
    /// The observer wants to stop: this is what the run goes on from.
    Stopping,
    /// The stage is over.
    Over,
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
    /// Runs the steps from `from` on, and what is to be done before the first and after the last. After every step `save` is told
    /// how many are done and may write a checkpoint; it is given the optimiser.
    ///
    /// # Errors
    /// If a loss is not finite (the error names the step and the term), or anything below fails. The variables are
    /// then as the step before left them; on a GPU, where numbers are read late, some steps more may have been made.
    pub fn run(
        &mut self,
        from: u64,
        observer: &dyn Observer,
        save: &mut dyn FnMut(u64, &dyn Optimizer, Saving) -> Result<()>,
    ) -> Result<Outcome> {
        let steps = self.steps()?;
        let options = self.options;
        let accumulate = options.accumulate as u64;
        let _precision = self.precision.set();
        if from == 0
            && options.estimates(StageEdge::Begin)
            && self.estimate(StageEdge::Begin, steps, observer)?.is_none()
        {
            return Ok(Outcome::Stopped(0));
        }
        let maps = FrozenMaps::when_it_pays(self, from * accumulate, steps, observer)?;
        let range = from * accumulate..steps * accumulate;
        let order = self.order(steps);
        let loader = Loader::start(self.views.clone(), order, self.wanted(), range, self.workers)?;
        let mut feed = Feed::new(loader, maps, self.device)?;
        let (mut made, mut since) = (Vec::new(), Instant::now());
        for step in from..steps {
            let place = || format!("stage `{}`, step {step}", self.name);
            let before = Kept::of(self.buffers.values())?;
            let (mut gradients, numbers) = match self.step(step, steps, &mut feed, observer) {
                Ok(made) => made,
                Err(error) if error.kind() == ErrorKind::Stopped => {
                    before.restore()?;
                    // Steps that a GPU has made are told and checked before they are saved.
                    if !made.is_empty() {
                        self.tell(&mut made, &mut since, steps, observer)?;
                    }
                    if step > from {
                        save(step, &*self.optimizer, Saving::Stopping)?;
                    }
                    return Ok(Outcome::Stopped(step));
                }
                Err(error) => {
                    before.restore()?;
                    return Err(error.at(place()));
                }
            };
            self.exchange.exchange(&mut gradients).at(place)?;
            let rate = self.rate(step, steps);
            let (student, parts) = (self.student, &options.rates);
            let rate_of = |name: &str| rate * factor(student, parts, name);
            self.optimizer.step(&self.trained, &gradients, &rate_of)?;
            made.push(Made { step, rate, numbers });
            let done = step + 1;
            let is_due = made.len() == READ_TOGETHER || done == steps || done.is_multiple_of(self.checkpoint_steps);
            let stop = (!self.device.is_cuda() || is_due) && self.tell(&mut made, &mut since, steps, observer)?;
            if stop {
                save(done, &*self.optimizer, Saving::Stopping)?;
                return Ok(Outcome::Stopped(done));
            }
            if done < steps {
                save(done, &*self.optimizer, Saving::Step)?;
            }
        }
        drop(feed);
        if !self.finish(steps, observer)? {
            save(steps, &*self.optimizer, Saving::Stopping)?;
            return Ok(Outcome::Stopped(steps));
        }
        save(steps, &*self.optimizer, Saving::Over)?;
        Ok(Outcome::Finished)
    }

    /// What comes after the last step; false if the observer wants to stop, and then nothing has changed.
    fn finish(&mut self, steps: u64, observer: &dyn Observer) -> Result<bool> {
        if !self.options.estimates(StageEdge::End) {
            return Ok(true);
        }
        let before = Kept::of(self.trained.values())?;
        self.optimizer.finish(&self.trained)?;
        match self.estimate(StageEdge::End, steps, observer)? {
            Some(()) => Ok(true),
            None => before.restore().map(|()| false),
        }
    }

    /// Tells the steps that were made; says whether the run shall stop.
    fn tell(&self, made: &mut Vec<Made>, since: &mut Instant, steps: u64, observer: &dyn Observer) -> Result<bool> {
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
        steps: u64,
        feed: &mut Feed,
        observer: &dyn Observer,
    ) -> Result<(BTreeMap<String, Tensor>, Numbers)> {
        let mut sum = StepSum::new(self, step, steps);
        for _ in 0..self.options.accumulate {
            sum.add(feed.next(self, observer)?, observer)?;
        }
        sum.finish(self.options.clip_norm)
    }
}
