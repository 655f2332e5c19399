//! `train` and `resume`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gdrd_core::error::{Error, ErrorKind, Result};
use gdrd_core::experiment::Experiment;
use gdrd_core::registry::Registry;
use gdrd_core::report::{notes, results_table};
use gdrd_core::run::{self, LiveEvents, Lock, Place, RunFolder, State};

use super::evaluate::no_protocol;
use super::hub::locked;
use super::load;
use crate::args::{PlaceArguments, RecipeArguments};
use crate::progress::Progress;
use crate::stop;

/// What `train` is asked for beside the recipe.
pub(crate) struct Wanted {
    pub(crate) run_dir: Option<PathBuf>,
    pub(crate) fresh: bool,
    pub(crate) lock: Option<PathBuf>,
    pub(crate) tensorboard: Option<PathBuf>,
}

pub(crate) fn train(
    arguments: &RecipeArguments,
    wanted: Wanted,
    place: &PlaceArguments,
    registry: &Arc<Registry>,
) -> Result<()> {
    start(&load(&arguments.recipe, &arguments.sets, registry)?, wanted, place, registry)
}

/// A run without stages: it measures the student of a file.
pub(crate) fn measure(
    arguments: &RecipeArguments,
    student: &Path,
    run_dir: PathBuf,
    place: &PlaceArguments,
    registry: &Arc<Registry>,
) -> Result<()> {
    let recipe = Experiment::load_to_measure(&arguments.recipe, &arguments.sets, student, registry)?;
    if recipe.evaluate.is_empty() {
        return Err(no_protocol());
    }
    let wanted = Wanted { run_dir: Some(run_dir), fresh: false, lock: None, tensorboard: None };
    start(&recipe, wanted, place, registry)
}

fn start(recipe: &Experiment, wanted: Wanted, place: &PlaceArguments, registry: &Arc<Registry>) -> Result<()> {
    let Wanted { run_dir, fresh, lock, tensorboard } = wanted;
    let (_, locked) = (place.gpu()?, locked(lock.as_deref())?);
    let name = format!("{}-{}", recipe.plain_name(), &recipe.digest()[..8]);
    let path = run_dir.unwrap_or_else(|| Path::new("runs").join(name));
    let folder = RunFolder::new(&path);
    folder.must_be_idle()?;
    match folder.state()? {
        State::Finished if !fresh && Lock::read_file(&folder.lock_file())?.recipe != recipe.digest() => {
            Err(Error::recipe(format!(
                "`{}` holds the finished run of another recipe\n\nhint: `--run-dir` names another folder, `--fresh` replaces this run",
                path.display()
            )))
        }
        State::Finished if !fresh => {
            talk!("this run is finished; --fresh runs it again");
            show(&folder)
        }
        State::Begun if !fresh => Err(Error::recipe(format!(
            "`{0}` holds a run that was stopped\n\nhint: `gdrd resume {0}` goes on with it, `--fresh` begins again",
            path.display()
        ))),
        _ => go(recipe, fresh, tensorboard.as_deref(), &super::place(&path, place, locked, registry)?),
    }
}

pub(crate) fn resume(
    path: &Path,
    tensorboard: Option<&Path>,
    place: &PlaceArguments,
    registry: &Arc<Registry>,
) -> Result<()> {
    let folder = RunFolder::new(path);
    place.gpu()?;
    folder.must_be_idle()?;
    match folder.state()? {
        State::Empty => {
            let found = if path.exists() { "it has no recipe.resolved.toml" } else { "it does not exist" };
            Err(Error::recipe(format!("`{}` is no run folder: {found}", path.display())))
        }
        State::Finished => {
            talk!("this run is finished");
            show(&folder)
        }
        State::Begun => {
            let recipe = load(&folder.recipe(), &[], registry)?;
            let lock = Some(folder.lock_file()).filter(|lock| lock.exists());
            go(&recipe, false, tensorboard, &super::place(path, place, locked(lock.as_deref())?, registry)?)
        }
    }
}

/// The folder of stored features: beside the runs, so that they share it.
pub(crate) fn store_beside(run: &Path) -> PathBuf {
    run.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).join(".features")
}

fn go(experiment: &Experiment, fresh: bool, tensorboard: Option<&Path>, place: &Place) -> Result<()> {
    let progress = Progress::new();
    let train = if fresh { run::train_afresh } else { run::train };
    let done = match tensorboard {
        Some(folder) => {
            let name = place.folder.file_name().unwrap_or("run".as_ref());
            train(experiment, place, &LiveEvents::new(folder.join(name), &progress))
        }
        None => train(experiment, place, &progress),
    };
    drop(progress);
    match done {
        Ok(folder) => show(&folder),
        Err(error) => {
            if error.kind() == ErrorKind::Stopped {
                stop::hint();
            }
            Err(error)
        }
    }
}

/// The results as a table, and where the run is.
fn show(folder: &RunFolder) -> Result<()> {
    for (protocol, rows) in folder.results()? {
        say!("{protocol}:\n{}", results_table(&rows)?.to_markdown());
        notes(&rows).iter().for_each(|note| talk!("{note}"));
    }
    say!("{}", folder.path().display());
    Ok(())
}
