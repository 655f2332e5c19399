//! Why two runs have two numbers: what differs of all that decides them, likely causes first, and where their logs part.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use self::scores::scores;
use super::folder::RunFolder;
use super::lock::Lock;
use crate::error::{Error, Result};
use crate::experiment::Experiment;
use crate::files;
use crate::registry::Registry;

mod scores;

/// What sort of thing differs, the likeliest cause of other numbers first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A protocol: the numbers measure something else.
    Measure,
    /// An option of the recipe.
    Recipe,
    /// What a dataset holds.
    Data,
    /// Weights of a teacher, or another file that was read.
    Weights,
    /// The seed.
    Seed,
    /// The program that ran.
    Program,
    /// The instructions that the processor's kernels use.
    Kernels,
    /// The number of cores, which threads follow.
    Threads,
    /// The device or the operating system.
    Device,
    /// Nothing that decides numbers: a name, a path to the same bytes.
    None,
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Differing {
    /// Its sort.
    pub cause: Cause,
    /// The option, dataset, teacher or file.
    pub what: String,
    /// What it is in the first run; empty where it is a digest or absent.
    pub first: String,
    /// What it is in the second run.
    pub second: String,
}

/// Where two logs part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parting {
    /// The stage of the first run's step.
    pub stage: String,
    /// The step, counted over all stages.
    pub total_step: u64,
    /// The losses there, as far as there are any.
    pub losses: [Option<f64>; 2],
    /// Whether they differ by less than a hundred thousandth: so much does rounding.
    pub is_rounding: bool,
}

/// One headline in both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// The protocol and the embedder.
    pub what: String,
    /// The figure's name.
    pub figure: String,
    /// Its values.
    pub values: [f64; 2],
    /// The unit's sign; empty if it has none.
    pub unit: &'static str,
    /// Second minus first with its 95 % interval, by the paired bootstrap; none where the items are not the same.
    pub difference: Option<[f64; 3]>,
    /// Whether an option of the protocol differs.
    pub other_options: bool,
}

/// What tells two runs apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// What differs, likely causes first.
    pub differing: Vec<Differing>,
    /// Where the logs of steps part; none if they are alike.
    pub parting: Option<Parting>,
    /// Steps in the logs.
    pub steps: [usize; 2],
    /// The headlines that both have.
    pub scores: Vec<Score>,
}

/// What tells two runs apart, by what lies in their folders. `registry` knows the defaults of options that one of them left out, as
/// the recipe of an older program does; where it cannot read both recipes, their text is compared as it stands.
///
/// # Errors
/// If one is no run folder, or a file of it cannot be read.
pub fn difference(first: &RunFolder, second: &RunFolder, registry: &Registry) -> Result<Difference> {
    let recipes = recipes([first, second], registry)?;
    let locks = [Lock::read_file(&first.lock_file())?, Lock::read_file(&second.lock_file())?];
    let mut differing = of_recipes(&recipes, &locks);
    differing.extend(of_locks(&locks, &differing));
    differing.sort();
    let logs = [first.metrics()?, second.metrics()?];
    let measured = [first, second].map(|run| if run.is_finished() { run.results() } else { Ok(BTreeMap::new()) });
    let [first, second] = measured;
    let scores = scores(&[first?, second?], &recipes, &locks)?;
    Ok(Difference { differing, parting: parting(&logs), steps: logs.each_ref().map(Vec::len), scores })
}

/// Options by their keys, as TOML.
type Options = BTreeMap<String, String>;

/// Both recipes with the defaults of today, or both as they are written.
fn recipes(folders: [&RunFolder; 2], registry: &Registry) -> Result<[Options; 2]> {
    let loaded = folders.map(|folder| Experiment::load(&folder.recipe(), &[], registry));
    let texts = match loaded {
        [Ok(first), Ok(second)] => [first.resolved(), second.resolved()],
        _ => {
            let [first, second] = folders.map(|folder| {
                let path = folder.recipe();
                files::read_to_string(&path).map_err(|e| Error::io(&path, e))
            });
            [first?, second?]
        }
    };
    let options = |folder: &RunFolder, text: &str| {
        let table: toml::Table =
            text.parse().map_err(|e| Error::data(format!("`{}`: {e}", folder.recipe().display())))?;
        let mut options = Options::new();
        flatten("", &toml::Value::Table(table), &mut options);
        Ok::<Options, Error>(options)
    };
    Ok([options(folders[0], &texts[0])?, options(folders[1], &texts[1])?])
}

fn flatten(path: &str, value: &toml::Value, into: &mut Options) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, into);
            }
        }
        value => drop(into.insert(path.to_string(), value.to_string())),
    }
}

/// Every option that differs. One of a part whose content is the same changes nothing.
fn of_recipes(recipes: &[Options; 2], locks: &[Lock; 2]) -> Vec<Differing> {
    let keys: BTreeSet<&String> = recipes.iter().flat_map(BTreeMap::keys).collect();
    let mut found = Vec::new();
    for key in keys {
        let [first, second] = recipes.each_ref().map(|recipe| recipe.get(key).cloned().unwrap_or_default());
        if first != second {
            found.push(Differing { cause: cause_of(key, locks), what: key.clone(), first, second });
        }
    }
    found
}

fn cause_of(key: &str, locks: &[Lock; 2]) -> Cause {
    let mut words = key.splitn(3, '.');
    let (section, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let same = |digest: &dyn Fn(&Lock) -> Option<String>| {
        digest(&locks[0]).is_some() && digest(&locks[0]) == digest(&locks[1])
    };
    let alike = match section {
        "data" => same(&|lock| Some(lock.data.get(name)?.fingerprint.clone())),
        "teacher" => same(&|lock| lock.teachers.get(name).cloned()),
        "evaluate" => same(&|lock| lock.protocols.get(name).cloned()),
        "degradation" => same(&|lock| lock.views.get("low").cloned()),
        "view" => same(&|lock| lock.views.get(name).cloned()),
        _ => false,
    };
    match (section, name) {
        _ if alike => Cause::None,
        ("name" | "quoted" | "format", _) => Cause::None,
        ("run", "seed") => Cause::Seed,
        ("run", "checkpoint_steps" | "keep_checkpoints" | "workers" | "map_memory") => Cause::None,
        ("evaluate", _) => Cause::Measure,
        _ => Cause::Recipe,
    }
}

/// What differs of the locks and is not said by an option already.
fn of_locks([first, second]: &[Lock; 2], options: &[Differing]) -> Vec<Differing> {
    let mut found = Vec::new();
    // An option of the part itself says more than that its digest is another.
    let said = |section: &str, name: &str| {
        let begin = format!("{section}.{name}.");
        options.iter().any(|option| option.what.starts_with(&begin) && option.cause != Cause::None)
    };
    let data = |lock: &Lock| -> BTreeMap<String, String> {
        let shown = |name: &String| {
            let data = &lock.data[name];
            format!("{} faces, fingerprint {}", data.faces, short(&data.fingerprint))
        };
        lock.data.keys().map(|name| (name.clone(), shown(name))).collect()
    };
    let digests =
        |map: &BTreeMap<String, String>| map.iter().map(|(k, v)| (k.clone(), short(v))).collect::<BTreeMap<_, _>>();
    let mut both = |cause: Cause,
                    section: &str,
                    what: &str,
                    first: BTreeMap<String, String>,
                    second: BTreeMap<String, String>| {
        for (name, a) in &first {
            if let Some(b) = second.get(name).filter(|b| *b != a && !said(section, name)) {
                found.push(Differing { cause, what: format!("{what} `{name}`"), first: a.clone(), second: b.clone() });
            }
        }
    };
    both(Cause::Data, "data", "dataset", data(first), data(second));
    both(Cause::Weights, "teacher", "teacher", digests(&first.teachers), digests(&second.teachers));
    both(Cause::Weights, "", "file", digests(&first.read), digests(&second.read));
    let addresses = |lock: &Lock| lock.files.iter().map(|(a, file)| (a.clone(), short(&file.sha256))).collect();
    both(Cause::Weights, "", "file", addresses(first), addresses(second));
    let program = |lock: &Lock| format!("gdrd {}, candle {}, sha256 {}", lock.gdrd, lock.candle, short(&lock.program));
    if program(first) != program(second) {
        found.push(Differing {
            cause: Cause::Program,
            what: "program".into(),
            first: program(first),
            second: program(second),
        });
    }
    let keys: BTreeSet<&String> = first.machine.keys().chain(second.machine.keys()).collect();
    for key in keys {
        let [a, b] = [first, second].map(|lock| lock.machine.get(key).cloned().unwrap_or_default());
        let cause = match key.as_str() {
            "kernels" => Cause::Kernels,
            "cores" => Cause::Threads,
            _ => Cause::Device,
        };
        if a != b {
            found.push(Differing { cause, what: key.clone(), first: a, second: b });
        }
    }
    // A file whose teacher is named above says nothing more.
    let teachers = found.iter().any(|one| one.what.starts_with("teacher `"));
    found.retain(|one| !(teachers && one.what.starts_with("file `")));
    found
}

fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

/// The first line whose loss or term is another.
fn parting([first, second]: &[Vec<serde_json::Value>; 2]) -> Option<Parting> {
    let decided = |line: &serde_json::Value| ["stage", "loss", "terms", "solved"].map(|key| without_time(&line[key]));
    let at = first.iter().zip(second).position(|(a, b)| decided(a) != decided(b));
    let at = at.or((first.len() != second.len()).then(|| first.len().min(second.len())))?;
    let losses = [first, second].map(|log| log.get(at).and_then(|line| line["loss"].as_f64()));
    let is_rounding = match losses {
        [Some(a), Some(b)] => (a - b).abs() <= 1e-5 * a.abs().max(b.abs()),
        _ => false,
    };
    let stage = [first, second].into_iter().find_map(|log| Some(log.get(at)?["stage"].as_str()?.to_string()));
    Some(Parting { stage: stage.unwrap_or_default(), total_step: at as u64 + 1, losses, is_rounding })
}

fn without_time(value: &serde_json::Value) -> serde_json::Value {
    let mut value = value.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.shift_remove("seconds");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn lock(change: impl FnOnce(&mut Lock)) -> Lock {
        let text = r#"{"gdrd": "1", "candle": "1", "program": "p", "recipe": "r", "teachers": {"t": "abc"},
            "data": {"d": {"fingerprint": "f", "faces": 4, "identities": 2}}, "protocols": {"e": "x"},
            "machine": {"kernels": "avx512", "cores": "2", "device": "cpu"}}"#;
        let mut lock = serde_json::from_str(text).expect("a lock");
        change(&mut lock);
        lock
    }

    pub(super) fn recipe(text: &str) -> Options {
        let mut options = Options::new();
        flatten("", &toml::Value::Table(text.parse().expect("TOML")), &mut options);
        options
    }

    fn found(recipes: [&str; 2], change: impl FnOnce(&mut Lock)) -> Vec<(Cause, String)> {
        let locks = [lock(|_| ()), lock(change)];
        let mut found = of_recipes(&recipes.map(recipe), &locks);
        found.extend(of_locks(&locks, &found));
        found.sort();
        found.into_iter().map(|one| (one.cause, one.what)).collect()
    }

    #[test]
    fn causes_are_named_and_sorted() {
        let same = "[run]\nseed = 7\n[stage.s]\nrate = 1.0\n[data.d]\npath = 'a'\n";
        let none = found([same, same], |_| ());
        assert_eq!(none, []);
        // A path to the same faces changes nothing, a seed and an option do.
        let other = "[run]\nseed = 8\nworkers = 3\n[stage.s]\nrate = 2.0\n[data.d]\npath = 'b'\n";
        let causes = found([same, other], |_| ());
        let expected = [
            (Cause::Recipe, "stage.s.rate"),
            (Cause::Seed, "run.seed"),
            (Cause::None, "data.d.path"),
            (Cause::None, "run.workers"),
        ];
        assert_eq!(causes, expected.map(|(cause, what)| (cause, what.to_string())));
        let causes = found([same, same], |lock| {
            lock.data.get_mut("d").expect("d").fingerprint = "other".into();
            lock.teachers.insert("t".into(), "def".into());
            lock.program = "q".into();
            lock.machine.insert("kernels".into(), "avx2".into());
            lock.machine.insert("cores".into(), "8".into());
            lock.machine.insert("device".into(), "cuda".into());
        });
        let expected = [
            (Cause::Data, "dataset `d`"),
            (Cause::Weights, "teacher `t`"),
            (Cause::Program, "program"),
            (Cause::Kernels, "kernels"),
            (Cause::Threads, "cores"),
            (Cause::Device, "device"),
        ];
        assert_eq!(causes, expected.map(|(cause, what)| (cause, what.to_string())));
    }

    #[test]
    fn logs_part_where_a_term_does() {
        let line = |loss: f64| serde_json::json!({"stage": "s", "loss": loss, "terms": {"a": loss}, "images_per_second": loss * 7.0});
        let log = |losses: &[f64]| losses.iter().map(|loss| line(*loss)).collect::<Vec<_>>();
        assert_eq!(parting(&[log(&[1.0, 2.0]), log(&[1.0, 2.0])]), None);
        let apart = parting(&[log(&[1.0, 2.0]), log(&[1.0, 2.000001])]).expect("apart");
        assert_eq!((apart.total_step, apart.losses, apart.is_rounding), (2, [Some(2.0), Some(2.000001)], true));
        let longer = parting(&[log(&[1.0]), log(&[1.0, 2.0])]).expect("longer");
        assert_eq!((longer.total_step, longer.losses), (2, [None, Some(2.0)]));
    }
}
