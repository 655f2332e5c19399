//! How a folder is known to be a run's, who runs it, and what of it is gdrd's own.

use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::calendar::utc;
use super::checksums::CHECKSUMS;
use super::folder::{INSIGHT, PAGE, RECIPE, REPORT, RunFolder};
use super::lock::Lock;
use crate::error::{Error, ErrorKind, Result};
use crate::experiment::digest_of;
use crate::files::{self, Held, is_name, write_atomically};
use crate::report;
use crate::trainer::Checkpoint;

/// The file that makes a folder a run's.
pub(super) const MARK: &str = "gdrd-run.json";
/// The file whose lock whoever runs the folder holds.
const HELD: &str = ".gdrd-run.lock";

/// What stands in a run folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing, or nothing but what a run leaves that ends before its first step.
    Empty,
    /// A run that is not over.
    Begun,
    /// A run that is over and has written everything.
    Finished,
}

/// The content of [`MARK`].
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Mark {
    /// Version of the folder's layout.
    gdrd_run: u32,
    /// Whether the run is over and everything is written.
    finished: bool,
    /// The process that runs it, or ran it last.
    process: u32,
    /// The machine of the process; empty where it has no name.
    machine: String,
    /// When that process began, in seconds since 1970.
    since: u64,
    /// The names of the charts of its protocols, without an ending.
    #[serde(default)]
    charts: Vec<String>,
}

impl RunFolder {
    /// What stands in the folder.
    ///
    /// # Errors
    /// If it is no folder, or holds anything and is not a run's.
    pub fn state(&self) -> Result<State> {
        let path = self.path();
        let mut names = match std::fs::read_dir(path) {
            Ok(entries) => entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<std::io::Result<Vec<_>>>()
                .map_err(|e| Error::io(path, e))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(State::Empty),
            Err(error) => return Err(Error::io(path, error)),
        };
        let begun = self.recipe().is_file();
        // A run whose results were deleted makes them again.
        let whole = path.join(REPORT).is_file() && self.student().is_file();
        let state = |finished| match (begun, finished && whole) {
            (true, true) => State::Finished,
            (true, false) => State::Begun,
            (false, _) => State::Empty,
        };
        if let Some(mark) = self.mark()? {
            return Ok(state(mark.finished));
        }
        // Runs of before the mark: their recipe is the one that they have locked.
        if begun && self.is_unmarked_run() {
            return Ok(state(true));
        }
        names.retain(|name| name != HELD && !files::is_partial(name));
        if names.is_empty() {
            return Ok(State::Empty);
        }
        names.sort();
        let more = if names.len() > 3 { " and more" } else { "" };
        let shown: Vec<String> = names.iter().take(3).map(|name| format!("`{name}`")).collect();
        Err(Error::recipe(format!(
            "`{}` is no run folder and is not empty: it holds {}{more}; nothing was touched, name another folder",
            path.display(),
            shown.join(", ")
        )))
    }

    /// Whether the run is over and everything is written.
    pub fn is_finished(&self) -> bool {
        matches!(self.state(), Ok(State::Finished))
    }

    /// Whether a run has begun here.
    pub fn is_begun(&self) -> bool {
        matches!(self.state(), Ok(State::Begun | State::Finished))
    }

    /// Refuses a folder whose run is alive in another process.
    ///
    /// # Errors
    /// If there is such a process; the error names it.
    pub fn must_be_idle(&self) -> Result<()> {
        match files::is_held(&self.path().join(HELD)) {
            true => Err(self.held_by_another()),
            false => Ok(()),
        }
    }

    fn held_by_another(&self) -> Error {
        let path = self.path().display();
        let who = match self.mark() {
            Ok(Some(Mark { process, machine, since, .. })) => {
                let on = if machine.is_empty() { String::new() } else { format!(" on {machine}") };
                format!("process {process}{on}, since {}", utc(since))
            }
            _ => "another process".to_string(),
        };
        Error::new(
            ErrorKind::Io,
            format!("`{path}` is being run by {who}; wait for it to end, or stop it and then `gdrd resume {path}`"),
        )
    }

    /// Makes the folder and marks it as this process's, for as long as what is returned lives.
    ///
    /// # Errors
    /// If another process runs it, or it holds anything and is no run folder.
    pub(super) fn hold(&self) -> Result<Held> {
        self.state()?;
        files::make_folders(self.path()).map_err(|e| Error::io(self.path(), e))?;
        let held = files::hold(&self.path().join(HELD))?.ok_or_else(|| self.held_by_another())?;
        if held.keeps_out() {
            [self.path(), &self.evaluation()].into_iter().for_each(files::sweep_own);
        }
        let state = self.state()?;
        self.write_mark(state == State::Finished)?;
        Ok(held)
    }

    /// Takes the marks of a run that failed before anything was written out of the folder, and the folder with them if the run made
    /// it. Called while the folder is held.
    pub(super) fn abandon(&self, is_new: bool) {
        let Ok(entries) = std::fs::read_dir(self.path()) else { return };
        if !entries.flatten().all(|entry| entry.file_name() == MARK || entry.file_name() == HELD) {
            return;
        }
        // What cannot be removed is an empty run's folder, which the next run takes.
        let _ = std::fs::remove_file(self.path().join(MARK));
        let _ = std::fs::remove_file(self.path().join(HELD));
        if is_new {
            let _ = std::fs::remove_dir(self.path());
        }
    }

    /// Notes whether the run is over.
    pub(super) fn write_mark(&self, finished: bool) -> Result<()> {
        let charts = self.mark()?.map(|mark| mark.charts).unwrap_or_default();
        self.write_mark_with(finished, charts)
    }

    /// The same, and which charts of protocols are about to be written.
    pub(super) fn write_mark_with(&self, finished: bool, charts: Vec<String>) -> Result<()> {
        let since = files::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_string();
        let process = std::process::id();
        let mark = Mark { gdrd_run: 1, finished, process, machine, since, charts };
        let text = serde_json::to_vec_pretty(&mark).expect("plain data has a JSON form");
        write_atomically(&self.path().join(MARK), &text)
    }

    /// When the process that runs it, or ran it last, began, in seconds since 1970.
    pub(super) fn began(&self) -> Result<f64> {
        Ok(self.mark()?.map_or(0.0, |mark| mark.since as f64))
    }

    fn mark(&self) -> Result<Option<Mark>> {
        match self.read_mark() {
            // A damaged one is as good as none where the run is known without it.
            Err(error) if error.kind() == ErrorKind::Data && self.is_unmarked_run() => Ok(None),
            read => read,
        }
    }

    /// The mark as it stands there; none if there is no file.
    fn read_mark(&self) -> Result<Option<Mark>> {
        let path = self.path().join(MARK);
        match files::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| {
                let path = path.display();
                Error::data(format!(
                    "`{path}` is no mark of a run: {error}; nothing was touched, remove the file or name another folder"
                ))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&path, error)),
        }
    }

    /// Whether the resolved recipe is the one that the lock names.
    fn is_unmarked_run(&self) -> bool {
        let digest = self.resolved().ok().flatten().map(digest_of);
        Lock::read_file(&self.lock_file()).is_ok_and(|lock| Some(lock.recipe) == digest)
    }

    /// The resolved recipe; none if there is none, or it is no TOML.
    fn resolved(&self) -> Result<Option<toml::Table>> {
        let path = self.path().join(RECIPE);
        match files::read_to_string(&path) {
            Ok(text) => Ok(text.parse().ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(path, error)),
        }
    }

    /// The keys of a table of the resolved recipe that can be parts of file names.
    ///
    /// # Errors
    /// If the recipe is there and cannot be read.
    pub(super) fn names(&self, section: &str) -> Result<Vec<String>> {
        let table = self.resolved()?.unwrap_or_default();
        let section = table.get(section).and_then(toml::Value::as_table).into_iter().flatten();
        Ok(section.map(|(name, _)| name.clone()).filter(|name| is_name(name)).collect())
    }

    /// Whether the mark says that the run is over; none where there is no mark, as of runs of before it.
    ///
    /// # Errors
    /// If the mark cannot be read or is damaged.
    pub(super) fn marked_as_finished(&self) -> Result<Option<bool>> {
        Ok(self.read_mark()?.map(|mark| mark.finished))
    }

    /// Removes what a run has written, by the names that gdrd gives, and nothing else.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub(super) fn clear(&self) -> Result<()> {
        let path = self.path();
        let written = self.written()?;
        self.write_mark(false)?;
        Checkpoint::remove_all(&path.join("checkpoints"))?;
        for name in [CHECKSUMS].into_iter().chain(written.iter().map(String::as_str)) {
            files::remove(&path.join(name))?;
        }
        files::remove_empty(&path.join("evaluation"));
        Ok(())
    }

    /// The paths in the folder of what a run writes there, checkpoints and what marks it apart. The recipe is the last: by it the
    /// others are known.
    ///
    /// # Errors
    /// If the mark or the recipe cannot be read.
    pub(super) fn written(&self) -> Result<Vec<String>> {
        let charts = self.mark()?.map(|mark| mark.charts).unwrap_or_default();
        let (protocols, stages) = (self.names("evaluate")?, self.names("stage")?);
        let of_stages = stages.iter().flat_map(|stage| [format!("loss-{stage}"), format!("gradients-{stage}")]);
        let charts = charts.into_iter().filter(|name| is_name(name)).chain(of_stages);
        let charts = charts.flat_map(|name| [format!("{name}.svg"), format!("{name}.png")]);
        let scores = protocols.iter().flat_map(|name| [format!("evaluation/{name}.json"), report::picture_file(name)]);
        let ours = [REPORT, PAGE, INSIGHT, "student.safetensors", "metrics.jsonl", "samples.png"].map(String::from);
        let last = ["lock.json", RECIPE].map(String::from);
        Ok(ours.into_iter().chain(charts).chain(scores).chain(last).collect())
    }

    /// Whether the run was over and had written everything, whatever of it is still there.
    ///
    /// # Errors
    /// As [`RunFolder::state`].
    pub(super) fn was_finished(&self) -> Result<bool> {
        Ok(self.mark()?.is_some_and(|mark| mark.finished) || self.state()? == State::Finished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_a_runs_by_its_mark_alone() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = RunFolder::new(home.path().join("run"));
        assert_eq!(folder.state().expect("nothing"), State::Empty);
        let held = folder.hold().expect("free");
        assert!(held.keeps_out());
        let error = folder.hold().expect_err("held").to_string();
        assert!(error.contains(&format!("process {}", std::process::id())) && error.contains("since 20"), "{error}");
        assert!(folder.must_be_idle().is_err());
        assert_eq!(folder.state().expect("marked"), State::Empty);
        std::fs::write(folder.recipe(), "name = \"r\"").expect("written");
        assert_eq!(folder.state().expect("marked"), State::Begun);
        std::fs::write(folder.path().join("report.md"), "my own").expect("written");
        assert_eq!(folder.state().expect("marked"), State::Begun);
        folder.write_mark(true).expect("written");
        assert_eq!(folder.state().expect("marked"), State::Begun, "its student is not there");
        std::fs::write(folder.student(), "a student").expect("written");
        drop(held);
        folder.must_be_idle().expect("nobody runs it");
        drop(folder.hold().expect("free"));
        assert_eq!(folder.state().expect("marked"), State::Finished, "looking at a run does not begin it again");
    }

    #[test]
    fn clearing_takes_what_is_ours() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = RunFolder::new(home.path());
        let held = folder.hold().expect("free");
        let write = |name: &str| {
            let path = home.path().join(name);
            std::fs::create_dir_all(path.parent().expect("inside")).expect("a folder");
            std::fs::write(&path, name).expect("written");
        };
        std::fs::write(folder.recipe(), "[evaluate.lfw]\n[evaluate.\"../up\"]\n[stage.one]\n").expect("written");
        let ours = [
            "report.md",
            "checksums.json",
            "lock.json",
            "roc-lfw.svg",
            "loss-one.png",
            "gradients-one.svg",
            "evaluation/lfw.json",
            "samples.png",
        ];
        let state = ["checkpoints/step-3/state.safetensors", "checkpoints/step-3/position.json"];
        let theirs =
            ["notes.md", "loss-mine.png", "evaluation/mine.json", "checkpoints/step-9/best", "checkpoints/keep"];
        ours.iter().chain(&state).chain(&theirs).for_each(|name| write(name));
        folder.write_mark_with(false, vec!["roc-lfw".into(), "../../up".into()]).expect("written");
        folder.clear().expect("cleared");
        for name in theirs {
            assert!(home.path().join(name).exists(), "{name} is not ours");
        }
        for name in ours.iter().chain(&state) {
            assert!(!home.path().join(name).exists(), "{name} is ours");
        }
        assert!(!home.path().join("checkpoints/step-3").exists() && !folder.recipe().exists());
        drop(held);
        assert_eq!(folder.state().expect("marked"), State::Empty);
    }

    #[test]
    fn a_recipe_that_cannot_be_read_is_not_one_without_protocols() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = RunFolder::new(home.path());
        assert_eq!(folder.names("evaluate").expect("no recipe, no names"), Vec::<String>::new());
        assert!(folder.results().expect("none").is_empty());
        // Reading a folder fails for everybody, also for those whom no permission stops.
        std::fs::create_dir(home.path().join(RECIPE)).expect("a folder");
        for failed in [folder.names("evaluate").map(drop), folder.written().map(drop), folder.results().map(drop)] {
            assert!(failed.expect_err("it cannot be read").to_string().contains(RECIPE));
        }
    }
}
