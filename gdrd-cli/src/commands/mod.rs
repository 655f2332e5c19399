//! One file for each command.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gdrd_core::data::{Decoding, is_image_name, read_image};
use gdrd_core::error::{Error, Result};
use gdrd_core::experiment::Experiment;
use gdrd_core::face::{Face, Kernel};
use gdrd_core::files::check_output as check_file;
use gdrd_core::recipe::Fetch;
use gdrd_core::registry::Registry;
use gdrd_core::run::{Place, run_that_wrote};
use gdrd_student::FaceEncoder;
use gdrd_teachers::hub::{LockedHub, Settings};

use self::hub::Locked;
use crate::args::{Arguments, Command, Doctor, PlaceArguments};

mod ablate;
mod calibrate;
mod check;
pub(crate) mod data;
mod diff;
mod doctor;
mod embed;
mod evaluate;
mod export;
mod features;
mod hub;
mod kinds;
mod people;
mod plan;
mod probe;
mod recognise;
mod report;
mod schema;
mod train;
mod verify;

/// Runs the command that the arguments name.
pub(crate) fn run(arguments: Arguments, registry: &Arc<Registry>) -> Result<()> {
    match arguments.command {
        Command::Train { recipe, run_dir, fresh, lock, tensorboard, place } => {
            let wanted = train::Wanted { run_dir, fresh, lock, tensorboard };
            train::train(&recipe, wanted, &place, registry)
        }
        Command::Resume { run, tensorboard, place } => train::resume(&run, tensorboard.as_deref(), &place, registry),
        Command::Verify { run, again, json, place } => verify::verify(&run, again, json, &place, registry),
        Command::Report { runs, out, latex, markdown, tensorboard } => {
            report::report(&report::Wanted { runs, out, latex, markdown, tensorboard })
        }
        Command::Diff { first, second, json } => diff::diff([&first, &second], json, registry),
        Command::Ablate { recipes, seeds, against, sets, run_dir, place } => {
            ablate::ablate(&ablate::Wanted { recipes, seeds, against, sets, run_dir }, &place, registry)
        }
        Command::Evaluate { recipe, student: Some(student), run_dir: Some(run_dir), place, .. } => {
            train::measure(&recipe, &student, run_dir, &place, registry)
        }
        Command::Evaluate { recipe, student, held, out, place, .. } => {
            if student.is_none() {
                held.refuse()?;
            }
            evaluate::evaluate(&recipe, student.as_deref().map(|path| (path, held)), out.as_deref(), &place, registry)
        }
        Command::Embed { images, student, held, recipe, teacher, sets, size, ignore_orientation, out, json, place } => {
            let by = embed::By { student, held, recipe, teacher, sets };
            let reading = Reading { size, how: Decoding { exif_orientation: !ignore_orientation } };
            embed::embed(&images, &by, &reading, &embed::To { out, json }, &place, registry)
        }
        Command::Compare(wanted) => people::compare(&wanted, registry),
        Command::Enrol(wanted) => people::enrol(&wanted, registry),
        Command::Forget(wanted) => people::forget(&wanted),
        Command::Search(wanted) => recognise::search(&wanted, registry),
        Command::Watch(wanted) => recognise::watch(&wanted, registry),
        Command::Serve(wanted) => serve(&wanted, registry),
        Command::Calibrate(wanted) => calibrate::calibrate(&wanted, registry),
        Command::Export(wanted) => export::onnx(&wanted, registry),
        Command::Completions { shell } => {
            export::completions(shell);
            Ok(())
        }
        Command::Manual { folder } => export::manual(&folder),
        Command::Features { recipe, teacher, images, data, size, ignore_orientation, taps, flip, out, place } => {
            let reading = Reading { size, how: Decoding { exif_orientation: !ignore_orientation } };
            let wanted = features::Wanted { teacher, images, data, reading, taps, flip };
            features::features(&recipe, &wanted, &out, &place, registry)
        }
        Command::Check { recipes, sets } => check::check(&recipes, &sets, registry),
        Command::Plan { recipe, place } => plan::plan(&recipe, &place, registry),
        Command::Probe(wanted) => probe::probe(&wanted, registry),
        Command::Doctor(Doctor::Teacher(wanted)) => doctor::teacher(&wanted, registry),
        Command::Kinds { table: true, .. } => kinds::table(registry),
        Command::Kinds { kind, .. } => kinds::kinds(kind.as_deref(), registry),
        Command::Schema => schema::schema(registry),
        Command::Hub(command) => hub::hub(command, registry),
        Command::Data(command) => data::data(command, registry),
    }
}

#[cfg(feature = "serve")]
use crate::serve::serve;

#[cfg(not(feature = "serve"))]
fn serve(_: &crate::args::ServeArguments, _: &Registry) -> Result<()> {
    Err(Error::recipe(
        "`serve`: this gdrd is built without the service; `cargo build --release --features serve` builds one with it",
    ))
}

/// Where a command does its work; files of the Hub are held to `locked`.
fn place(folder: &Path, arguments: &PlaceArguments, locked: Locked, registry: &Arc<Registry>) -> Result<Place> {
    let mut settings = Settings::from_env()?;
    if arguments.offline {
        settings.offline = Some("`--offline` forbids the network");
    }
    let hub: Arc<dyn Fetch> = Arc::new(LockedHub::new(settings, locked));
    let store = train::store_beside(folder);
    let (folder, device) = (folder.to_path_buf(), arguments.device()?);
    Ok(Place { folder, store, device, registry: registry.clone(), hub: Some(hub) })
}

/// The place of a command that leaves no run behind; it shares the stored features of `runs`.
fn no_run(arguments: &PlaceArguments, registry: &Arc<Registry>) -> Result<Place> {
    place(Path::new("runs/none"), arguments, Locked::new(), registry)
}

/// How image files that a command line names are read.
#[derive(Clone, Copy)]
struct Reading {
    /// Height and width that they are brought to first; their own when left out.
    size: Option<usize>,
    how: Decoding,
}

impl Reading {
    /// The face in an image: its middle, where it is not square.
    fn face(&self, path: &Path) -> Result<Face> {
        let face = read_image(path, self.how)?.centre_square();
        match self.size {
            Some(size) => face.resized(size, Kernel::Bicubic, true),
            None => Ok(face),
        }
    }
}

/// Says that an image could not be read: to people, and to programs as a line of JSON in the place of what it shows. The others are
/// tried all the same; see [`all_read`].
fn pass_over(image: &Path, error: &Error, as_json: bool) {
    if as_json {
        say!("{}", serde_json::json!({ "image": image.to_string_lossy(), "error": error.to_string() }));
    }
    talk!("passed over: {error}");
}

/// An error if some of the images were passed over.
fn all_read(unread: usize, images: usize) -> Result<()> {
    match unread {
        0 => Ok(()),
        _ => Err(Error::data(format!("{unread} of {images} images could not be read"))),
    }
}

/// The student of a file, of any kind that is registered.
pub(crate) fn open_student(path: &Path, registry: &Registry) -> Result<FaceEncoder> {
    FaceEncoder::open_with_kinds(path, &candle_core::Device::Cpu, registry)
}

/// The same, for photographs: says so where what no camera took is among the faces that the student learnt from.
pub(crate) fn student_for_photographs(path: &Path, registry: &Registry) -> Result<FaceEncoder> {
    let encoder = open_student(path, registry)?;
    let made: BTreeSet<&String> = encoder.header().facts.all_data().flat_map(|(_, source)| &source.made).collect();
    if !made.is_empty() {
        let made: Vec<&str> = made.into_iter().map(String::as_str).collect();
        talk!(
            "warning: not all faces that `{}` learnt from were taken by a camera ({}); measure its thresholds on photographs before you \
             rely on them (`gdrd calibrate`)",
            path.display(),
            made.join(", ")
        );
    }
    Ok(encoder)
}

/// Refuses an output before the work for it begins: one that cannot be written, one that is an input, and one that is a part of a
/// run.
fn check_output<'a>(out: &Path, recipe: Option<&Experiment>, inputs: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    check_file(out, inputs)?;
    let paths = recipe.map(Experiment::paths).unwrap_or_default();
    check_file(out, paths.iter().map(PathBuf::as_path))?;
    if let Some(run) = run_that_wrote(out) {
        let (out, run) = (out.display(), run.display());
        let message = format!("`{out}` is a part of the run `{run}`, which would be lost; name another output");
        return Err(Error::recipe(message));
    }
    // An image in a folder that the recipe reads.
    let inside = |folder: &PathBuf| Some(out.canonicalize().ok()?.starts_with(folder.canonicalize().ok()?));
    match paths.iter().find(|path| path.is_dir() && is_image_name(out) && inside(path) == Some(true)) {
        None => Ok(()),
        Some(folder) => {
            let (out, folder) = (out.display(), folder.display());
            let message = format!(
                "`{out}` is an image in the recipe's folder `{folder}`, which would be lost; name another output"
            );
            Err(Error::recipe(message))
        }
    }
}

/// Reads a recipe; all its problems are one error.
fn load(path: &Path, sets: &[String], registry: &Registry) -> Result<Experiment> {
    Experiment::load(path, sets, registry).map_err(Error::from)
}
