//! The faces that a probe is fitted to and measured on, and what it is fitted to.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Tensor;
use rayon::prelude::*;

use super::ProbeOptions;
use crate::context::Host;
use crate::data::{Dataset, some_faces};
use crate::digest;
use crate::error::{Context, Error, Result};
use crate::evaluation::{Protocol, Verification};
use crate::face::Face;
use crate::plugin::DatasetName;
use crate::run::Assembly;
use crate::seed::{Seed, normal, shuffled};
use crate::teacher::{TeacherEmbedder, embedding_width};

/// Faces that are read at once.
pub(super) const BATCH: usize = 128;

/// Of each hundred people of the data, those that are held out where the recipe has no protocol.
const HELD_OUT: usize = 20;

/// Values of the random vector that stands for a person.
const CODE: usize = 256;

/// What the features are mapped to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The embedding of the teacher of this name.
    Teacher(String),
    /// Who the faces are: a random unit vector for each person. Such a map is that to the indicators of the people, seen from
    /// random directions, so cosines are the same but for chance.
    Identity,
}

/// The faces of a probe.
pub(super) struct Faces {
    /// The dataset's name.
    data: String,
    pub(super) dataset: Arc<dyn Dataset>,
    /// Those that it is fitted to.
    pub(super) indices: Vec<usize>,
    /// How it is measured, on other people.
    pub(super) protocol: Arc<dyn Protocol>,
    /// What that is called.
    pub(super) measured_by: String,
}

impl Faces {
    /// The faces that the options name, drawn by the recipe's seed.
    pub(super) fn new(parts: &Assembly, options: &ProbeOptions, target: &Target) -> Result<Self> {
        let experiment = parts.experiment();
        let data = match &options.data {
            Some(name) => name.clone(),
            None => experiment.stages.first().map(|stage| stage.options.data.clone()).unwrap_or_default(),
        };
        let dataset = parts.context().dataset(&data)?;
        let named = options.protocol.as_ref().or(experiment.evaluate.keys().next());
        let mut indices: Vec<usize> = (0..dataset.len()).collect();
        let (protocol, measured_by) = match named {
            Some(name) => (parts.protocol(name)?, name.clone()),
            None => {
                let (protocol, rest) = held_out(&dataset, &data, experiment.seed())?;
                indices = rest;
                (protocol, format!("held-out people of {data}"))
            }
        };
        if *target == Target::Identity {
            indices.retain(|&index| dataset.person(index).is_some());
        }
        let order = shuffled(&mut experiment.seed().stream("probe faces", &[]), indices.len());
        let mut indices: Vec<usize> = order.into_iter().take(options.faces).map(|at| indices[at]).collect();
        indices.sort_unstable();
        if indices.len() < 2 {
            let found = indices.len();
            return Err(Error::data(format!("dataset `{data}`: expected at least 2 faces to fit to, found {found}")));
        }
        Ok(Self { data, dataset, indices, protocol, measured_by })
    }

    /// Digest of the faces that are fitted, and of what measures.
    pub(super) fn content(&self, parts: &Assembly) -> Result<String> {
        let dataset = parts.content("dataset", &self.data)?;
        let protocol = match parts.experiment().evaluate.contains_key(&self.measured_by) {
            true => parts.content("protocol", &self.measured_by)?,
            false => self.measured_by.clone(),
        };
        Ok(digest::of_value(&(dataset, protocol, &self.indices)))
    }

    /// Some faces as the dataset has them.
    pub(super) fn read(&self, indices: &[usize]) -> Result<Vec<Face>> {
        let read = |&index: &usize| self.dataset.face(index).at(|| self.dataset.place(index));
        indices.par_iter().map(read).collect()
    }

    /// What the features of each face are mapped to, `[faces, values]`, rows of unit length.
    pub(super) fn targets(&self, parts: &Assembly, target: &Target) -> Result<Tensor> {
        let (rows, width, values) = match target {
            Target::Identity => {
                let mut codes: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
                let mut values = Vec::with_capacity(CODE * self.indices.len());
                for person in self.indices.iter().filter_map(|&index| self.dataset.person(index)) {
                    let code = codes.entry(person).or_insert_with(|| {
                        let code = normal(&mut Seed(7).stream("probe person", &[person as u64]), CODE, 1.0);
                        let length = code.iter().map(|value| value * value).sum::<f32>().sqrt();
                        code.into_iter().map(|value| value / length).collect()
                    });
                    values.extend_from_slice(code);
                }
                if codes.len() < 2 {
                    return Err(Error::data(format!("expected faces of at least 2 people, found {}", codes.len())));
                }
                (self.indices.len(), CODE, values)
            }
            Target::Teacher(name) => {
                let teacher = parts.context().teacher(name)?;
                let views = parts.views_of(&*teacher)?;
                let embedder = TeacherEmbedder::new(name, &*teacher, parts.device())?.with_views(views);
                let mut values = Vec::new();
                for (at, indices) in self.indices.chunks(BATCH).enumerate() {
                    let what = format!("target: embeddings of teacher `{name}`");
                    parts.report(&what, at * BATCH, self.indices.len())?;
                    let faces = self.read(indices)?;
                    values.extend_from_slice(crate::embedder::Embedder::embed(&embedder, &faces)?.values());
                }
                (self.indices.len(), embedding_width(&*teacher)?, values)
            }
        };
        Ok(Tensor::from_vec(values, (rows, width), parts.device())?)
    }
}

/// Pairs of some people of a dataset, and the faces of all others.
fn held_out(dataset: &Arc<dyn Dataset>, name: &str, seed: Seed) -> Result<(Arc<dyn Protocol>, Vec<usize>)> {
    const FOLDS: usize = 5;
    let people = dataset.people().len();
    let order = shuffled(&mut seed.stream("probe people", &[]), people);
    let mut is_held = vec![false; people];
    order.into_iter().take((people * HELD_OUT).div_ceil(100)).for_each(|person| is_held[person] = true);
    let held = |&index: &usize| dataset.person(index).is_some_and(|person| is_held[person]);
    let (inside, outside): (Vec<usize>, Vec<usize>) = (0..dataset.len()).partition(held);
    let mut counts = vec![0usize; people];
    inside.iter().filter_map(|&index| dataset.person(index)).for_each(|person| counts[person] += 1);
    let couples = |count: usize| count * count.saturating_sub(1) / 2;
    let same: usize = counts.iter().map(|&count| couples(count)).sum();
    let half = same.min(couples(inside.len()) - same).min(3000) / FOLDS * FOLDS;
    if half == 0 {
        return Err(Error::data(format!(
            "the recipe has no `[evaluate.*]`, and dataset `{name}` too few faces of {people} people to hold some out \
             ({same} pairs of one person); name another with `--data`"
        )));
    }
    let data = DatasetName::from(name);
    let config = Verification {
        drawn_pairs: 2 * half,
        folds: FOLDS,
        flip: true,
        far: vec![0.01],
        ..Verification::drawn_from(data)
    };
    let part: Arc<dyn Dataset> = Arc::new(some_faces(dataset.clone(), inside));
    Ok((config.over(part)?.into(), outside))
}
