//! `features`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use gdrd_core::data::{Augment, Dataset, Variant, face_as_it_is};
use gdrd_core::digest;
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::face::{Face, FaceBatch};
use gdrd_core::files::write_atomically;
use gdrd_core::registry::Registry;
use gdrd_core::run::Assembly;
use gdrd_core::teacher::{Output, Shown, Teacher, prepared};

use super::{Reading, check_output, load, no_run};
use crate::args::{PlaceArguments, RecipeArguments};
use crate::output::went_to;
use crate::progress::Progress;

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
    registry: &Arc<Registry>,
) -> Result<()> {
    let place = no_run(place, registry)?;
    let recipe = load(&arguments.recipe, &arguments.sets, registry)?;
    check_output(out, Some(&recipe), wanted.images.iter().map(PathBuf::as_path))?;
    let progress = Progress::new();
    let parts = Assembly::new(&recipe, &place, &progress)?;
    let cx = parts.context();
    let teacher = cx.teacher(&wanted.teacher)?;
    let dataset: Arc<dyn Dataset> = match &wanted.data {
        Some(name) => cx.dataset(name)?,
        None => Arc::new(Images { paths: wanted.images.clone(), reading: wanted.reading }),
    };
    let views = parts.views_over(dataset.clone(), "features")?;
    let sides = if wanted.flip { [false, true].as_slice() } else { &[false] };
    let mut tables: BTreeMap<Output, Table> = BTreeMap::new();
    let (mut names, mut digests) = (Vec::new(), Vec::new());
    for &mirrored in sides {
        for start in (0..dataset.len()).step_by(BATCH) {
            let indices = start..(start + BATCH).min(dataset.len());
            for index in indices.clone() {
                let face = face_as_it_is(&*dataset, index)?;
                let face = if mirrored { face.flipped() } else { face };
                digests.extend_from_slice(&digest::of_bytes(face.pixels()));
                names.push(dataset.place(index));
            }
            let batch = |view: &String| {
                let variant = (&Augment::none(), Variant { draw: 0, mirrored });
                let face = |index: usize| {
                    let mut random = cx.seed().stream("features", &[index as u64]);
                    prepared(teacher.card(), views.face(index, view, variant, &mut random)?)
                };
                FaceBatch::from_faces(&indices.clone().map(face).collect::<Result<Vec<_>>>()?, &place.device)
            };
            let shown = Shown::new(teacher.card().views.iter().map(batch).collect::<Result<_>>()?)?;
            let shown = shown.with_keys(indices.clone().map(|index| dataset.key(index)).collect());
            if tables.is_empty() {
                let outputs = outputs(&*teacher, &wanted.taps, shown.faces().size())?;
                tables = outputs.into_iter().map(|output| (output, Table::default())).collect();
            }
            let outputs: Vec<Output> = tables.keys().cloned().collect();
            let found = teacher.features(&shown, &outputs).at(|| format!("teacher `{}`", wanted.teacher))?;
            tables.values_mut().zip(&found).try_for_each(|(table, rows)| table.append(rows))?;
        }
    }
    let said: Vec<String> = tables.iter().map(|(output, table)| format!("{output} {:?}", table.shape)).collect();
    write(out, &names, digests, tables)?;
    let (file, rows) = (out.display(), names.len());
    went_to(out, format_args!("{file}: {rows} rows by {}: {}", wanted.teacher, said.join(", ")));
    Ok(())
}

/// The embedding and the logits, where the teacher has them, and the taps that are asked for. Where none is, all maps of a teacher
/// that has a default one; the many large ones of a recogniser are written when they are named.
fn outputs(teacher: &dyn Teacher, taps: &[String], size: usize) -> Result<Vec<Output>> {
    let offered = [Output::Embedding, Output::Logits].into_iter().filter(|o| teacher.shape(o, size).is_ok());
    let taps = match teacher.card().default_map {
        Some(_) if taps.is_empty() => teacher.maps(),
        _ => taps.to_vec(),
    };
    let outputs: Vec<Output> = offered.chain(taps.into_iter().map(Output::Map)).collect();
    outputs.iter().try_for_each(|output| teacher.shape(output, size).map(drop))?;
    Ok(outputs)
}

/// Image files of the command line as a dataset.
struct Images {
    paths: Vec<PathBuf>,
    reading: Reading,
}

impl Dataset for Images {
    fn len(&self) -> usize {
        self.paths.len()
    }

    fn people(&self) -> &[String] {
        &[]
    }

    fn person(&self, _: usize) -> Option<usize> {
        None
    }

    fn key(&self, index: usize) -> String {
        self.paths[index].with_extension("").display().to_string()
    }

    fn place(&self, index: usize) -> String {
        self.paths[index].display().to_string()
    }

    fn face(&self, index: usize) -> Result<Face> {
        self.reading.face(&self.paths[index])
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
