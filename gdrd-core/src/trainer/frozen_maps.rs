//! The maps of a backbone that does not change.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::options::FrozenStatistics;
use super::stage::Stage;
use crate::data::{Batch, Variant};
use crate::error::{Error, Result};
use crate::face::{Face, FaceBatch};
use crate::nn::Mode;
use crate::observe::{Event, Observer, tell};
use crate::seed::Seed;
use crate::student::Part;

/// The maps of a frozen backbone, computed once for all epochs.
pub(super) struct FrozenMaps {
    shape: Vec<usize>,
    maps: BTreeMap<Variant, Vec<f32>>,
    /// The first batch, counted from the stage's beginning, for which the backbone changes.
    until: u64,
}

impl FrozenMaps {
    /// Computes the maps if the backbone is frozen at the batch `from`, views repeat, memory allows, and it is frozen for more than
    /// one epoch in all.
    pub(super) fn when_it_pays(stage: &Stage, from: u64, steps: u64, observer: &dyn Observer) -> Result<Option<Self>> {
        let options = stage.options;
        let used = stage.terms.iter().any(|term| term.needs.embedding || term.needs.map);
        let samples = stage.views.dataset().len();
        let variants = options.augment.variants();
        let sides = variants.len();
        let map = stage.student.card().map;
        let bytes = samples * sides * map.iter().product::<usize>() * 4;
        let until = options.first_change(Part::Backbone, steps).unwrap_or(steps) * options.accumulate as u64;
        let seen = (until as usize).saturating_mul(options.batch_size);
        let last_view = options.last.as_ref().and_then(|last| last.view.as_ref());
        let repeats = options.frozen_statistics == FrozenStatistics::Kept
            && options.augment.shift == 0
            && options.augment.mixup.is_none()
            && last_view.is_none_or(|view| *view == stage.view)
            && stage.inner_maps().is_empty()
            && !stage.views.is_random(&stage.view)?;
        if from >= until || !used || !repeats || bytes > stage.map_memory || seen <= samples * sides {
            return Ok(None);
        }
        let of_variant = |variant: Variant| -> Result<Vec<f32>> {
            let mut values = Vec::with_capacity(bytes / 4 / sides);
            for start in (0..samples).step_by(options.batch_size) {
                let side = if variant.mirrored { ", mirrored" } else { "" };
                let what = match variant.draw {
                    0 => format!("maps of the frozen backbone{side}"),
                    draw => format!("maps of the frozen backbone, change {draw}{side}"),
                };
                tell(observer, &Event::Working { what, done: start, total: samples })?;
                let (views, view) = (stage.views, &stage.view);
                let face = |index: usize| {
                    let random = &mut Seed(0).stream("unused", &[]);
                    views.face(index, view, (&options.augment, variant), random)
                };
                let end = (start + options.batch_size).min(samples);
                let faces = (start..end).into_par_iter().map(face).collect::<Result<Vec<Face>>>()?;
                let batch = FaceBatch::from_faces(&faces, stage.device)?;
                let map = stage.student.backbone(&batch, Mode::Evaluate)?.detach();
                values.extend(map.flatten_all()?.to_vec1::<f32>()?);
            }
            Ok(values)
        };
        let maps = variants.into_iter().map(|variant| Ok((variant, of_variant(variant)?))).collect::<Result<_>>()?;
        Ok(Some(Self { shape: map.to_vec(), maps, until }))
    }

    /// Whether the backbone that makes this batch's maps is still the one that made these.
    pub(super) fn serve(&self, batch: u64) -> bool {
        batch < self.until
    }

    /// The maps of a batch, in main memory.
    pub(super) fn gather(&self, batch: &Batch) -> Result<Tensor> {
        let width: usize = self.shape.iter().product();
        let mut values = Vec::with_capacity(width * batch.indices.len());
        for (&index, variant) in batch.indices.iter().zip(&batch.variants) {
            let of_variant = self.maps.get(variant);
            let maps = of_variant.ok_or_else(|| Error::component(format!("no maps were kept of {variant:?}")))?;
            values.extend_from_slice(&maps[index * width..(index + 1) * width]);
        }
        let mut shape = vec![batch.indices.len()];
        shape.extend(&self.shape);
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }
}
