//! Rules between the parts of a recipe.

use super::spec::{Experiment, StageSpec};
use crate::files::{NAME_RULE, is_name};
use crate::loss::Needs;
use crate::plugin::{Component, DatasetName, TeacherName, ViewName};
use crate::recipe::diagnostic::{Diagnostic, excerpt, suggest};
use crate::recipe::node::{Node, Table};
use crate::recipe::source::Span;

/// Every broken rule, at the place of the name that leads nowhere.
pub(super) fn check(experiment: &Experiment, table: &Table) -> Vec<Diagnostic> {
    let mut rules = Rules { experiment, table, problems: Vec::new() };
    rules.all();
    rules.problems
}

struct Rules<'a> {
    experiment: &'a Experiment,
    table: &'a Table,
    problems: Vec<Diagnostic>,
}

impl Rules<'_> {
    fn all(&mut self) {
        let experiment = self.experiment;
        for (name, part) in &experiment.data {
            self.names(&["data", name], part);
        }
        for (name, part) in &experiment.teachers {
            self.names(&["teacher", name], part);
        }
        self.named(ViewName::FORMAT, &experiment.student.view, &["student", "view"]);
        if let Some(teacher) = &experiment.student.initial_teacher {
            self.named(TeacherName::FORMAT, teacher, &["student", "initial_teacher"]);
        }
        for (name, part) in &experiment.evaluate {
            self.names(&["evaluate", name], part);
        }
        if let Some(calibration) = &experiment.calibration {
            self.named(DatasetName::FORMAT, &calibration.data, &["calibration", "data"]);
        }
        let stages = experiment.stages.iter().map(|stage| ("stage", stage.name.as_str()));
        for (section, name) in stages.chain(experiment.evaluate.keys().map(|name| ("evaluate", name.as_str()))) {
            if !is_name(name) {
                let span = self.table.get(section).and_then(Node::as_table).and_then(|table| table.key_span(name));
                let message = format!("`{}` cannot be a part of a file's name, expected {NAME_RULE}", excerpt(name));
                self.problems.push(Diagnostic::new(message, span.unwrap_or(self.table.span)));
            }
        }
        let stages = experiment.stages.iter().map(|stage| stage.name.as_str()).collect();
        self.apart("stage", stages);
        self.apart("evaluate", experiment.evaluate.keys().map(String::as_str).collect());
        for (at, stage) in experiment.stages.iter().enumerate() {
            if experiment.stages[..at].iter().any(|other| other.name == stage.name) {
                self.problem(format!("stage `{}` is listed twice", stage.name), &["stages"]);
            }
            self.stage(stage);
        }
        if experiment.stages.is_empty() && experiment.student.initial.is_none() {
            let message =
                "expected at least one stage, or a student's file to measure (`student.initial`), found neither";
            self.problem(message.into(), &["stages"]);
        }
    }

    /// Names that become names of files: where a file system takes two of them for one, one would write over the other.
    fn apart(&mut self, section: &str, names: Vec<&str>) {
        for (at, name) in names.iter().enumerate() {
            let is_twin = |other: &&&str| **other != *name && other.to_lowercase() == name.to_lowercase();
            if let Some(other) = names[..at].iter().find(is_twin) {
                let span = self.table.get(section).and_then(Node::as_table).and_then(|table| table.key_span(name));
                let message =
                    format!("`{name}` and `{other}` differ in capitals alone; expected names that tell files apart");
                self.problems.push(Diagnostic::new(message, span.unwrap_or(self.table.span)));
            }
        }
    }

    fn stage(&mut self, stage: &StageSpec) {
        let path = ["stage", stage.name.as_str()];
        self.named(DatasetName::FORMAT, &stage.options.data, &[&path[..], &["data"]].concat());
        if let Some(view) = &stage.options.view {
            self.named(ViewName::FORMAT, view, &[&path[..], &["view"]].concat());
        }
        if let Some(view) = stage.options.last.as_ref().and_then(|last| last.view.as_ref()) {
            self.named(ViewName::FORMAT, view, &[&path[..], &["last", "view"]].concat());
        }
        if let Some(teacher) = stage.closed_form.as_ref().and_then(|solved| solved.teacher.as_ref()) {
            self.named(TeacherName::FORMAT, teacher, &[&path[..], &["closed_form", "teacher"]].concat());
        }
        if stage.losses.is_empty() && stage.closed_form.is_none() {
            self.problem(format!("stage `{}` has no loss", stage.name), &path);
        }
        let needs: Vec<(&String, Needs)> =
            stage.losses.iter().map(|(name, term)| (name, term.loss.config.needs())).collect();
        let classifiers: Vec<&str> =
            needs.iter().filter(|(_, needs)| needs.gives_logits).map(|(name, _)| name.as_str()).collect();
        for (name, needs) in &needs {
            let path = [&path[..], &["loss", name.as_str()]].concat();
            self.names(&path, &stage.losses[*name].loss);
            for need in &needs.teachers {
                if let Some(teacher) = &need.teacher {
                    self.named(TeacherName::FORMAT, teacher, &[&path[..], &["teacher"]].concat());
                }
            }
            match &needs.logits_of {
                Some(Some(other)) if !classifiers.contains(&other.as_str()) => self.problem(
                    format!("`{other}` is no classifying term of this stage; there are {classifiers:?}"),
                    &[&path[..], &["classifier"]].concat(),
                ),
                Some(None) if classifiers.len() != 1 => self.problem(
                    format!(
                        "expected one classifying term in the stage (cross-entropy, arcface ...), found {classifiers:?}; name \
                         one with `classifier`"
                    ),
                    &path,
                ),
                _ => {}
            }
        }
    }

    /// The names of other tables among the options of a part.
    fn names<D: ?Sized>(&mut self, path: &[&str], part: &Component<D>) {
        for marked in &part.marked {
            let keys: Vec<&str> = path.iter().copied().chain(marked.key.split('.')).collect();
            self.named(marked.format, &marked.written, &keys);
        }
    }

    fn named(&mut self, format: &str, name: &str, path: &[&str]) {
        let experiment = self.experiment;
        let known: Vec<&str> = match format {
            DatasetName::FORMAT => experiment.data.keys().map(String::as_str).collect(),
            TeacherName::FORMAT => experiment.teachers.keys().map(String::as_str).collect(),
            ViewName::FORMAT => experiment.views.keys().map(String::as_str).collect(),
            _ => return,
        };
        if !known.contains(&name) {
            let problem = Diagnostic::new(format!("no {format} is called `{name}`"), self.place(path));
            self.problems.push(problem.with_hint(suggest(name, known)));
        }
    }

    fn problem(&mut self, message: String, path: &[&str]) {
        self.problems.push(Diagnostic::new(message, self.place(path)));
    }

    /// The place of the deepest part of `path` that the recipe has.
    fn place(&self, path: &[&str]) -> Span {
        let mut span = self.table.span;
        let mut here = Some(self.table);
        for key in path {
            let Some(node) = here.and_then(|table| table.get(key)) else { break };
            span = node.span;
            here = Node::as_table(node);
        }
        span
    }
}
