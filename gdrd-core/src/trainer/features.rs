//! What teachers say of a batch: read from the store, or computed live where the store cannot know it.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use crate::data::{Batch, Dataset, Mixed, Targets, Variant, Wanted};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::face::FaceBatch;
use crate::observe::{Flow, Observer};
use crate::teacher::{Output, Shown, Stored, Teacher, gather};

/// An output by the teacher's name in the recipe.
pub type OutputOf = (String, Output);

/// Faces that a live teacher sees at once on the CPU: who wants to stop waits for no more. A constant, so that a run that was
/// stopped rounds as one that was not.
const AT_ONCE: usize = 16;

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
    ///
    /// # Errors
    /// If a teacher fails, or the observer wants to stop ([`ErrorKind::Stopped`]): a large teacher needs seconds for a batch.
    pub(super) fn of(&self, given: Given, observer: &dyn Observer) -> Result<BTreeMap<OutputOf, Tensor>> {
        let mut found = given.stored;
        for (live, shown) in self.live.iter().zip(&given.shown) {
            let place = || format!("teacher `{}`", live.name);
            let tensors = live.features(shown, observer).at(place)?;
            for (output, tensor) in live.outputs.iter().zip(tensors) {
                let tensor = given.mixed.as_ref().map_or_else(|| Ok(tensor.clone()), |mixed| mixed.rows(&tensor))?;
                found.insert((live.name.clone(), output.clone()), tensor.detach());
            }
        }
        Ok(found)
    }
}

impl LiveTeacher<'_> {
    /// The outputs of a batch; on the CPU some faces at a time, between which the observer may stop.
    fn features(&self, shown: &Shown, observer: &dyn Observer) -> Result<Vec<Tensor>> {
        let count = shown.faces().len();
        if count <= AT_ONCE || !shown.faces().tensor().device().is_cpu() {
            return self.teacher.features(shown, &self.outputs);
        }
        let mut parts: Vec<Vec<Tensor>> = vec![Vec::new(); self.outputs.len()];
        for start in (0..count).step_by(AT_ONCE) {
            if observer.poll() == Flow::Stop {
                return Err(Error::new(ErrorKind::Stopped, "stopped by the user"));
            }
            let part = shown.part(start, AT_ONCE.min(count - start))?;
            let found = self.teacher.features(&part, &self.outputs)?;
            parts.iter_mut().zip(found).for_each(|(parts, tensor)| parts.push(tensor.detach()));
        }
        parts.iter().map(|parts| Ok(Tensor::cat(parts, 0)?)).collect()
    }
}

/// What teachers have said of a batch, and the faces for those that are still to be asked.
pub(super) struct Given {
    stored: BTreeMap<OutputOf, Tensor>,
    shown: Vec<Shown>,
    /// How what live teachers say of faces is mixed.
    mixed: Option<Mixed>,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::face::Face;
    use crate::observe::Event;
    use crate::teacher::{Preprocessing, TeacherCard};

    /// The mean of each colour; counts the faces that it has seen.
    struct Mean(TeacherCard, AtomicUsize);

    impl Teacher for Mean {
        fn card(&self) -> &TeacherCard {
            &self.0
        }

        fn shape(&self, _: &Output, _: usize) -> Result<Vec<usize>> {
            Ok(vec![3])
        }

        fn features(&self, shown: &Shown, outputs: &[Output]) -> Result<Vec<Tensor>> {
            assert_eq!(shown.keys().len(), shown.faces().len());
            self.1.fetch_add(shown.faces().len(), Ordering::SeqCst);
            outputs.iter().map(|_| Ok(shown.faces().tensor().mean((2, 3))?)).collect()
        }
    }

    /// Wants to stop after it was asked so often.
    struct Patience(usize, AtomicUsize);

    impl Observer for Patience {
        fn on(&self, _: &Event) -> Flow {
            Flow::Continue
        }

        fn poll(&self) -> Flow {
            if self.1.fetch_add(1, Ordering::SeqCst) < self.0 { Flow::Continue } else { Flow::Stop }
        }
    }

    fn means(count: usize, patience: usize) -> (Result<Tensor>, usize) {
        let views = vec!["high".to_string()];
        let card = TeacherCard { input_size: None, preprocessing: Preprocessing::none(), views, default_map: None };
        let teacher = Mean(card, AtomicUsize::new(0));
        let faces: Vec<Face> = (0..count).map(|n| Face::new(2, 2, vec![n as u8; 12]).expect("a face")).collect();
        let shown = Shown::from(FaceBatch::from_faces(&faces, &Device::Cpu).expect("a batch"));
        let shown = vec![shown.with_keys((0..count).map(|n| n.to_string()).collect())];
        let mut features = TeacherFeatures::default();
        features.add_live("mean", &teacher, vec![Output::Embedding]);
        let given = Given { stored: BTreeMap::new(), shown, mixed: None };
        let found = features.of(given, &Patience(patience, AtomicUsize::new(0)));
        let found = found.map(|mut found| found.remove(&("mean".into(), Output::Embedding)).expect("an output"));
        (found, teacher.1.load(Ordering::SeqCst))
    }

    #[test]
    fn a_live_teacher_sees_a_batch_in_parts_between_which_one_may_stop() {
        for count in [1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE + 5] {
            let (found, seen) = means(count, usize::MAX);
            let rows = found.and_then(|t| Ok(t.to_vec2::<f32>()?)).expect("features");
            let expected: Vec<Vec<f32>> = (0..count).map(|n| vec![n as f32 / 255.0; 3]).collect();
            assert_eq!((rows, seen), (expected, count));
        }
        let (found, seen) = means(3 * AT_ONCE, 2);
        assert_eq!(found.expect_err("stopped").kind(), ErrorKind::Stopped);
        assert_eq!(seen, 2 * AT_ONCE);
    }
}
