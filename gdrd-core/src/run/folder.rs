//! What a run leaves behind.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::checksums::{CHECKSUMS, Checksums};
use super::cost::Meter;
use super::lock::Lock;
use super::provenance::provenance;
use crate::data::{Views, write_sheet};
use crate::digest;
use crate::error::{Context, Error, Result};
use crate::evaluation::Measured;
use crate::experiment::Experiment;
use crate::files::{self, remove, write_atomically};
use crate::observe::{Event, Flow, Observer, tell};
use crate::report::{self, Insight, SolvedLayer, StageCurves};
use crate::trainer::{Checkpoint, Position};

/// The folder of a run, known by `gdrd-run.json`: `recipe.resolved.toml`, `lock.json`, `samples.png`, `metrics.jsonl`, `checkpoints/`,
/// `student.safetensors`, `evaluation/*.json`, `insight.json`, `report.md`, `report.html`, and, when all of them are there, `checksums.json`.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

pub(super) const RECIPE: &str = "recipe.resolved.toml";
/// The log of steps.
const LOG: &str = "metrics.jsonl";
pub(super) const REPORT: &str = "report.md";
/// The same as a page with charts.
pub(super) const PAGE: &str = "report.html";
/// What the run saw of faces.
pub(super) const INSIGHT: &str = "insight.json";

impl RunFolder {
    /// The run folder at `path`; it need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved recipe's file.
    pub fn recipe(&self) -> PathBuf {
        self.path.join(RECIPE)
    }

    /// The student's file.
    pub fn student(&self) -> PathBuf {
        self.path.join("student.safetensors")
    }

    /// The lock's file.
    pub fn lock_file(&self) -> PathBuf {
        self.path.join("lock.json")
    }

    /// The folder of what protocols measured.
    pub(super) fn evaluation(&self) -> PathBuf {
        self.path.join("evaluation")
    }

    /// The newest good checkpoint, if the folder holds one of this very recipe. Damaged ones that are newer are put aside, and
    /// that is told.
    pub(super) fn checkpoint(&self, recipe: &Experiment, observer: &dyn Observer) -> Result<Option<Checkpoint>> {
        let (found, damaged) = Checkpoint::newest_good(&self.path.join("checkpoints"))?;
        let Some((path, checkpoint)) = found else {
            return match damaged.into_iter().next() {
                None => Ok(None),
                Some((_, error)) => Err(error.at("no checkpoint of this run is good; `--fresh` begins it again")),
            };
        };
        if checkpoint.position.recipe != recipe.digest() {
            return Err(Error::recipe(format!(
                "`{}` belongs to another recipe (digest {}, this one has {})",
                path.display(),
                &checkpoint.position.recipe[..8.min(checkpoint.position.recipe.len())],
                &recipe.digest()[..8]
            )));
        }
        for (folder, error) in damaged {
            let aside = Checkpoint::put_aside(&folder)?;
            let (path, aside) = (path.display(), aside.display());
            let message =
                format!("{error}; going on from the older checkpoint `{path}`, the damaged one is `{aside}` now");
            tell(observer, &Event::Warning { message })?;
        }
        Ok(Some(checkpoint))
    }

    /// Writes the resolved recipe and the lock; if there is a lock already, it must agree. What differs beside the experiment
    /// is returned: the program, the processor.
    pub(super) fn lock(&self, experiment: &Experiment, lock: &Lock) -> Result<Vec<String>> {
        let path = self.lock_file();
        let mut circumstances = Vec::new();
        if path.exists() {
            let then = Lock::read_file(&path)?;
            let changes = then.changes(lock);
            if !changes.is_empty() {
                return Err(Error::data(format!(
                    "`{}`: changed since this run began: {}; start a new run in another folder",
                    path.display(),
                    changes.join(", ")
                )));
            }
            circumstances = then.circumstances(lock);
        }
        // From here on the results of an earlier end of this run are none.
        self.write_mark(false)?;
        remove(&self.path.join(CHECKSUMS))?;
        write_atomically(&self.recipe(), experiment.resolved().as_bytes())?;
        write_atomically(&path, &json(lock)?)?;
        Ok(circumstances)
    }

    pub(super) fn write_samples(&self, views: &Views, small: &str) -> Result<()> {
        write_sheet(views, small, &self.path.join("samples.png"))
    }

    /// The picture of a protocol, or none of an earlier end of the run.
    pub(super) fn write_picture(&self, protocol: &str, picture: Option<Vec<u8>>) -> Result<()> {
        let path = self.path.join(report::picture_file(protocol));
        picture.map_or_else(|| remove(&path), |picture| write_atomically(&path, &picture))
    }

    pub(super) fn save(&self, checkpoint: &Checkpoint, keep: usize) -> Result<PathBuf> {
        checkpoint.write(&self.path.join("checkpoints"), keep)
    }

    /// The log of steps, cut back to the checkpoint that the run goes on from.
    pub(super) fn log(&self, position: &Position, meter: Meter, observer: &dyn Observer) -> Result<StepLog> {
        StepLog::open(self.path.join(LOG), position, meter, observer)
    }

    pub(super) fn write_results(
        &self,
        experiment: &Experiment,
        lock: &Lock,
        (measured, insight): (&BTreeMap<String, Vec<Measured>>, &Insight),
        log: &StepLog,
    ) -> Result<()> {
        let evaluation = self.evaluation();
        files::make_folder(&evaluation).map_err(|e| Error::io(&evaluation, e))?;
        for (name, rows) in measured {
            write_atomically(&evaluation.join(format!("{name}.json")), &json(rows)?)?;
        }
        let curves = |(protocol, rows): (&String, &Vec<Measured>)| {
            let curves = rows.first().into_iter().flat_map(|row| &row.outcome.curves);
            curves.map(|curve| report::chart_name(curve, protocol)).collect::<Vec<_>>()
        };
        self.write_mark_with(false, measured.iter().flat_map(curves).collect())?;
        let text = self.report(experiment, lock, measured, &self.path)?;
        write_atomically(&self.path.join(REPORT), text.as_bytes())?;
        write_atomically(&self.path.join(INSIGHT), &json(insight)?)?;
        Checkpoint::finish_removals(&self.path.join("checkpoints"))?;
        // Checksums stand for what this run wrote, not for what somebody made of it since.
        let mut others = self.written()?;
        others.retain(|name| name != PAGE);
        let mut sums = Checksums::of(&self.path, &others)?;
        let recipe = digest::hex(&digest::of_bytes(experiment.resolved().as_bytes()));
        if sums.sha256(RECIPE) != Some(recipe.as_str()) {
            write_atomically(&self.recipe(), experiment.resolved().as_bytes())?;
            sums = Checksums::of(&self.path, &others)?;
        }
        if sums.sha256(LOG) != Some(log.sync()?.as_str()) {
            return Err(Error::data(format!(
                "`{}`: somebody changed it while this run went on; `gdrd resume` makes the report of what is left",
                log.path.display()
            )));
        }
        // The page is of these files; one that is changed while it is made has another checksum now.
        let page = report::html_page(&[self.view()?])?;
        write_atomically(&self.path.join(PAGE), page.as_bytes())?;
        sums.with(PAGE, page.as_bytes()).write(&self.path)?;
        self.write_mark(true)
    }

    /// The text of the report, from the run's data; its pictures are written into the folder `pictures`.
    pub(super) fn report(
        &self,
        experiment: &Experiment,
        lock: &Lock,
        measured: &BTreeMap<String, Vec<Measured>>,
        pictures: &Path,
    ) -> Result<String> {
        let (provenance, curves, solved) = (provenance(experiment, lock), self.curves()?, self.solved()?);
        let shown = measured.keys().filter(|name| self.path.join(report::picture_file(name)).is_file());
        let shown: Vec<&String> = shown.collect();
        report::run_page(&experiment.name, &provenance, (measured, &shown), (&curves, &solved), pictures)
    }

    /// The results of a finished run, by protocol.
    ///
    /// # Errors
    /// If a file of theirs is missing, or was altered since the run wrote it.
    pub fn results(&self) -> Result<BTreeMap<String, Vec<Measured>>> {
        let mut found = BTreeMap::new();
        if self.path.join(CHECKSUMS).exists() {
            let sums = Checksums::read(&self.path).at(|| format!("`{}`", self.path.join(CHECKSUMS).display()))?;
            for (name, found) in sums.compare(&self.path, |name| name.starts_with("evaluation/")) {
                let place = || format!("`{}` was altered since the run wrote it", self.path.join(name).display());
                found.at(place)?;
            }
        }
        for name in self.names("evaluate")? {
            let path = self.path.join("evaluation").join(format!("{name}.json"));
            let text = files::read(&path).map_err(|e| Error::io(&path, e))?;
            let rows = serde_json::from_slice(&text).map_err(|e| Error::data(format!("`{}`: {e}", path.display())))?;
            found.insert(name, rows);
        }
        Ok(found)
    }

    /// The lines of the log of steps.
    pub(super) fn metrics(&self) -> Result<Vec<serde_json::Value>> {
        let path = self.path.join(LOG);
        let text = files::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let read = |line| serde_json::from_str(line).map_err(|e| Error::data(format!("`{}`: {e}", path.display())));
        text.lines().map(read).collect()
    }

    /// The stages that were solved in closed form, in the order in which they ran.
    pub(super) fn solved(&self) -> Result<Vec<(String, SolvedLayer)>> {
        let solved = |mut line: serde_json::Value| {
            let found = line.get_mut("solved").map(serde_json::Value::take)?;
            Some((line["stage"].as_str()?.to_string(), serde_json::from_value(found).ok()?))
        };
        Ok(self.metrics()?.into_iter().filter_map(solved).collect())
    }

    /// What is drawn of each stage, in the order in which the stages ran.
    pub(super) fn curves(&self) -> Result<Vec<StageCurves>> {
        let mut curves: Vec<StageCurves> = Vec::new();
        for value in self.metrics()? {
            if let (Some(stage), Some(step), Some(loss)) =
                (value["stage"].as_str(), value["step"].as_f64(), value["loss"].as_f64())
            {
                if curves.iter().all(|curve| curve.stage != stage) {
                    curves.push(StageCurves { stage: stage.to_string(), ..StageCurves::default() });
                }
                let Some(curve) = curves.iter_mut().find(|curve| curve.stage == stage) else { continue };
                curve.loss.push((step, loss));
                for (name, value) in value["terms"].as_object().into_iter().flatten() {
                    let Some(value) = value.as_f64() else { continue };
                    let (into, name) = match (name.strip_suffix(".gradient"), name.split_once(".cosine.")) {
                        (Some(term), _) => (&mut curve.gradients, term.to_string()),
                        (_, Some((one, other))) => (&mut curve.cosines, format!("{one} and {other}")),
                        _ if name.contains('.') => continue,
                        _ => (&mut curve.terms, name.clone()),
                    };
                    into.entry(name).or_default().push((step, value));
                }
            }
        }
        Ok(curves)
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| Error::data(e.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The line of the log for an event that is a step, the `total`th of the run.
pub(super) fn log_line(event: &Event, total: u64) -> Option<serde_json::Value> {
    match event {
        Event::StepDone { stage, step, loss, terms, rate, gradient_norm, images_per_second, .. } => {
            let terms: serde_json::Map<String, serde_json::Value> =
                terms.iter().map(|(name, value)| (name.clone(), (*value).into())).collect();
            Some(serde_json::json!({
                "total_step": total, "stage": stage, "step": step, "loss": loss, "terms": terms, "rate": rate,
                "gradient_norm": gradient_norm, "images_per_second": images_per_second,
            }))
        }
        Event::StageSolved { stage, rows, inputs, outputs, explained, seconds } => Some(serde_json::json!({
            "total_step": total, "stage": stage,
            "solved": SolvedLayer {
                rows: *rows, inputs: *inputs, outputs: *outputs, explained: *explained, seconds: *seconds,
            },
        })),
        _ => None,
    }
}

/// Writes one line of JSON for each step.
pub(super) struct StepLog {
    path: PathBuf,
    state: Mutex<LogState>,
}

struct LogState {
    file: File,
    digest: Sha256,
    total: u64,
    meter: Meter,
    failed: Option<Error>,
}

impl StepLog {
    fn open(path: PathBuf, position: &Position, meter: Meter, observer: &dyn Observer) -> Result<Self> {
        let (mut kept, total) = (Vec::new(), position.total_steps);
        // Steps after the checkpoint were made, logged and lost; they will be made again. A line may be cut.
        if path.exists() {
            let text = files::read(&path).map_err(|e| Error::io(&path, e))?;
            let is_kept = |line: &&[u8]| {
                let step =
                    serde_json::from_slice(line).ok().and_then(|line: serde_json::Value| line["total_step"].as_u64());
                step.is_some_and(|step| step <= total)
            };
            let lines: Vec<&[u8]> =
                text.split(|byte| *byte == b'\n').filter(is_kept).flat_map(|line| [line, b"\n"]).collect();
            kept = lines.concat();
            write_atomically(&path, &kept)?;
        }
        let digest = Sha256::new_with_prefix(&kept);
        let expected = position.log.as_ref().is_none_or(|log| *log == digest::hex(&digest.clone().finalize()));
        if !expected || total > 0 && kept.is_empty() {
            let path = path.display();
            let message =
                format!("`{path}` is not what the first {total} steps wrote; the report shows what is left of it");
            tell(observer, &Event::Warning { message })?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|e| Error::io(&path, e))?;
        Ok(Self { path, state: Mutex::new(LogState { file, digest, total, meter, failed: None }) })
    }

    /// Brings all lines to the disk; the first one that could not be written is the error. The digest of the file.
    pub(super) fn sync(&self) -> Result<String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failed.take().map_or(Ok(()), Err)?;
        files::sync(&state.file, &self.path).map_err(|e| Error::io(&self.path, e))?;
        Ok(digest::hex(&state.digest.clone().finalize()))
    }
}

impl Observer for StepLog {
    fn on(&self, event: &Event) -> Flow {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Event::StageStarted { .. } = event {
            state.meter.stage_begins();
        }
        let Some(mut line) = log_line(event, state.total + 1) else { return Flow::Continue };
        state.total += 1;
        state.meter.read_into(&mut line);
        let line = format!("{line}\n");
        state.digest.update(&line);
        if let Err(error) = files::write_all(&mut state.file, &self.path, line.as_bytes()) {
            let error = Error::io(&self.path, error);
            state.failed.get_or_insert(error);
        }
        Flow::Continue
    }
}
