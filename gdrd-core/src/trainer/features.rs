//! What teachers say of a batch: read from the store, or computed live where the store cannot know it.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::feed::Outputs;
use crate::data::{Batch, Wanted};
use crate::error::{Context, Result};
use crate::face::FaceBatch;
use crate::teacher::{Output, Stored, Teacher, View, gather};

/// Outputs of teachers for batches, by the teacher's name and the output.
#[derive(Default)]
pub struct TeacherFeatures<'a> {
    stored: BTreeMap<(String, Output), (Stored, Option<Stored>)>,
    live: Vec<Live<'a>>,
}

struct Live<'a> {
    name: String,
    teacher: &'a dyn Teacher,
    view: View,
    outputs: Vec<Output>,
}

impl<'a> TeacherFeatures<'a> {
    /// Adds an output that is stored, for faces as they are and (if any are mirrored) for mirrored ones.
    pub fn add_stored(&mut self, teacher: &str, output: Output, plain: Stored, mirrored: Option<Stored>) {
        self.stored.insert((teacher.to_string(), output), (plain, mirrored));
    }

    /// Adds a teacher that runs at every step.
    pub fn add_live(&mut self, name: &str, teacher: &'a dyn Teacher, view: View, outputs: Vec<Output>) {
        self.live.push(Live { name: name.to_string(), teacher, view, outputs });
    }

    /// The views that live teachers need from the loader.
    pub fn wanted(&self) -> Vec<Wanted> {
        self.live.iter().map(|live| (live.view, live.teacher.card().input_size)).collect()
    }

    /// What is stored of a batch, and the faces for teachers that run live, each where `put` puts it.
    pub(super) fn given(&self, batch: &Batch, put: &mut dyn FnMut(Tensor) -> Result<Tensor>) -> Result<Given> {
        let mut stored = Outputs::new();
        for (key, (plain, mirrored)) in &self.stored {
            let tensor = gather(plain, mirrored.as_ref(), &batch.indices, &batch.flipped, &Device::Cpu)?;
            stored.insert(key.clone(), put(tensor)?);
        }
        let mut faces = Vec::with_capacity(self.live.len());
        for view in batch.views.iter().take(self.live.len()) {
            let batch = FaceBatch::from_faces(view, &Device::Cpu)?;
            faces.push(FaceBatch::from_tensor(put(batch.tensor().clone())?)?);
        }
        Ok(Given { stored, faces })
    }

    /// All outputs for a batch of which this was given.
    pub(super) fn of(&self, given: Given) -> Result<Outputs> {
        let mut found = given.stored;
        for (live, faces) in self.live.iter().zip(&given.faces) {
            let place = || format!("teacher `{}`", live.name);
            let tensors = live.teacher.features(faces, &live.outputs).at(place)?;
            for (output, tensor) in live.outputs.iter().zip(tensors) {
                found.insert((live.name.clone(), output.clone()), tensor.detach());
            }
        }
        Ok(found)
    }
}

/// What teachers have said of a batch, and the faces for those that are still to be asked.
pub(super) struct Given {
    stored: Outputs,
    faces: Vec<FaceBatch>,
}
