//! A whole recipe as typed parts, in the order of the flow.

use std::collections::BTreeMap;
use std::path::Path;

use super::read::Reader;
use super::run_options::RunOptions;
use crate::data::{DatasetConfig, DegradationConfig};
use crate::digest;
use crate::evaluation::ProtocolConfig;
use crate::loss::LossConfig;
use crate::plugin::{Component, Marked};
use crate::recipe::path::PATH_FORMAT;
use crate::recipe::{Failure, HubAddress, RecipePath, overlay};
use crate::registry::Registry;
use crate::seed::Seed;
use crate::student::StudentConfig;
use crate::teacher::TeacherConfig;
use crate::trainer::{OptimizerConfig, ScheduleConfig, StageOptions};

/// Everything that a run does.
pub struct Experiment {
    /// What the run is called; the file's name unless the recipe says otherwise.
    pub name: String,
    /// Seed, checkpoints and the like.
    pub run: RunOptions,
    /// Datasets by name.
    pub data: BTreeMap<String, Component<dyn DatasetConfig>>,
    /// Views by name: `high`, `low` (the table `[degradation]`), and those of `[view.*]`.
    pub views: BTreeMap<String, Component<dyn DegradationConfig>>,
    /// Teachers by name.
    pub teachers: BTreeMap<String, Component<dyn TeacherConfig>>,
    /// The student.
    pub student: StudentSpec,
    /// The stages, in the order in which they run.
    pub stages: Vec<StageSpec>,
    /// Protocols by name.
    pub evaluate: BTreeMap<String, Component<dyn ProtocolConfig>>,
    pub(super) resolved: toml::Table,
}

/// The student of a recipe.
pub struct StudentSpec {
    /// The network.
    pub network: Component<dyn StudentConfig>,
    /// The view that it sees.
    pub view: String,
    /// The student file whose weights it begins with.
    pub initial: Option<RecipePath>,
}

/// A stage of a recipe.
pub struct StageSpec {
    /// Its name.
    pub name: String,
    /// Its plain options.
    pub options: StageOptions,
    /// How variables change.
    pub optimizer: Component<dyn OptimizerConfig>,
    /// How the learning rate changes.
    pub schedule: Component<dyn ScheduleConfig>,
    /// What is minimised, by name.
    pub losses: BTreeMap<String, TermSpec>,
}

/// A loss of a stage.
pub struct TermSpec {
    /// Its factor in the sum.
    pub weight: f64,
    /// The loss.
    pub loss: Component<dyn LossConfig>,
}

impl Experiment {
    /// Reads the recipe at `path` with its parents and the `--set`s over it. Nothing is built, no dataset is opened.
    ///
    /// # Errors
    /// Every problem that can be found this way, each with its place.
    pub fn load(path: &Path, sets: &[String], registry: &Registry) -> Result<Self, Failure> {
        let (sources, table) = overlay::load(path, sets)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut reader = Reader::new(registry, &sources);
        let experiment = reader.experiment(&table, stem);
        let problems = reader.problems;
        match experiment {
            Some(experiment) if problems.is_empty() => Ok(experiment),
            _ => Err(Failure::new(sources, problems)),
        }
    }

    /// The name as a part of a file name: letters, digits, `+`, `-`, `_` and dots.
    pub fn plain_name(&self) -> String {
        let plain = |c: char| if c.is_alphanumeric() || "+-_.".contains(c) { c } else { '-' };
        self.name.chars().map(plain).collect()
    }

    /// The run's seed.
    pub fn seed(&self) -> Seed {
        Seed(self.run.seed)
    }

    /// The recipe as TOML with every default written out; running it is the same run.
    pub fn resolved(&self) -> String {
        toml::to_string(&self.resolved).expect("a table of plain values can be written")
    }

    /// Sha256 of the resolved recipe without its name.
    pub fn digest(&self) -> String {
        let mut table = self.resolved.clone();
        table.remove("name");
        digest::of_value(&table)
    }

    /// The files on the Hub that the recipe names, each with the keys that lead to it, such as
    /// `teacher.discriminative.weights`, in the order of the flow.
    pub fn addresses(&self) -> Vec<(String, HubAddress)> {
        let mut found = Vec::new();
        let mut take = |section: String, marked: &[Marked]| {
            for option in marked.iter().filter(|option| option.format == PATH_FORMAT) {
                if let Ok(address) = option.written.parse::<HubAddress>() {
                    found.push((format!("{section}.{}", option.key), address));
                }
            }
        };
        self.data.iter().for_each(|(name, part)| take(format!("data.{name}"), &part.marked));
        self.views.iter().for_each(|(name, part)| take(format!("view.{name}"), &part.marked));
        self.teachers.iter().for_each(|(name, part)| take(format!("teacher.{name}"), &part.marked));
        take("student".into(), &self.student.network.marked);
        if let Some(initial) = &self.student.initial {
            let option = Marked { format: PATH_FORMAT, key: "initial".into(), written: initial.written() };
            take("student".into(), &[option]);
        }
        for stage in &self.stages {
            let losses = stage.losses.iter();
            losses.for_each(|(name, term)| take(format!("stage.{}.loss.{name}", stage.name), &term.loss.marked));
        }
        self.evaluate.iter().for_each(|(name, part)| take(format!("evaluate.{name}"), &part.marked));
        found
    }
}
