//! What was done already: a line of `align.jsonl` for each photograph, behind one with the options.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use gdrd_core::digest;
use gdrd_core::error::{Error, Result};
use gdrd_core::files::sweep_own;
use gdrd_student::front_end::{Bounds, Landmarks};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::face_path;
use super::photographs::Photograph;

/// The file in the folder of results.
const NAME: &str = "align.jsonl";

/// The faces of a photograph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The photograph's name.
    pub(super) image: String,
    /// The sha256 of its bytes and of what was known of it.
    pub(super) content: String,
    /// How many faces there are.
    pub(super) found: usize,
    /// Those that were taken.
    pub(super) faces: Vec<Aligned>,
}

/// A face that was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Aligned {
    /// Its file below `faces`.
    pub(super) file: String,
    /// The sha256 of the file.
    pub(super) sha256: String,
    pub(super) bounds: Bounds,
    pub(super) landmarks: Option<Landmarks>,
    pub(super) score: Option<f32>,
}

impl Aligned {
    /// Whether the file is there as it was written.
    pub(super) fn is_there(&self, out: &Path) -> bool {
        std::fs::read(face_path(out, &self.file))
            .is_ok_and(|bytes| digest::hex(&digest::of_bytes(&bytes)) == self.sha256)
    }
}

/// The journal of a folder of results, which this process alone writes.
pub(super) struct Journal {
    out: PathBuf,
    path: PathBuf,
    file: Mutex<File>,
}

impl Journal {
    /// Opens or begins the journal of a folder, and says what is known from earlier calls.
    pub(super) fn open(out: &Path, options: &impl Serialize) -> Result<(Self, BTreeMap<String, Record>)> {
        std::fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;
        let path = out.join(NAME);
        let failed = |e| Error::io(&path, e);
        let other = std::fs::read_dir(out).map_err(|e| Error::io(out, e))?.flatten().next();
        if let (Some(other), false) = (other, path.exists()) {
            return Err(Error::recipe(format!(
                "`{}` is no folder of aligned faces: it holds `{}` and no `{NAME}`; expected a new folder, nothing is overwritten",
                out.display(),
                other.file_name().to_string_lossy()
            )));
        }
        let file = OpenOptions::new().create(true).read(true).append(true).open(&path);
        let mut file = file.map_err(failed)?;
        // A file system without locks lets two in.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(Error::recipe(format!("`{}`: another gdrd writes there; wait for it to end", out.display())));
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed)?;
        // A line without an end was being written when the process or the machine stopped.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            file.set_len(whole as u64).map_err(failed)?;
        }
        let mut lines = text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate();
        let mut known = BTreeMap::new();
        match lines.next() {
            None => write_line(&mut file, options).map_err(failed)?,
            Some((_, first)) => check_options(first, options, out, &path)?,
        }
        for (at, line) in lines {
            let record: Record = serde_json::from_slice(line).map_err(|e| damaged(&path, at, &e.to_string()))?;
            known.insert(record.image.clone(), record);
        }
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok((Self { out: out.to_path_buf(), path, file: Mutex::new(file) }, known))
    }

    /// Takes note of a photograph whose faces are written.
    pub(super) fn add(&self, record: &Record) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        write_line(&mut file, record).map_err(|e| Error::io(&self.path, e))
    }

    /// Removes what an earlier call that was killed left half-written.
    pub(super) fn sweep(&self, photographs: &[Photograph]) {
        sweep_own(&self.out);
        let folder = |one: &Photograph| face_path(&self.out, &one.face(0)).parent().map(Path::to_path_buf);
        let folders: std::collections::BTreeSet<PathBuf> = photographs.iter().filter_map(folder).collect();
        folders.iter().for_each(|folder| sweep_own(folder));
    }
}

/// Writes a line at once: whoever reads finds all of it, or a last line without an end.
fn write_line(file: &mut File, value: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    file.write_all(&line)
}

fn damaged(path: &Path, at: usize, why: &str) -> Error {
    let line = at + 1;
    Error::data(format!("`{}`: line {line} is damaged: {why}; name a new folder for the results", path.display()))
}

/// Refuses a folder that was made with other options.
fn check_options(line: &[u8], options: &impl Serialize, out: &Path, path: &Path) -> Result<()> {
    let before: Json = serde_json::from_slice(line).map_err(|e| damaged(path, 0, &e.to_string()))?;
    // By way of text: numbers as the file has them.
    let now = serde_json::to_vec(options).and_then(|text| serde_json::from_slice::<Json>(&text));
    let now = now.map_err(|e| damaged(path, 0, &e.to_string()))?;
    let empty = serde_json::Map::new();
    let keys = now.as_object().unwrap_or(&empty).keys().chain(before.as_object().unwrap_or(&empty).keys());
    let other = keys.filter(|key| before.get(key) != now.get(key)).map(|key| {
        let text = |of: &Json| of.get(key).map_or("nothing".into(), Json::to_string);
        format!("{key} was {}, now {}", text(&before), text(&now))
    });
    match other.collect::<std::collections::BTreeSet<String>>() {
        other if other.is_empty() => Ok(()),
        other => Err(Error::recipe(format!(
            "`{}` was made with other options: {}; repeat them, or name a new folder",
            out.display(),
            other.into_iter().collect::<Vec<_>>().join("; ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(image: &str) -> Record {
        Record { image: image.into(), content: "c".into(), found: 0, faces: Vec::new() }
    }

    #[test]
    fn a_line_that_was_cut_is_forgotten_and_the_others_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = json!({ "size": 112, "score": 0.7f32 });
        let (journal, known) = Journal::open(folder.path(), &options).expect("a new one");
        assert!(known.is_empty());
        journal.add(&record("a")).expect("written");
        assert!(Journal::open(folder.path(), &options).err().expect("held").to_string().contains("another gdrd"));
        journal.add(&record("b")).expect("written");
        drop(journal);
        let path = folder.path().join(NAME);
        let whole = std::fs::read(&path).expect("a file");
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("cut");
            let (journal, known) = Journal::open(folder.path(), &options).expect("goes on");
            let lines = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(known.len(), lines.saturating_sub(1), "cut at {cut}");
            journal.add(&record("c")).expect("written");
            drop(journal);
            let (_, known) = Journal::open(folder.path(), &options).expect("again");
            assert_eq!(known.get("c"), Some(&record("c")), "cut at {cut}");
        }
    }

    #[test]
    fn other_options_and_other_folders_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(Journal::open(folder.path(), &json!({ "size": 112 })).expect("a new one"));
        let error = Journal::open(folder.path(), &json!({ "size": 96 })).err().expect("another size").to_string();
        assert!(error.contains("size was 112, now 96"), "{error}");
        let foreign = tempfile::tempdir().expect("a folder");
        std::fs::write(foreign.path().join("mine"), "x").expect("written");
        let error = Journal::open(foreign.path(), &json!({})).err().expect("a folder of others").to_string();
        assert!(error.contains("it holds `mine`"), "{error}");
    }
}
