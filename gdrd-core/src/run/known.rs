//! Digests of files that did not change since they were last read, and other facts about them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::context::FileCheck;
use crate::digest;
use crate::error::{Error, Result};
use crate::files::{make_folders, now, read_to_string, write_atomically};
use crate::plugin::workbench::fingerprint;

/// A file that changed so lately could change again without its time telling; nothing about it is kept.
const SETTLED: Duration = Duration::from_secs(2);

/// A folder of facts, each named by path, size and times of the files that it is about, and by the question that it answers.
pub(super) struct Known {
    folder: PathBuf,
    /// The files that were asked for, as they were then.
    asked: Mutex<BTreeMap<PathBuf, Stamp>>,
}

impl Known {
    pub(super) fn open(folder: PathBuf) -> Self {
        Self { folder, asked: Mutex::default() }
    }

    /// Sha256 of a file's bytes.
    pub(super) fn of_file(&self, path: &Path) -> Result<String> {
        let files = [path.to_path_buf()];
        let stamps = self.ask(&files)?;
        self.kept("file", &files, stamps, || digest::of_file(path))
    }

    /// Sha256 over the names and bytes of files that pass `check`.
    pub(super) fn of_files(&self, files: &[PathBuf], check: &FileCheck<'_>) -> Result<String> {
        let stamps = self.ask(files)?;
        self.kept(&format!("files, {}", check.name), files, stamps, || fingerprint(files, check))
    }

    /// What `find` says of files; of files that are not there, without keeping it. That they may change is for their digests to say.
    pub(super) fn fact(
        &self,
        what: &str,
        files: &[PathBuf],
        find: &mut dyn FnMut() -> Result<String>,
    ) -> Result<String> {
        match stamps(files) {
            Ok(stamps) => self.kept(&format!("fact, {what}"), files, stamps, find),
            Err(_) => find(),
        }
    }

    /// Sha256 of the running program. It may be replaced while it runs, which does not change what runs.
    pub(super) fn of_program(&self, path: &Path) -> Result<String> {
        let files = [path.to_path_buf()];
        self.kept("file", &files, stamps(&files)?, || digest::of_file(path))
    }

    /// Whether every file is still what it was when its digest was asked for: whoever read it since has read what the digest is of.
    ///
    /// # Errors
    /// Names one that is not.
    pub(super) fn unchanged(&self) -> Result<()> {
        for (path, then) in self.asked.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if stamp(path)? != *then {
                let path = path.display();
                return Err(Error::data(format!(
                    "`{path}` was changed while this run used it; put back what was there and resume, or begin a new run"
                )));
            }
        }
        Ok(())
    }

    /// The stamps of files, by which `unchanged` will know them.
    fn ask(&self, files: &[PathBuf]) -> Result<Vec<Stamp>> {
        let stamps = stamps(files)?;
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        for (path, stamp) in files.iter().zip(&stamps) {
            // The first one counts: by then somebody may have read the file.
            asked.entry(path.clone()).or_insert_with(|| stamp.clone());
        }
        Ok(stamps)
    }

    /// The answer to `what` that is kept of files with these stamps, or the one that `compute` gives.
    fn kept(
        &self,
        what: &str,
        files: &[PathBuf],
        before: Vec<Stamp>,
        compute: impl FnOnce() -> Result<String>,
    ) -> Result<String> {
        let path = self.folder.join(digest::of_value(&(what, &before)));
        let kept = read_to_string(&path).ok();
        if let Some((found, check)) = kept.as_deref().and_then(|kept| kept.rsplit_once(' '))
            && check == digest::of_value(&found)
        {
            return Ok(found.to_string());
        }
        let found = compute()?;
        let newest = before.iter().map(|stamp| stamp.changed).max().unwrap_or_default();
        let settled = SystemTime::UNIX_EPOCH + Duration::from_nanos(newest) + SETTLED < now();
        if settled && stamps(files)? == before {
            let text = format!("{found} {}", digest::of_value(&found));
            // What cannot be kept is computed again; that is no reason to end a run.
            let made = make_folders(&self.folder).map_err(|e| Error::io(&self.folder, e));
            let _ = made.and_then(|()| write_atomically(&path, text.as_bytes()));
        }
        Ok(found)
    }
}

#[derive(Clone, PartialEq, serde::Serialize)]
struct Stamp {
    path: String,
    size: u64,
    /// The later of the times of the bytes and (where the system has it) of the entry, in nanoseconds since 1970.
    changed: u64,
    inode: u64,
}

fn stamps(files: &[PathBuf]) -> Result<Vec<Stamp>> {
    files.iter().map(|path| stamp(path)).collect()
}

fn stamp(path: &Path) -> Result<Stamp> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    // A pipe would be read here, and be empty or never end where its bytes are wanted.
    if !metadata.is_file() {
        let found = if metadata.is_dir() { "a folder" } else { "a pipe or a device" };
        return Err(Error::data(format!("`{}` is {found}, expected a file", path.display())));
    }
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let modified = modified.map_or(u64::MAX, |time| time.as_nanos() as u64);
    #[cfg(unix)]
    let (entry, inode) = {
        use std::os::unix::fs::MetadataExt;
        ((metadata.ctime().max(0) as u64) * 1_000_000_000 + metadata.ctime_nsec().max(0) as u64, metadata.ino())
    };
    #[cfg(not(unix))]
    let (entry, inode) = (0, 0);
    let path = std::path::absolute(path).map_err(|e| Error::io(path, e))?.to_string_lossy().into_owned();
    Ok(Stamp { path, size: metadata.len(), changed: modified.max(entry), inode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_files_are_read_once_and_changed_ones_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, kept) = (folder.path().join("weights"), folder.path().join("known"));
        std::fs::write(&file, "abc").expect("a file");
        let known = Known::open(kept.clone());
        let first = known.of_file(&file).expect("a digest");
        assert!(!kept.exists(), "a file that has just changed is not kept");
        std::fs::write(&file, "abd").expect("a file");
        assert_ne!(known.of_file(&file).expect("a digest"), first);
        std::thread::sleep(SETTLED + Duration::from_millis(100));
        let settled = known.of_file(&file).expect("a digest");
        let names = std::fs::read_dir(&kept).expect("kept").count();
        assert_eq!((names, known.of_file(&file).expect("a digest")), (1, settled.clone()));
        // One that is damaged is computed again.
        let name = std::fs::read_dir(&kept).expect("kept").next().expect("one").expect("an entry").path();
        let damaged = std::fs::read_to_string(&name).expect("text").replace(&settled[..4], "0000");
        std::fs::write(&name, damaged).expect("damaged");
        assert_eq!(known.of_file(&file).expect("a digest"), settled);
        // The same size and an older time of its bytes: the entry's own time tells.
        let old = std::fs::metadata(&file).and_then(|m| m.modified()).expect("a time");
        std::fs::write(&file, "xyz").expect("a file");
        let handle = std::fs::File::options().write(true).open(&file).expect("a file");
        handle.set_modified(old).expect("a time");
        assert_ne!(known.of_file(&file).expect("a digest"), settled);
        assert!(
            known.unchanged().expect_err("changed").to_string().contains("weights` was changed while this run used")
        );
        let known = Known::open(kept);
        known.of_program(&file).expect("a digest");
        std::fs::write(&file, "another").expect("a file");
        known.of_file(&file).expect("a digest");
        known.unchanged().expect("only what was asked for counts, from then on");
    }

    #[test]
    fn a_check_that_never_ran_is_not_passed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("faces.pack");
        std::fs::write(&file, "abc").expect("a file");
        std::thread::sleep(SETTLED + Duration::from_millis(100));
        let known = Known::open(folder.path().join("known"));
        let made = std::sync::atomic::AtomicUsize::new(0);
        let good = |_: &Path| {
            made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(())
        };
        let whole = FileCheck { name: "whole", check: &good };
        for _ in 0..2 {
            known.of_files(std::slice::from_ref(&file), &whole).expect("passed");
        }
        assert_eq!(made.into_inner(), 1, "a file that stays as it is is checked once");
        let bad = |path: &Path| Err(Error::data(format!("`{}`: no face", path.display())));
        let faces = FileCheck { name: "faces", check: &bad };
        let error = known.of_files(&[file], &faces).expect_err("another check, which it does not pass").to_string();
        assert!(error.ends_with("faces.pack`: no face"), "{error}");
    }

    #[test]
    fn facts_are_found_once_while_their_files_stay_as_they_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("faces.rec");
        std::fs::write(&file, "abc").expect("a file");
        std::thread::sleep(SETTLED + Duration::from_millis(100));
        let (files, mut asked) = ([file.clone()], 0);
        let mut fact = |what: &str| {
            // Each run opens it anew.
            let known = Known::open(folder.path().join("known"));
            let mut find = || {
                asked += 1;
                Ok(format!("[\"two words\", {asked}]"))
            };
            known.fact(what, &files, &mut find).expect("a fact")
        };
        assert_eq!(
            [fact("a"), fact("a"), fact("b")],
            ["[\"two words\", 1]", "[\"two words\", 1]", "[\"two words\", 2]"]
        );
        std::fs::write(&file, "abd").expect("the same size");
        assert_eq!(fact("a"), "[\"two words\", 3]");
        let known = Known::open(folder.path().join("known"));
        let gone = [folder.path().join("gone")];
        assert_eq!(known.fact("a", &gone, &mut || Ok("none".into())).expect("of no file"), "none");
        let failed = known.fact("c", &files, &mut || Err(Error::data("stopped"))).expect_err("not found");
        assert_eq!(failed.to_string(), "stopped");
    }

    #[test]
    fn what_is_no_file_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let known = Known::open(folder.path().join("known"));
        let said = |path: &Path| known.of_file(path).expect_err("no file").to_string();
        assert!(said(folder.path()).ends_with("` is a folder, expected a file"));
        #[cfg(unix)]
        {
            let pipe = folder.path().join("pipe");
            assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
            assert!(said(&pipe).ends_with("` is a pipe or a device, expected a file"));
        }
    }
}
