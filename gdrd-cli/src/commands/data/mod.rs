//! `data`: one file for each of its commands.

use clap::Subcommand;
use gdrd_core::error::Result;

pub(crate) mod align;

#[derive(Subcommand)]
pub(crate) enum DataCommand {
    /// Find the faces in a folder of photographs, and write each upright at one size
    ///
    /// OUT gets `faces/` with the folders of PHOTOS (one for each person, if PHOTOS has those), which datasets read; `faces.csv`, what was
    /// found and where; `not-found.csv`, what was not, and why; `contact-sheet.png`, to look at. Called again, it goes on where it was
    /// stopped, and looks at new and changed photographs only. Nothing in PHOTOS is written to.
    Align(Box<align::AlignArguments>),
}

/// Runs the command that the arguments name.
pub(crate) fn data(command: DataCommand) -> Result<()> {
    match command {
        DataCommand::Align(wanted) => align::align(&wanted),
    }
}
