//! What serde says about one value of a recipe, in plain words.

use std::fmt::{self, Display};

use serde::de::{self, Expected, Unexpected};

use super::diagnostic::{Diagnostic, excerpt, nearest, suggest};
use super::source::Span;

/// One step from a table to one of its values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Key(String),
    Item(usize),
}

/// The first problem that reading a value met.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) what: What,
    message: String,
    hint: Option<String>,
    /// The value, or the key that is too many, or the table that lacks one.
    pub(super) place: Option<(Span, Vec<Step>)>,
}

/// What kind of problem a [`Fault`] is.
#[derive(Debug)]
pub(super) enum What {
    /// A key that nobody knows, and the known one that is nearest.
    Unknown(Option<&'static str>),
    /// The table lacks this key.
    Missing(&'static str),
    /// The value is wrong.
    Wrong,
}

impl Fault {
    fn new(message: String, what: What) -> Self {
        Self { what, message, hint: None, place: None }
    }

    /// The same fault, with a place unless a more exact one is known.
    pub(super) fn at(mut self, span: Span, path: &[Step]) -> Self {
        self.place.get_or_insert_with(|| (span, path.to_vec()));
        self
    }

    pub(super) fn into_diagnostic(self) -> Diagnostic {
        Diagnostic { message: self.message, span: self.place.map(|(span, _)| span), hint: self.hint }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(message.to_string(), What::Wrong)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {}, found {}", wanted(expected, &found), seen(&found)), What::Wrong)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}, found {length} values"), What::Wrong)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let hint = Some(suggest(variant, expected.iter().copied()));
        Self { hint, ..Self::new(format!("unknown value `{}`", excerpt(variant)), What::Wrong) }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let near = nearest(field, expected.iter().copied());
        let hint = Some(suggest(field, expected.iter().copied()));
        Self { hint, ..Self::new(format!("unknown field `{}`", excerpt(field)), What::Unknown(near)) }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("missing field `{field}`"), What::Missing(field))
    }
}

fn seen(found: &Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(flag) => flag.to_string(),
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Float(number) => format!("{number:?}"),
        Unexpected::Str(text) => format!("{:?}", excerpt(text)),
        Unexpected::Seq => "an array".to_string(),
        Unexpected::Map => "a table".to_string(),
        other => other.to_string(),
    }
}

/// What a Rust type accepts, in the words of a recipe.
fn wanted(expected: &dyn Expected, found: &Unexpected<'_>) -> String {
    let expected = expected.to_string();
    let (least, largest) = match expected.as_str() {
        "u8" => (0, u64::from(u8::MAX)),
        "u16" => (0, u64::from(u16::MAX)),
        "u32" => (0, u64::from(u32::MAX)),
        "u64" | "usize" => (0, u64::MAX),
        "i8" => (i64::from(i8::MIN), i8::MAX as u64),
        "i16" => (i64::from(i16::MIN), i16::MAX as u64),
        "i32" => (i64::from(i32::MIN), i32::MAX as u64),
        "i64" | "isize" => (i64::MIN, i64::MAX as u64),
        "f32" | "f64" => return "a number".to_string(),
        "a boolean" => return "true or false".to_string(),
        "path string" => return "a path".to_string(),
        "a sequence" => return "an array".to_string(),
        "a map" => return "a table".to_string(),
        other if other.starts_with("struct ") => return "a table".to_string(),
        other if other.starts_with("a nonzero ") => return "a whole number other than 0".to_string(),
        _ => return expected,
    };
    match found {
        Unexpected::Signed(..0) if least == 0 => "a whole number that is not negative".to_string(),
        Unexpected::Signed(_) | Unexpected::Unsigned(_) => format!("a whole number from {least} to {largest}"),
        _ => "a whole number".to_string(),
    }
}
