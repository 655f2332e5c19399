//! One recipe from many texts: parents first, then the file, then `--set`.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Failure};
use super::licences::without_outdated;
use super::node::{Node, Table, Value, parse};
use super::path::expand;
use super::set::{join, parse_set};
use super::source::{Sources, Span};
use crate::error::io_reason;

/// The recipe format that this gdrd reads, the value of the key `format`.
pub const FORMAT: i64 = 1;

/// What a `--set` that names a file begins with.
const FILE: char = '@';

/// Reads the recipe `path` and its parents, and puts the options `sets` (`a.b=value`, or `@file`) on top.
///
/// - `extends = "base.toml"` names the one parent, relative to the file that says so.
/// - Tables merge; everything else replaces. A table whose `kind` differs from that of the table
///   below it replaces the whole table, so that no option of the old kind is left.
/// - A table with a `kind` and `enabled = false` is removed; `enabled = true` changes nothing.
/// - The licence of a part in `licences` goes where a layer above changes the part: it was stated of other faces or weights.
/// - `@file` among the `sets` is a layer over the recipe, with parents of its own if it has some: one text for many recipes.
/// - All other `sets` together are the last layer; of two for the same key the later one stays.
///
/// The result has `format` and no `extends`.
///
/// # Errors
/// A recipe of another format gives that problem alone. Otherwise all problems of syntax, of
/// `extends` and of `sets`.
pub fn load(path: &Path, sets: &[String]) -> Result<(Sources, Table), Failure> {
    load_for(path, sets, None)
}

/// As [`load`], with the student of another text: all of its `[student]` in the place of the recipe's, and what else stands there as a
/// layer above everything.
///
/// # Errors
/// As [`load`].
pub fn load_for(path: &Path, sets: &[String], student: Option<(&Path, String)>) -> Result<(Sources, Table), Failure> {
    let mut loading = Loading::default();
    let layers = match loading.all_layers(path, sets) {
        Ok(layers) => layers,
        Err(wrong_format) => return Err(Failure::new(loading.sources, vec![*wrong_format])),
    };
    let sets = loading.sets(sets);
    let mut recipe: Option<Table> = None;
    for layer in layers {
        recipe = Some(match recipe {
            Some(below) => merge(without_outdated(below, &layer), layer, Header::Above),
            None => layer,
        });
    }
    if let (Some(recipe), true) = (recipe, loading.problems.is_empty()) {
        let mut recipe = match sets {
            Some(sets) => merge(without_outdated(recipe, &sets), sets, Header::Below),
            None => recipe,
        };
        if let Some((path, text)) = student {
            let start = loading.sources.add_file(path, text.clone());
            match parse(&text, start) {
                Ok(above) => {
                    recipe.take("student");
                    recipe = merge(recipe, above, Header::Above);
                }
                Err(problems) => loading.problems.extend(problems),
            }
        }
        remove_disabled(&mut recipe, &mut loading.problems);
        if loading.problems.is_empty() {
            return Ok((loading.sources, recipe));
        }
    }
    Err(Failure::new(loading.sources, loading.problems))
}

#[derive(Default)]
struct Loading {
    sources: Sources,
    problems: Vec<Diagnostic>,
}

impl Loading {
    /// The layers of the recipe `path` and of the files among `sets`, the lowest first; `Err` only for a format that is not ours.
    fn all_layers(&mut self, path: &Path, sets: &[String]) -> Result<Vec<Table>, Box<Diagnostic>> {
        let mut layers = self.layers(path, None)?;
        for text in sets {
            if let Some(file) = text.strip_prefix(FILE) {
                let start = self.sources.add_set(text.clone());
                layers.extend(self.layers(Path::new(file), Some(Span::new(start, start + text.len())))?);
            }
        }
        Ok(layers)
    }

    /// The tables of `path`, below it of its parent, and so on, without `extends`; `asked_at` is the option that names it.
    fn layers(&mut self, path: &Path, asked_at: Option<Span>) -> Result<Vec<Table>, Box<Diagnostic>> {
        let mut layers = Vec::new();
        let mut chain: Vec<(PathBuf, PathBuf)> = Vec::new();
        let mut next = Some((path.to_path_buf(), asked_at));
        while let Some((path, asked_at)) = next.take() {
            let (identity, text) = match identify_and_read(&path) {
                Ok(read) => read,
                Err(error) => {
                    let what = if chain.is_empty() { "recipe" } else { "parent recipe" };
                    let message = format!("cannot read the {what} `{}`: {}", path.display(), io_reason(&error));
                    self.problems.push(Diagnostic { message, span: asked_at, hint: None });
                    break;
                }
            };
            if let Some(first) = chain.iter().position(|(seen, _)| *seen == identity) {
                let circle: Vec<String> = chain[first..].iter().map(|(_, shown)| shown.display().to_string()).collect();
                let message =
                    format!("`extends` runs in a circle: {} -> {}", circle.join(" -> "), chain[first].1.display());
                self.problems.push(Diagnostic { message, span: asked_at, hint: None });
                break;
            }
            let start = self.sources.add_file(&path, text.clone());
            let mut table = match parse(&text, start) {
                Ok(table) => table,
                Err(problems) => {
                    self.problems.extend(problems);
                    break;
                }
            };
            check_format(&table, asked_at.is_none())?;
            next = table.take("extends").and_then(|extends| self.parent(&path, &extends));
            layers.push(table);
            chain.push((identity, path));
        }
        layers.reverse();
        Ok(layers)
    }

    /// The parent that `extends`, a value in the file `path`, names.
    fn parent(&mut self, path: &Path, extends: &Node) -> Option<(PathBuf, Option<Span>)> {
        let parent = match extends.as_str() {
            Some(text) => expand(text, |name| std::env::var(name).ok()),
            None => Err(format!("expected the path of one parent recipe, found {}", extends.describe())),
        };
        match parent {
            Ok(parent) => Some((path.parent().unwrap_or(Path::new("")).join(parent), Some(extends.span))),
            Err(message) => {
                self.problems.push(Diagnostic::new(message, extends.span));
                None
            }
        }
    }

    /// All options as one table; none if there are none.
    fn sets(&mut self, sets: &[String]) -> Option<Table> {
        let mut all: Option<Table> = None;
        for text in sets.iter().filter(|text| !text.starts_with(FILE)) {
            let start = self.sources.add_set(text.clone());
            match (parse_set(text, start), &mut all) {
                (Ok(set), Some(all)) => join(all, set),
                (Ok(set), None) => all = Some(set),
                (Err(problems), _) => self.problems.extend(problems),
            }
        }
        all
    }
}

/// The most bytes that a recipe may have.
const LONGEST: u64 = 1 << 20;

fn identify_and_read(path: &Path) -> std::io::Result<(PathBuf, String)> {
    let mut text = String::new();
    // A device or a pipe may have no end.
    if fs::File::open(path)?.take(LONGEST + 1).read_to_string(&mut text)? as u64 > LONGEST {
        return Err(std::io::Error::other(format!("expected at most {LONGEST} bytes, found more")));
    }
    Ok((fs::canonicalize(path)?, text))
}

/// Whether `table`, a whole file, has our format. A parent may leave it out.
fn check_format(table: &Table, required: bool) -> Result<(), Box<Diagnostic>> {
    let problem = match table.get("format") {
        None if !required => return Ok(()),
        None => {
            Diagnostic::new(format!("the recipe does not say its format, expected `format = {FORMAT}`"), table.span)
        }
        Some(Node { value: Value::Integer(FORMAT), .. }) => return Ok(()),
        Some(Node { value: Value::Integer(found), span }) => {
            let hint = if *found > FORMAT { "a newer gdrd reads it" } else { "an older gdrd reads it" };
            let message = format!("this recipe has format {found}, this gdrd reads format {FORMAT}");
            Diagnostic::new(message, *span).with_hint(hint)
        }
        Some(other) => Diagnostic::new(format!("expected `format = {FORMAT}`, found {}", other.describe()), other.span),
    };
    Err(Box::new(problem))
}

/// Whose header a merged table keeps: a table that `--set` reaches into is still the file's.
#[derive(Clone, Copy)]
enum Header {
    Below,
    Above,
}

fn merge(below: Table, above: Table, header: Header) -> Table {
    let mut merged = below;
    if matches!(header, Header::Above) {
        merged.span = above.span;
    }
    for (key, mut entry) in above.into_entries() {
        if let (Some(old), Value::Table(new)) = (merged.take_entry(&key), &entry.node.value)
            && let Value::Table(old_table) = old.node.value
            && same_kind(&old_table, new)
        {
            let new = entry.node.into_table().expect("matched as a table above");
            entry.node = Node::from(merge(old_table, new, header));
            if matches!(header, Header::Below) {
                entry.key_span = old.key_span;
            }
        }
        merged.insert(key, entry);
    }
    merged
}

/// Whether `new` may merge into `old`: it names no kind, or the same.
fn same_kind(old: &Table, new: &Table) -> bool {
    match (old.get("kind"), new.get("kind")) {
        (Some(old), Some(new)) => old.value == new.value,
        _ => true,
    }
}

/// Takes `enabled` out of all tables that have a kind, and removes those where it is false.
fn remove_disabled(table: &mut Table, problems: &mut Vec<Diagnostic>) {
    let mut disabled = Vec::new();
    for (key, entry) in table.iter_mut() {
        let Value::Table(inner) = &mut entry.node.value else { continue };
        let switch = if inner.get("kind").is_some() { inner.take("enabled") } else { None };
        match switch {
            Some(Node { value: Value::Boolean(false), .. }) => {
                disabled.push(key.to_string());
                continue;
            }
            None | Some(Node { value: Value::Boolean(true), .. }) => {}
            Some(other) => {
                let message = format!("expected true or false, found {}", other.describe());
                problems.push(Diagnostic::new(message, other.span));
            }
        }
        remove_disabled(inner, problems);
    }
    for key in disabled {
        table.take(&key);
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// Loads `a.toml` from a folder with these files; problems with the folder's name taken out.
    fn load_files(files: &[(&str, &str)], sets: &[&str]) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        let shown = format!("{}/", folder.path().display());
        match load(&folder.path().join("a.toml"), &sets) {
            Ok((_, table)) => Ok(flat(&table, "")),
            Err(failure) => Err(failure.to_string().replace(&shown, "")),
        }
    }

    fn flat(table: &Table, prefix: &str) -> String {
        let mut text = String::new();
        for (key, entry) in table.iter() {
            match entry.node.as_table() {
                Some(table) => text.push_str(&flat(table, &format!("{prefix}{key}."))),
                None => write!(text, "{prefix}{key}={} ", entry.node.describe()).expect("a string"),
            }
        }
        text
    }

    #[test]
    fn tables_merge_and_the_rest_replaces() {
        let base = ("b/base.toml", "extends = \"root.toml\"\nlist = [1, 2]\n[t]\nx = 1\ny = 1\n");
        let root = ("b/root.toml", "format = 1\nseed = 3\n[t]\ny = 0\nz = 0\n");
        let file = ("a.toml", "format = 1\nextends = \"b/base.toml\"\nlist = []\n[t]\nx = 2\n");
        let merged = load_files(&[base, root, file], &["t.z=5", "new.key=word"]);
        assert_eq!(merged.as_deref(), Ok("format=1 list=an array new.key=\"word\" seed=3 t.x=2 t.y=1 t.z=5 "));
    }

    #[test]
    fn a_file_of_options_lies_over_the_recipe_and_under_the_other_options() {
        let folder = tempfile::tempdir().expect("a folder");
        let written = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("a file");
            path
        };
        let recipe = written("a.toml", "format = 1\n[data.d]\nkind = \"drawn\"\ncount = 3\n[t]\nx = 1\ny = 1\nz = 1\n");
        written("folders.toml", "[data.d]\nkind = \"folders\"\n");
        let mine = written("mine.toml", "extends = \"folders.toml\"\n[t]\ny = 2\nz = 2\n");
        let sets = ["t.z=3".into(), format!("@{}", mine.display())];
        let merged = load(&recipe, &sets).map(|(_, table)| flat(&table, "")).expect("a recipe");
        assert_eq!(merged, "data.d.kind=\"folders\" format=1 t.x=1 t.y=2 t.z=3 ");
        let problem = load(&recipe, &["@none.toml".into()]).expect_err("no such file").to_string();
        let expected = "error: cannot read the recipe `none.toml`: no such file or folder\n --> --set:1:1\n  | @none.toml\n  | ^^^^^^^^^^";
        assert_eq!(problem, expected);
    }

    #[test]
    fn another_kind_replaces_the_whole_table() {
        let base = ("base.toml", "[s]\nkind = \"one\"\nx = 1\n[l]\nkind = \"two\"\ny = 1\n");
        let file =
            ("a.toml", "format = 1\nextends = \"base.toml\"\n[s]\nkind = \"other\"\n[l]\nkind = \"two\"\nz = 2\n");
        let merged = load_files(&[base, file], &[]);
        assert_eq!(merged.as_deref(), Ok("format=1 l.kind=\"two\" l.y=1 l.z=2 s.kind=\"other\" "));
        // All options are one layer: their order does not matter.
        let merged = load_files(&[base, file], &["l.w=3", "l.kind=three"]);
        assert_eq!(merged.as_deref(), Ok("format=1 l.kind=\"three\" l.w=3 s.kind=\"other\" "));
    }

    #[test]
    fn a_disabled_table_is_removed() {
        let text =
            "format = 1\n[loss.a]\nkind = \"x\"\n[loss.b]\nkind = \"x\"\nenabled = true\n[view]\nenabled = false\n";
        let merged = load_files(&[("a.toml", text)], &["loss.a.enabled=false"]);
        assert_eq!(merged.as_deref(), Ok("format=1 loss.b.kind=\"x\" view.enabled=false "));
        let problem = load_files(&[("a.toml", text)], &["loss.a.enabled=no"]).expect_err("no flag");
        assert_eq!(
            problem,
            "error: expected true or false, found \"no\"\n --> --set:1:16\n  | loss.a.enabled=no\n  |                ^^"
        );
    }

    #[test]
    fn another_format_is_one_sentence() {
        let problem = load_files(&[("a.toml", "format = 2\nextends = \"none.toml\"\n")], &["x"]).expect_err("format 2");
        let expected = "error: this recipe has format 2, this gdrd reads format 1\n --> a.toml:1:10\n  | format = 2\n  \
            |          ^\n  = a newer gdrd reads it";
        assert_eq!(problem, expected);
        let problem = load_files(&[("a.toml", "seed = 2\n")], &[]).expect_err("no format");
        let expected =
            "error: the recipe does not say its format, expected `format = 1`\n --> a.toml:1:1\n  | seed = 2\n  | ^";
        assert_eq!(problem, expected);
        let base = ("base.toml", "format = 0");
        let problem =
            load_files(&[base, ("a.toml", "format = 1\nextends = \"base.toml\"")], &[]).expect_err("format 0");
        assert!(
            problem.contains("this recipe has format 0, this gdrd reads format 1\n --> base.toml:1:10"),
            "{problem}"
        );
    }

    #[test]
    fn a_circle_prints_its_chain() {
        let a = ("a.toml", "format = 1\nextends = \"sub/b.toml\"");
        let b = ("sub/b.toml", "extends = \"../a.toml\"");
        let problem = load_files(&[a, b], &[]).expect_err("a circle");
        let expected = "error: `extends` runs in a circle: a.toml -> sub/b.toml -> a.toml\n --> sub/b.toml:1:11\n  \
            | extends = \"../a.toml\"\n  |           ^^^^^^^^^^^";
        assert_eq!(problem, expected);
    }

    #[test]
    fn a_missing_file_is_named() {
        let problem =
            load_files(&[("a.toml", "format = 1\nextends = \"b.toml\"")], &["t.x=[1"]).expect_err("no parent");
        assert!(
            problem.starts_with(
                "error: cannot read the parent recipe `b.toml`: no such file or folder\n --> a.toml:2:11\n  \
                 | extends = \"b.toml\"\n  |           ^^^^^^^^\nerror: "
            ),
            "{problem}"
        );
        assert!(problem.contains(" --> --set:1:"), "{problem}");
        let problem = load_files(&[], &[]).expect_err("no file");
        assert_eq!(problem, "error: cannot read the recipe `a.toml`: no such file or folder");
        let problem = load_files(&[("a.toml", "format = 1\nextends = [\"b\"]")], &[]).expect_err("two parents");
        assert!(problem.starts_with("error: expected the path of one parent recipe, found an array\n"), "{problem}");
    }

    #[test]
    fn mistakes_of_syntax_come_together() {
        let problem = load_files(&[("a.toml", "format = 1\nx = \n[t\n")], &["y"]).expect_err("bad TOML");
        for place in ["a.toml:2:", "a.toml:3:", "--set:1:1"] {
            assert!(problem.contains(&format!(" --> {place}")), "{place}: {problem}");
        }
    }
}
