//! From a recipe's tables to its typed parts, with every problem on the way.

use std::collections::BTreeMap;

use super::run_options::RunOptions;
use super::schema::weight_schema;
use super::spec::{Experiment, StageSpec, StudentSpec, TermSpec};
use crate::data::{DegradationConfig, HIGH, LOW};
use crate::error::Problem;
use crate::plugin::bounds::out_of_bounds;
use crate::plugin::{Component, Family, TeacherName};
use crate::recipe::RecipePath;
use crate::recipe::diagnostic::{Diagnostic, list, suggest};
use crate::recipe::node::{Node, Table, Value};
use crate::recipe::path::resolve as absolute;
use crate::recipe::read::{read, read_node};
use crate::recipe::source::{Sources, Span};
use crate::registry::Registry;
use crate::trainer::StageOptions;

mod file;
mod solved;
mod spans;

use spans::{span_of, with_kind};

const TOP: [&str; 12] = [
    "format",
    "name",
    "quoted",
    "stages",
    "run",
    "data",
    "degradation",
    "view",
    "teacher",
    "student",
    "stage",
    "evaluate",
];

/// Reads a recipe and collects problems on the way.
pub(super) struct Reader<'a> {
    registry: &'a Registry,
    sources: &'a Sources,
    pub(super) problems: Vec<Diagnostic>,
    resolved: toml::Table,
}

impl<'a> Reader<'a> {
    pub(super) fn new(registry: &'a Registry, sources: &'a Sources) -> Self {
        Self { registry, sources, problems: Vec::new(), resolved: toml::Table::new() }
    }

    pub(super) fn experiment(&mut self, table: &Table, stem: String) -> Option<Experiment> {
        self.problems.extend(table.unknown_fields(&[&TOP[..], &file::KEYS].concat()));
        let name = match table.get("name") {
            Some(node) => self.text(node)?.to_string(),
            None => stem.strip_suffix(".resolved").unwrap_or(&stem).to_string(),
        };
        self.resolved.insert("format".into(), toml::Value::Integer(1));
        self.resolved.insert("name".into(), toml::Value::String(name.clone()));
        let quoted = self.quoted(table)?;
        let run = self.run(table);
        let registry = self.registry;
        let data = self.family(table, "data", &registry.datasets, |config| config.check());
        let views = self.views(table);
        let teachers = self.family(table, "teacher", &registry.teachers, |config| config.check());
        let student = self.student(table);
        let evaluate = self.family(table, "evaluate", &registry.protocols, |config| config.check());
        let stages = self.stages(table);
        let calibration = self.calibration(table);
        let licences = self.licences(table);
        let recipe = Experiment {
            name,
            quoted,
            run: run?,
            data,
            views: views?,
            teachers,
            student: student?,
            stages: stages?,
            evaluate,
            calibration: calibration?,
            licences: licences?,
            resolved: std::mem::take(&mut self.resolved),
            texts: Vec::new(),
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
        let (options, written) = self.options(section, |_: &RunOptions| Vec::new())?;
        self.resolved.insert("run".into(), toml::Value::Table(written));
        Some(options)
    }

    /// `[degradation]` is the view `low`; `[view.*]` are others. Faces as they are, the view `high`, need no table.
    fn views(&mut self, table: &Table) -> Option<BTreeMap<String, Component<dyn DegradationConfig>>> {
        let family = &self.registry.degradations;
        let mut views = self.family(table, "view", family, |config| config.check());
        if views.contains_key(LOW) {
            let span = self.sub(table, "view").and_then(|views| views.key_span(LOW)).unwrap_or(table.span);
            let message = "the view `low` is what `[degradation]` describes; expected another name";
            self.problems.push(Diagnostic::new(message, span));
        }
        let low =
            self.or_default(table.get("degradation"), "downscale", table.span, family, |config| config.check())?;
        self.resolved.insert("degradation".into(), toml::Value::Table(low.resolved.clone()));
        views.insert(LOW.into(), low);
        if !views.contains_key(HIGH) {
            views
                .insert(HIGH.into(), self.component(&with_kind("as-is", table.span), family, |config| config.check())?);
        }
        Some(views)
    }

    fn student(&mut self, table: &Table) -> Option<StudentSpec> {
        if table.get("student").is_none() {
            let hint = list(self.registry.students.list().map(|(name, _)| name));
            let message = "the recipe has no `[student]`, expected one with a `kind`";
            self.problems.push(Diagnostic::new(message, Span::empty(table.span.start)).with_hint(hint));
            return None;
        }
        let mut section = self.sub(table, "student")?.clone();
        let view = match section.take("view") {
            Some(node) => self.text(&node).map(str::to_string),
            None => Some(LOW.to_string()),
        };
        let initial = match section.take("initial") {
            Some(node) => {
                let text = self.text(&node).map(str::to_string);
                let path = text.map(|text| absolute(&text, node.span, self.sources));
                match path {
                    Some(Ok(path)) => Some(Some(RecipePath::from(path))),
                    Some(Err(message)) => {
                        self.problems.push(Diagnostic::new(format!("`initial`: {message}"), node.span));
                        None
                    }
                    None => None,
                }
            }
            None => Some(None),
        };
        let initial_teacher = match section.take("initial_teacher") {
            Some(node) => self.text(&node).map(|name| Some((TeacherName::from(name), node.span))),
            None => Some(None),
        };
        let network = self.component(&section, &self.registry.students, |config| config.check());
        let (network, view, initial, initial_teacher) = (network?, view?, initial?, initial_teacher?);
        if let (Some(_), Some((_, span))) = (&initial, &initial_teacher) {
            let message = "expected either `initial`, a student file, or `initial_teacher`, found both";
            self.problems.push(Diagnostic::new(message, *span));
        }
        let initial_teacher = initial_teacher.map(|(name, _)| name);
        let mut resolved = network.resolved.clone();
        if view != LOW {
            resolved.insert("view".into(), toml::Value::String(view.clone()));
        }
        if let Some(path) = &initial {
            resolved.insert("initial".into(), toml::Value::String(path.written()));
        }
        if let Some(name) = &initial_teacher {
            resolved.insert("initial_teacher".into(), toml::Value::String(name.to_string()));
        }
        self.resolved.insert("student".into(), toml::Value::Table(resolved));
        Some(StudentSpec { network, view, initial, initial_teacher })
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
                if let Some(schema) = family.schema(&component.kind) {
                    self.note(table, &schema, &component.resolved, check(&component.config));
                }
                Some(component)
            }
            Err(problems) => {
                self.problems.extend(problems);
                None
            }
        }
    }

    fn stages(&mut self, table: &Table) -> Option<Vec<StageSpec>> {
        let defined = self.sub(table, "stage");
        let names: Vec<(String, Span)> = match table.get("stages") {
            Some(node) => self.names(node)?,
            None => {
                let message = "the recipe has no `stages`, expected the list of stages to run, as in `stages = [\"recognition\"]`";
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
        // A stage that is not run may stand in a recipe; a piece of one is a misspelt name.
        for (name, entry) in defined.into_iter().flat_map(Table::iter) {
            let is_whole = |table: &Table| ["loss", "closed_form"].iter().any(|key| table.get(key).is_some());
            if !names.iter().any(|(listed, _)| listed == name) && !entry.node.as_table().is_some_and(is_whole) {
                let hint = suggest(name, names.iter().map(|(name, _)| name.as_str()));
                let message = format!("stage `{name}` is not listed in `stages` and has no loss");
                self.problems.push(Diagnostic::new(message, entry.key_span).with_hint(hint));
            }
        }
        let list = names.iter().map(|(name, _)| toml::Value::String(name.clone())).collect();
        self.resolved.insert("stages".into(), toml::Value::Array(list));
        self.resolved.insert("stage".into(), toml::Value::Table(resolved));
        Some(stages)
    }

    fn stage(&mut self, name: &str, table: &Table) -> Option<(StageSpec, toml::Table)> {
        let mut plain = table.clone();
        if let Some(solved) = plain.take("closed_form") {
            return self.solved_stage(name, &plain, &solved);
        }
        let beside = ["optimizer", "schedule", "loss"];
        self.take_unknown(&mut plain, &schemars::schema_for!(StageOptions), &[&beside[..], &["closed_form"]].concat());
        let [optimizer, schedule, losses] = beside.map(|key| plain.take(key));
        let options = self.options(&plain, StageOptions::check);
        let registry = self.registry;
        let optimizer = self.or_default(optimizer.as_ref(), "sgd", table.span, &registry.optimizers, |c| c.check());
        let schedule = self.or_default(schedule.as_ref(), "constant", table.span, &registry.schedules, |c| c.check());
        let mut terms = BTreeMap::new();
        let mut written_terms = toml::Table::new();
        let losses = losses.as_ref().and_then(|node| self.table(node));
        for (term, entry) in losses.into_iter().flat_map(Table::iter) {
            let Some(options) = self.table(&entry.node) else { continue };
            let mut options = options.clone();
            let kind = options.get("kind").and_then(Node::as_str).and_then(|kind| registry.losses.schema(kind));
            if let Some(schema) = kind {
                self.take_unknown(&mut options, &schema, &["kind", "weight"]);
            }
            let weight = match options.take("weight") {
                Some(node) => self.weight(&node),
                None => Some(1.0),
            };
            let loss = self.component(&options, &registry.losses, |config| config.check());
            if let (Some(weight), Some(loss)) = (weight, loss) {
                let mut written = loss.resolved.clone();
                written.insert("weight".into(), toml::Value::Float(weight));
                written_terms.insert(term.to_string(), toml::Value::Table(written));
                terms.insert(term.to_string(), TermSpec { weight, loss });
            }
        }
        let ((options, mut written), optimizer, schedule) = (options?, optimizer?, schedule?);
        written.insert("optimizer".into(), toml::Value::Table(optimizer.resolved.clone()));
        written.insert("schedule".into(), toml::Value::Table(schedule.resolved.clone()));
        written.insert("loss".into(), toml::Value::Table(written_terms));
        Some((
            StageSpec { name: name.to_string(), options, optimizer, schedule, losses: terms, closed_form: None },
            written,
        ))
    }

    /// Takes the keys out of `table` that neither `schema` nor `beside` knows, each with a problem that names all that are known.
    fn take_unknown(&mut self, table: &mut Table, schema: &schemars::Schema, beside: &[&str]) {
        let properties = schema.get("properties").and_then(serde_json::Value::as_object);
        let own = properties.into_iter().flat_map(serde_json::Map::keys).map(String::as_str);
        let known: Vec<&str> = own.chain(beside.iter().copied()).collect();
        let unknown: Vec<String> =
            table.iter().map(|(key, _)| key.to_string()).filter(|key| !known.contains(&key.as_str())).collect();
        self.problems.extend(table.unknown_fields(&known));
        unknown.iter().for_each(|key| drop(table.take(key)));
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

    /// Plain options, and how they are written out.
    fn options<T: serde::de::DeserializeOwned + serde::Serialize + schemars::JsonSchema>(
        &mut self,
        table: &Table,
        check: impl Fn(&T) -> Vec<Problem>,
    ) -> Option<(T, toml::Table)> {
        let options: T = read(table).map_err(|problems| self.problems.extend(problems)).ok()?;
        let written = toml::Table::try_from(&options).expect("plain options can be written");
        self.note(table, &schemars::schema_for!(T), &written, check(&options));
        Some((options, written))
    }

    /// Puts numbers that are out of their bounds, and the problems that a configuration found in itself, at their keys.
    fn note(&mut self, table: &Table, schema: &schemars::Schema, written: &toml::Table, problems: Vec<Problem>) {
        let outside = out_of_bounds(schema, written);
        for number in &outside {
            let message = format!("`{}`: {}", number.key(), number.message);
            self.problems.push(Diagnostic::new(message, span_of(table, &number.keys)));
        }
        // Of a number that is out of its bounds there is nothing more to say.
        let known =
            |problem: &Problem| outside.iter().any(|number| number.keys.first().is_some_and(|k| k == problem.key));
        for problem in problems.into_iter().filter(|problem| !known(problem)) {
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

    fn weight(&mut self, node: &Node) -> Option<f64> {
        let weight = read_node::<f64>(node).map_err(|problems| self.problems.extend(problems)).ok()?;
        let schema = schemars::json_schema!({ "properties": { "weight": weight_schema() } });
        for number in out_of_bounds(&schema, &toml::Table::from_iter([("weight".into(), weight.into())])) {
            self.problems.push(Diagnostic::new(format!("`weight`: {}", number.message), node.span));
        }
        Some(weight)
    }

    fn names(&mut self, node: &Node) -> Option<Vec<(String, Span)>> {
        let Value::Array(items) = &node.value else {
            let message = format!("expected a list of stages, found {}", node.describe());
            self.problems.push(Diagnostic::new(message, node.span));
            return None;
        };
        items.iter().map(|item| Some((self.text(item)?.to_string(), item.span))).collect()
    }
}
