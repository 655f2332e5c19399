//! What a run leaves behind.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::prepared::Prepared;
use super::scores::Measured;
use super::tell;
use crate::data::write_sheet;
use crate::error::{Context, Error, Result};
use crate::files::{sweep, write_atomically};
use crate::observe::{Event, Flow, Observer};
use crate::recipe::{LockedFile, Recipe};
use crate::report;
use crate::student::StudentHeader;
use crate::trainer::Checkpoint;

/// The folder of a run, known by `gdrd-run.json`: `recipe.resolved.toml`, `lock.json`, `samples.png`, `metrics.jsonl`, `checkpoints/`,
/// `student.safetensors`, `evaluation/*.json`, `report.md`.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

/// Everything outside the recipe that the numbers depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lock {
    /// Version of gdrd.
    pub gdrd: String,
    /// Version of candle.
    pub candle: String,
    /// Digest of the recipe.
    pub recipe: String,
    /// Digest of the degradation's options.
    pub degradation: String,
    /// Sha256 of the teachers' weights, by name.
    pub teachers: BTreeMap<String, String>,
    /// Files of the Hub, by address; none in locks of before gdrd knew the Hub.
    #[serde(default)]
    pub files: BTreeMap<String, LockedFile>,
    /// The datasets, by name.
    pub data: BTreeMap<String, LockedData>,
    /// The machine; not compared.
    pub machine: BTreeMap<String, String>,
}

/// A dataset in a [`Lock`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LockedData {
    /// Its fingerprint.
    pub fingerprint: String,
    /// Number of faces.
    pub faces: usize,
    /// Number of identities.
    pub identities: usize,
}

pub(super) const RECIPE: &str = "recipe.resolved.toml";

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

    /// The newest good checkpoint, if the folder holds one of this very recipe. Damaged ones that are newer are put aside, and
    /// that is told.
    pub(super) fn checkpoint(&self, recipe: &Recipe, observer: &mut dyn Observer) -> Result<Option<Checkpoint>> {
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

    /// Writes the resolved recipe and the lock; if there is a lock already, it must agree.
    pub(super) fn lock(&self, recipe: &Recipe, prepared: &Prepared) -> Result<Lock> {
        let data = |(name, views): (&String, &crate::data::Views)| {
            let set = views.dataset();
            let locked = LockedData {
                fingerprint: set.fingerprint().to_string(),
                faces: set.len(),
                identities: set.identities(),
            };
            (name.clone(), locked)
        };
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let machine = [
            ("os", std::env::consts::OS.to_string()),
            ("architecture", std::env::consts::ARCH.to_string()),
            ("cores", cores.to_string()),
            ("kernels", crate::nn::kernels::processor().to_string()),
            ("device", format!("{:?}", prepared.device.location()).to_lowercase()),
        ];
        let lock = Lock {
            gdrd: env!("CARGO_PKG_VERSION").into(),
            candle: "0.11.1".into(),
            recipe: recipe.digest(),
            degradation: crate::digest::of_value(recipe.degradation.downscale()),
            teachers: prepared.teacher_digests(),
            files: recipe.files().iter().map(|(address, file)| (address.clone(), file.locked.clone())).collect(),
            data: prepared.datasets().map(data).collect(),
            machine: machine.into_iter().map(|(key, value)| (key.to_string(), value)).collect(),
        };
        let path = self.lock_file();
        if path.exists() {
            Lock::read(&path)?.compare(&lock).at(|| format!("`{}`", path.display()))?;
        }
        write_atomically(&self.recipe(), recipe.resolved().as_bytes())?;
        write_atomically(&path, &json(&lock)?)?;
        Ok(lock)
    }

    pub(super) fn write_samples(&self, prepared: &Prepared) -> Result<()> {
        match prepared.datasets().find(|(name, _)| *name == "train").or_else(|| prepared.datasets().next()) {
            Some((_, views)) => write_sheet(views, &self.path.join("samples.png")),
            None => Ok(()),
        }
    }

    pub(super) fn save(&self, checkpoint: &Checkpoint, keep: usize) -> Result<PathBuf> {
        checkpoint.write(&self.path.join("checkpoints"), keep)
    }

    /// The log of steps, cut back to the checkpoint that the run goes on from.
    pub(super) fn log(&self, from_step: u64) -> Result<StepLog> {
        StepLog::open(self.path.join("metrics.jsonl"), from_step)
    }

    pub(super) fn write_student(&self, header: &StudentHeader, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        write_atomically(&self.student(), &header.to_bytes(tensors)?)
    }

    pub(super) fn write_results(
        &self,
        recipe: &Recipe,
        lock: &Lock,
        measured: &BTreeMap<String, Vec<Measured>>,
    ) -> Result<()> {
        let evaluation = self.path.join("evaluation");
        std::fs::create_dir_all(&evaluation).map_err(|e| Error::io(&evaluation, e))?;
        sweep(&evaluation);
        for (name, rows) in measured {
            write_atomically(&evaluation.join(format!("{name}.json")), &json(rows)?)?;
        }
        let text = report::run_page(recipe, lock, measured, &self.curves()?, &self.path)?;
        write_atomically(&self.path.join("report.md"), text.as_bytes())?;
        self.write_mark(true)
    }

    /// The results of a finished run, by protocol.
    pub fn results(&self) -> Result<BTreeMap<String, Vec<Measured>>> {
        let mut found = BTreeMap::new();
        for name in self.names("evaluate") {
            let path = self.path.join("evaluation").join(format!("{name}.json"));
            let text = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
            let rows = serde_json::from_slice(&text).map_err(|e| Error::data(format!("`{}`: {e}", path.display())))?;
            found.insert(name, rows);
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

impl Lock {
    /// Reads a lock.
    ///
    /// # Errors
    /// If the file cannot be read or is no lock.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        serde_json::from_slice(&text).map_err(|e| Error::data(format!("`{}`: {e}", path.display())))
    }

    /// Refuses to go on with other data or teachers.
    fn compare(&self, now: &Lock) -> Result<()> {
        let mut changes = Vec::new();
        if self.recipe != now.recipe {
            changes.push("the recipe".to_string());
        }
        for (name, digest) in &self.teachers {
            if now.teachers.get(name) != Some(digest) {
                changes.push(format!("the weights of teacher `{name}`"));
            }
        }
        for (address, file) in &self.files {
            if now.files.get(address) != Some(file) {
                changes.push(format!("the file {address}"));
            }
        }
        for (name, data) in &self.data {
            if now.data.get(name) != Some(data) {
                changes.push(format!("the dataset `{name}`"));
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        Err(Error::data(format!(
            "changed since this run began: {}; start a new run in another folder",
            changes.join(", ")
        )))
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
    file: File,
    total: u64,
    failed: Option<Error>,
}

impl StepLog {
    fn open(path: PathBuf, from_step: u64) -> Result<Self> {
        // Steps after the checkpoint were made, logged and lost; they will be made again. A line may be cut.
        if path.exists() {
            let text = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
            let is_kept = |line: &&[u8]| {
                let step =
                    serde_json::from_slice(line).ok().and_then(|line: serde_json::Value| line["total_step"].as_u64());
                step.is_some_and(|step| step <= from_step)
            };
            let kept: Vec<&[u8]> =
                text.split(|byte| *byte == b'\n').filter(is_kept).flat_map(|line| [line, b"\n"]).collect();
            write_atomically(&path, &kept.concat())?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|e| Error::io(&path, e))?;
        Ok(Self { path, file, total: from_step, failed: None })
    }

    /// The first line that could not be written, as an error.
    pub(super) fn check(&mut self) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }
}

impl Observer for StepLog {
    fn on(&mut self, event: &Event) -> Flow {
        let Event::StepDone { stage, step, loss, terms, rate, gradient_norm, images_per_second, .. } = event else {
            return Flow::Continue;
        };
        self.total += 1;
        let terms: serde_json::Map<String, serde_json::Value> =
            terms.iter().map(|(name, value)| (name.clone(), (*value).into())).collect();
        let line = serde_json::json!({
            "total_step": self.total, "stage": stage, "step": step, "loss": loss, "terms": terms, "rate": rate,
            "gradient_norm": gradient_norm, "images_per_second": images_per_second,
        });
        if let Err(error) = self.file.write_all(format!("{line}\n").as_bytes()) {
            self.failed.get_or_insert_with(|| Error::io(&self.path, error));
        }
        Flow::Continue
    }
}
