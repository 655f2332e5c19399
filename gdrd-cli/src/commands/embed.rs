//! `embed`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use gdrd_core::data::read_face;
use gdrd_core::digest;
use gdrd_core::embedder::Embedder;
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::files::write_atomically;
use gdrd_core::registry::Registry;
use gdrd_core::teacher::TeacherEmbedder;
use gdrd_student::FaceEncoder;

use super::hub::{Locked, with_files};
use super::{load, teacher};
use crate::args::PlaceArguments;

/// What embeds.
pub(crate) struct By {
    pub(crate) student: Option<PathBuf>,
    pub(crate) recipe: Option<PathBuf>,
    pub(crate) teacher: Option<String>,
    pub(crate) sets: Vec<String>,
}

/// Images that are embedded at once.
const BATCH: usize = 96;
/// Height and width that images are read at, in pixels.
const SIZE: usize = 112;

pub(crate) fn embed(
    images: &[PathBuf],
    by: &By,
    out: &Path,
    place: &PlaceArguments,
    registry: &Registry,
) -> Result<()> {
    let device = place.device()?;
    match (&by.student, &by.recipe, &by.teacher) {
        (Some(path), _, _) => {
            let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
            let encoder = FaceEncoder::from_bytes(&bytes, &device).at(|| format!("`{}`", path.display()))?;
            write(images, &encoder, out)
        }
        (None, Some(path), Some(name)) => {
            let recipe = load(path, &by.sets, registry)?;
            let recipe = with_files(recipe, &Locked::new(), place.offline, registry)?;
            let teacher = teacher(&recipe, name, &device)?;
            write(images, &TeacherEmbedder::new(name, &*teacher, &device)?, out)
        }
        _ => Err(Error::recipe("expected `--student FILE`, or `--recipe FILE --teacher NAME`")),
    }
}

fn write(images: &[PathBuf], embedder: &dyn Embedder, out: &Path) -> Result<()> {
    let mut values = Vec::with_capacity(images.len() * embedder.width());
    let mut digests = Vec::with_capacity(images.len() * 32);
    for batch in images.chunks(BATCH) {
        let faces = batch.iter().map(|path| read_face(path, SIZE)).collect::<Result<Vec<_>>>()?;
        faces.iter().for_each(|face| digests.extend_from_slice(&digest::of_bytes(face.pixels())));
        values.extend_from_slice(embedder.embed(&faces)?.values());
    }
    let tensor = Tensor::from_vec(values, (images.len(), embedder.width()), &Device::Cpu)?;
    let faces = Tensor::from_vec(digests, (images.len(), 32), &Device::Cpu)?;
    let names: Vec<String> = images.iter().map(|path| path.display().to_string()).collect();
    let names = serde_json::to_string(&names).map_err(|e| Error::data(e.to_string()))?;
    let metadata = HashMap::from([("images".to_string(), names)]);
    let tensors = [("embeddings", &tensor), ("faces", &faces)];
    let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|e| Error::weights(e.to_string()))?;
    write_atomically(out, &bytes)?;
    say!("{}: {} embeddings of {} values by {}", out.display(), images.len(), embedder.width(), embedder.name());
    Ok(())
}
