//! `probe`.

use std::path::Path;
use std::sync::Arc;

use gdrd_core::error::{Error, Result};
use gdrd_core::registry::Registry;
use gdrd_core::run::probe::{ProbeOptions, Target, Variation, probe as run, table, write};

use super::hub::Locked;
use super::{load, place};
use crate::args::ProbeArguments;
use crate::progress::Progress;

/// What the student of `--student` is called.
const STUDENT: &str = "student-file";

pub(crate) fn probe(wanted: &ProbeArguments, registry: &Arc<Registry>) -> Result<()> {
    let mut teachers = wanted.teachers.clone();
    let mut sets = wanted.recipe.sets.clone();
    if let Some(file) = &wanted.student {
        let path = std::path::absolute(file).map_err(|e| Error::io(file, e))?;
        sets.push(format!("teacher.{STUDENT}.kind=\"student\""));
        sets.push(format!("teacher.{STUDENT}.weights={}", toml_text(&path)?));
        teachers.push(STUDENT.to_string());
    }
    let mut variations = Vec::new();
    for values in combinations(&wanted.vary, &wanted.teachers)? {
        let mut sets = sets.clone();
        sets.extend(values.iter().map(|(key, value)| format!("{key}={value}")));
        let experiment = load(&wanted.recipe.recipe, &sets, registry)?;
        variations.push(Variation { values, experiment });
    }
    let options = ProbeOptions {
        teachers,
        views: wanted.views.clone(),
        maps: wanted.maps.clone(),
        target: match wanted.identity {
            true => Some(Target::Identity),
            false => wanted.target.clone().map(Target::Teacher),
        },
        data: wanted.data.clone(),
        faces: wanted.faces as usize,
        values: wanted.values as usize,
        ridge: wanted.ridge,
        protocol: wanted.protocol.clone(),
    };
    let name = variations.first().map(|first| first.experiment.plain_name()).unwrap_or_default();
    let folder = wanted.out.clone().unwrap_or_else(|| Path::new("runs").join(format!("probe-{name}")));
    let place = place(&folder, &wanted.place, Locked::new(), registry)?;
    let progress = Progress::new();
    let found = run(&variations, &options, &place, &progress);
    drop(progress);
    let found = found?;
    let files = write(&found, &folder)?;
    if wanted.json {
        let text = serde_json::to_string_pretty(&found).map_err(|e| Error::data(e.to_string()))?;
        say!("{text}");
        return Ok(());
    }
    say!("to the {}, {} faces, {}:\n{}", found.target, found.faces, found.protocol, table(&found)?.to_markdown());
    for file in &files {
        say!("{}", file.display());
    }
    Ok(())
}

/// Every combination of the values of `--vary`; one without any if there is none.
fn combinations(vary: &[String], teachers: &[String]) -> Result<Vec<Vec<(String, String)>>> {
    let mut all = vec![Vec::new()];
    for text in vary {
        let wrong = |what: &str| Err(Error::recipe(format!("`--vary {text}`: {what}")));
        let Some((key, values)) = text.split_once('=') else { return wrong("expected KEY=VALUE,VALUE") };
        let values: Vec<&str> = values.split(',').map(str::trim).collect();
        if key.is_empty() || values.iter().any(|value| value.is_empty()) {
            return wrong("expected a key and values with commas between them");
        }
        let key = match (key.contains('.'), teachers) {
            (true, _) => key.to_string(),
            (false, [teacher]) => format!("teacher.{teacher}.{key}"),
            (false, _) => return wrong("a key without a dot needs one `--teacher`, whose option it is"),
        };
        let with = |before: &Vec<(String, String)>| {
            let before = before.clone();
            let key = key.clone();
            values
                .iter()
                .map(move |value| [&before[..], &[(key.clone(), value.to_string())]].concat())
                .collect::<Vec<_>>()
        };
        all = all.iter().flat_map(with).collect();
    }
    Ok(all)
}

/// A path as a TOML string.
fn toml_text(path: &Path) -> Result<String> {
    let text = path.to_str().ok_or_else(|| Error::recipe(format!("`{}` is no text", path.display())))?;
    serde_json::to_string(text).map_err(|e| Error::data(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_combinations_are_made() {
        let texts = |vary: &[&str], teachers: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|text| text.to_string()).collect::<Vec<_>>();
            combinations(&owned(vary), &owned(teachers)).map(|all| {
                let text = |one: Vec<(String, String)>| {
                    one.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
                };
                all.into_iter().map(text).collect::<Vec<_>>()
            })
        };
        assert_eq!(texts(&[], &[]).expect("one"), [""]);
        let found = texts(&["timestep=0,10", "degradation.size=8,16"], &["g"]).expect("four");
        assert_eq!(found[1], "teacher.g.timestep=0 degradation.size=16");
        assert_eq!(found.len(), 4);
        for (vary, teachers, expected) in [
            ("timestep=1", &[][..], "needs one `--teacher`"),
            ("timestep", &["g"][..], "expected KEY=VALUE"),
            ("timestep=1,,2", &["g"][..], "values with commas"),
        ] {
            let text = texts(&[vary], teachers).expect_err("wrong").to_string();
            assert!(text.contains(expected), "{text}");
        }
    }
}
