//! The tree of a recipe: TOML values that know where they were written.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, excerpt};
use super::source::Span;

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where the value stands; for a table its header, or its key where it has none.
    pub span: Span,
}

/// A TOML value. Dates are no part of recipes.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A string.
    String(String),
    /// A whole number.
    Integer(i64),
    /// A number with a point or an exponent, `inf` or `nan`.
    Float(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// Values in their order.
    Array(Vec<Node>),
    /// Values by name.
    Table(Table),
}

/// Values by name, in the order of the names.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    entries: BTreeMap<String, Entry>,
    /// The header, or the key where there is none; for a file the empty span at its start.
    pub span: Span,
}

/// A value of a [`Table`] and where its key stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Where the key was written.
    pub key_span: Span,
    /// The value.
    pub node: Node,
}

impl Node {
    /// The value in words for a message: strings and numbers as written, `a table`, `an array`.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::String(text) => format!("{:?}", excerpt(text)),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => format!("{number:?}"),
            Value::Boolean(flag) => flag.to_string(),
            Value::Array(_) => "an array".to_string(),
            Value::Table(_) => "a table".to_string(),
        }
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The table, if it is one.
    pub fn as_table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The table.
    ///
    /// # Errors
    /// If the value is no table.
    pub fn into_table(self) -> Result<Table, Diagnostic> {
        match self.value {
            Value::Table(table) => Ok(table),
            _ => Err(Diagnostic::new(format!("expected a table, found {}", self.describe()), self.span)),
        }
    }
}

impl From<Table> for Node {
    fn from(table: Table) -> Self {
        let span = table.span;
        Self { value: Value::Table(table), span }
    }
}

impl Table {
    /// An empty table whose header stands at `span`.
    pub fn new(span: Span) -> Self {
        Self { entries: BTreeMap::new(), span }
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries.get(key).map(|entry| &entry.node)
    }

    /// Where `key` was written.
    pub fn key_span(&self, key: &str) -> Option<Span> {
        self.entries.get(key).map(|entry| entry.key_span)
    }

    /// Removes `key` and gives its value.
    pub fn take(&mut self, key: &str) -> Option<Node> {
        self.take_entry(key).map(|entry| entry.node)
    }

    /// Removes `key` and gives its value and the key's place.
    pub fn take_entry(&mut self, key: &str) -> Option<Entry> {
        self.entries.remove(key)
    }

    /// Puts `entry` at `key`; gives the entry that was there.
    pub fn insert(&mut self, key: impl Into<String>, entry: Entry) -> Option<Entry> {
        self.entries.insert(key.into(), entry)
    }

    /// Keys and entries, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(key, entry)| (key.as_str(), entry))
    }

    /// Keys and entries to change, in the order of the keys.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Entry)> {
        self.entries.iter_mut().map(|(key, entry)| (key.as_str(), entry))
    }

    /// Keys and entries by value, in the order of the keys.
    pub fn into_entries(self) -> impl Iterator<Item = (String, Entry)> {
        self.entries.into_iter()
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// One problem for each key that is not among `known`.
    pub fn unknown_fields(&self, known: &[&str]) -> Vec<Diagnostic> {
        self.iter()
            .filter(|(key, _)| !known.contains(key))
            .map(|(key, entry)| Diagnostic::unknown_field(key, entry.key_span, known.iter().copied()))
            .collect()
    }
}

/// The table of a TOML text whose positions begin at `start`.
///
/// # Errors
/// All mistakes of syntax, or else all dates and numbers that a recipe cannot hold.
pub fn parse(text: &str, start: usize) -> Result<Table, Vec<Diagnostic>> {
    let (table, faults) = DeTable::parse_recoverable(text);
    let mut converting = Converting { start, problems: syntax(faults, start) };
    if converting.problems.is_empty() {
        let table = converting.table(table.into_inner(), Span::empty(start));
        if converting.problems.is_empty() {
            return Ok(table);
        }
    }
    Err(converting.problems)
}

fn syntax(faults: Vec<toml::de::Error>, start: usize) -> Vec<Diagnostic> {
    let place = |span: Option<Range<usize>>| match span {
        Some(span) => Span::new(start + span.start, start + span.end),
        None => Span::empty(start),
    };
    let words = |fault: &toml::de::Error| match fault.message().trim() {
        "duplicate key" => "this key stands here a second time, expected each key once".to_string(),
        message => message.to_string(),
    };
    faults.into_iter().map(|fault| Diagnostic::new(words(&fault), place(fault.span()))).collect()
}

struct Converting {
    start: usize,
    problems: Vec<Diagnostic>,
}

impl Converting {
    fn span(&self, range: Range<usize>) -> Span {
        Span::new(self.start + range.start, self.start + range.end)
    }

    fn table(&mut self, table: DeTable<'_>, span: Span) -> Table {
        let mut converted = Table::new(span);
        for (key, value) in table {
            let key_span = self.span(key.span());
            let value_span = self.span(value.span());
            if let Some(node) = self.node(value.into_inner(), value_span) {
                converted.insert(key.into_inner().into_owned(), Entry { key_span, node });
            }
        }
        converted
    }

    fn node(&mut self, value: DeValue<'_>, span: Span) -> Option<Node> {
        let value = match value {
            DeValue::String(text) => Value::String(text.into_owned()),
            DeValue::Boolean(flag) => Value::Boolean(flag),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => {
                    let (least, most) = (i64::MIN, i64::MAX);
                    let message = format!("expected a whole number from {least} to {most}, found {number}");
                    return self.refuse(message, span);
                }
            },
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(parsed) if parsed.is_finite() || number.as_str().contains(['i', 'n']) => Value::Float(parsed),
                _ => return self.refuse(format!("the number {number} is too large"), span),
            },
            DeValue::Datetime(_) => {
                return self.refuse("recipes have no dates, expected a string: put it in quotes".to_string(), span);
            }
            DeValue::Array(items) => {
                let mut nodes = Vec::with_capacity(items.len());
                for item in items {
                    let span = self.span(item.span());
                    nodes.extend(self.node(item.into_inner(), span));
                }
                Value::Array(nodes)
            }
            DeValue::Table(table) => Value::Table(self.table(table, span)),
        };
        Some(Node { value, span })
    }

    fn refuse(&mut self, message: String, span: Span) -> Option<Node> {
        self.problems.push(Diagnostic::new(message, span));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_know_their_place() {
        let text = "a = 0x10\n[b.c]\nd = [1.5, true]\n";
        let mut table = parse(text, 100).expect("good TOML");
        assert_eq!(table.span, Span::empty(100));
        assert_eq!(table.get("a"), Some(&Node { value: Value::Integer(16), span: Span::new(104, 108) }));
        assert_eq!(table.key_span("a"), Some(Span::new(100, 101)));
        let mut b = table.take("b").expect("b").into_table().expect("a table");
        assert_eq!(b.span, Span::new(110, 111));
        let c = b.take("c").expect("c");
        assert_eq!(c.span, Span::new(109, 114));
        let d = c.into_table().expect("a table").take("d").expect("d");
        let Value::Array(items) = d.value else { panic!("an array") };
        assert_eq!(items[0], Node { value: Value::Float(1.5), span: Span::new(120, 123) });
        assert_eq!(items[1].value, Value::Boolean(true));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn all_mistakes_of_syntax_come_together() {
        let problems = parse("a = = 1\nb = \"x\nc = 1\nc = 2\n", 10).expect_err("bad TOML");
        let lines: Vec<usize> = problems.iter().filter_map(|p| p.span).map(|span| span.start).collect();
        assert!(problems.len() >= 3, "{problems:?}");
        assert!(lines.contains(&31), "the second `c`: {problems:?}");
    }

    #[test]
    fn dates_and_numbers_without_end_are_refused() {
        let problems =
            parse("a = 2026-01-01\nb = 99999999999999999999\nc = 1e999\nd = -inf\n", 0).expect_err("no dates");
        let messages: Vec<&str> = problems.iter().map(|p| p.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "recipes have no dates, expected a string: put it in quotes",
                "expected a whole number from -9223372036854775808 to 9223372036854775807, found 99999999999999999999",
                "the number 1e999 is too large"
            ]
        );
    }

    #[test]
    fn unknown_fields_are_found() {
        let table = parse("size = 1\nsise = 2\n", 0).expect("good TOML");
        let problems = table.unknown_fields(&["size"]);
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].hint.as_deref(), Some("did you mean `size`?\nknown: size"));
    }
}
