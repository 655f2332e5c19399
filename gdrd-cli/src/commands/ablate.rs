//! `ablate`.

use std::path::PathBuf;

use gdrd_core::error::Result;
use gdrd_core::registry::Registry;
use gdrd_core::run::{Cell, Place, ablate as run};

use super::hub::{Locked, with_files};
use super::load;
use super::train::store_beside;
use crate::args::PlaceArguments;
use crate::progress::Progress;

/// What is compared.
pub(crate) struct Wanted {
    pub(crate) recipes: Vec<PathBuf>,
    pub(crate) seeds: Vec<u64>,
    pub(crate) against: Option<String>,
    pub(crate) sets: Vec<String>,
    pub(crate) run_dir: PathBuf,
}

pub(crate) fn ablate(wanted: &Wanted, place: &PlaceArguments, registry: &Registry) -> Result<()> {
    let mut cells = Vec::new();
    for path in &wanted.recipes {
        for seed in &wanted.seeds {
            let mut sets = wanted.sets.clone();
            sets.push(format!("run.seed={seed}"));
            let recipe = with_files(load(path, &sets, registry)?, &Locked::new(), place.offline, registry)?;
            cells.push(Cell { row: recipe.name.clone(), recipe });
        }
    }
    let place = Place { folder: wanted.run_dir.clone(), store: store_beside(&wanted.run_dir), device: place.device()? };
    let mut progress = Progress::new();
    let done = run(&cells, wanted.against.as_deref(), &wanted.run_dir, &place, &mut progress);
    drop(progress);
    let done = done?;
    say!("{}", done.table.to_markdown());
    for file in &done.files {
        say!("{}", file.display());
    }
    Ok(())
}
