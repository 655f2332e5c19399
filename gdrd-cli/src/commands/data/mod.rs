//! `data`: one file for each of its commands.

use std::sync::Arc;

use clap::Subcommand;
use gdrd_core::error::Result;
use gdrd_core::registry::Registry;

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
        DataCommand::Clean(wanted) => clean::clean(&wanted, registry),
    }
}
