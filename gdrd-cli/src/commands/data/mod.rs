//! `data`: one file for each of its commands.

use std::sync::Arc;

use clap::Subcommand;
use gdrd_core::error::Result;
use gdrd_core::registry::Registry;

pub(crate) mod align;
mod clean;
mod diff;
mod import;
mod inspect;
mod lists;
mod source;

/// A SOURCE is a path (a folder of people or of images, a .rec, .bin, .tar, .csv or packed file) or a dataset of a recipe,
/// RECIPE.toml:NAME.
#[derive(Subcommand)]
pub(crate) enum DataCommand {
    /// Say what a dataset holds: people and faces, sizes, broken images, images that are there twice, fingerprint
    Inspect(inspect::InspectArguments),
    /// Write a dataset into one file, which the dataset kind `packed` reads through a memory map
    ///
    /// Its images as they are, or, with --view, the small faces that students see, of which a million fit in a gigabyte.
    Import(import::ImportArguments),
    /// Draw pairs to verify from a dataset: LFW's format, seeded, nobody in two folds
    Pairs(lists::PairsArguments),
    /// Draw who is in the gallery and who asks: a list that the dataset kind `listed` reads, with the attribute `side`
    Split(lists::SplitArguments),
    /// Say what two datasets share: people by name, identical images, and people who look alike to a teacher
    Diff(diff::DiffArguments),
    /// Find the faces in a folder of photographs, and write each upright at one size
    ///
    /// OUT gets `faces/` with the folders of PHOTOS (one for each person, if PHOTOS has those), which datasets read; `faces.csv`, what was
    /// found and where; `not-found.csv`, what was not, and why; `contact-sheet.png`, to look at. Called again, it goes on where it was
    /// stopped, and looks at new and changed photographs only. Nothing in PHOTOS is written to.
    Align(Box<align::AlignArguments>),
    /// Say which faces do not look like their person, and which people are one, as a teacher or a student sees them
    Clean(clean::CleanArguments),
}

/// Runs the command that the arguments name.
pub(crate) fn data(command: DataCommand, registry: &Arc<Registry>) -> Result<()> {
    match command {
        DataCommand::Inspect(wanted) => inspect::inspect(&wanted, registry),
        DataCommand::Import(wanted) => import::import(&wanted, registry),
        DataCommand::Pairs(wanted) => lists::pairs(&wanted, registry),
        DataCommand::Split(wanted) => lists::split(&wanted, registry),
        DataCommand::Diff(wanted) => diff::diff(&wanted, registry),
        DataCommand::Align(wanted) => align::align(&wanted),
        DataCommand::Clean(wanted) => clean::clean(&wanted, registry),
    }
}
