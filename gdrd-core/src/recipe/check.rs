//! Rules between the parts of a recipe.

use super::diagnostic::{Diagnostic, excerpt, suggest};
use super::node::{Node, Table};
use super::source::Span;
use super::typed::Recipe;
use crate::files::{NAME_RULE, is_name};

/// Every broken rule, at the place of the name that leads nowhere.
pub(super) fn check(recipe: &Recipe, table: &Table) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    let data = || recipe.data.keys().map(String::as_str);
    let mut unknown = |what: &str, name: &str, known: Vec<&str>, span: Span| {
        if !known.contains(&name) {
            let problem = Diagnostic::new(format!("no {what} is called `{name}`"), span);
            problems.push(problem.with_hint(suggest(name, known)));
        }
    };
    for stage in &recipe.stages {
        let path = ["stage", &stage.name];
        unknown("dataset", &stage.options.data, data().collect(), place(table, &[&path[..], &["data"]].concat()));
        for (name, term) in &stage.losses {
            for teacher in term.loss.config.teachers() {
                let place = place(table, &[&path[..], &["loss", name, "teacher"]].concat());
                unknown("teacher", teacher, recipe.teachers.keys().map(String::as_str).collect(), place);
            }
        }
    }
    for (name, protocol) in &recipe.evaluate {
        unknown("dataset", protocol.config.data(), data().collect(), place(table, &["evaluate", name, "data"]));
    }
    let stages = recipe.stages.iter().map(|stage| ("stage", stage.name.as_str()));
    for (section, name) in stages.chain(recipe.evaluate.keys().map(|name| ("evaluate", name.as_str()))) {
        if !is_name(name) {
            let span = table.get(section).and_then(Node::as_table).and_then(|table| table.key_span(name));
            let message = format!("`{}` cannot be a part of a file's name, expected {NAME_RULE}", excerpt(name));
            problems.push(Diagnostic::new(message, span.unwrap_or(table.span)));
        }
    }
    for stage in &recipe.stages {
        if stage.losses.is_empty() {
            let message = format!("stage `{}` has no loss", stage.name);
            problems.push(Diagnostic::new(message, place(table, &["stage", &stage.name])));
        }
    }
    problems
}

/// The place of the deepest part of `path` that the recipe has.
fn place(table: &Table, path: &[&str]) -> Span {
    let mut span = table.span;
    let mut here = Some(table);
    for key in path {
        let Some(node) = here.and_then(|table| table.get(key)) else { break };
        span = node.span;
        here = Node::as_table(node);
    }
    span
}
