//! One file for each command.

use candle_core::Device;
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::experiment::Experiment;
use gdrd_core::registry::Registry;
use gdrd_core::teacher::Teacher;
use std::path::Path;

use crate::args::{Arguments, Command, Doctor};

mod ablate;
mod check;
mod doctor;
mod embed;
mod evaluate;
mod features;
mod hub;
mod kinds;
mod plan;
mod schema;
mod train;

/// Runs the command that the arguments name.
pub(crate) fn run(arguments: Arguments, registry: &Registry) -> Result<()> {
    match arguments.command {
        Command::Train { recipe, run_dir, fresh, lock, place } => {
            train::train(&recipe, run_dir, fresh, lock.as_deref(), &place, registry)
        }
        Command::Resume { run, place } => train::resume(&run, &place, registry),
        Command::Ablate { recipes, seeds, against, sets, run_dir, place } => {
            ablate::ablate(&ablate::Wanted { recipes, seeds, against, sets, run_dir }, &place, registry)
        }
        Command::Evaluate { recipe, student, out, place } => {
            evaluate::evaluate(&recipe, student.as_deref(), out.as_deref(), &place, registry)
        }
        Command::Embed { images, student, recipe, teacher, sets, out, place } => {
            let by = embed::By { student, recipe, teacher, sets };
            embed::embed(&images, &by, &out, &place, registry)
        }
        Command::Features { recipe, teacher, images, data, size, taps, flip, out, place } => {
            let wanted = features::Wanted { teacher, images, data, size, taps, flip };
            features::features(&recipe, &wanted, &out, &place, registry)
        }
        Command::Check { recipes, sets } => check::check(&recipes, &sets, registry),
        Command::Plan { recipe, place } => plan::plan(&recipe, &place, registry),
        Command::Doctor(Doctor::Teacher(wanted)) => doctor::teacher(&wanted, registry),
        Command::Kinds { kind } => kinds::kinds(kind.as_deref(), registry),
        Command::Schema => schema::schema(registry),
        Command::Hub(command) => hub::hub(command, registry),
    }
}

/// The teacher of a recipe that is called `name`.
fn teacher(recipe: &Experiment, name: &str, device: &Device) -> Result<Box<dyn Teacher>> {
    let found = recipe.teachers.get(name).ok_or_else(|| {
        Error::recipe(format!("no teacher is called `{name}`; there are {:?}", recipe.teachers.keys()))
    })?;
    found.config.build(device).at(|| format!("teacher `{name}`"))
}

/// Reads a recipe; all its problems are one error.
fn load(path: &Path, sets: &[String], registry: &Registry) -> Result<Experiment> {
    Experiment::load(path, sets, registry).map_err(Error::from)
}
