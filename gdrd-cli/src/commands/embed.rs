//! `embed`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use gdrd_core::digest;
use gdrd_core::embedder::Embedder;
use gdrd_core::error::{Error, Result};
use gdrd_core::experiment::Experiment;
use gdrd_core::face::Face;
use gdrd_core::files::{is_stream, write_atomically};
use gdrd_core::registry::Registry;
use gdrd_core::run::Assembly;
use gdrd_core::teacher::TeacherEmbedder;
use gdrd_student::FaceEncoder;
use serde_json::json;

use super::{Reading, all_read, check_output, load, no_run, pass_over};
use crate::args::{HeldArguments, PlaceArguments};
use crate::output::went_to;
use crate::progress::Progress;

/// What embeds.
pub(crate) struct By {
    pub(crate) student: Option<PathBuf>,
    pub(crate) held: HeldArguments,
    pub(crate) recipe: Option<PathBuf>,
    pub(crate) teacher: Option<String>,
    pub(crate) sets: Vec<String>,
}

/// Where embeddings go.
pub(crate) struct To {
    /// A safetensors file, if one is wanted.
    pub(crate) out: Option<PathBuf>,
    /// Whether a line of JSON for each image is wanted on standard output.
    pub(crate) json: bool,
}

impl To {
    /// Refuses a file that could not be written before the work for it begins.
    fn check<'a>(&self, recipe: Option<&Experiment>, inputs: impl IntoIterator<Item = &'a Path>) -> Result<()> {
        match &self.out {
            Some(out) if self.json && is_stream(out) => Err(Error::recipe(format!(
                "`--json` writes lines to standard output; expected a file for `--out`, found the stream `{}`",
                out.display()
            ))),
            Some(out) => check_output(out, recipe, inputs),
            None => Ok(()),
        }
    }
}

/// Images that are embedded at once, at most.
const BATCH: usize = 96;
/// Bytes of pixels from which on no more images are read before they are embedded.
const HELD: usize = 256 << 20;

pub(crate) fn embed(
    images: &[PathBuf],
    by: &By,
    reading: &Reading,
    to: &To,
    place: &PlaceArguments,
    registry: &Arc<Registry>,
) -> Result<()> {
    let place = no_run(place, registry)?;
    let inputs = || images.iter().map(PathBuf::as_path);
    match (&by.student, &by.recipe, &by.teacher) {
        (Some(path), _, _) => {
            to.check(None, inputs().chain([path.as_path()]))?;
            let encoder = by.held.hold(FaceEncoder::open_with_kinds(path, &place.device, &**registry)?)?;
            write(images, &encoder, reading, to)
        }
        (None, Some(path), Some(name)) => {
            by.held.refuse()?;
            let recipe = load(path, &by.sets, registry)?;
            to.check(Some(&recipe), inputs())?;
            let progress = Progress::new();
            let parts = Assembly::new(&recipe, &place, &progress)?;
            let teacher = parts.context().teacher(name)?;
            let views = parts.views_of(&*teacher)?;
            write(images, &TeacherEmbedder::new(name, &*teacher, &place.device)?.with_views(views), reading, to)
        }
        _ => Err(Error::recipe("expected `--student FILE`, or `--recipe FILE --teacher NAME`")),
    }
}

fn write(images: &[PathBuf], embedder: &dyn Embedder, reading: &Reading, to: &To) -> Result<()> {
    let mut values = Vec::with_capacity(images.len() * embedder.width());
    let mut digests = Vec::with_capacity(images.len() * 32);
    let (mut faces, mut held, mut unread) = (Vec::new(), 0, 0);
    for (at, path) in images.iter().enumerate() {
        match reading.face(path) {
            // Without lines nobody is given what a file would not have: only the other images are still tried.
            Ok(_) if unread > 0 && !to.json => {}
            Ok(face) => {
                held += face.pixels().len();
                faces.push((path, face));
            }
            Err(error) => {
                pass_over(path, &error, to.json);
                unread += 1;
            }
        }
        if faces.len() == BATCH || held > HELD || at + 1 == images.len() {
            let (paths, batch): (Vec<&PathBuf>, Vec<Face>) = std::mem::take(&mut faces).into_iter().unzip();
            held = 0;
            if batch.is_empty() {
                continue;
            }
            let embedded = embedder.embed(&batch)?;
            for (row, (image, face)) in paths.into_iter().zip(&batch).enumerate() {
                let digest = digest::of_bytes(face.pixels());
                digests.extend_from_slice(&digest);
                if to.json {
                    let (image, face) = (image.to_string_lossy(), digest::hex(&digest));
                    say!("{}", json!({ "image": image, "embedding": embedded.row(row)?, "face": face }));
                }
            }
            if to.out.is_some() {
                values.extend_from_slice(embedded.values());
            }
        }
    }
    all_read(unread, images.len()).map_err(|error| match &to.out {
        Some(out) => Error::data(format!("{error}; `{}` was not written", out.display())),
        None => error,
    })?;
    let Some(out) = &to.out else { return Ok(()) };
    let tensor = Tensor::from_vec(values, (images.len(), embedder.width()), &Device::Cpu)?;
    let faces = Tensor::from_vec(digests, (images.len(), 32), &Device::Cpu)?;
    let names: Vec<String> = images.iter().map(|path| path.display().to_string()).collect();
    let names = serde_json::to_string(&names).map_err(|e| Error::data(e.to_string()))?;
    let metadata = HashMap::from([("images".to_string(), names)]);
    let tensors = [("embeddings", &tensor), ("faces", &faces)];
    let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|e| Error::weights(e.to_string()))?;
    write_atomically(out, &bytes)?;
    let (file, count, width, name) = (out.display(), images.len(), embedder.width(), embedder.name());
    let said = format!("{file}: {count} embeddings of {width} values by {name}");
    match to.json {
        true => talk!("{said}"),
        false => went_to(out, format_args!("{said}")),
    }
    Ok(())
}
