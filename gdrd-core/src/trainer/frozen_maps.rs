//! The maps of a backbone that does not change.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::stage::Stage;
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::face::{Face, FaceBatch};
use crate::nn::Mode;
use crate::observe::{Event, Flow, Observer};
use crate::seed::Seed;
use crate::student::Part;
use crate::teacher::View;

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
        let seen = (steps as usize).saturating_mul(options.accumulate).saturating_mul(options.batch_size);
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

    /// The maps of a batch, in main memory.
    pub(super) fn gather(&self, batch: &Batch) -> Result<Tensor> {
        let width: usize = self.shape.iter().product();
        let mut values = Vec::with_capacity(width * batch.indices.len());
        for (&index, &flipped) in batch.indices.iter().zip(&batch.flipped) {
            let side = if flipped { &self.mirrored } else { &self.plain };
            values.extend_from_slice(&side[index * width..(index + 1) * width]);
        }
        let mut shape = vec![batch.indices.len()];
        shape.extend(&self.shape);
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }
}
