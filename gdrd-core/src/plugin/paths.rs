//! Paths among a kind's options. The schema says which options are paths: they are made absolute before the options are read,
//! and the key `revision`, which every kind with a path takes, is written into their addresses of the Hub.

use schemars::Schema;
use serde_json::{Value as Json, json};

use super::names::{DatasetName, TeacherName, ViewName};
use super::walk::walk;
use crate::recipe::HubAddress;
use crate::recipe::diagnostic::Diagnostic;
use crate::recipe::node::{Node, Table, Value};
use crate::recipe::path::{PATH_FORMAT, resolve as absolute};
use crate::recipe::source::Sources;

const REVISION: &str = "revision";

/// A string among a component's options that its schema marks by a `format`: a path, or the name of another table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// The format: `path`, `dataset`, `teacher` or `view`.
    pub format: &'static str,
    /// Its key in the component's table, with dots: `weights`, `folders.0`.
    pub key: String,
    /// The string; of a path the absolute path, or the address of the Hub.
    pub written: String,
}

/// The formats that are looked for.
const FORMATS: [&str; 4] = [PATH_FORMAT, DatasetName::FORMAT, TeacherName::FORMAT, ViewName::FORMAT];

/// What the schema of a kind says of the key `revision`.
fn option() -> Json {
    json!({
        "type": "string",
        "description": "Branch, tag or commit of the `hf://` addresses in this table; `main` when left out. The same as \
            `hf://org/repository@revision/file`.",
    })
}

/// The schema of a kind's options with `revision`, if it takes a path and has no such option of its own.
pub(super) fn with_revision(mut schema: Schema) -> Schema {
    if has_path(schema.as_value())
        && let Some(options) = schema.get_mut("properties").and_then(Json::as_object_mut)
    {
        options.entry(REVISION).or_insert_with(option);
    }
    schema
}

fn has_format(schema: &Json, wanted: &str) -> bool {
    schema.get("format").is_some_and(|format| format == wanted)
}

fn has_path(schema: &Json) -> bool {
    match schema {
        Json::Object(table) => has_format(schema, PATH_FORMAT) || table.values().any(has_path),
        Json::Array(items) => items.iter().any(has_path),
        _ => false,
    }
}

/// Makes every path of `options` absolute. `revision` is taken out and written into their addresses, if the kind's `schema` has
/// the key from us.
pub(super) fn resolve(options: &mut Table, schema: &Schema, sources: &Sources) -> Result<(), Vec<Diagnostic>> {
    let from_us = schema.get("properties").and_then(|options| options.get(REVISION)) == Some(&option());
    let revision = if from_us { options.take(REVISION) } else { None };
    if let Some(node) = revision.as_ref().filter(|node| node.as_str().is_none()) {
        let message = format!("expected a branch, a tag or a commit, found {}", node.describe());
        return Err(vec![Diagnostic::new(message, node.span)]);
    }
    let mut problems = Vec::new();
    let mut root =
        Node { span: options.span, value: Value::Table(std::mem::replace(options, Table::new(options.span))) };
    for place in places(schema.as_value(), &plain(&root), PATH_FORMAT) {
        let Some(node) = find(&mut root, &place) else { continue };
        if let Err(problem) = resolve_node(node, revision.as_ref(), sources) {
            problems.push(problem);
        }
    }
    if let Value::Table(table) = root.value {
        *options = table;
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn resolve_node(node: &mut Node, revision: Option<&Node>, sources: &Sources) -> Result<(), Diagnostic> {
    let Value::String(text) = &mut node.value else { return Ok(()) };
    let mut path = absolute(text, node.span, sources).map_err(|message| Diagnostic::new(message, node.span))?;
    if let (Some(written), Ok(address)) = (revision, path.parse::<HubAddress>()) {
        let wanted = written.as_str().unwrap_or_default();
        if let Some(other) = &address.revision {
            let message = format!("`revision` says `{wanted}`, the address says `{other}`; expected one of them");
            return Err(Diagnostic::new(message, node.span));
        }
        let pinned = address.at_revision(wanted).map_err(|message| Diagnostic::new(message, written.span))?;
        path = pinned.to_string();
    }
    *text = path;
    Ok(())
}

/// The paths and names among resolved options.
pub(super) fn listed(options: &toml::Table, schema: &Schema) -> Vec<Marked> {
    let value = serde_json::to_value(options).expect("TOML tables have a JSON form");
    let of_format = |format: &'static str| {
        let marked = |place: Vec<String>| {
            let found = value.pointer(&format!("/{}", place.join("/")))?.as_str()?;
            Some(Marked { format, key: place.join("."), written: found.to_string() })
        };
        places(schema.as_value(), &value, format).into_iter().filter_map(marked).collect::<Vec<_>>()
    };
    FORMATS.into_iter().flat_map(of_format).collect()
}

/// Where the strings of `value` are whose schema has a format, each once.
fn places(schema: &Json, value: &Json, format: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    walk(schema, value, &mut |schema, value, at| {
        if has_format(schema, format) && value.is_string() && !found.iter().any(|there| there == at) {
            found.push(at.to_vec());
        }
    });
    found
}

/// A node as JSON; only tables, arrays and strings matter here.
fn plain(node: &Node) -> Json {
    match &node.value {
        Value::Table(table) => table.iter().map(|(key, entry)| (key.to_string(), plain(&entry.node))).collect(),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::String(text) => Json::String(text.clone()),
        _ => Json::Null,
    }
}

fn find<'n>(node: &'n mut Node, place: &[String]) -> Option<&'n mut Node> {
    let Some((first, rest)) = place.split_first() else { return Some(node) };
    match &mut node.value {
        Value::Table(table) => {
            table.iter_mut().find(|(key, _)| *key == first).and_then(|(_, entry)| find(&mut entry.node, rest))
        }
        Value::Array(items) => find(items.get_mut(first.parse::<usize>().ok()?)?, rest),
        _ => None,
    }
}
