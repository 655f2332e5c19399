//! Rules of the house that no compiler checks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use gdrd_core::plugin::bounds::bounds;
use gdrd_tests::{files_below, registry, root};
use serde_json::Value as Json;

/// The longest a Rust file may be.
const LINES: usize = 400;

/// Longer files, each with its reason.
const LONG: [(&str, &str); 0] = [];

/// The modules of gdrd-core: what carries the flow, then the words of the flow, then the run. Each may use those before it.
const ORDER: [&str; 26] = [
    "error",
    "digest",
    "files",
    "pickle",
    "face",
    "nn",
    "context",
    "seed",
    "observe",
    "near",
    "hub",
    "embedder",
    "degrade",
    "recipe",
    "plugin",
    "data",
    "teacher",
    "loss",
    "closed_form",
    "trainer",
    "student",
    "evaluation",
    "registry",
    "experiment",
    "report",
    "run",
];

/// Uses of a later module, as (file or folder, module, reason). One that nobody needs any longer is an error too.
const REVERSED: [(&str, &str, &str); 2] = [
    ("trainer/", "student", "the trainer drives the Student contract"),
    ("loss/", "student", "a loss is computed on a Student, through its contract"),
];

/// The files that git knows, or, in a tree without git, all that are not made by a build or a run.
fn tracked() -> Vec<PathBuf> {
    let root = root();
    let listed = Command::new("git").current_dir(&root).args(["ls-files", "-z"]).output();
    if let Some(listed) = listed.ok().filter(|output| output.status.success() && !output.stdout.is_empty()) {
        let names = String::from_utf8(listed.stdout).expect("names");
        let paths = names.split('\0').filter(|name| !name.is_empty()).map(|name| root.join(name));
        // A file that is deleted and not yet committed is no matter of this test.
        return paths.filter(|path| path.is_file()).collect();
    }
    let made = ["target", ".git", "runs"].map(|folder| root.join(folder));
    files_below(&root, "").into_iter().filter(|path| !made.iter().any(|folder| path.starts_with(folder))).collect()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).expect("a file")).into_owned()
}

fn rust_files() -> Vec<PathBuf> {
    tracked().into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs")).collect()
}

/// The lines of a source file that are neither comments nor its unit tests.
fn code(source: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = source.lines().enumerate().take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
    lines.map(|(at, line)| (at + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn files_are_short() {
    let mut wrong = Vec::new();
    for path in rust_files() {
        let (name, lines) = (shown(&path), text(&path).lines().count());
        match LONG.iter().any(|(long, _)| *long == name) {
            true if lines <= LINES => wrong.push(format!("{name} is short and need not be excepted")),
            false if lines > LINES => wrong.push(format!("{name} has {lines} lines, expected at most {LINES}")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn modules_of_core_follow_the_flow() {
    let source = root().join("gdrd-core/src");
    let place = |module: &str| ORDER.iter().position(|known| *known == module);
    let (mut wrong, mut needed) = (Vec::new(), BTreeSet::new());
    for path in files_below(&source, ".rs") {
        let name = path.strip_prefix(&source).expect("below").to_string_lossy().replace('\\', "/");
        let module = name.split(['/', '.']).next().unwrap_or_default();
        if module == "lib" {
            continue;
        }
        let here = place(module).unwrap_or_else(|| panic!("`{module}` has no place in ORDER"));
        for (line, code) in code(&text(&path)) {
            for used in code.split("crate::").skip(1) {
                let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                // An empty word is `use crate::{...}`, which this test could not read.
                let Some(there) = place(used) else {
                    wrong.push(format!("{name}:{line}: `crate::{used}` has no place in ORDER"));
                    continue;
                };
                let excepted = REVERSED.iter().position(|(file, to, _)| name.starts_with(file) && *to == used);
                match excepted {
                    Some(at) => drop(needed.insert(at)),
                    None if there > here => {
                        wrong.push(format!("{name}:{line}: `{module}` comes before `{used}` and must not use it"));
                    }
                    None => {}
                }
            }
        }
    }
    let idle = (0..REVERSED.len()).filter(|at| !needed.contains(at));
    wrong.extend(idle.map(|at| format!("nobody needs the exception {:?}", REVERSED[at])));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_contract_shows_an_example_that_runs() {
    let mut wrong = Vec::new();
    for path in
        rust_files().into_iter().filter(|path| shown(path).starts_with("gdrd-") && !shown(path).contains("/tests/"))
    {
        let source = text(&path);
        let lines: Vec<&str> = code(&source).map(|(_, line)| line).collect();
        let all: Vec<&str> = source.lines().collect();
        for line in lines.into_iter().filter(|line| line.starts_with("pub trait ")) {
            let at = all.iter().position(|other| *other == line).expect("a line of the file");
            let above = all[..at].iter().rev().take_while(|line| line.starts_with("///") || line.starts_with("#["));
            let above: Vec<&&str> = above.collect();
            if above.iter().filter(|line| line.trim_end() == "/// ```").count() != 2 {
                wrong.push(format!("{}: `{}` has no example that runs", shown(&path), line.trim_end_matches(" {")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn libraries_never_print() {
    let mut wrong = Vec::new();
    for path in rust_files() {
        let name = shown(&path);
        let library = ["gdrd-core/src/", "gdrd-teachers/src/", "gdrd-student/src/", "tests/"];
        // Programs that people start by hand.
        let talks = name.contains("/src/bin/");
        if talks || !library.iter().any(|folder| name.starts_with(folder)) {
            continue;
        }
        for (line, code) in code(&text(&path)) {
            let prints = ["println!", "eprintln!", "print!", "eprint!", "dbg!"];
            let called = |word: &&&str| code.split_whitespace().any(|part| part.starts_with(&format!("{word}(")));
            if let Some(word) = prints.iter().find(called) {
                wrong.push(format!("{name}:{line}: `{word}`; only gdrd-cli talks to people"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// rustdoc compiles an indented block as an example, also in a private module: a formula stands in a fence marked `text`.
#[test]
fn no_formula_is_taken_for_an_example() {
    let comment =
        |line: &str| ["//!", "///"].iter().find_map(|mark| Some(line.trim_start().strip_prefix(mark)?.to_owned()));
    let mut wrong = Vec::new();
    for path in rust_files().iter().filter(|path| shown(path).contains("/src/")) {
        let (mut fenced, mut after_blank) = (false, true);
        for (at, line) in text(path).lines().enumerate() {
            let Some(comment) = comment(line) else {
                (fenced, after_blank) = (false, true);
                continue;
            };
            fenced ^= comment.trim_start().starts_with("```");
            if !fenced && after_blank && comment.starts_with("     ") {
                wrong.push(format!("{}:{}: indented text without a fence", shown(path), at + 1));
            }
            after_blank = comment.trim().is_empty();
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_path_of_a_machine_is_committed() {
    // In pieces, so that this file does not find itself.
    let folders = [["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"]].map(|pieces| pieces.concat());
    let mut wrong = Vec::new();
    for path in tracked() {
        let text = text(&path);
        for folder in &folders {
            for (at, _) in text.match_indices(folder.as_str()) {
                let before = text[..at].chars().next_back();
                if !before.is_some_and(|c| c.is_alphanumeric() || "._-})>".contains(c)) {
                    let line = text[..at].lines().count().max(1);
                    wrong.push(format!("{}:{line}: `{folder}`", shown(&path)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_kind_is_named_where_a_reader_or_a_test_can_find_it() {
    let read = |path: &Path| {
        let name = shown(path);
        let here = name == "tests/it/house.rs" || name.starts_with("assets/schema/");
        !here && ["md", "toml"].iter().any(|e| path.extension().is_some_and(|found| found == *e))
            || name.starts_with("tests/") && name.ends_with(".rs") && !here
    };
    let all: String = tracked().iter().filter(|path| read(path)).map(|path| text(path)).collect();
    // As a value in TOML, as a value in TOML inside a Rust string, and in prose.
    let ways = |kind: &str| [format!("\"{kind}\""), format!("\"{kind}\\\""), format!("`{kind}`")];
    let named = |kind: &str| ways(kind).iter().any(|way| all.contains(way));
    let silent: Vec<String> = registry()
        .kinds()
        .into_iter()
        .filter(|kind| !named(kind.name))
        .map(|kind| format!("{} `{}`", kind.family, kind.name))
        .collect();
    assert!(silent.is_empty(), "no recipe, text or test names {silent:?}");
}

/// Numbers that need no bounds, by their place in the recipe's schema, each with its reason.
const UNBOUNDED: [(&str, &str); 0] = [];

/// Collects the places of numbers without a lower and an upper bound.
fn without_bounds(schema: &Json, place: &str, found: &mut Vec<String>) {
    let is_number = |kind: &Json| kind == "integer" || kind == "number";
    let kinds = schema.get("type");
    if kinds.is_some_and(|kinds| is_number(kinds) || kinds.as_array().is_some_and(|all| all.iter().any(is_number)))
        && bounds(schema).is_none()
    {
        found.push(place.to_string());
    }
    match schema {
        Json::Object(table) => {
            for (key, below) in table.iter().filter(|(key, _)| *key != "default") {
                without_bounds(below, &format!("{place}/{key}"), found);
            }
        }
        Json::Array(items) => {
            for (at, below) in items.iter().enumerate() {
                // A kind by its name, which stays when others come.
                let kind = below.pointer("/properties/kind/const").and_then(Json::as_str);
                let key = kind.map_or_else(|| at.to_string(), str::to_string);
                without_bounds(below, &format!("{place}/{key}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn every_number_of_a_recipe_has_bounds() {
    let mut found = Vec::new();
    without_bounds(&gdrd_core::experiment::schema(&registry()), "", &mut found);
    let excepted = |place: &String| UNBOUNDED.iter().any(|(known, _)| known == place);
    let wrong: Vec<&String> = found.iter().filter(|place| !excepted(place)).collect();
    assert!(
        wrong.is_empty(),
        "numbers without `minimum` or `maximum`; `#[schemars(range(min = .., max = ..))]` at the field sets both, \
         `inner(range(..))` those of a list's numbers: {wrong:#?}"
    );
    let idle: Vec<_> = UNBOUNDED.iter().filter(|(known, _)| !found.iter().any(|place| place == known)).collect();
    assert!(idle.is_empty(), "{idle:?} have bounds and need not be excepted");
}

#[test]
fn nothing_large_is_committed() {
    let large: Vec<String> = tracked()
        .iter()
        .filter(|path| std::fs::metadata(path).is_ok_and(|m| m.len() > 1 << 20))
        .map(|path| shown(path))
        .filter(|name| !name.starts_with("assets/teachers/") && !name.starts_with("assets/students/"))
        .collect();
    assert!(large.is_empty(), "over 1 MB and neither in assets/teachers nor in assets/students: {large:?}");
}

#[test]
fn shipped_teachers_are_small() {
    let teachers = files_below(&root().join("assets/teachers"), ".safetensors");
    let bytes: u64 = teachers.iter().map(|path| std::fs::metadata(path).expect("a file").len()).sum();
    assert!(bytes < 12 << 20, "{bytes} bytes of teachers; a clone should stay quick");
}
