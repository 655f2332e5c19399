//! `train` and `resume`.

use std::path::{Path, PathBuf};

use gdrd_core::error::{Error, ErrorKind, Result};
use gdrd_core::experiment::Experiment;
use gdrd_core::registry::Registry;
use gdrd_core::report::results_table;
use gdrd_core::run::{self, Place, RunFolder};

use super::hub::{Locked, locked, with_files};
use super::load;
use crate::args::{PlaceArguments, RecipeArguments};
use crate::progress::Progress;

pub(crate) fn train(
    arguments: &RecipeArguments,
    run_dir: Option<PathBuf>,
    fresh: bool,
    lock: Option<&Path>,
    place: &PlaceArguments,
    registry: &Registry,
) -> Result<()> {
    let recipe = load(&arguments.recipe, &arguments.sets, registry)?;
    let name = format!("{}-{}", recipe.plain_name(), &recipe.digest()[..8]);
    let path = run_dir.unwrap_or_else(|| Path::new("runs").join(name));
    let folder = RunFolder::new(&path);
    if folder.is_finished() && !fresh {
        eprintln!("this run is finished; --fresh runs it again");
        return show(&folder);
    }
    if folder.is_begun() && !fresh {
        return Err(Error::recipe(format!(
            "`{0}` holds a run that was stopped\n\nhint: `gdrd resume {0}` goes on with it, `--fresh` begins again",
            path.display()
        )));
    }
    // Before the folder that may hold it is deleted.
    let locked = locked(lock)?;
    if folder.is_begun() {
        std::fs::remove_dir_all(&path).map_err(|e| Error::io(&path, e))?;
    }
    go(recipe, path, &locked, place, registry)
}

pub(crate) fn resume(path: &Path, place: &PlaceArguments, registry: &Registry) -> Result<()> {
    let folder = RunFolder::new(path);
    if !folder.is_begun() {
        return Err(Error::recipe(format!("`{}` is no run folder: it has no recipe.resolved.toml", path.display())));
    }
    if folder.is_finished() {
        eprintln!("this run is finished");
        return show(&folder);
    }
    let recipe = load(&folder.recipe(), &[], registry)?;
    let lock = Some(folder.lock_file()).filter(|lock| lock.exists());
    go(recipe, path.to_path_buf(), &locked(lock.as_deref())?, place, registry)
}

/// The folder of stored features: beside the runs, so that they share it.
pub(crate) fn store_beside(run: &Path) -> PathBuf {
    run.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).join(".features")
}

fn go(recipe: Experiment, path: PathBuf, files: &Locked, place: &PlaceArguments, registry: &Registry) -> Result<()> {
    let recipe = with_files(recipe, files, place.offline, registry)?;
    let place = Place { store: store_beside(&path), folder: path, device: place.device()? };
    let mut progress = Progress::new();
    let done = run::train(&recipe, &place, &mut progress);
    drop(progress);
    match done {
        Ok(folder) => show(&folder),
        Err(error) if error.kind() == ErrorKind::Stopped => {
            // Before the recipe is in the folder there is nothing to go on with.
            if RunFolder::new(&place.folder).is_begun() {
                eprintln!("hint: `gdrd resume {}` goes on from here", place.folder.display());
            }
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// The results as a table, and where the run is.
fn show(folder: &RunFolder) -> Result<()> {
    for (protocol, rows) in folder.results()? {
        say!("{protocol}:\n{}", results_table(&rows)?.to_markdown());
    }
    say!("{}", folder.path().display());
    Ok(())
}
