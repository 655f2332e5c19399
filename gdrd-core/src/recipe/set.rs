//! `--set a.b=value`: one line of a recipe, written on the command line.

use toml::de::DeTable;

use super::diagnostic::Diagnostic;
use super::node::{Entry, Node, Table, Value, parse};
use super::source::Span;

/// The table that `text`, whose positions begin at `start`, stands for: one chain of keys with one
/// value at its end. A value that is no TOML and does not look like quoted text, an array or a
/// table is taken as a string, so that a shell user may write `--set data.train.folder=/x/y`.
pub(super) fn parse_set(text: &str, start: usize) -> Result<Table, Vec<Diagnostic>> {
    let whole = Span::new(start, start + text.len());
    let Some(equals) = equals_sign(text).filter(|_| !text.contains('\n')) else {
        let message = "expected one line `key=value`, as in `--set student.embedding=512`";
        return Err(vec![Diagnostic::new(message, whole)]);
    };
    // The keys alone, with a value that cannot fail: their positions stay those of the text.
    let keys = parse(&format!("{}=0", &text[..equals]), start)?;
    if let Some((key @ ("format" | "extends"), entry)) = keys.iter().next() {
        let message = format!("`{key}` cannot be set, expected it in the recipe's file");
        return Err(vec![Diagnostic::new(message, entry.key_span)]);
    }
    let value = text[equals + 1..].trim();
    let from = text.len() - text[equals + 1..].trim_start().len();
    let span = Span::new(start + from, start + from + value.len());
    if value.is_empty() {
        return Err(vec![Diagnostic::new("expected a value after `=`", span)]);
    }
    let bare = !value.starts_with(['"', '\'', '[', '{']);
    // Good TOML may still be refused, when it is a date.
    if bare && DeTable::parse(text).is_err() {
        let mut table = keys;
        put(&mut table, Node { value: Value::String(value.to_string()), span });
        return Ok(table);
    }
    parse(text, start)
}

/// Where the first `=` outside of quotes is.
fn equals_sign(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '=') => return Some(at),
            (None, '"' | '\'') => quote = Some(c),
            (Some('"'), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(open), _) if c == open && !escaped => quote = None,
            _ => {}
        }
        escaped = false;
    }
    None
}

/// Puts `value` at the end of the only chain of keys in `table`.
fn put(table: &mut Table, value: Node) {
    let Some((_, entry)) = table.iter_mut().next() else { return };
    match &mut entry.node.value {
        Value::Table(inner) => put(inner, value),
        _ => entry.node = value,
    }
}

/// Adds the keys of `new` to `table`; where both have a value, that of `new` stays.
pub(super) fn join(table: &mut Table, new: Table) {
    for (key, entry) in new.into_entries() {
        match table.take_entry(&key) {
            Some(Entry { key_span, node: Node { value: Value::Table(mut old), span } }) => {
                let node = match entry.node.value {
                    Value::Table(inner) => {
                        join(&mut old, inner);
                        Node { value: Value::Table(old), span }
                    }
                    _ => entry.node,
                };
                table.insert(key, Entry { key_span, node });
            }
            _ => {
                table.insert(key, entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Node {
        let mut node = Node::from(parse_set(text, 50).expect(text));
        while let Value::Table(table) = node.value {
            node = table.into_entries().next().expect("a key").1.node;
        }
        node
    }

    fn message(text: &str) -> (String, Span) {
        let problems = parse_set(text, 50).expect_err(text);
        (problems[0].message.clone(), problems[0].span.expect("a place"))
    }

    #[test]
    fn values_are_toml_or_bare_words() {
        assert_eq!(value("a.b.c=2"), Node { value: Value::Integer(2), span: Span::new(56, 57) });
        assert_eq!(value("a = 1.5 # why").value, Value::Float(1.5));
        assert_eq!(value("a='x=y'").value, Value::String("x=y".to_string()));
        assert_eq!(value("a= /x/y"), Node { value: Value::String("/x/y".to_string()), span: Span::new(53, 57) });
        assert_eq!(value("a=hf://org/repo?x=y").value, Value::String("hf://org/repo?x=y".to_string()));
        assert_eq!(value("a=3d").value, Value::String("3d".to_string()));
        assert!(matches!(value("a=[1, 2]").value, Value::Array(items) if items.len() == 2));
        assert!(matches!(value("a={ b = true }").value, Value::Boolean(true)));
    }

    #[test]
    fn keys_may_be_quoted() {
        let table = parse_set("a.\"b=\\\".c\".'d.e'=1", 0).expect("quoted keys");
        let a = table.get("a").and_then(Node::as_table).expect("a");
        let b = a.get("b=\".c").and_then(Node::as_table).expect("b");
        assert_eq!(b.key_span("d.e"), Some(Span::new(11, 16)));
    }

    #[test]
    fn bad_syntax_is_placed_in_the_text() {
        assert_eq!(message("a.b").1, Span::new(50, 53));
        assert_eq!(message("a=1\nb=1").1, Span::new(50, 57));
        assert_eq!(message("[a]\nb=1").1, Span::new(50, 57));
        assert_eq!(message("a=").0, "expected a value after `=`");
        assert_eq!(message("a=[1, 2").1.start, 57);
        assert_eq!(message("a b=1").1.start, 52);
        assert_eq!(message("format=2").0, "`format` cannot be set, expected it in the recipe's file");
        assert_eq!(message("a=2026-01-01").0, "recipes have no dates, expected a string: put it in quotes");
    }

    #[test]
    fn later_options_win() {
        let mut table = parse_set("a.b=1", 0).expect("good");
        join(&mut table, parse_set("a.c=2", 10).expect("good"));
        join(&mut table, parse_set("a.b=3", 20).expect("good"));
        let a = table.get("a").and_then(Node::as_table).expect("a");
        assert_eq!(a.get("b").map(|node| node.value.clone()), Some(Value::Integer(3)));
        assert_eq!(a.get("c").map(|node| node.value.clone()), Some(Value::Integer(2)));
    }
}
