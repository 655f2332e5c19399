//! Whether a run folder still is what its run has written, and whether the numbers of its report follow from what lies there.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use candle_core::{DType, Tensor};
use serde::Serialize;

use super::assembly::Assembly;
use super::checksums::{CHECKSUMS, Checksums};
use super::folder::{INSIGHT, PAGE, RECIPE, REPORT, RunFolder};
use super::insight::insight;
use super::mark::MARK;
use super::measure::{self, StudentEmbedder};
use super::{Lock, Place, Prepared, State};
use crate::error::{Context, Error, Result};
use crate::evaluation::{Measured, Role};
use crate::experiment::Experiment;
use crate::files;
use crate::observe::Observer;
use crate::registry::Registry;
use crate::report::html_page;
use crate::student::{StudentFile, StudentHeader};
use crate::trainer::Checkpoint;

/// What a look at a file or a number has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is what it should be.
    Good,
    /// It is not.
    Wrong,
    /// What lies here does not say.
    Unknown,
}

/// One look at a file or a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file, or the file and the number in it.
    pub what: String,
    /// What was found.
    pub verdict: Verdict,
    /// The same in words: what it is, or what was expected and what was found.
    pub found: String,
}

/// Whether nothing is wrong.
pub fn is_good(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.verdict != Verdict::Wrong)
}

/// Looks at everything in a run folder: reads all that has a checksum, and computes again what follows from something else.
/// Nothing is written. A run that is not finished has only its recipe, its lock and its checkpoints.
///
/// # Errors
/// If it is no run folder. What is wrong in it is a finding.
pub fn verify(folder: &RunFolder, registry: &Registry) -> Result<Vec<Finding>> {
    if folder.state()? == State::Empty {
        return Err(Error::recipe(format!("`{}` is no run folder: it has no {RECIPE}", folder.path().display())));
    }
    let finished = folder.was_finished()?;
    let mut book = Book::default();
    let lock = book.keep("lock.json", Lock::read_file(&folder.lock_file()), |lock| format!("of gdrd {}", lock.gdrd));
    let recipe = Experiment::load(&folder.recipe(), &[], registry).map_err(Error::from);
    let recipe = book.keep(RECIPE, recipe, |recipe| format!("digest {}", &recipe.digest()[..12]));
    let (Some(lock), Some(recipe)) = (lock, recipe) else { return Ok(book.findings) };
    book.same(&format!("{RECIPE}: digest"), &lock.recipe, &recipe.digest());
    let last = checkpoints(folder, &lock, &mut book)?;
    // Checksums are the last that a run writes before its mark says that it is over.
    let has_all = folder.path().join(CHECKSUMS).exists();
    match folder.marked_as_finished() {
        Ok(Some(true) | None) => {}
        Ok(Some(false)) if has_all => {
            let found = "it says that the run is not over, and everything of a finished run is there; `gdrd resume` settles that";
            book.add(MARK, Verdict::Unknown, found.into());
        }
        Ok(Some(false)) => {}
        Err(error) => book.add(MARK, Verdict::Wrong, error.to_string()),
    }
    if !finished && !has_all {
        book.add(REPORT, Verdict::Unknown, "the run is not finished".into());
        return Ok(book.findings);
    }
    checksums(folder, &mut book)?;
    student(folder, registry, &recipe, &lock, last.as_ref(), &mut book);
    steps(folder, last.as_ref(), &mut book);
    let measured = folder.results();
    if let Some(measured) = book.keep("evaluation", measured, |found| format!("protocols: {}", found.len())) {
        measured.iter().for_each(|(protocol, rows)| headlines(protocol, rows, &mut book));
        report(folder, &recipe, &lock, &measured, &mut book)?;
    }
    Ok(book.findings)
}

/// Opens the data and the teachers of a finished run once more, compares them with its lock, and evaluates its student file
/// again. Numbers must be the same to the last bit; where another program or processor makes them differ, that is said beside
/// them.
///
/// # Errors
/// If a part cannot be had, or the observer stops the work.
pub fn verify_again(experiment: &Experiment, place: &Place, observer: &dyn Observer) -> Result<Vec<Finding>> {
    let folder = RunFolder::new(&place.folder);
    let then = Lock::read_file(&folder.lock_file())?;
    let parts = Assembly::new(experiment, place, observer)?;
    let prepared = Prepared::new(&parts)?;
    let now = Lock::of(&prepared, &prepared.terms()?)?;
    let mut book = Book::default();
    let changes = then.changes(&now);
    if changes.is_empty() {
        book.add("data and teachers", Verdict::Good, "as in lock.json".into());
    }
    changes.into_iter().for_each(|change| book.add(&change, Verdict::Wrong, "changed since the run".into()));
    let circumstances = then.circumstances(&now);
    for change in &circumstances {
        book.add(change, Verdict::Unknown, "changed since the run; numbers may differ in their last bits".into());
    }
    let path = folder.student();
    let bytes = files::read(&path).map_err(|e| Error::io(&path, e))?;
    let file = StudentFile::open(&bytes, &place.device, &*place.registry).at(|| format!("`{}`", path.display()))?;
    let student = StudentEmbedder::new(&file, &place.device);
    let now = measure::evaluate(&parts, Some(&student), Role::Student, true)?;
    let then = folder.results()?;
    for (protocol, rows) in &then {
        for row in rows {
            let again = now.get(protocol).and_then(|rows| rows.iter().find(|again| again.embedder == row.embedder));
            let what = format!("{protocol}, {}: measured again", row.embedder);
            let shown = |row: &Measured| row.outcome.headline().map_or("-".into(), |figure| figure.shown());
            match again {
                Some(again) if again == row => book.add(&what, Verdict::Good, shown(row)),
                Some(again) => {
                    let found = format!("{} then, {} now, or other items or figures", shown(row), shown(again));
                    book.add(&what, Verdict::Wrong, found);
                }
                None => book.add(&what, Verdict::Wrong, "it is not measured any more".into()),
            }
        }
    }
    if let Some(seen) = folder.insight()? {
        let again = insight(&parts, &file, &now)?;
        match seen.without_time() == again.without_time() {
            true => book.add(INSIGHT, Verdict::Good, "seen again".into()),
            false => book.add(INSIGHT, Verdict::Wrong, "faces, points or mistakes are others".into()),
        }
    }
    Ok(book.findings)
}

#[derive(Default)]
struct Book {
    findings: Vec<Finding>,
}

impl Book {
    fn add(&mut self, what: &str, verdict: Verdict, found: String) {
        self.findings.push(Finding { what: what.to_string(), verdict, found });
    }

    /// Notes whether something could be read.
    fn keep<T>(&mut self, what: &str, read: Result<T>, say: impl FnOnce(&T) -> String) -> Option<T> {
        match &read {
            Ok(good) => self.add(what, Verdict::Good, say(good)),
            Err(error) => self.add(what, Verdict::Wrong, error.to_string()),
        }
        read.ok()
    }

    /// Notes whether two things are the same.
    fn same<T: PartialEq + Display>(&mut self, what: &str, expected: &T, found: &T) {
        match expected == found {
            // Of a digest that is right its beginning is enough.
            true => self.add(what, Verdict::Good, found.to_string().chars().take(40).collect()),
            false => self.add(what, Verdict::Wrong, format!("expected {expected}, found {found}")),
        }
    }
}

/// Every checkpoint; the last one, if it is good.
fn checkpoints(folder: &RunFolder, lock: &Lock, book: &mut Book) -> Result<Option<Checkpoint>> {
    let mut last = None;
    for path in Checkpoint::folders(&folder.path().join("checkpoints"))? {
        let what = format!("checkpoints/{}", path.file_name().unwrap_or_default().to_string_lossy());
        let read = Checkpoint::read(&path);
        last = book.keep(&what, read, |found| format!("{} tensors", found.variables.len() + found.optimizer.len()));
        if let Some(checkpoint) = &last {
            book.same(&format!("{what}: recipe"), &lock.recipe, &checkpoint.position.recipe);
        }
    }
    Ok(last)
}

fn checksums(folder: &RunFolder, book: &mut Book) -> Result<()> {
    let read = Checksums::read(folder.path());
    let Some(sums) = book.keep(CHECKSUMS, read, |_| "its own checksum is right".into()) else { return Ok(()) };
    for (name, found) in sums.compare(folder.path(), |_| true) {
        book.keep(&format!("{name}: checksum"), found, String::clone);
    }
    let there = |name: &&String| !sums.has(name) && folder.path().join(name).exists();
    for name in folder.written()?.iter().filter(there) {
        book.add(&format!("{name}: checksum"), Verdict::Unknown, "it is not among the checksums".into());
    }
    Ok(())
}

/// Whether the student file is of this run and has the weights of its last checkpoint.
fn student(
    folder: &RunFolder,
    registry: &Registry,
    recipe: &Experiment,
    lock: &Lock,
    last: Option<&Checkpoint>,
    book: &mut Book,
) {
    const NAME: &str = "student.safetensors";
    let path = folder.student();
    let read = files::read(&path).map_err(|e| Error::io(&path, e)).and_then(|bytes| {
        StudentFile::open(&bytes, &candle_core::Device::Cpu, registry)?;
        StudentHeader::from_bytes(&bytes)
    });
    let Some((header, tensors)) = book.keep(NAME, read, |(header, _)| format!("a `{}`", header.kind)) else { return };
    book.same(&format!("{NAME}: recipe"), &lock.recipe, &header.recipe);
    let teachers = |teachers: &BTreeMap<String, String>| {
        teachers
            .iter()
            .map(|(name, digest)| format!("{name} {}", digest.get(..12).unwrap_or(digest)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let expected = if recipe.stages.is_empty() { String::new() } else { teachers(&lock.teachers) };
    book.same(&format!("{NAME}: teachers"), &expected, &teachers(&header.teachers));
    let what = format!("{NAME}: weights");
    match last.filter(|last| last.position.stage == recipe.stages.len()) {
        None => book.add(&what, Verdict::Unknown, "there is no checkpoint of the run's end".into()),
        Some(last) => match differing(&tensors, &last.variables, recipe.run.half_precision) {
            Ok(None) => book.add(&what, Verdict::Good, format!("those of checkpoint {}", last.position.total_steps)),
            Ok(Some(name)) => {
                let found = format!("`{name}` is not that of checkpoint {}", last.position.total_steps);
                book.add(&what, Verdict::Wrong, found);
            }
            Err(error) => book.add(&what, Verdict::Wrong, error.to_string()),
        },
    }
}

/// A tensor of a student file that is not that of a checkpoint.
fn differing(
    file: &BTreeMap<String, Tensor>,
    checkpoint: &BTreeMap<String, Tensor>,
    half_precision: bool,
) -> Result<Option<String>> {
    let of_student = checkpoint.iter().filter_map(|(name, tensor)| Some((name.strip_prefix("student.")?, tensor)));
    let kept: BTreeMap<&str, &Tensor> = of_student.collect();
    if let Some(name) = file.keys().find(|name| !kept.contains_key(name.as_str())) {
        return Ok(Some(name.clone()));
    }
    for (name, tensor) in kept {
        let tensor = if half_precision { tensor.to_dtype(DType::F16)? } else { tensor.clone() };
        let values = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
        match file.get(name) {
            Some(found) if found.dims() == tensor.dims() && values(found)? == values(&tensor)? => {}
            _ => return Ok(Some(name.to_string())),
        }
    }
    Ok(None)
}

/// Whether every step was logged.
fn steps(folder: &RunFolder, last: Option<&Checkpoint>, book: &mut Book) {
    let read = folder.metrics();
    let Some(lines) = book.keep("metrics.jsonl", read, |lines| format!("{} lines", lines.len())) else { return };
    match last {
        Some(last) => book.same("metrics.jsonl: steps", &last.position.total_steps, &(lines.len() as u64)),
        None => {
            book.add("metrics.jsonl: steps", Verdict::Unknown, format!("{}, and no checkpoint to compare", lines.len()))
        }
    }
}

/// Whether each headline is the mean of its items.
fn headlines(protocol: &str, rows: &[Measured], book: &mut Book) {
    for Measured { embedder, outcome, .. } in rows {
        let Ok(headline) = outcome.check().and_then(|()| outcome.headline()) else {
            book.add(&format!("{protocol}, {embedder}"), Verdict::Wrong, "its figures contradict each other".into());
            continue;
        };
        let what = format!("{protocol}, {embedder}: {}", headline.name);
        let Some(value) = headline.value.filter(|_| !outcome.items.is_empty()) else {
            book.add(
                &what,
                Verdict::Unknown,
                format!("{}, and no {} to compute it from", headline.shown(), outcome.what),
            );
            continue;
        };
        let count = outcome.items.len() as f64;
        let mean = headline.unit.of_one() * outcome.items.iter().sum::<f64>() / count;
        // Folds that differ in size by an item weigh it differently.
        let same = (value - mean).abs() <= headline.unit.of_one() / count;
        let found = format!("{}, from {count} {}", headline.shown(), outcome.what);
        match same {
            true => book.add(&what, Verdict::Good, found),
            false => book.add(&what, Verdict::Wrong, format!("{found}, whose mean is {mean}")),
        }
    }
}

/// Whether the report and its pictures are what the run's data makes of them.
fn report(
    folder: &RunFolder,
    recipe: &Experiment,
    lock: &Lock,
    measured: &BTreeMap<String, Vec<Measured>>,
    book: &mut Book,
) -> Result<()> {
    let pictures = tempfile::tempdir().map_err(|e| Error::io(std::env::temp_dir(), e))?;
    let made = folder.report(recipe, lock, measured, pictures.path());
    let what = format!("{REPORT}: made again");
    let Some(text) = book.keep(&what, made, |text| format!("{} lines", text.lines().count())) else { return Ok(()) };
    let found = files::read_to_string(&folder.path().join(REPORT)).unwrap_or_default();
    let line = text.lines().zip(found.lines()).position(|(expected, found)| expected != found);
    match line {
        _ if text == found => book.add(&format!("{REPORT}: text"), Verdict::Good, "as the run's data says".into()),
        Some(at) => book.add(&format!("{REPORT}: text"), Verdict::Wrong, format!("line {} is another", at + 1)),
        None => book.add(&format!("{REPORT}: text"), Verdict::Wrong, "it is longer or shorter".into()),
    }
    page(folder, book);
    for name in sorted_names(pictures.path())? {
        let read = |folder: &Path| files::read(&folder.join(&name)).ok();
        match read(pictures.path()) == read(folder.path()) {
            true => book.add(&name, Verdict::Good, "as the run's data says".into()),
            false => book.add(&name, Verdict::Wrong, "it is not the picture of the run's data".into()),
        }
    }
    Ok(())
}

/// Whether `report.html` is what the run's files make of it.
fn page(folder: &RunFolder, book: &mut Book) {
    let what = format!("{PAGE}: text");
    let Ok(found) = files::read_to_string(&folder.path().join(PAGE)) else {
        return book.add(&what, Verdict::Unknown, "this run has none".into());
    };
    match folder.view().and_then(|view| html_page(&[view])) {
        Ok(made) if made == found => book.add(&what, Verdict::Good, "as the run's data says".into()),
        Ok(made) => {
            let line = made.lines().zip(found.lines()).position(|(made, found)| made != found);
            let found = line.map_or("it is longer or shorter".into(), |line| format!("line {} is another", line + 1));
            book.add(&what, Verdict::Wrong, found);
        }
        Err(error) => book.add(&what, Verdict::Wrong, error.to_string()),
    }
}

fn sorted_names(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}
