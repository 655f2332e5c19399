//! The licences of everything that gdrd is built with: `docs/licences.md`, and whether they are ones that we may use.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;

use gdrd_tests::root;

/// Licences that let a program of any licence be built with the code. A package is fine if one of its choices, all parts of
/// which must hold, has only these.
const FINE: [&str; 16] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "NCSA",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Packages that state no licence in words, and what they are under.
const UNSTATED: [(&str, &str); 0] = [];

const PAGE: &str = "docs/licences.md";

/// Whether an expression of licences leaves a choice of fine ones.
fn is_fine(expression: &str) -> bool {
    let plain = expression.replace('/', " OR ");
    let plain = plain.trim();
    // The outermost brackets, if they hold everything.
    let split = |word: &str| {
        let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
        for (at, c) in plain.char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ if depth == 0 && at >= from && plain[at..].starts_with(word) => {
                    parts.push(&plain[from..at]);
                    from = at + word.len();
                }
                _ => {}
            }
        }
        parts.push(&plain[from..]);
        parts
    };
    let (any, all) = (split(" OR "), split(" AND "));
    if any.len() > 1 {
        return any.into_iter().any(is_fine);
    }
    if all.len() > 1 {
        return all.into_iter().all(is_fine);
    }
    match plain.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => is_fine(inner),
        None => FINE.contains(&plain),
    }
}

/// The packages of `Cargo.lock` that come from elsewhere, as `name version`.
fn locked() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    let value = |entry: &str, key: &str| {
        let line = entry.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")))?;
        Some(line.trim_end_matches('"').to_string())
    };
    let entries = text.split("[[package]]").skip(1).filter(|entry| value(entry, "source").is_some());
    let mut all: Vec<String> =
        entries.filter_map(|entry| Some(format!("{} {}", value(entry, "name")?, value(entry, "version")?))).collect();
    all.sort();
    all
}

/// Licence and address of each package, as its own manifest says, by `name version`. Needs the manifests of all platforms, which
/// cargo fetches if they are not there.
fn stated() -> BTreeMap<String, (String, String)> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let output = command.current_dir(root()).args(["metadata", "--format-version", "1", "--locked", "--all-features"]);
    let output = output.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |package: &serde_json::Value, key: &str| package[key].as_str().unwrap_or_default().to_string();
    let packages = all["packages"].as_array().expect("packages").iter().filter(|package| package["source"].is_string());
    let entry = |package: &serde_json::Value| {
        let (name, licence) = (text(package, "name"), text(package, "license"));
        let licence = match UNSTATED.iter().find(|(unstated, _)| *unstated == name) {
            Some((_, known)) if licence.is_empty() => known.to_string(),
            _ => licence,
        };
        (format!("{name} {}", text(package, "version")), (licence, text(package, "repository")))
    };
    packages.map(entry).collect()
}

#[test]
fn every_dependency_has_a_licence_that_we_may_use() {
    let (path, locked) = (root().join(PAGE), locked());
    if std::env::var_os("GDRD_UPDATE").is_some() {
        let stated = stated();
        let mut page = String::from(
            "# Licences of what gdrd is built with\n\nEvery package of `Cargo.lock`, for all features and platforms: a program has a \
             part of them. Written by\n`GDRD_UPDATE=1 cargo test -p gdrd-tests --test it licence`.\n\n| package | licence | \
             source |\n|---|---|---|\n",
        );
        for name in &locked {
            let (licence, repository) = stated.get(name).cloned().unwrap_or_default();
            writeln!(page, "| {name} | {licence} | {repository} |").expect("text grows");
        }
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, page).expect("written");
    }
    let page = std::fs::read_to_string(&path).expect(PAGE);
    let mut listed: BTreeMap<String, String> = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| package")) {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        listed.insert(cells.next().unwrap_or_default().into(), cells.next().unwrap_or_default().into());
    }
    let names: Vec<String> = listed.keys().cloned().collect();
    assert_eq!(names, locked, "{PAGE} is not that of Cargo.lock; its first lines say how to write it again");
    let bad: Vec<_> = listed.iter().filter(|(_, licence)| !is_fine(licence)).collect();
    assert!(bad.is_empty(), "licences that are not among those that we may use: {bad:#?}");
}

#[test]
fn expressions_of_licences_are_understood() {
    for fine in ["MIT", "MIT OR GPL-3.0", "MIT/Apache-2.0", "(MIT OR GPL-2.0) AND Unicode-3.0", "Apache-2.0 AND ISC"] {
        assert!(is_fine(fine), "{fine}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR GPL-2.0) AND GPL-3.0"] {
        assert!(!is_fine(bad), "{bad}");
    }
}
