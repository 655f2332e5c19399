//! A run: the recipe's flow from data to report.
//!
//! [`train`] is the page to read. A [`Prepared`] run has everything built and checked; a [`RunFolder`] is what stays.

mod ablation;
mod context;
mod folder;
mod mark;
mod plan;
mod prepared;
mod scores;

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::Device;

pub use ablation::{Ablation, Cell, ablate};
pub use folder::{Lock, RunFolder};
pub use mark::State;
pub use plan::{StagePlan, plan};
pub use prepared::{Opened, Prepared, StageTerms};
pub use scores::{Measured, Measuring, StudentEmbedder, measure};

use crate::embedder::Embedder;
use crate::error::{Error, ErrorKind, Result};
use crate::observe::{Event, FanOut, Flow, Observer};
use crate::recipe::Recipe;
use crate::student::{STUDENT_FORMAT, StudentHeader};
use crate::trainer::{Checkpoint, Optimizer, Outcome, Position};

/// Where a run happens.
#[derive(Clone, Debug)]
pub struct Place {
    /// The run folder.
    pub folder: PathBuf,
    /// The folder of stored teacher features, shared by runs.
    pub store: PathBuf,
    /// Where tensors are.
    pub device: Device,
}

/// Runs a recipe from its beginning, or from its newest checkpoint if the folder holds one of the same recipe.
///
/// # Errors
/// If the folder holds another recipe's run or is no run folder, another process runs it, something does not fit, or the
/// observer stops the run ([`ErrorKind::Stopped`]; then a checkpoint is there).
pub fn train(recipe: &Recipe, place: &Place, observer: &mut dyn Observer) -> Result<RunFolder> {
    run(recipe, place, false, observer)
}

/// Runs a recipe from its beginning. What gdrd has written into the folder before is removed once everything is prepared.
///
/// # Errors
/// As [`train`].
pub fn train_afresh(recipe: &Recipe, place: &Place, observer: &mut dyn Observer) -> Result<RunFolder> {
    run(recipe, place, true, observer)
}

fn run(recipe: &Recipe, place: &Place, afresh: bool, observer: &mut dyn Observer) -> Result<RunFolder> {
    let folder = RunFolder::new(&place.folder);
    let held = folder.hold()?;
    if !held.keeps_out() {
        let message =
            format!("`{}`: this file system has no locks; start no other process on it", place.folder.display());
        tell(observer, &Event::Warning { message })?;
    }
    let resumed = if afresh { None } else { folder.checkpoint(recipe, observer)? };
    let from_step = resumed.as_ref().map_or(0, |checkpoint| checkpoint.position.total_steps);
    tell(observer, &Event::RunStarted { folder: place.folder.clone(), from_step })?;
    let prepared = Prepared::new(recipe, place, observer)?;
    if afresh {
        folder.clear()?;
    }
    let lock = folder.lock(recipe, &prepared)?;
    folder.write_samples(&prepared)?;
    let mut terms = prepared.terms(recipe, observer)?;
    let mut position = Position { total_steps: 0, stage: 0, stage_steps: 0, recipe: recipe.digest() };
    let mut optimizer_state = None;
    if let Some(checkpoint) = resumed {
        prepared.variables(&terms).assign(&checkpoint.variables)?;
        position = checkpoint.position;
        optimizer_state = Some(checkpoint.optimizer);
    }
    let mut log = folder.log(from_step)?;
    let all = prepared.variables(&terms);
    for (at, stage) in recipe.stages.iter().enumerate().skip(position.stage) {
        let mut ready = prepared.stage(stage, std::mem::take(&mut terms[at]), observer)?;
        if let Some(state) = optimizer_state.take().filter(|_| position.stage_steps > 0) {
            ready.optimizer.restore(state)?;
        }
        let steps = ready.steps()?;
        let from = position.stage_steps;
        tell(
            observer,
            &Event::StageStarted { stage: stage.name.clone(), objective: objective(stage), from_step: from, steps },
        )?;
        let before = position.total_steps - from;
        let mut written = None;
        let mut save = |done: u64, optimizer: &dyn Optimizer, stopping: bool| -> Result<()> {
            let over = done == steps;
            if !(over || stopping || done.is_multiple_of(recipe.run.checkpoint_steps)) {
                return Ok(());
            }
            position.total_steps = before + done;
            (position.stage, position.stage_steps) = if over { (at + 1, 0) } else { (at, done) };
            let state = if over { Default::default() } else { optimizer.state() };
            let checkpoint = Checkpoint { position: position.clone(), variables: all.tensors(), optimizer: state };
            written = Some(folder.save(&checkpoint, recipe.run.keep_checkpoints)?);
            Ok(())
        };
        let outcome = ready.run(from, &mut FanOut(vec![&mut *observer, &mut log]), &mut save);
        log.check()?;
        if let Some(folder) = written {
            // A wish to stop is told with its step below, or at the next event.
            observer.on(&Event::CheckpointWritten { folder });
        }
        let outcome = outcome?;
        if let Outcome::Stopped(step) = outcome {
            let what = format!("stopped by the user after step {step} of stage `{}`", stage.name);
            return Err(Error::new(ErrorKind::Stopped, what));
        }
    }
    folder.write_student(&header(recipe, &prepared), &prepared.student_tensors(recipe.run.half_precision)?)?;
    let student = StudentEmbedder::new(&*prepared.student, recipe.degradation.downscale(), &place.device);
    let student = student.as_ref().map(|student| student as &dyn Embedder);
    let measured = scores::evaluate(recipe, &prepared.opened, student, &prepared.teachers, place, observer)?;
    folder.write_results(recipe, &lock, &measured)?;
    tell(observer, &Event::RunEnded { folder: place.folder.clone() })?;
    drop(held);
    Ok(folder)
}

/// Tells an event; a wish to stop becomes an error.
fn tell(observer: &mut dyn Observer, event: &Event) -> Result<()> {
    match observer.on(event) {
        Flow::Continue => Ok(()),
        Flow::Stop => Err(Error::new(ErrorKind::Stopped, "stopped by the user")),
    }
}

fn objective(stage: &crate::recipe::StageRecipe) -> String {
    let term = |(name, term): (&String, &crate::recipe::TermRecipe)| match term.weight {
        1.0 => format!("{name} ({})", term.loss.kind),
        weight => format!("{weight} {name} ({})", term.loss.kind),
    };
    let parts: Vec<String> = stage.options.trains.iter().map(|part| format!("{part:?}").to_lowercase()).collect();
    format!("train {}; L = {}", parts.join(" and "), stage.losses.iter().map(term).collect::<Vec<_>>().join(" + "))
}

/// Licence and terms of what the student comes from, for each teacher (and `student` itself) with files on the Hub.
fn licences(recipe: &Recipe) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for (key, address) in recipe.addresses() {
        let name = key.strip_prefix("teacher.").or(Some(&key).filter(|key| key.starts_with("student.")).map(|k| &**k));
        let Some(name) = name.and_then(|name| name.split('.').next()) else { continue };
        let Some(file) = recipe.files().get(&address.to_string()) else { continue };
        let licence = file.licence.as_deref().unwrap_or("licence not known to gdrd");
        let line = format!("{address} at commit {}: {licence}", file.locked.commit);
        found.entry(name.to_string()).and_modify(|text| *text = format!("{text}; {line}")).or_insert(line);
    }
    found
}

fn header(recipe: &Recipe, prepared: &Prepared) -> StudentHeader {
    let mut options = recipe.student.resolved.clone();
    options.remove("kind");
    StudentHeader {
        format: STUDENT_FORMAT,
        kind: recipe.student.kind.clone(),
        options: serde_json::to_value(options).expect("TOML tables have a JSON form"),
        card: prepared.student.card().clone(),
        prepare: recipe.degradation.downscale().clone(),
        recipe: recipe.digest(),
        teachers: prepared.teacher_digests(),
        licences: licences(recipe),
    }
}
