//! A run: the recipe's flow from data to report.
//!
//! [`train`] is the page to read. A [`Prepared`] run has everything built and checked; a [`RunFolder`] is what stays.

mod ablation;
mod assembly;
mod calendar;
mod calibrated;
mod checksums;
mod claim;
mod cost;
mod datasets;
mod difference;
mod events;
mod features;
mod folder;
mod insight;
mod known;
mod lock;
mod mark;
mod measure;
mod new_student;
mod plan;
mod prepared;
pub mod probe;
mod provenance;
mod solved;
mod verify;
mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::Device;

pub use ablation::{Ablation, Cell, ablate};
pub use assembly::Assembly;
pub use calibrated::{Opens, Rewrite, rewrite};
pub use claim::run_that_wrote;
pub use cost::Cost;
pub use difference::{Cause, Difference, Differing, Parting, Score, difference};
pub use events::LiveEvents;
pub use folder::RunFolder;
pub use lock::{Lock, LockedData, LockedStart};
pub use mark::State;
pub use measure::{Measuring, StudentEmbedder, measure};
pub use plan::{StagePlan, plan};
pub use prepared::{Prepared, StageTerms};
pub use verify::{Finding, Verdict, is_good, verify, verify_again};
pub use view::{claim_report, claim_repository, runs_of};

use cost::Meter;

use crate::closed_form::ClosedForm;
use crate::error::{Error, ErrorKind, Result};
use crate::evaluation::Role;
use crate::experiment::{Experiment, StageSpec, TermSpec};
use crate::files::{Held, write_atomically};
use crate::observe::{Event, FanOut, Observer, tell};
use crate::recipe::Fetch;
use crate::registry::Registry;
use crate::student::{STUDENT_FORMAT, StudentFile, StudentHeader};
use crate::trainer::{Checkpoint, Optimizer, Outcome, Position, Saving};

/// Where a run happens, and what the program has.
#[derive(Clone)]
pub struct Place {
    /// The run folder.
    pub folder: PathBuf,
    /// The folder of stored teacher features, shared by runs.
    pub store: PathBuf,
    /// Where tensors are.
    pub device: Device,
    /// The program's plug-ins.
    pub registry: Arc<Registry>,
    /// The way to the Hugging Face Hub, if the program has one.
    pub hub: Option<Arc<dyn Fetch>>,
}

/// Runs a recipe from its beginning, or from its newest checkpoint if the folder holds one of the same recipe.
///
/// # Errors
/// If the folder holds another recipe's run or is no run folder, another process runs it, something does not fit, or the
/// observer stops the run ([`ErrorKind::Stopped`]; then a checkpoint is there).
pub fn train(experiment: &Experiment, place: &Place, observer: &dyn Observer) -> Result<RunFolder> {
    run(experiment, place, false, observer)
}

/// Runs a recipe from its beginning. What gdrd has written into the folder before is removed once everything is prepared.
///
/// # Errors
/// As [`train`].
pub fn train_afresh(experiment: &Experiment, place: &Place, observer: &dyn Observer) -> Result<RunFolder> {
    run(experiment, place, true, observer)
}

fn run(experiment: &Experiment, place: &Place, afresh: bool, observer: &dyn Observer) -> Result<RunFolder> {
    let folder = RunFolder::new(&place.folder);
    let is_new = !place.folder.exists();
    let held = folder.hold()?;
    let done = run_in(&folder, &held, experiment, place, afresh, observer);
    if done.is_err() {
        folder.abandon(is_new);
    }
    done.map(|()| folder)
}

fn run_in(
    folder: &RunFolder,
    held: &Held,
    experiment: &Experiment,
    place: &Place,
    afresh: bool,
    observer: &dyn Observer,
) -> Result<()> {
    if !held.keeps_out() {
        let message =
            format!("`{}`: this file system has no locks; start no other process on it", place.folder.display());
        tell(observer, &Event::Warning { message })?;
    }
    let resumed = if afresh { None } else { folder.checkpoint(experiment, observer)? };
    let lock_file = folder.lock_file();
    if resumed.is_some() && !lock_file.exists() {
        return Err(Error::data(format!(
            "`{}` is gone, which says of what data and teachers the checkpoints are; put it back, or begin again with `--fresh`",
            lock_file.display()
        )));
    }
    let from_step = resumed.as_ref().map_or(0, |checkpoint| checkpoint.position.total_steps);
    let meter = Meter::new();
    tell(observer, &Event::RunStarted { folder: place.folder.clone(), from_step })?;
    let parts = Assembly::new(experiment, place, observer)?;
    let prepared = Prepared::new(&parts)?;
    let mut terms = prepared.terms()?;
    let lock = Lock::of(&prepared, &terms)?;
    if afresh {
        folder.clear()?;
    }
    parts.unchanged()?;
    for change in folder.lock(experiment, &lock)? {
        let message = format!("{change} changed since this run began; numbers may differ in their last bits");
        tell(observer, &Event::Warning { message })?;
    }
    if let Some(stage) = experiment.stages.first() {
        folder.write_samples(prepared.views(&stage.options.data)?, &experiment.student.view)?;
    }
    let mut position = Position { total_steps: 0, stage: 0, stage_steps: 0, recipe: experiment.digest(), log: None };
    let mut optimizer_state = None;
    if let Some(checkpoint) = resumed {
        prepared.variables(&terms).assign(&checkpoint.variables)?;
        position = checkpoint.position;
        optimizer_state = Some(checkpoint.optimizer);
    }
    let log = folder.log(&position, meter, observer)?;
    let all = prepared.variables(&terms);
    let listeners = FanOut(vec![observer, &log]);
    for (at, stage) in experiment.stages.iter().enumerate().skip(position.stage) {
        if let Some(closed_form) = &stage.closed_form {
            let (stage, objective) = (stage.name.clone(), objective(stage));
            tell(&listeners, &Event::StageStarted { stage, objective, from_step: 0, steps: 1 })?;
            prepared.solved(&experiment.stages[at], closed_form, true)?.run(&listeners)?;
            let log = Some(log.sync()?);
            parts.unchanged()?;
            position =
                Position { total_steps: position.total_steps + 1, stage: at + 1, stage_steps: 0, log, ..position };
            let (position, variables) = (position.clone(), all.tensors());
            let checkpoint = Checkpoint { position, variables, optimizer: Default::default() };
            let written = folder.save(&checkpoint, experiment.run.keep_checkpoints)?;
            tell(observer, &Event::CheckpointWritten { folder: written })?;
            continue;
        }
        let mut ready = prepared.stage(stage, std::mem::take(&mut terms[at]))?;
        if let Some(state) = optimizer_state.take().filter(|_| position.stage_steps > 0) {
            ready.optimizer.restore(state)?;
        }
        let steps = ready.steps()?;
        let from = position.stage_steps;
        tell(
            &listeners,
            &Event::StageStarted { stage: stage.name.clone(), objective: objective(stage), from_step: from, steps },
        )?;
        let before = position.total_steps - from;
        let mut written = None;
        let mut save = |done: u64, optimizer: &dyn Optimizer, saving: Saving| -> Result<()> {
            let over = saving == Saving::Over;
            if saving == Saving::Step && !done.is_multiple_of(experiment.run.checkpoint_steps) {
                return Ok(());
            }
            // A checkpoint stands for steps that were logged, of data that is what the lock says.
            position.log = Some(log.sync()?);
            parts.unchanged()?;
            position.total_steps = before + done;
            (position.stage, position.stage_steps) = if over { (at + 1, 0) } else { (at, done) };
            let state = if over { Default::default() } else { optimizer.state() };
            let checkpoint = Checkpoint { position: position.clone(), variables: all.tensors(), optimizer: state };
            written = Some(folder.save(&checkpoint, experiment.run.keep_checkpoints)?);
            Ok(())
        };
        let outcome = ready.run(from, &listeners, &mut save);
        log.sync()?;
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
    let mut header = header(&prepared, &lock)?;
    // Nothing is rounded that was not trained here.
    let tensors = prepared.student_tensors(experiment.run.half_precision && !experiment.stages.is_empty())?;
    let written = |header: &StudentHeader| -> Result<StudentFile> {
        let bytes = header.to_bytes(&tensors)?;
        write_atomically(&folder.student(), &bytes)?;
        StudentFile::open(&bytes, &place.device, &*place.registry)
    };
    // What is measured is the file that was written.
    let mut file = written(&header)?;
    if let (Some(options), true) = (&experiment.calibration, header.card.embedding.is_some()) {
        let student = StudentEmbedder::new(&file, &place.device);
        (header.facts.calibration, header.facts.quality) =
            calibrated::calibration(&parts, &student, &header.prepare, options)?;
        // Protocols ask the quality model, so it is there before they measure.
        file = written(&header)?;
    }
    let student = StudentEmbedder::new(&file, &place.device);
    let measured = measure::evaluate(&parts, Some(&student), Role::Student, true)?;
    header.facts.figures = calibrated::figures(&measured);
    let insight = insight::insight(&parts, &file, &measured)?;
    parts.unchanged()?;
    write_atomically(&folder.student(), &header.to_bytes(&tensors)?)?;
    for name in experiment.evaluate.keys() {
        let protocol = parts.protocol(name)?;
        let picture = if protocol.measures(&student) { protocol.picture(&student, &parts.context())? } else { None };
        folder.write_picture(name, picture)?;
    }
    folder.write_results(experiment, &lock, (&measured, &insight), &log)?;
    tell(observer, &Event::RunEnded { folder: place.folder.clone() })
}

fn objective(stage: &StageSpec) -> String {
    let term = |(name, term): (&String, &TermSpec)| match term.weight {
        1.0 => format!("{name} ({})", term.loss.kind),
        weight => format!("{weight} {name} ({})", term.loss.kind),
    };
    if let Some(ClosedForm { ridge, whiten, .. }) = &stage.closed_form {
        let whitened = if *whiten > 0.0 { format!(", predictions whitened by C^-{whiten}") } else { String::new() };
        return format!("the last layer in closed form, ridge {ridge}{whitened}");
    }
    let parts: Vec<String> = stage.options.trains.iter().map(|part| format!("{part:?}").to_lowercase()).collect();
    format!("train {}; L = {}", parts.join(" and "), stage.losses.iter().map(term).collect::<Vec<_>>().join(" + "))
}

/// Licence and terms of what the student comes from, for each teacher (and `student` itself) with files on the Hub.
fn licences(parts: &Assembly) -> BTreeMap<String, String> {
    let files = parts.hub_files();
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for (key, address) in parts.experiment().addresses() {
        let name = key.strip_prefix("teacher.").or(Some(&key).filter(|key| key.starts_with("student.")).map(|k| &**k));
        let Some(name) = name.and_then(|name| name.split('.').next()) else { continue };
        let Some(file) = files.get(&address.to_string()) else { continue };
        let licence = file.licence.as_deref().unwrap_or("licence not known to gdrd");
        let line = format!("{address} at commit {}: {licence}", file.locked.commit);
        found.entry(name.to_string()).and_modify(|text| *text = format!("{text}; {line}")).or_insert(line);
    }
    for (part, licence) in &parts.experiment().licences {
        if let Some(name) = part.strip_prefix("teacher.") {
            let said = format!("{licence} (stated by the recipe)");
            found.entry(name.to_string()).and_modify(|text| *text = format!("{text}; {said}")).or_insert(said);
        }
    }
    found
}

fn header(prepared: &Prepared, lock: &Lock) -> Result<StudentHeader> {
    let experiment = prepared.parts.experiment();
    let network = &experiment.student.network;
    let mut options = network.resolved.clone();
    options.remove("kind");
    let view = prepared.parts.context().part::<dyn crate::data::Degradation>("view", &experiment.student.view)?;
    let prepare = view.downscale().cloned().ok_or_else(|| Error::recipe("the student's view has no size"))?;
    let mut options = serde_json::to_value(options).expect("TOML tables have a JSON form");
    if let Some(preprocessing) = prepared.student.preprocessing() {
        options["preprocessing"] = serde_json::to_value(preprocessing).expect("numbers have a JSON form");
    }
    // Who only measures is taught by nobody.
    let (teachers, licences) = match experiment.stages.is_empty() {
        true => Default::default(),
        false => (lock.teachers.clone(), licences(prepared.parts)),
    };
    Ok(StudentHeader {
        format: STUDENT_FORMAT,
        kind: network.kind.clone(),
        options,
        card: prepared.student.card().clone(),
        prepare,
        recipe: experiment.digest(),
        teachers,
        licences,
        facts: calibrated::facts(prepared, lock)?,
    })
}
