//! `ablate`.

use std::path::PathBuf;
use std::sync::Arc;

use gdrd_core::error::{Error, Result};
use gdrd_core::registry::Registry;
use gdrd_core::run::{Cell, ablate as run};

use super::hub::Locked;
use super::{load, place};
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

pub(crate) fn ablate(wanted: &Wanted, arguments: &PlaceArguments, registry: &Arc<Registry>) -> Result<()> {
    let mut cells: Vec<Cell> = Vec::new();
    for (at, path) in wanted.recipes.iter().enumerate() {
        let before = cells.len();
        for seed in &wanted.seeds {
            let mut sets = wanted.sets.clone();
            sets.push(format!("run.seed={seed}"));
            let experiment = load(path, &sets, registry)?;
            cells.push(Cell { row: experiment.name.clone(), experiment });
        }
        if let Some(twin) =
            cells[..before].iter().position(|cell| cells.get(before).is_some_and(|new| new.row == cell.row))
        {
            let other = &wanted.recipes[twin / wanted.seeds.len()];
            return Err(Error::recipe(format!(
                "`{}` and `{}` are both called `{}`, and would be one row of the table\n\nhint: `name = \"...\"` at the \
                 top of a recipe names its row",
                other.display(),
                wanted.recipes[at].display(),
                cells[before].row
            )));
        }
    }
    let place = place(&wanted.run_dir, arguments, Locked::new(), registry)?;
    let progress = Progress::new();
    let done = run(&cells, wanted.against.as_deref(), &wanted.run_dir, &place, &progress);
    drop(progress);
    let done = done?;
    say!("{}", done.table.to_markdown());
    for file in &done.files {
        say!("{}", file.display());
    }
    Ok(())
}
