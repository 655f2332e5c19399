//! What teachers say of a batch: read from the store, or computed live where the store cannot know it.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use crate::data::{Batch, Dataset, Mixed, Targets, Variant, Wanted};
use crate::error::{Context, Error, Result};
use crate::face::FaceBatch;
use crate::teacher::{Output, Shown, Stored, Teacher, gather};

/// An output by the teacher's name in the recipe.
pub type OutputOf = (String, Output);

/// Outputs of teachers for batches.
#[derive(Default)]
pub struct TeacherFeatures<'a> {
    stored: BTreeMap<OutputOf, BTreeMap<Variant, Stored>>,
    live: Vec<LiveTeacher<'a>>,
}

/// A teacher that runs at every step.
struct LiveTeacher<'a> {
    name: String,
    teacher: &'a dyn Teacher,
    outputs: Vec<Output>,
}

impl<'a> TeacherFeatures<'a> {
    /// Adds an output that is stored, for each variant that a face can have.
    pub fn add_stored(&mut self, teacher: &str, output: Output, stored: BTreeMap<Variant, Stored>) {
        self.stored.insert((teacher.to_string(), output), stored);
    }

    /// Adds a teacher that runs at every step.
    pub fn add_live(&mut self, name: &str, teacher: &'a dyn Teacher, outputs: Vec<Output>) {
        self.live.push(LiveTeacher { name: name.to_string(), teacher, outputs });
    }

    /// The views that live teachers need from the loader, teacher by teacher.
    pub fn wanted(&self) -> Vec<Wanted> {
        let of = |live: &LiveTeacher| {
            let card = live.teacher.card();
            card.views.iter().map(|view| Wanted { view: view.clone(), size: card.input_size }).collect::<Vec<_>>()
        };
        self.live.iter().flat_map(of).collect()
    }

    /// What is stored of a batch, and the faces for teachers that run live, each where `put` puts it.
    pub(super) fn given(
        &self,
        batch: &Batch,
        dataset: &dyn Dataset,
        put: &mut dyn FnMut(Tensor) -> Result<Tensor>,
    ) -> Result<Given> {
        let mut stored = BTreeMap::new();
        for (key, of_output) in &self.stored {
            let mut tensor = gather(of_output, &batch.indices, &batch.variants, &Device::Cpu)?;
            if let Some(mixed) = &batch.mixed {
                tensor = mixed.rows(&tensor)?;
            }
            stored.insert(key.clone(), put(tensor)?);
        }
        let mut views = batch.views.iter();
        let mut shown = Vec::with_capacity(self.live.len());
        for live in &self.live {
            let mut of_teacher = Vec::new();
            for _ in &live.teacher.card().views {
                let faces = views.next().ok_or_else(|| Error::component("the loader made too few views"))?;
                let batch = FaceBatch::from_faces(faces, &Device::Cpu)?;
                of_teacher.push(FaceBatch::from_tensor(put(batch.tensor().clone())?)?);
            }
            // A mixture is no sample of the dataset.
            let key = |(at, index): (usize, &usize)| match batch.mixes_for_teachers(at) {
                true => String::new(),
                false => dataset.key(*index),
            };
            let keys = batch.indices.iter().enumerate().map(key).collect();
            shown.push(Shown::new(of_teacher)?.with_keys(keys));
        }
        let mixed = batch.mixed.clone().filter(|mixed| mixed.targets == Targets::Mixed);
        Ok(Given { stored, shown, mixed })
    }

    /// All outputs for a batch of which this was given.
    pub(super) fn of(&self, given: Given) -> Result<BTreeMap<OutputOf, Tensor>> {
        let mut found = given.stored;
        for (live, shown) in self.live.iter().zip(&given.shown) {
            let place = || format!("teacher `{}`", live.name);
            let tensors = live.teacher.features(shown, &live.outputs).at(place)?;
            for (output, tensor) in live.outputs.iter().zip(tensors) {
                let tensor = given.mixed.as_ref().map_or_else(|| Ok(tensor.clone()), |mixed| mixed.rows(&tensor))?;
                found.insert((live.name.clone(), output.clone()), tensor.detach());
            }
        }
        Ok(found)
    }
}

/// What teachers have said of a batch, and the faces for those that are still to be asked.
pub(super) struct Given {
    stored: BTreeMap<OutputOf, Tensor>,
    shown: Vec<Shown>,
    /// How what live teachers say of faces is mixed.
    mixed: Option<Mixed>,
}
