//! A whole recipe as typed parts, in the order of the flow.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Failure, suggest};
use super::hub::HubFiles;
use super::node::{Entry, Node, Table, Value};
use super::overlay;
use super::read::read;
use super::run_options::RunOptions;
use super::source::{Sources, Span};
use crate::data::{DatasetConfig, Degradation};
use crate::digest;
use crate::error::Problem;
use crate::evaluation::ProtocolConfig;
use crate::loss::LossConfig;
use crate::registry::{Component, Family, Registry};
use crate::seed::Seed;
use crate::student::StudentConfig;
use crate::teacher::TeacherConfig;
use crate::trainer::{OptimizerConfig, Schedule, StageOptions};

/// Everything that a run does.
pub struct Recipe {
    /// What the run is called; the file's name unless the recipe says otherwise.
    pub name: String,
    /// Seed, checkpoints and the like.
    pub run: RunOptions,
    /// Datasets by name.
    pub data: BTreeMap<String, Component<dyn DatasetConfig>>,
    /// How faces lose their resolution.
    pub degradation: Arc<dyn Degradation>,
    /// Teachers by name.
    pub teachers: BTreeMap<String, Component<dyn TeacherConfig>>,
    /// The student.
    pub student: Component<dyn StudentConfig>,
    /// The stages, in the order in which they run.
    pub stages: Vec<StageRecipe>,
    /// Protocols by name.
    pub evaluate: BTreeMap<String, Component<dyn ProtocolConfig>>,
    pub(super) resolved: toml::Table,
    /// The name of the file, and what was read.
    stem: String,
    table: Table,
    pub(super) sources: Sources,
}

/// A stage of a recipe.
pub struct StageRecipe {
    /// Its name.
    pub name: String,
    /// Its plain options.
    pub options: StageOptions,
    /// How variables change.
    pub optimizer: Component<dyn OptimizerConfig>,
    /// How the learning rate changes.
    pub schedule: Component<dyn Schedule>,
    /// What is minimised, by name.
    pub losses: BTreeMap<String, TermRecipe>,
}

/// A loss of a stage.
pub struct TermRecipe {
    /// Its factor in the sum.
    pub weight: f64,
    /// The loss.
    pub loss: Component<dyn LossConfig>,
}

const TOP: [&str; 10] =
    ["format", "name", "stages", "run", "data", "degradation", "teacher", "student", "stage", "evaluate"];

impl Recipe {
    /// Reads the recipe at `path` with its parents and the `--set`s over it. Nothing is built, no dataset is opened.
    ///
    /// # Errors
    /// Every problem that can be found this way, each with its place.
    pub fn load(path: &Path, sets: &[String], registry: &Registry) -> Result<Self, Failure> {
        let (sources, table) = overlay::load(path, sets)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self::of_table(&table, sources, stem, registry)
    }

    fn of_table(table: &Table, sources: Sources, stem: String, registry: &Registry) -> Result<Self, Failure> {
        let mut reader = Reader { registry, sources: &sources, problems: Vec::new(), resolved: toml::Table::new() };
        let recipe = reader.recipe(table, stem);
        let problems = reader.problems;
        match recipe {
            Some(recipe) if problems.is_empty() => Ok(recipe),
            _ => Err(Failure::new(sources, problems)),
        }
    }

    /// The same recipe, whose addresses lead to these files. What it resolves to, and its digest, stay as they are.
    ///
    /// # Errors
    /// Never for a recipe that was read with the same registry.
    pub fn with_files(self, files: HubFiles, registry: &Registry) -> Result<Self, Failure> {
        Self::of_table(&self.table, self.sources.with_files(files), self.stem, registry)
    }

    /// The name as a part of a file name.
    pub fn plain_name(&self) -> String {
        crate::files::plain_name(&self.name)
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
}

/// Reads a recipe and collects problems on the way.
struct Reader<'a> {
    registry: &'a Registry,
    sources: &'a Sources,
    problems: Vec<Diagnostic>,
    resolved: toml::Table,
}

impl Reader<'_> {
    fn recipe(&mut self, table: &Table, stem: String) -> Option<Recipe> {
        self.problems.extend(table.unknown_fields(&TOP));
        let name = match table.get("name") {
            Some(node) => self.text(node)?.to_string(),
            None => stem.strip_suffix(".resolved").unwrap_or(&stem).to_string(),
        };
        self.resolved.insert("format".into(), toml::Value::Integer(1));
        self.resolved.insert("name".into(), toml::Value::String(name.clone()));
        let run = self.run(table);
        let registry = self.registry;
        let data = self.family(table, "data", &registry.datasets, |config| config.check());
        let degradation = self.degradation(table);
        let teachers = self.family(table, "teacher", &registry.teachers, |config| config.check());
        let student = self.student(table);
        let evaluate = self.family(table, "evaluate", &registry.protocols, |config| config.check());
        let stages = self.stages(table);
        let recipe = Recipe {
            name,
            run: run?,
            data,
            degradation: degradation?,
            teachers,
            student: student?,
            stages: stages?,
            evaluate,
            resolved: std::mem::take(&mut self.resolved),
            stem,
            table: table.clone(),
            sources: self.sources.clone(),
        };
        if self.problems.is_empty() {
            self.problems = super::check::check(&recipe, table);
        }
        Some(recipe)
    }

    fn run(&mut self, table: &Table) -> Option<RunOptions> {
        let empty = Table::new(table.span);
        let section = self.sub(table, "run");
        let section = section.unwrap_or(&empty);
        let options: RunOptions = self.options(section)?;
        self.note(section, options.check());
        self.write("run", toml::Value::try_from(&options));
        Some(options)
    }

    fn degradation(&mut self, table: &Table) -> Option<Arc<dyn Degradation>> {
        let family = &self.registry.degradations;
        let found =
            self.or_default(table.get("degradation"), "downscale", table.span, family, |config| config.check())?;
        self.resolved.insert("degradation".into(), toml::Value::Table(found.resolved));
        Some(found.config.into())
    }

    fn student(&mut self, table: &Table) -> Option<Component<dyn StudentConfig>> {
        if table.get("student").is_none() {
            self.problems.push(Diagnostic::new("the recipe has no `[student]`", Span::empty(table.span.start)));
            return None;
        }
        let section = self.sub(table, "student")?;
        let found = self.component(section, &self.registry.students, |config| config.check())?;
        self.resolved.insert("student".into(), toml::Value::Table(found.resolved.clone()));
        Some(found)
    }

    /// All components below `[section.*]`, by name.
    fn family<D: ?Sized>(
        &mut self,
        table: &Table,
        section: &str,
        family: &Family<D>,
        check: impl Fn(&D) -> Vec<Problem>,
    ) -> BTreeMap<String, Component<D>> {
        let mut found = BTreeMap::new();
        let mut resolved = toml::Table::new();
        for (name, entry) in self.sub(table, section).into_iter().flat_map(Table::iter) {
            let Some(options) = self.table(&entry.node) else { continue };
            if let Some(component) = self.component(options, family, &check) {
                resolved.insert(name.to_string(), toml::Value::Table(component.resolved.clone()));
                found.insert(name.to_string(), component);
            }
        }
        if !resolved.is_empty() {
            self.resolved.insert(section.to_string(), toml::Value::Table(resolved));
        }
        found
    }

    fn component<D: ?Sized>(
        &mut self,
        table: &Table,
        family: &Family<D>,
        check: impl Fn(&D) -> Vec<Problem>,
    ) -> Option<Component<D>> {
        match family.resolve(table, self.sources) {
            Ok(component) => {
                self.note(table, check(&component.config));
                Some(component)
            }
            Err(problems) => {
                self.problems.extend(problems);
                None
            }
        }
    }

    fn stages(&mut self, table: &Table) -> Option<Vec<StageRecipe>> {
        let defined = self.sub(table, "stage");
        let names: Vec<(String, Span)> = match table.get("stages") {
            Some(node) => self.names(node)?,
            None => {
                let message = "the recipe has no `stages`, the list of stages to run";
                self.problems.push(Diagnostic::new(message, Span::empty(table.span.start)));
                return None;
            }
        };
        let mut stages = Vec::new();
        let mut resolved = toml::Table::new();
        for (name, span) in &names {
            let known = || defined.into_iter().flat_map(Table::iter).map(|(name, _)| name);
            let Some(node) = defined.and_then(|stages| stages.get(name)) else {
                let hint = suggest(name, known());
                self.problems.push(Diagnostic::new(format!("no stage is called `{name}`"), *span).with_hint(hint));
                continue;
            };
            let Some(options) = self.table(node) else { continue };
            if let Some((stage, written)) = self.stage(name, options) {
                resolved.insert(name.clone(), toml::Value::Table(written));
                stages.push(stage);
            }
        }
        let list = names.iter().map(|(name, _)| toml::Value::String(name.clone())).collect();
        self.resolved.insert("stages".into(), toml::Value::Array(list));
        self.resolved.insert("stage".into(), toml::Value::Table(resolved));
        Some(stages)
    }

    fn stage(&mut self, name: &str, table: &Table) -> Option<(StageRecipe, toml::Table)> {
        let mut plain = table.clone();
        let parts = ["optimizer", "schedule", "loss"].map(|key| plain.take(key));
        let [optimizer, schedule, losses] = parts;
        let options: Option<StageOptions> = self.options(&plain);
        if let Some(options) = &options {
            self.note(&plain, options.check());
        }
        let registry = self.registry;
        let optimizer = self.or_default(optimizer.as_ref(), "sgd", table.span, &registry.optimizers, |c| c.check());
        let schedule = self.or_default(schedule.as_ref(), "constant", table.span, &registry.schedules, |c| c.check());
        let mut terms = BTreeMap::new();
        let mut written_terms = toml::Table::new();
        let losses = losses.as_ref().and_then(|node| self.table(node));
        for (term, entry) in losses.into_iter().flat_map(Table::iter) {
            let Some(options) = self.table(&entry.node) else { continue };
            let mut options = options.clone();
            let weight = match options.take("weight") {
                Some(node) => self.number(&node),
                None => Some(1.0),
            };
            let loss = self.component(&options, &registry.losses, |config| config.check());
            if let (Some(weight), Some(loss)) = (weight, loss) {
                let mut written = loss.resolved.clone();
                written.insert("weight".into(), toml::Value::Float(weight));
                written_terms.insert(term.to_string(), toml::Value::Table(written));
                terms.insert(term.to_string(), TermRecipe { weight, loss });
            }
        }
        let (options, optimizer, schedule) = (options?, optimizer?, schedule?);
        let mut written = toml::Table::try_from(&options).expect("plain options can be written");
        written.insert("optimizer".into(), toml::Value::Table(optimizer.resolved.clone()));
        written.insert("schedule".into(), toml::Value::Table(schedule.resolved.clone()));
        written.insert("loss".into(), toml::Value::Table(written_terms));
        Some((StageRecipe { name: name.to_string(), options, optimizer, schedule, losses: terms }, written))
    }

    fn or_default<D: ?Sized>(
        &mut self,
        node: Option<&Node>,
        default: &str,
        span: Span,
        family: &Family<D>,
        check: impl Fn(&D) -> Vec<Problem>,
    ) -> Option<Component<D>> {
        let made;
        let table = match node {
            Some(node) => self.table(node)?,
            None => {
                made = with_kind(default, span);
                &made
            }
        };
        self.component(table, family, check)
    }

    fn options<T: serde::de::DeserializeOwned>(&mut self, table: &Table) -> Option<T> {
        read(table, self.sources).map_err(|problems| self.problems.extend(problems)).ok()
    }

    /// Puts problems that a configuration found in itself at their keys.
    fn note(&mut self, table: &Table, problems: Vec<Problem>) {
        for problem in problems {
            let span = table.get(problem.key).map_or(table.span, |node| node.span);
            self.problems.push(Diagnostic::new(format!("`{}`: {}", problem.key, problem.message), span));
        }
    }

    fn sub<'t>(&mut self, table: &'t Table, section: &str) -> Option<&'t Table> {
        table.get(section).and_then(|node| self.table(node))
    }

    fn table<'t>(&mut self, node: &'t Node) -> Option<&'t Table> {
        let found = node.as_table();
        if found.is_none() {
            self.problems.push(Diagnostic::new(format!("expected a table, found {}", node.describe()), node.span));
        }
        found
    }

    fn text<'t>(&mut self, node: &'t Node) -> Option<&'t str> {
        let found = node.as_str();
        if found.is_none() {
            self.problems.push(Diagnostic::new(format!("expected a string, found {}", node.describe()), node.span));
        }
        found
    }

    fn number(&mut self, node: &Node) -> Option<f64> {
        let found = super::read::read_node::<f64>(node, self.sources);
        found.map_err(|problems| self.problems.extend(problems)).ok()
    }

    fn names(&mut self, node: &Node) -> Option<Vec<(String, Span)>> {
        let Value::Array(items) = &node.value else {
            let message = format!("expected a list of stages, found {}", node.describe());
            self.problems.push(Diagnostic::new(message, node.span));
            return None;
        };
        items.iter().map(|item| Some((self.text(item)?.to_string(), item.span))).collect()
    }

    fn write(&mut self, key: &str, value: Result<toml::Value, toml::ser::Error>) {
        self.resolved.insert(key.to_string(), value.expect("plain options can be written"));
    }
}

/// The table `{ kind = "name" }`, for a part that the recipe leaves out.
fn with_kind(name: &str, span: Span) -> Table {
    let mut table = Table::new(span);
    let node = Node { value: Value::String(name.to_string()), span };
    table.insert("kind", Entry { key_span: span, node });
    table
}
