//! Typed configs from tables, with all problems of a table at once.

use serde::de::DeserializeOwned;

use super::deserializer::{Reader, Reading, Repair, Repairs};
use super::diagnostic::Diagnostic;
use super::fault::{Fault, Step, What};
use super::node::{Node, Table};

/// The value that `table` says.
///
/// Keys that the type does not know are errors, with or without `deny_unknown_fields`. Whole
/// numbers are taken where numbers are expected. A [`RecipePath`](super::RecipePath) comes out
/// absolute. Positions get lost, and unknown keys are not seen, behind `flatten` and in untagged
/// and internally tagged enums: configs do without these.
///
/// # Errors
/// All problems of the table. A missing key is placed at the table's header.
pub fn read<T: DeserializeOwned>(table: &Table) -> Result<T, Vec<Diagnostic>> {
    read_node(&Node::from(table.clone()))
}

/// The value that `node` says; as [`read`], for a value of any kind.
///
/// # Errors
/// All problems of the value.
pub fn read_node<T: DeserializeOwned>(node: &Node) -> Result<T, Vec<Diagnostic>> {
    let mut repairs = Repairs::new();
    let mut problems = Vec::new();
    // serde stops at the first fault: note it, put something harmless in its place, read again.
    loop {
        let reading = Reading { repairs: &repairs };
        match T::deserialize(Reader { node, path: Vec::new(), reading }) {
            Ok(value) if problems.is_empty() => return Ok(value),
            Ok(_) => break,
            Err(fault) => {
                if !repair(fault.at(node.span, &[]), node, &mut repairs, &mut problems) {
                    break;
                }
            }
        }
    }
    problems.sort_by_key(|problem| problem.span);
    Err(problems)
}

/// Notes `fault` unless an earlier repair caused it, and repairs its place; false if that cannot be.
fn repair(fault: Fault, root: &Node, repairs: &mut Repairs, problems: &mut Vec<Diagnostic>) -> bool {
    let path = fault.place.as_ref().map(|(_, path)| path.clone()).unwrap_or_default();
    match fault.what {
        What::Unknown(near) => {
            problems.push(fault.into_diagnostic());
            // The key that was meant is not missing; it is misspelt.
            if let (Some(near), Some((_, table))) = (near, path.split_last()) {
                let meant = child(table, near);
                if find(root, &meant).is_none() {
                    repairs.entry(meant).or_insert(Repair::StandIn);
                }
            }
            repairs.insert(path, Repair::Skip) != Some(Repair::Skip)
        }
        What::Missing(field) => {
            let missing = child(&path, field);
            if repairs.contains_key(&missing) {
                return give_up(path, repairs);
            }
            problems.push(fault.into_diagnostic());
            repairs.insert(missing, Repair::StandIn);
            true
        }
        What::Wrong => {
            if repairs.keys().any(|repaired| repaired.starts_with(&path)) {
                return give_up(path, repairs);
            }
            problems.push(fault.into_diagnostic());
            repairs.insert(path.clone(), Repair::StandIn);
            !path.is_empty()
        }
    }
}

/// Repairs `path` in the next stronger way, after a repair at or below it was not enough.
fn give_up(mut path: Vec<Step>, repairs: &mut Repairs) -> bool {
    loop {
        if path.is_empty() {
            return false;
        }
        match repairs.get(&path) {
            None => repairs.insert(path, Repair::StandIn),
            Some(Repair::StandIn) => repairs.insert(path, Repair::Skip),
            Some(Repair::Skip) => {
                path.pop();
                continue;
            }
        };
        return true;
    }
}

fn child(path: &[Step], key: &str) -> Vec<Step> {
    path.iter().cloned().chain([Step::Key(key.to_string())]).collect()
}

fn find<'a>(root: &'a Node, path: &[Step]) -> Option<&'a Node> {
    path.iter().try_fold(root, |node, step| match (step, &node.value) {
        (Step::Key(key), super::Value::Table(table)) => table.get(key),
        (Step::Item(at), super::Value::Array(items)) => items.get(*at),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use serde::Deserialize;

    use super::super::node::parse;
    use super::super::{Failure, RecipePath, Sources};
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Kernel {
        Box,
        Cubic { a: f64 },
    }

    #[derive(Debug, Deserialize)]
    #[serde(try_from = "String")]
    struct Even(usize);

    impl TryFrom<String> for Even {
        type Error = String;

        fn try_from(text: String) -> Result<Self, String> {
            let length = text.len();
            if length > 0 && length.is_multiple_of(2) {
                Ok(Self(length))
            } else {
                Err(format!("{length} letters are not even"))
            }
        }
    }

    #[derive(Debug, Deserialize)]
    struct Config {
        depth: u32,
        #[serde(default)]
        rate: f64,
        path: RecipePath,
        kernel: Option<Kernel>,
        #[serde(default)]
        layers: Vec<u8>,
        #[serde(default)]
        losses: BTreeMap<String, Loss>,
        even: Option<Even>,
        #[serde(default)]
        few: i16,
    }

    #[derive(Debug, Deserialize)]
    struct Loss {
        weight: f64,
        tau: f64,
        name: Even,
    }

    fn read_text(text: &str) -> Result<Config, String> {
        let mut sources = Sources::default();
        let start = sources.add_file(Path::new("/r/a.toml"), text.to_string());
        let table = parse(text, start).expect("good TOML");
        read(&table).map_err(|problems| Failure::new(sources, problems).to_string())
    }

    #[test]
    fn a_good_table_is_read() {
        let text = "depth = 3\nrate = 2\npath = \"x\"\nlayers = [1, 2]\neven = \"ab\"\n\
            [kernel.cubic]\na = -0.5\n[losses.one]\nweight = 1\ntau = 0.5\nname = \"abcd\"\n";
        let config = read_text(text).expect("a config");
        assert_eq!((config.depth, config.rate, config.layers), (3, 2.0, vec![1, 2]));
        assert_eq!(config.path, RecipePath::from("x"));
        assert!(matches!(config.kernel, Some(Kernel::Cubic { a: -0.5 })));
        assert_eq!((config.even.expect("even").0, config.few), (2, 0));
        let loss = &config.losses["one"];
        assert_eq!((loss.weight, loss.tau, loss.name.0), (1.0, 0.5, 4));
        let text = "depth = 3\npath = \"x\"\nkernel = \"box\"";
        assert!(matches!(read_text(text).expect("a config").kernel, Some(Kernel::Box)));
    }

    #[test]
    fn all_problems_come_at_once() {
        let text = "depth = -3\npaht = \"x\"\nrate = \"fast\"\nlayers = [1, 300, 2.5]\nkernel = \"bicubic\"\n\
            [losses.one]\nwieght = 1\nname = \"abc\"\n[losses.two]\n";
        let expected = r#"error: expected a whole number that is not negative, found -3
 --> /r/a.toml:1:9
  | depth = -3
  |         ^^
error: unknown field `paht`
 --> /r/a.toml:2:1
  | paht = "x"
  | ^^^^
  = did you mean `path`?
  = known: depth, rate, path, kernel, layers, losses, even, few
error: expected a number, found "fast"
 --> /r/a.toml:3:8
  | rate = "fast"
  |        ^^^^^^
error: expected a whole number from 0 to 255, found 300
 --> /r/a.toml:4:14
  | layers = [1, 300, 2.5]
  |              ^^^
error: expected a whole number, found 2.5
 --> /r/a.toml:4:19
  | layers = [1, 300, 2.5]
  |                   ^^^
error: unknown value `bicubic`
 --> /r/a.toml:5:10
  | kernel = "bicubic"
  |          ^^^^^^^^^
  = did you mean `cubic`?
  = known: box, cubic
error: missing field `tau`
 --> /r/a.toml:6:1
  | [losses.one]
  | ^^^^^^^^^^^^
error: unknown field `wieght`
 --> /r/a.toml:7:1
  | wieght = 1
  | ^^^^^^
  = did you mean `weight`?
  = known: weight, tau, name
error: 3 letters are not even
 --> /r/a.toml:8:8
  | name = "abc"
  |        ^^^^^
error: missing field `weight`
 --> /r/a.toml:9:1
  | [losses.two]
  | ^^^^^^^^^^^^
error: missing field `tau`
 --> /r/a.toml:9:1
  | [losses.two]
  | ^^^^^^^^^^^^
error: missing field `name`
 --> /r/a.toml:9:1
  | [losses.two]
  | ^^^^^^^^^^^^"#;
        assert_eq!(read_text(text).expect_err("bad"), expected);
    }

    #[test]
    fn missing_keys_of_a_file_are_placed_at_its_start() {
        let expected = "error: missing field `depth`\n --> /r/a.toml:1:1\n  | rate = 1\n  | ^\n\
            error: missing field `path`\n --> /r/a.toml:1:1\n  | rate = 1\n  | ^";
        assert_eq!(read_text("rate = 1").expect_err("bad"), expected);
    }

    #[test]
    fn wrong_shapes_are_said_in_words_of_a_recipe() {
        let of = |text: &str| {
            let problems = read_text(&format!("depth = 1\npath = \"x\"\n{text}")).expect_err(text);
            problems.lines().next().expect("a line").to_string()
        };
        assert_eq!(of("losses = 3"), "error: expected a table, found 3");
        assert_eq!(of("losses.a = [1, 2, 3]"), "error: expected a table, found an array");
        assert_eq!(of("layers = 3"), "error: expected an array, found 3");
        assert_eq!(of("kernel = 3"), "error: expected one of box, cubic, found 3");
        assert_eq!(of("kernel = { cubik = { a = 1 } }"), "error: unknown value `cubik`");
        assert_eq!(of("kernel = { cubic = { b = 1 } }"), "error: unknown field `b`");
        assert_eq!(of("kernel = { box = 1 }"), "error: `box` takes no value, expected \"box\"");
        assert_eq!(of("few = 40000"), "error: expected a whole number from -32768 to 32767, found 40000");
        assert_eq!(of("few = \"x\""), "error: expected a whole number, found \"x\"");
        assert_eq!(of("rate = true"), "error: expected a number, found true");
    }

    #[test]
    fn a_type_that_contains_itself_ends() {
        #[derive(Debug, Deserialize)]
        struct Tree {
            #[expect(dead_code, reason = "only its type matters")]
            left: Box<Tree>,
        }
        let table = parse("[left]\nleft = 3\n", 0).expect("good TOML");
        let problems = read::<Tree>(&table).expect_err("no end");
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].message, "expected a table, found 3");
    }
}
