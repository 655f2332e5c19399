//! What the tests share: tiny recipes whose teachers are trained in a moment, and the `gdrd` command as a process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use candle_core::Device;
use gdrd_core::context::BuildContext;
use gdrd_core::error::Error;
use gdrd_core::experiment::Experiment;
use gdrd_core::observe::{Event, Recorder};
use gdrd_core::plugin::Workbench;
use gdrd_core::registry::Registry;
use gdrd_core::run::{Place, RunFolder, train};
use tempfile::TempDir;

pub mod faults;
pub mod hub_server;
#[cfg(feature = "serve")]
pub mod kills;
pub mod rounds;
#[cfg(feature = "serve")]
pub mod service;

/// Both teachers, both stages, one protocol.
pub const TINY: &str = include_str!("recipes/tiny.toml");
/// A discriminative teacher, trained from scratch with ArcFace.
pub const DISCRIMINATIVE: &str = include_str!("recipes/discriminative.toml");
/// A generative teacher, trained by denoising.
pub const GENERATIVE: &str = include_str!("recipes/generative.toml");

/// A generative teacher that restores small faces.
pub const RESTORING: &str = include_str!("recipes/restoring.toml");

/// A folder with recipes and teachers that is gone after the test.
pub struct Bench {
    folder: TempDir,
}

impl Bench {
    /// An empty folder.
    pub fn empty() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// A folder with `tiny.toml` and its two teachers, which are trained here for a few steps.
    pub fn with_teachers() -> Self {
        let bench = Self::empty();
        bench.write("tiny.toml", TINY);
        for (name, text) in [("discriminative", DISCRIMINATIVE), ("generative", GENERATIVE)] {
            let recipe = bench.write(&format!("{name}.toml"), text);
            let (run, _) = bench.train(&bench.recipe(&recipe, &[]), name);
            let file = bench.file(&format!("teachers/{name}.safetensors"));
            std::fs::create_dir_all(bench.file("teachers")).expect("a folder for teachers");
            std::fs::copy(run.student(), file).expect("a teacher's file");
        }
        bench
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The path of a file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into the folder.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name);
        std::fs::create_dir_all(path.parent().expect("inside the folder")).expect("a folder");
        std::fs::write(&path, content).expect("a file");
        path
    }

    /// The recipe at `path` with some `--set`s; all of them must be good.
    pub fn recipe(&self, path: &Path, sets: &[&str]) -> Experiment {
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        Experiment::load(path, &sets, &registry()).unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// `tiny.toml` with some `--set`s.
    pub fn tiny(&self, sets: &[&str]) -> Experiment {
        self.recipe(&self.file("tiny.toml"), sets)
    }

    /// Where a run called `run` happens; all runs of a bench share the stored features.
    pub fn place(&self, run: &str) -> Place {
        Place {
            folder: self.file("runs").join(run),
            store: self.file("runs/.features"),
            device: Device::Cpu,
            registry: Arc::new(registry()),
            hub: None,
        }
    }

    /// Runs a recipe to its end.
    pub fn train(&self, recipe: &Experiment, run: &str) -> (RunFolder, Vec<Event>) {
        let recorder = Recorder::default();
        let folder = train(recipe, &self.place(run), &recorder).unwrap_or_else(|error| panic!("{error}"));
        (folder, recorder.events())
    }

    /// Runs a recipe that must fail; the error, and the steps that were made before.
    pub fn fails(&self, recipe: &Experiment, run: &str) -> (Error, usize) {
        let recorder = Recorder::default();
        let error = train(recipe, &self.place(run), &recorder).expect_err("the run must fail");
        let steps = recorder.events().iter().filter(|event| matches!(event, Event::StepDone { .. })).count();
        (error, steps)
    }
}

/// All kinds of gdrd.
pub fn registry() -> Registry {
    let mut registry = Registry::with_core().expect("core's kinds");
    gdrd_teachers::register(&mut registry).expect("teachers");
    gdrd_student::register(&mut registry).expect("students");
    registry
}

/// Builds a plug-in on the CPU, from local files alone.
pub fn on_cpu<T>(build: impl FnOnce(&BuildContext) -> T) -> T {
    build(&BuildContext::new(&Workbench::new(Device::Cpu)))
}

/// A line of a run's log of steps without what it cost, which is never the same twice.
pub fn step_numbers(line: &str) -> serde_json::Value {
    let mut step: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    for cost in ["images_per_second", "processor_seconds", "preparation_seconds", "peak_bytes"] {
        step.as_object_mut().and_then(|step| step.remove(cost));
    }
    step
}

/// The loss of every step, or one of its terms.
pub fn losses(events: &[Event], term: Option<&str>) -> Vec<f64> {
    let value = |event: &Event| match (event, term) {
        (Event::StepDone { loss, .. }, None) => Some(*loss),
        (Event::StepDone { terms, .. }, Some(term)) => {
            terms.iter().find(|(name, _)| name == term).map(|(_, value)| *value)
        }
        _ => None,
    };
    events.iter().filter_map(value).collect()
}

/// How a process ended and what it said.
#[derive(Debug)]
pub struct Said {
    /// The exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    /// Runs a command to its end.
    pub fn by(command: &mut Command) -> Self {
        command.output().map(Self::from).expect("the program starts")
    }

    /// The same, checked for its exit code.
    #[track_caller]
    pub fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }
}

impl From<std::process::Output> for Said {
    fn from(output: std::process::Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository").to_path_buf()
}

/// Every file below `folder` whose path ends so, in the order of their names.
pub fn files_below(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => waiting.push(path),
                false if path.to_string_lossy().ends_with(ending) => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}
