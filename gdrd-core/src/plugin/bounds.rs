//! Bounds of numbers among options. They stand in the schema alone, from which editors, `gdrd kinds` and the check of a recipe
//! have them: `#[schemars(range(min = 1, max = 256))]` at the field, `inner(range(..))` for the numbers of a list, and
//! `extend("exclusiveMinimum" = 0)` where the bound itself is not allowed.

use schemars::Schema;
use serde_json::{Number, Value as Json};

use super::walk::walk;

/// A number that is not within its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfBounds {
    /// The keys that lead to it; a number's place in a list counts from 0.
    pub keys: Vec<String>,
    /// What was expected and what was found.
    pub message: String,
}

impl OutOfBounds {
    /// The keys as a recipe writes them: `head.hidden[1]`.
    pub fn key(&self) -> String {
        let mut text = String::new();
        for key in &self.keys {
            match key.parse::<usize>() {
                Ok(at) => text.push_str(&format!("[{at}]")),
                Err(_) if text.is_empty() => text.push_str(key),
                Err(_) => text.push_str(&format!(".{key}")),
            }
        }
        text
    }
}

/// Every number among `options` that is no number (`nan`, `inf`), or is outside the bounds that `schema` sets.
pub fn out_of_bounds(schema: &Schema, options: &toml::Table) -> Vec<OutOfBounds> {
    let mut found = Vec::new();
    let options = toml::Value::Table(options.clone());
    no_numbers(&options, &mut Vec::new(), &mut found);
    let json = serde_json::to_value(&options).expect("TOML tables have a JSON form");
    found.extend(out_of_bounds_json(schema, &json));
    found
}

/// The same of options in JSON, which has finite numbers alone.
pub fn out_of_bounds_json(schema: &Schema, options: &Json) -> Vec<OutOfBounds> {
    let mut found: Vec<OutOfBounds> = Vec::new();
    walk(schema.as_value(), options, &mut |schema, value, keys| {
        if let Json::Number(number) = value
            && let Some(expected) = broken(schema, number.as_f64().unwrap_or(f64::NAN))
            && found.iter().all(|other| other.keys != keys)
        {
            found.push(OutOfBounds {
                keys: keys.to_vec(),
                message: format!("expected {expected}, found {}", shown(number)),
            });
        }
    });
    found
}

fn no_numbers(value: &toml::Value, at: &mut Vec<String>, found: &mut Vec<OutOfBounds>) {
    let mut below = |key: String, value: &toml::Value| {
        at.push(key);
        no_numbers(value, at, found);
        at.pop();
    };
    match value {
        toml::Value::Table(table) => table.iter().for_each(|(key, value)| below(key.clone(), value)),
        toml::Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| below(index.to_string(), value))
        }
        toml::Value::Float(number) if !number.is_finite() => {
            let message = format!("expected a finite number, found {number}");
            found.push(OutOfBounds { keys: at.clone(), message });
        }
        _ => {}
    }
}

/// The bounds, each with its key in a schema, its words, and whether a number keeps it.
type Bound = (&'static str, &'static str, fn(f64, f64) -> bool);
const LOWER: [Bound; 2] = [("minimum", "at least", |n, b| n >= b), ("exclusiveMinimum", "above", |n, b| n > b)];
const UPPER: [Bound; 2] = [("maximum", "at most", |n, b| n <= b), ("exclusiveMaximum", "below", |n, b| n < b)];

/// The bound of `schema` that `number` breaks, in words.
fn broken(schema: &Json, number: f64) -> Option<String> {
    LOWER.into_iter().chain(UPPER).find_map(|(key, words, keeps)| {
        let bound = schema.get(key)?;
        let is_broken = !keeps(number, bound.as_f64()?);
        is_broken.then(|| Some(format!("{words} {}", shown(bound.as_number()?)))).flatten()
    })
}

/// A number as people write it: no zeros behind the point.
fn shown(number: &Number) -> String {
    let text = number.to_string();
    text.strip_suffix(".0").map_or(text.clone(), str::to_string)
}

/// The bounds of a number's schema, or of the numbers of a list's, in words: `at least 1, at most 256`.
///
/// None if a bound is missing above or below: such a number is bounded by what its type holds, which is no check.
pub fn bounds(schema: &Json) -> Option<String> {
    let words = |bounds: [Bound; 2]| {
        bounds.into_iter().find_map(|(key, words, _)| Some(format!("{words} {}", shown(schema.get(key)?.as_number()?))))
    };
    match (words(LOWER), words(UPPER)) {
        (Some(lower), Some(upper)) => Some(format!("{lower}, {upper}")),
        _ => schema.get("items").and_then(bounds),
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::Serialize;

    use super::*;

    #[derive(Serialize, JsonSchema)]
    struct Inner {
        #[schemars(inner(range(min = 1, max = 4)))]
        widths: Vec<usize>,
    }

    #[derive(Serialize, JsonSchema)]
    struct Options {
        #[schemars(range(max = 8), extend("exclusiveMinimum" = 0))]
        rate: f64,
        #[schemars(range(min = 2, max = 1u64 << 62))]
        steps: Option<u64>,
        inner: Inner,
        free: f64,
    }

    fn found(rate: f64, steps: Option<u64>, widths: Vec<usize>, free: f64) -> Vec<(String, String)> {
        let options = toml::Table::try_from(Options { rate, steps, inner: Inner { widths }, free }).expect("a table");
        let found = out_of_bounds(&schemars::schema_for!(Options), &options);
        found.into_iter().map(|found| (found.key(), found.message)).collect()
    }

    #[test]
    fn numbers_outside_their_bounds_are_found_wherever_they_stand() {
        let said = |key: &str, message: &str| (key.to_string(), message.to_string());
        assert_eq!(found(8.0, None, vec![1, 4], 1e300), []);
        assert_eq!(
            found(0.0, Some(1), vec![], 0.0),
            [said("rate", "expected above 0, found 0"), said("steps", "expected at least 2, found 1")]
        );
        assert_eq!(
            found(8.1, Some(1 << 62), vec![1, 5], 0.0),
            [said("inner.widths[1]", "expected at most 4, found 5"), said("rate", "expected at most 8, found 8.1"),]
        );
        assert_eq!(found(-0.0, None, vec![], 0.0), [said("rate", "expected above 0, found -0")]);
    }

    #[test]
    fn what_is_no_number_is_found_even_without_bounds() {
        for (number, text) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")] {
            let expected = format!("expected a finite number, found {text}");
            assert_eq!(found(1.0, None, vec![], number), [("free".to_string(), expected.clone())]);
            assert_eq!(found(number, None, vec![], 1.0), [("rate".to_string(), expected)]);
        }
    }

    #[test]
    fn bounds_are_said_in_words() {
        let schema = schemars::schema_for!(Options);
        let of = |pointer: &str| bounds(schema.as_value().pointer(pointer).expect("a schema"));
        assert_eq!(of("/properties/rate").as_deref(), Some("above 0, at most 8"));
        assert_eq!(of("/$defs/Inner/properties/widths").as_deref(), Some("at least 1, at most 4"));
        assert_eq!(of("/properties/free"), None);
    }
}
