//! Running means and variances of normalisation, estimated again over a stage's data.

use super::options::{FrozenStatistics, StageEdge};
use super::stage::{Kept, Stage};
use crate::data::{Loader, Order};
use crate::error::{Error, ErrorKind, Result};
use crate::face::FaceBatch;
use crate::nn::{Mode, Pass};
use crate::observe::{Event, Flow, Observer, tell};
use crate::student::Part;

/// Batches that statistics are estimated from, at most: their means change little after that many (Wu and Johnson, 2021).
const BATCHES: u64 = 200;

impl Stage<'_> {
    /// Estimates the running statistics of the student again: the mean over the statistics of batches of the stage's data, as the
    /// stage shows them, in an order drawn from the seed. At the beginning they are those of both parts; at the end of the parts
    /// that changed. None if the observer wants to stop; the statistics are then as they were.
    pub(super) fn estimate(&self, edge: StageEdge, steps: u64, observer: &dyn Observer) -> Result<Option<()>> {
        if self.buffers.is_empty() {
            return Ok(Some(()));
        }
        let before = Kept::of(self.buffers.values())?;
        match self.estimate_over_data(edge, steps, observer) {
            Ok(()) => Ok(Some(())),
            Err(error) => {
                before.restore()?;
                match error.kind() {
                    ErrorKind::Stopped => Ok(None),
                    _ => Err(error.at(format!("stage `{}`, running statistics", self.name))),
                }
            }
        }
    }

    fn estimate_over_data(&self, edge: StageEdge, steps: u64, observer: &dyn Observer) -> Result<()> {
        let order = self.statistics_order(edge, steps);
        let batches = order.steps_per_epoch().min(BATCHES);
        let mut loader = Loader::start(self.views.clone(), order, Vec::new(), 0..batches, self.workers)?;
        let mode = |part| {
            let options = self.options;
            let changed = options.trains.contains(&part) || options.frozen_statistics == FrozenStatistics::Moving;
            if edge == StageEdge::Begin || changed { Mode::Train } else { Mode::Evaluate }
        };
        for batch in 0..batches {
            let what = format!("running statistics of stage `{}`", self.name);
            tell(observer, &Event::Working { what, done: batch as usize, total: batches as usize })?;
            let next = loader.next_batch(&mut || observer.poll() == Flow::Stop);
            let faces = next.unwrap_or_else(|| Err(Error::new(ErrorKind::Data, "there are no batches left")))?.faces;
            let faces = FaceBatch::from_faces(&faces, self.device)?;
            let _pass = Pass::statistics(batch).set();
            let map = self.student.backbone(&faces, mode(Part::Backbone))?.detach();
            if self.student.card().embedding.is_some() {
                self.student.head(&map, mode(Part::Head))?;
            }
        }
        Ok(())
    }

    /// Faces as the stage shows them there, none of them mixed.
    fn statistics_order(&self, edge: StageEdge, steps: u64) -> Order {
        let mut order = self.order(steps);
        if let Some(last) = order.last.take().filter(|_| edge == StageEdge::End) {
            (order.augment, order.view) = (last.augment, last.view);
        }
        order.stage = format!("{}/statistics/{edge:?}", self.name);
        order.augment.mixup = None;
        order
    }
}
