//! Tables and places of what a recipe leaves out.

use crate::recipe::node::{Entry, Node, Table, Value};
use crate::recipe::source::Span;

/// The place of what `keys` lead to; of what stands above it where it is a default.
pub(super) fn span_of(table: &Table, keys: &[String]) -> Span {
    let Some((key, rest)) = keys.split_first() else { return table.span };
    let Some(mut node) = table.get(key) else { return table.span };
    for key in rest {
        let below = match &node.value {
            Value::Table(table) => table.get(key),
            Value::Array(items) => key.parse().ok().and_then(|at: usize| items.get(at)),
            _ => None,
        };
        let Some(below) = below else { break };
        node = below;
    }
    node.span
}

/// The table `{ kind = "name" }`, for a part that the recipe leaves out.
pub(super) fn with_kind(name: &str, span: Span) -> Table {
    let mut table = Table::new(span);
    let node = Node { value: Value::String(name.to_string()), span };
    table.insert("kind", Entry { key_span: span, node });
    table
}
