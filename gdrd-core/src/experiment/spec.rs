//! A whole recipe as typed parts, in the order of the flow.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::read::Reader;
use super::run_options::RunOptions;
use crate::closed_form::ClosedForm;
use crate::data::{DatasetConfig, DegradationConfig};
use crate::degrade::Downscale;
use crate::digest;
use crate::error::{Context, Error};
use crate::evaluation::ProtocolConfig;
use crate::files;
use crate::loss::LossConfig;
use crate::plugin::{Component, Kind, Marked, TeacherName};
use crate::recipe::node::Table;
use crate::recipe::path::PATH_FORMAT;
use crate::recipe::source::Sources;
use crate::recipe::{Failure, HubAddress, RecipePath, overlay};
use crate::registry::Registry;
use crate::seed::Seed;
use crate::student::{CalibrationOptions, StudentConfig, StudentHeader};
use crate::teacher::TeacherConfig;
use crate::trainer::{OptimizerConfig, ScheduleConfig, StageOptions};

/// Everything that a run does.
pub struct Experiment {
    /// What the run is called; the file's name unless the recipe says otherwise.
    pub name: String,
    /// What a publication prints for this system, to stand beside what is measured; nothing is computed with it.
    pub quoted: Option<String>,
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
    /// What the thresholds of the student's file are calibrated by.
    pub calibration: Option<CalibrationOptions>,
    /// Licences that the recipe states, of parts such as `data.train` and `teacher.discriminative`.
    pub licences: BTreeMap<String, String>,
    pub(super) resolved: toml::Table,
    /// The files that it was read from.
    pub(super) texts: Vec<PathBuf>,
}

/// The student of a recipe.
pub struct StudentSpec {
    /// The network.
    pub network: Component<dyn StudentConfig>,
    /// The view that it sees.
    pub view: String,
    /// The student file whose weights it begins with.
    pub initial: Option<RecipePath>,
    /// The teacher whose weights it begins with.
    pub initial_teacher: Option<TeacherName>,
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
    /// What is solved in closed form instead; then nothing of training has a meaning.
    pub closed_form: Option<ClosedForm>,
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
        Self::of_layers(path, overlay::load(path, sets)?, registry)
    }

    /// The recipe at `path` with the student of a file in the place of its own, and no stages: a run of it measures that student as it
    /// is. The student sees what its file says, in a view of its own, whatever `[degradation]` is.
    ///
    /// # Errors
    /// As [`load`](Self::load), and if `student` is no student's file.
    pub fn load_to_measure(
        path: &Path,
        sets: &[String],
        student: &Path,
        registry: &Registry,
    ) -> crate::error::Result<Self> {
        let place = || format!("`{}`", student.display());
        let file = std::path::absolute(student).map_err(|e| Error::io(student, e))?;
        let bytes = files::read(&file).map_err(|e| Error::io(student, e))?;
        let (header, _) = StudentHeader::from_bytes(&bytes).at(place)?;
        let text = measured(&header, &file).at(place)?;
        let layers = overlay::load_for(path, sets, Some((student, text)))?;
        Ok(Self::of_layers(path, layers, registry)?)
    }

    fn of_layers(path: &Path, (sources, table): (Sources, Table), registry: &Registry) -> Result<Self, Failure> {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut reader = Reader::new(registry, &sources);
        let experiment = reader.experiment(&table, stem);
        let problems = reader.problems;
        match experiment {
            Some(experiment) if problems.is_empty() => {
                let texts = sources.names().map(PathBuf::from).collect();
                Ok(Self { texts, ..experiment })
            }
            _ => Err(Failure::new(sources, problems)),
        }
    }

    /// The name as a part of a file name.
    pub fn plain_name(&self) -> String {
        crate::files::plain_name(&self.name)
    }

    /// Every file that the recipe was read from, and every path that it names, as far as it leads to something on this machine.
    pub fn paths(&self) -> Vec<PathBuf> {
        let named = self.marked().into_iter().map(|(_, option)| PathBuf::from(&option.written));
        let initial = self.student.initial.iter().map(|path| path.as_path().to_path_buf());
        self.texts.iter().cloned().chain(named).chain(initial).filter(|path| path.exists()).collect()
    }

    /// The run's seed.
    pub fn seed(&self) -> Seed {
        Seed(self.run.seed)
    }

    /// The recipe as TOML with every default written out; running it is the same run.
    pub fn resolved(&self) -> String {
        toml::to_string(&self.resolved).expect("a table of plain values can be written")
    }

    /// Sha256 of the resolved recipe without what decides nothing: its name, and what it quotes.
    pub fn digest(&self) -> String {
        digest_of(self.resolved.clone())
    }

    /// The files on the Hub that the recipe names, each with the keys that lead to it, such as
    /// `teacher.discriminative.weights`, in the order of the flow.
    pub fn addresses(&self) -> Vec<(String, HubAddress)> {
        let address = |(key, option): (String, &Marked)| Some((key, option.written.parse().ok()?));
        let mut found: Vec<(String, HubAddress)> = self.marked().into_iter().filter_map(address).collect();
        let initial = self.student.initial.as_ref().and_then(|path| path.written().parse().ok());
        found.extend(initial.map(|address| ("student.initial".to_string(), address)));
        found
    }

    /// The paths among the options of all parts, with the keys that lead to them.
    fn marked(&self) -> Vec<(String, &Marked)> {
        fn of<'e, D: ?Sized + 'e>(
            section: &str,
            parts: impl Iterator<Item = (&'e String, &'e Component<D>)>,
        ) -> Vec<(String, &'e Marked)> {
            let keyed = |(name, part): (&'e String, &'e Component<D>)| {
                let key = move |option: &Marked| format!("{section}.{name}.{}", option.key);
                part.marked.iter().map(move |option| (key(option), option)).collect::<Vec<_>>()
            };
            parts.flat_map(keyed).filter(|(_, option)| option.format == PATH_FORMAT).collect()
        }
        let mut found = of("data", self.data.iter());
        found.extend(of("view", self.views.iter()));
        found.extend(of("teacher", self.teachers.iter()));
        let student = self.student.network.marked.iter().filter(|option| option.format == PATH_FORMAT);
        found.extend(student.map(|option| (format!("student.{}", option.key), option)));
        for stage in &self.stages {
            let losses = stage.losses.iter().map(|(name, term)| (name, &term.loss));
            found.extend(of(&format!("stage.{}.loss", stage.name), losses));
        }
        found.extend(of("evaluate", self.evaluate.iter()));
        found
    }
}

/// The name of the view that a student's file asks for.
const OF_STUDENT: &str = "of-the-student";

/// What a recipe says that measures the student of a file.
fn measured(header: &StudentHeader, file: &Path) -> crate::error::Result<String> {
    let file = file.to_str().ok_or_else(|| Error::recipe("expected a path in UTF-8"))?;
    let mut student = header.options.clone();
    let mut view = serde_json::to_value(&header.prepare).map_err(|e| Error::weights(e.to_string()))?;
    view["kind"] = Downscale::NAME.into();
    for (key, value) in [("kind", header.kind.as_str()), ("initial", file), ("view", OF_STUDENT)] {
        student[key] = value.into();
    }
    without_null(&mut student);
    let recipe = serde_json::json!({ "stages": [], "student": student, "view": { OF_STUDENT: view } });
    toml::to_string(&recipe).map_err(|e| Error::weights(format!("its options are no recipe's: {e}")))
}

/// TOML leaves out what JSON calls null.
fn without_null(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(without_null);
        }
        serde_json::Value::Array(values) => values.iter_mut().for_each(without_null),
        _ => {}
    }
}

/// The digest of a resolved recipe.
pub(crate) fn digest_of(mut resolved: toml::Table) -> String {
    for says_nothing in ["name", "quoted"] {
        resolved.remove(says_nothing);
    }
    digest::of_value(&resolved)
}
