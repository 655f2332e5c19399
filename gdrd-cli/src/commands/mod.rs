//! One file for each command.

use gdrd_core::error::{Error, Result};
use gdrd_core::recipe::Recipe;
use gdrd_core::registry::Registry;
use std::path::Path;

use crate::args::{Arguments, Command, Doctor};

mod ablate;
mod check;
mod doctor;
mod embed;
mod evaluate;
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
        Command::Check { recipes, sets } => check::check(&recipes, &sets, registry),
        Command::Plan { recipe, place } => plan::plan(&recipe, &place, registry),
        Command::Doctor(Doctor::Teacher(wanted)) => doctor::teacher(&wanted, registry),
        Command::Kinds { kind } => kinds::kinds(kind.as_deref(), registry),
        Command::Schema => schema::schema(registry),
        Command::Hub(command) => hub::hub(command, registry),
    }
}

/// Reads a recipe; all its problems are one error.
fn load(path: &Path, sets: &[String], registry: &Registry) -> Result<Recipe> {
    Recipe::load(path, sets, registry).map_err(Error::from)
}
