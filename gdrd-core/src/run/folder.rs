//! What a run leaves behind.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::lock::Lock;
use crate::data::{Views, write_sheet};
use crate::error::{Error, Result};
use crate::evaluation::Measured;
use crate::experiment::Experiment;
use crate::files::write_atomically;
use crate::observe::{Event, Flow, Observer};
use crate::report;
use crate::trainer::Checkpoint;

/// The folder of a run: `recipe.resolved.toml`, `lock.json`, `samples.png`, `metrics.jsonl`, `checkpoints/`,
/// `student.safetensors`, `evaluation/*.json`, `report.md`.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

const RECIPE: &str = "recipe.resolved.toml";

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

    /// Whether the run is over and everything is written; the report comes last.
    pub fn is_finished(&self) -> bool {
        self.path.join("report.md").exists()
    }

    /// Whether a run has begun here.
    pub fn is_begun(&self) -> bool {
        self.recipe().exists()
    }

    /// The newest checkpoint, if the folder holds one of this very recipe.
    pub(super) fn checkpoint(&self, recipe: &Experiment) -> Result<Option<Checkpoint>> {
        let Some(newest) = Checkpoint::newest(&self.path.join("checkpoints"))? else { return Ok(None) };
        let checkpoint = Checkpoint::read(&newest)?;
        if checkpoint.position.recipe != recipe.digest() {
            return Err(Error::recipe(format!(
                "`{}` belongs to another recipe (digest {}, this one has {})",
                newest.display(),
                &checkpoint.position.recipe[..8.min(checkpoint.position.recipe.len())],
                &recipe.digest()[..8]
            )));
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
        write_atomically(&self.recipe(), experiment.resolved().as_bytes())?;
        write_atomically(&path, &json(lock)?)?;
        Ok(circumstances)
    }

    pub(super) fn write_samples(&self, views: &Views, small: &str) -> Result<()> {
        write_sheet(views, small, &self.path.join("samples.png"))
    }

    pub(super) fn save(&self, checkpoint: &Checkpoint, keep: usize) -> Result<PathBuf> {
        checkpoint.write(&self.path.join("checkpoints"), keep)
    }

    /// The log of steps, cut back to the checkpoint that the run goes on from.
    pub(super) fn log(&self, from_step: u64) -> Result<StepLog> {
        StepLog::open(self.path.join("metrics.jsonl"), from_step)
    }

    pub(super) fn write_results(
        &self,
        experiment: &Experiment,
        provenance: &[String],
        measured: &BTreeMap<String, Vec<Measured>>,
    ) -> Result<()> {
        for (name, rows) in measured {
            write_atomically(&self.path.join("evaluation").join(format!("{name}.json")), &json(rows)?)?;
        }
        let text = report::run_page(&experiment.name, provenance, measured, &self.curves()?, &self.path)?;
        write_atomically(&self.path.join("report.md"), text.as_bytes())
    }

    /// The results of a finished run, by protocol.
    pub fn results(&self) -> Result<BTreeMap<String, Vec<Measured>>> {
        let folder = self.path.join("evaluation");
        let mut found = BTreeMap::new();
        if !folder.exists() {
            return Ok(found);
        }
        for entry in std::fs::read_dir(&folder).map_err(|e| Error::io(&folder, e))? {
            let path = entry.map_err(|e| Error::io(&folder, e))?.path();
            if path.extension().is_some_and(|e| e == "json") {
                let text = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
                let rows =
                    serde_json::from_slice(&text).map_err(|e| Error::data(format!("`{}`: {e}", path.display())))?;
                found.insert(path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), rows);
            }
        }
        Ok(found)
    }

    /// The loss of each step, by stage.
    fn curves(&self) -> Result<BTreeMap<String, Vec<(f64, f64)>>> {
        let path = self.path.join("metrics.jsonl");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let mut curves: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for line in text.lines() {
            let value: serde_json::Value =
                serde_json::from_str(line).map_err(|e| Error::data(format!("`{}`: {e}", path.display())))?;
            if let (Some(stage), Some(step), Some(loss)) =
                (value["stage"].as_str(), value["step"].as_f64(), value["loss"].as_f64())
            {
                curves.entry(stage.to_string()).or_default().push((step, loss));
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

/// Writes one line of JSON for each step.
pub(super) struct StepLog {
    path: PathBuf,
    state: Mutex<LogState>,
}

struct LogState {
    file: File,
    total: u64,
    failed: Option<Error>,
}

impl StepLog {
    fn open(path: PathBuf, from_step: u64) -> Result<Self> {
        // Steps after the checkpoint were made, logged and lost; they will be made again.
        if path.exists() {
            let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
            let kept: String = text.lines().take(from_step as usize).flat_map(|line| [line, "\n"]).collect();
            write_atomically(&path, kept.as_bytes())?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|e| Error::io(&path, e))?;
        Ok(Self { path, state: Mutex::new(LogState { file, total: from_step, failed: None }) })
    }

    /// The first line that could not be written, as an error.
    pub(super) fn check(&self) -> Result<()> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).failed.take().map_or(Ok(()), Err)
    }
}

impl Observer for StepLog {
    fn on(&self, event: &Event) -> Flow {
        let Event::StepDone { stage, step, loss, terms, rate, gradient_norm, images_per_second, .. } = event else {
            return Flow::Continue;
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.total += 1;
        let terms: serde_json::Map<String, serde_json::Value> =
            terms.iter().map(|(name, value)| (name.clone(), (*value).into())).collect();
        let line = serde_json::json!({
            "total_step": state.total, "stage": stage, "step": step, "loss": loss, "terms": terms, "rate": rate,
            "gradient_norm": gradient_norm, "images_per_second": images_per_second,
        });
        if let Err(error) = writeln!(state.file, "{line}") {
            let error = Error::io(&self.path, error);
            state.failed.get_or_insert(error);
        }
        Flow::Continue
    }
}
