//! A run folder as data for pages: read from its files alone, so that a folder from another machine has a page too.

use std::path::{Path, PathBuf};

use super::claim::claim;
use super::folder::{INSIGHT, RunFolder};
use super::lock::{Lock, LockedData};
use super::mark::State;
use super::provenance::of_lock;
use crate::error::{Error, Result};
use crate::files;
use crate::report::{Insight, ProtocolView, RunView, count};

impl RunFolder {
    /// What pages show of a run that has measured.
    ///
    /// # Errors
    /// If a file of it is missing, cannot be read, or its results were altered.
    pub fn view(&self) -> Result<RunView> {
        let path = self.recipe();
        let recipe = files::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let table: toml::Table = recipe.parse().map_err(|e| Error::data(format!("`{}`: {e}", path.display())))?;
        let lock = Lock::read_file(&self.lock_file())?;
        let size = |section: &str| table.get(section)?.get("size")?.as_integer();
        let protocols = table.get("evaluate").and_then(toml::Value::as_table).into_iter().flatten();
        let protocol = |(name, options): (&String, &toml::Value)| {
            let kind = options.get("kind").and_then(toml::Value::as_str).unwrap_or_default().to_string();
            let strings = options.as_table().into_iter().flatten().filter_map(|(_, value)| value.as_str());
            let mut data: Vec<String> = strings.flat_map(|name| data_kinds(&table, name)).collect();
            data.dedup();
            let content = lock.protocols.get(name).cloned().unwrap_or_default();
            let facts = facts(&table, &lock, options);
            (name.clone(), ProtocolView { kind, data, content, facts })
        };
        let samples = self.path().join("samples.png");
        Ok(RunView {
            name: table.get("name").and_then(toml::Value::as_str).unwrap_or_default().to_string(),
            seed: table
                .get("run")
                .and_then(|run| run.get("seed"))
                .and_then(toml::Value::as_integer)
                .unwrap_or_default(),
            size: size("degradation"),
            protocols: protocols.map(protocol).collect(),
            measured: self.results()?,
            curves: self.curves()?,
            solved: self.solved()?,
            insight: self.insight()?,
            samples: if samples.exists() {
                Some(files::read(&samples).map_err(|e| Error::io(&samples, e))?)
            } else {
                None
            },
            provenance: of_lock(&lock),
            recipe,
        })
    }

    /// What the run saw of faces; none if it wrote none.
    pub(super) fn insight(&self) -> Result<Option<Insight>> {
        let path = self.path().join(INSIGHT);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = files::read(&path).map_err(|e| Error::io(&path, e))?;
        let read = serde_json::from_slice(&bytes);
        read.map(Some).map_err(|e| Error::data(format!("`{}`: {e}", path.display())))
    }
}

/// What a run's files know of a protocol beside its figures: its datasets, how its gallery is shown, what its probes are, what
/// learns its people, and what the student was trained on.
fn facts(recipe: &toml::Table, lock: &Lock, options: &toml::Value) -> Vec<String> {
    let sized = |name: &str| {
        let LockedData { faces, identities, .. } = lock.data.get(name)?;
        let whom = if *identities == 0 { "nobody known".into() } else { format!("{} people", count(*identities)) };
        Some(format!("`{name}`, {} faces of {whom}", count(*faces)))
    };
    let strings = options.as_table().into_iter().flatten().filter_map(|(_, value)| value.as_str());
    let mut found: Vec<String> = Vec::new();
    for one in strings.filter_map(sized) {
        if !found.contains(&one) {
            found.push(one);
        }
    }
    match (options.get("gallery_size"), options.get("gallery")) {
        (Some(toml::Value::Integer(size)), _) => found.push(format!("the gallery's faces shown at {size}x{size}")),
        (Some(_), _) => found.push("the gallery's faces shown as the dataset has them".into()),
        (None, Some(_)) => found.push("the gallery's faces shown as the probes are".into()),
        (None, None) => {}
    }
    let template = options.get("template").and_then(toml::Value::as_str);
    found.extend(template.map(|template| format!("each probe is a template, the faces with one `{template}`")));
    let media = options.get("media").and_then(toml::Value::as_str);
    found.extend(media.map(|media| format!("the faces with one `{media}` are averaged first")));
    let classifier = options.get("classifier").and_then(toml::Value::as_str);
    found.extend(classifier.map(|classifier| format!("classifier `{classifier}`")));
    found.push(trained(recipe, sized));
    found
}

/// What the student of a recipe was trained on.
fn trained(recipe: &toml::Table, sized: impl Fn(&str) -> Option<String>) -> String {
    let stages = recipe.get("stage").and_then(toml::Value::as_table).into_iter().flatten();
    let mut names: Vec<&str> = stages.filter_map(|(_, stage)| stage.get("data")?.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return "the student was not trained in this run".into();
    }
    let on: Vec<String> = names.into_iter().map(|name| sized(name).unwrap_or_else(|| format!("`{name}`"))).collect();
    let initial = recipe.get("student").and_then(|student| student.get("initial"));
    let from = if initial.is_some() { ", from another student's weights" } else { "" };
    format!("the student trained on {}{from}", on.join(" and "))
}

/// The kind of a dataset of a recipe; of one that shows others' faces, theirs.
fn data_kinds(recipe: &toml::Table, name: &str) -> Vec<String> {
    let (mut kinds, mut names, mut at) = (Vec::new(), vec![name], 0);
    while let Some(table) = names.get(at).map(|name| recipe.get("data").and_then(|data| data.get(name))) {
        at += 1;
        let Some(table) = table else { continue };
        let parts = table.get("parts").and_then(toml::Value::as_array).into_iter().flatten();
        let inner: Vec<&str> = table.get("data").into_iter().chain(parts).filter_map(toml::Value::as_str).collect();
        if inner.is_empty() {
            kinds.extend(table.get("kind").and_then(toml::Value::as_str).map(String::from));
        }
        for name in inner {
            // Datasets are no circle, but a file may say anything.
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    kinds
}

/// The finished runs that paths name: run folders, and the cells of ablations, in the order of their names.
///
/// # Errors
/// If a path is neither, or a run is not finished.
pub fn runs_of(paths: &[PathBuf]) -> Result<Vec<RunFolder>> {
    let mut runs = Vec::new();
    for path in paths {
        if !path.join("gdrd-ablation.json").is_file() {
            runs.push(finished(path)?);
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|e| Error::io(path, e))?;
        let mut cells: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        cells.retain(|cell| cell.is_dir() && RunFolder::new(cell).is_finished());
        cells.sort();
        if cells.is_empty() {
            return Err(Error::recipe(format!("`{}`: an ablation without a finished cell", path.display())));
        }
        runs.extend(cells.into_iter().map(RunFolder::new));
    }
    Ok(runs)
}

/// Refuses to write a report's files over others, such as those of a run.
///
/// # Errors
/// If one of `names` is in `folder` and no report has written it.
pub fn claim_report(folder: &Path, names: &[&str]) -> Result<()> {
    claim(folder, "report", "--out", &names.iter().map(|name| name.to_string()).collect::<Vec<_>>())
}

/// Refuses to write a model repository's files over others.
///
/// # Errors
/// If one of `names` is in `folder` and no `hub push` has written it.
pub fn claim_repository(folder: &Path, names: &[&str]) -> Result<()> {
    claim(folder, "repository", "--out", &names.iter().map(|name| name.to_string()).collect::<Vec<_>>())
}

fn finished(path: &Path) -> Result<RunFolder> {
    let folder = RunFolder::new(path);
    match folder.state()? {
        State::Finished => Ok(folder),
        // Where only the student file was taken away, all that pages need is there.
        State::Begun if folder.was_finished()? => Ok(folder),
        State::Begun => {
            Err(Error::recipe(format!("`{0}` is not finished; `gdrd resume {0}` goes on with it", path.display())))
        }
        State::Empty => Err(Error::recipe(format!("`{}` is no run folder of gdrd", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_what_the_files_know() {
        let lock = r#"{"gdrd": "1", "candle": "1", "program": "p", "recipe": "r", "teachers": {}, "machine": {}, "protocols": {},
            "data": {"g": {"fingerprint": "f", "faces": 1300, "identities": 300}, "d": {"fingerprint": "f", "faces": 5, "identities": 0},
            "t": {"fingerprint": "f", "faces": 9, "identities": 3}}}"#;
        let lock: Lock = serde_json::from_str(lock).expect("a lock");
        let of = |recipe: &str| {
            let recipe: toml::Table = recipe.parse().expect("a recipe");
            facts(&recipe, &lock, &recipe["evaluate"]["e"])
        };
        let found = of("[evaluate.e]\nkind = 'retrieval'\ngallery = 'g'\ndistractors = 'd'\nprobes = 'g'");
        let expected = ["`d`, 5 faces of nobody known", "`g`, 1,300 faces of 300 people"];
        assert_eq!(found[..2], expected);
        assert_eq!(
            found[2..],
            ["the gallery's faces shown as the probes are", "the student was not trained in this run"]
        );
        let found = of(
            "[student]\ninitial = 's'\n[stage.s]\ndata = 't'\n[evaluate.e]\ngallery_size = 'native'\nclassifier = 'softmax'",
        );
        let expected = ["the gallery's faces shown as the dataset has them", "classifier `softmax`"];
        assert_eq!(found[..2], expected);
        assert_eq!(found[2..], ["the student trained on `t`, 9 faces of 3 people, from another student's weights"]);
        assert_eq!(of("[evaluate.e]\ngallery_size = 32")[0], "the gallery's faces shown at 32x32");
        let found = of("[evaluate.e]\ntemplate = 'a'\nmedia = 'b'");
        assert_eq!(
            found[..2],
            ["each probe is a template, the faces with one `a`", "the faces with one `b` are averaged first"]
        );
    }

    #[test]
    fn kinds_are_those_of_the_faces_behind_all_wrappers() {
        let recipe = "[data.a]\nkind = \"synthetic-faces\"\n[data.b]\nkind = \"packed\"\n[data.c]\nkind = \"joined\"\n\
                      parts = [\"a\", \"b\"]\n[data.d]\nkind = \"subset\"\ndata = \"c\"\n[data.e]\nkind = \"subset\"\ndata = \"e\"";
        let recipe: toml::Table = recipe.parse().expect("a recipe");
        assert_eq!(data_kinds(&recipe, "d"), ["synthetic-faces", "packed"]);
        assert!(data_kinds(&recipe, "e").is_empty() && data_kinds(&recipe, "nothing").is_empty());
    }
}
