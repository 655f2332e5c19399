//! `features`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use gdrd_core::data::Dataset;
use gdrd_core::digest;
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::face::{Face, FaceBatch};
use gdrd_core::files::write_atomically;
use gdrd_core::experiment::Experiment;
use gdrd_core::registry::Registry;
use gdrd_core::teacher::{Output, Teacher, View, prepared};

use super::hub::{Locked, with_files};
use super::{Reading, check_output, load, teacher};
use crate::args::{PlaceArguments, RecipeArguments};
use crate::output::went_to;

/// What is looked at, and what is written.
pub(crate) struct Wanted {
    pub(crate) teacher: String,
    pub(crate) images: Vec<PathBuf>,
    pub(crate) data: Option<String>,
    pub(crate) reading: Reading,
    pub(crate) taps: Vec<String>,
    pub(crate) flip: bool,
}

/// Faces that a teacher sees at once.
const BATCH: usize = 32;

pub(crate) fn features(
    arguments: &RecipeArguments,
    wanted: &Wanted,
    out: &Path,
    place: &PlaceArguments,
    registry: &Registry,
) -> Result<()> {
    let device = place.device()?;
    let recipe = load(&arguments.recipe, &arguments.sets, registry)?;
    let recipe = with_files(recipe, &Locked::new(), place.offline, registry)?;
    check_output(out, Some(&recipe), wanted.images.iter().map(PathBuf::as_path))?;
    let faces = Faces::open(&recipe, wanted)?;
    let teacher = teacher(&recipe, &wanted.teacher, &device)?;
    let sides = if wanted.flip { [false, true].as_slice() } else { &[false] };
    let mut tables: BTreeMap<Output, Table> = BTreeMap::new();
    let (mut names, mut digests) = (Vec::new(), Vec::new());
    for &flipped in sides {
        for start in (0..faces.len()).step_by(BATCH) {
            let mut shown = Vec::with_capacity(BATCH);
            for index in start..(start + BATCH).min(faces.len()) {
                let face = faces.face(index)?;
                let side = |face: Face| if flipped { face.flipped() } else { face };
                digests.extend_from_slice(&digest::of_bytes(side(face.clone()).pixels()));
                names.push(faces.name(index));
                let mut random = recipe.seed().stream("features", &[index as u64]);
                let face = match teacher.card().view {
                    View::High => face,
                    View::Low => recipe.degradation.degrade(&face, &mut random).at(|| faces.name(index))?,
                };
                shown.push(prepared(teacher.card(), side(face))?);
            }
            let batch = FaceBatch::from_faces(&shown, &device)?;
            if tables.is_empty() {
                let outputs = outputs(&*teacher, &wanted.taps, batch.size())?;
                tables = outputs.into_iter().map(|output| (output, Table::default())).collect();
            }
            let outputs: Vec<Output> = tables.keys().cloned().collect();
            let found = teacher.features(&batch, &outputs).at(|| format!("teacher `{}`", wanted.teacher))?;
            tables.values_mut().zip(&found).try_for_each(|(table, rows)| table.append(rows))?;
        }
    }
    let said: Vec<String> = tables.iter().map(|(output, table)| format!("{output} {:?}", table.shape)).collect();
    write(out, &names, digests, tables)?;
    let (file, rows) = (out.display(), names.len());
    went_to(out, format_args!("{file}: {rows} rows by {}: {}", wanted.teacher, said.join(", ")));
    Ok(())
}

/// The embedding and the logits, where the teacher has them, and the taps that are asked for, or all.
fn outputs(teacher: &dyn Teacher, taps: &[String], size: usize) -> Result<Vec<Output>> {
    let offered = [Output::Embedding, Output::Logits].into_iter().filter(|o| teacher.shape(o, size).is_ok());
    let taps = if taps.is_empty() { teacher.maps() } else { taps.to_vec() };
    let outputs: Vec<Output> = offered.chain(taps.into_iter().map(Output::Map)).collect();
    outputs.iter().try_for_each(|output| teacher.shape(output, size).map(drop))?;
    Ok(outputs)
}

/// Image files, or a dataset of the recipe.
enum Faces<'a> {
    Images(&'a Wanted),
    Data(Box<dyn Dataset>),
}

impl<'a> Faces<'a> {
    fn open(recipe: &Experiment, wanted: &'a Wanted) -> Result<Self> {
        let Some(name) = &wanted.data else { return Ok(Self::Images(wanted)) };
        let config = recipe.data.get(name).ok_or_else(|| {
            Error::recipe(format!("no dataset is called `{name}`; there are {:?}", recipe.data.keys()))
        })?;
        Ok(Self::Data(config.config.build().at(|| format!("dataset `{name}`"))?))
    }

    fn len(&self) -> usize {
        match self {
            Self::Images(wanted) => wanted.images.len(),
            Self::Data(data) => data.len(),
        }
    }

    fn name(&self, index: usize) -> String {
        match self {
            Self::Images(wanted) => wanted.images[index].display().to_string(),
            Self::Data(data) => data.name(index),
        }
    }

    fn face(&self, index: usize) -> Result<Face> {
        match self {
            Self::Images(wanted) => wanted.reading.face(&wanted.images[index]),
            Self::Data(data) => data.face(index),
        }
    }
}

/// One output of every face so far.
#[derive(Default)]
struct Table {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Table {
    fn append(&mut self, rows: &Tensor) -> Result<()> {
        self.shape = rows.dims()[1..].to_vec();
        self.values.extend(rows.flatten_all()?.to_vec1::<f32>()?);
        Ok(())
    }
}

fn write(out: &Path, names: &[String], digests: Vec<u8>, tables: BTreeMap<Output, Table>) -> Result<()> {
    let rows = names.len();
    let mut tensors = BTreeMap::from([("faces".to_string(), Tensor::from_vec(digests, (rows, 32), &Device::Cpu)?)]);
    for (output, table) in tables {
        let name = match output {
            Output::Map(name) => name,
            other => other.to_string(),
        };
        let shape: Vec<usize> = [rows].into_iter().chain(table.shape).collect();
        tensors.insert(name, Tensor::from_vec(table.values, shape, &Device::Cpu)?);
    }
    let names = serde_json::to_string(names).map_err(|e| Error::data(e.to_string()))?;
    let metadata = HashMap::from([("images".to_string(), names)]);
    let bytes = safetensors::serialize(&tensors, Some(metadata)).map_err(|e| Error::weights(e.to_string()))?;
    write_atomically(out, &bytes)
}
