//! The key `revision`: every kind that takes a path takes it, and it counts for the addresses of the Hub in its table.

use schemars::Schema;
use serde_json::{Value as Json, json};

use crate::recipe::HubAddress;
use crate::recipe::diagnostic::Diagnostic;
use crate::recipe::node::{Node, Table, Value};
use crate::recipe::path::{PATH_FORMAT, expand};

const REVISION: &str = "revision";

/// What the schema of a kind says of the key.
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

fn has_path(schema: &Json) -> bool {
    match schema {
        Json::Object(table) => {
            table.get("format").is_some_and(|format| format == PATH_FORMAT) || table.values().any(has_path)
        }
        Json::Array(items) => items.iter().any(has_path),
        _ => false,
    }
}

/// Takes `revision` out of `options` and writes it into their addresses, if the kind's `schema` has the key from us.
pub(super) fn pin(options: &mut Table, schema: &Schema) -> Result<(), Diagnostic> {
    if schema.get("properties").and_then(|options| options.get(REVISION)) != Some(&option()) {
        return Ok(());
    }
    let Some(node) = options.take(REVISION) else { return Ok(()) };
    let Some(revision) = node.as_str() else {
        let message = format!("expected a branch, a tag or a commit, found {}", node.describe());
        return Err(Diagnostic::new(message, node.span));
    };
    for (_, entry) in options.iter_mut() {
        pin_node(&mut entry.node, revision, &node)?;
    }
    Ok(())
}

fn pin_node(node: &mut Node, revision: &str, written: &Node) -> Result<(), Diagnostic> {
    match &mut node.value {
        Value::String(text) => {
            // Variables that are not set and addresses that lead nowhere are found when the value is read.
            let Ok(expanded) = expand(text, |name| std::env::var(name).ok()) else { return Ok(()) };
            let Ok(address) = expanded.parse::<HubAddress>() else { return Ok(()) };
            if let Some(other) = &address.revision {
                let message = format!("`revision` says `{revision}`, the address says `{other}`; expected one of them");
                return Err(Diagnostic::new(message, node.span));
            }
            let address = address.at_revision(revision).map_err(|message| Diagnostic::new(message, written.span))?;
            *text = address.to_string();
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| pin_node(item, revision, written)),
        Value::Table(table) => table.iter_mut().try_for_each(|(_, entry)| pin_node(&mut entry.node, revision, written)),
        _ => Ok(()),
    }
}
