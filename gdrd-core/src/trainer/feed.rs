//! Batches as tensors on the device; on a GPU those of the next step are on their way while this one is computed.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::features::Given;
use super::frozen_maps::FrozenMaps;
use super::stage::Stage;
use crate::data::{Batch, Loader};
use crate::error::{Error, ErrorKind, Result};
use crate::face::FaceBatch;
use crate::loss::Labels;
use crate::nn::kernels::Upload;
use crate::observe::{Flow, Observer};

/// What a step takes from a batch.
pub(super) struct Ready {
    pub(super) batch: Batch,
    pub(super) faces: FaceBatch,
    /// The faces in the other views that losses need, by name.
    pub(super) views: BTreeMap<String, FaceBatch>,
    pub(super) teachers: Given,
    /// The frozen backbone's maps, where they are kept.
    pub(super) map: Option<Tensor>,
    pub(super) labels: Option<Labels>,
}

/// Makes batches ready, one ahead where that pays.
pub(super) struct Feed {
    loader: Loader,
    maps: Option<FrozenMaps>,
    upload: Upload,
    ahead: Option<Result<Ready>>,
}

impl Feed {
    pub(super) fn new(loader: Loader, maps: Option<FrozenMaps>, device: &Device) -> Result<Self> {
        Ok(Self { loader, maps, upload: Upload::new(device)?, ahead: None })
    }

    /// The next batch.
    ///
    /// # Errors
    /// If its faces cannot be read, there are no batches left, or the observer wants to stop ([`ErrorKind::Stopped`]).
    pub(super) fn next(&mut self, stage: &Stage, observer: &dyn Observer) -> Result<Ready> {
        let ready = self.ahead.take().or_else(|| self.made(stage, observer));
        let ready = ready.unwrap_or_else(|| Err(Error::new(ErrorKind::Data, "there are no batches left")))?;
        self.upload.arrive()?;
        if self.upload.runs_ahead() {
            self.ahead = self.made(stage, observer);
        }
        Ok(ready)
    }

    fn made(&mut self, stage: &Stage, observer: &dyn Observer) -> Option<Result<Ready>> {
        let batch = self.loader.next_batch(&mut || observer.poll() == Flow::Stop)?;
        Some(batch.and_then(|batch| self.ready(batch, stage)))
    }

    fn ready(&mut self, batch: Batch, stage: &Stage) -> Result<Ready> {
        let Self { maps, upload, .. } = self;
        let mut put = |tensor: Tensor| -> Result<Tensor> { Ok(upload.put(&tensor)?) };
        let faces = FaceBatch::from_faces(&batch.faces, &Device::Cpu)?;
        let faces = FaceBatch::from_tensor(put(faces.tensor().clone())?)?;
        let mut views = BTreeMap::new();
        // The loader has been asked for the teachers' views first.
        for (view, faces) in stage.views_of_losses().into_iter().zip(&batch.views[stage.teachers.wanted().len()..]) {
            let faces = FaceBatch::from_faces(faces, &Device::Cpu)?;
            views.insert(view, FaceBatch::from_tensor(put(faces.tensor().clone())?)?);
        }
        let dataset = stage.views.dataset();
        let teachers = stage.teachers.given(&batch, dataset, &mut put)?;
        if maps.as_ref().is_some_and(|maps| !maps.serve(batch.step)) {
            *maps = None;
        }
        let map = maps.as_ref().map(|maps| put(maps.gather(&batch)?)).transpose()?;
        let labels = if stage.terms.iter().any(|term| term.needs.labels) {
            let person = |(at, &index): (usize, &usize)| dataset.person(index).filter(|_| !batch.mixes(at));
            let people = batch.indices.iter().enumerate().map(person).collect();
            Some(Labels::new(people, &mut put)?)
        } else {
            None
        };
        Ok(Ready { batch, faces, views, teachers, map, labels })
    }
}
