//! `checksums.json`: size and sha256 of everything that a finished run has written, but for its checkpoints, which have their own.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest;
use crate::error::{Error, Result};
use crate::files::{self, write_atomically};

/// The file's name in a run folder.
pub(super) const CHECKSUMS: &str = "checksums.json";

/// The content of [`CHECKSUMS`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Checksums {
    /// Version of this file.
    format: u32,
    /// The files, by their paths in the run folder.
    files: BTreeMap<String, Sum>,
    /// Sha256 of the field above.
    seal: String,
}

/// Of one file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sum {
    /// Bytes.
    size: u64,
    sha256: String,
}

impl Sum {
    fn of(path: &Path) -> Result<Self> {
        let sha256 = digest::of_file(path)?;
        let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
        Ok(Self { size, sha256 })
    }
}

impl Checksums {
    /// Those of the files among `names` that are in `folder`.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(super) fn of(folder: &Path, names: &[String]) -> Result<Self> {
        let there = names.iter().filter(|name| folder.join(name).is_file());
        let files = there.map(|name| Ok((name.clone(), Sum::of(&folder.join(name))?))).collect::<Result<_>>()?;
        let seal = digest::of_value(&files);
        Ok(Self { format: 1, files, seal })
    }

    /// Those, and that of a file with these bytes.
    pub(super) fn with(mut self, name: &str, bytes: &[u8]) -> Self {
        let sum = Sum { size: bytes.len() as u64, sha256: digest::hex(&digest::of_bytes(bytes)) };
        self.files.insert(name.to_string(), sum);
        self.seal = digest::of_value(&self.files);
        self
    }

    /// Sha256 of the file that is called so.
    pub(super) fn sha256(&self, name: &str) -> Option<&str> {
        self.files.get(name).map(|sum| sum.sha256.as_str())
    }

    /// Writes them into `folder`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).expect("plain data has a JSON form");
        write_atomically(&folder.join(CHECKSUMS), &text)
    }

    /// Those of a run folder.
    ///
    /// # Errors
    /// If there are none, or they are damaged.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(CHECKSUMS);
        let text = match files::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::data("it is missing; runs of an older gdrd have none"));
            }
            read => read.map_err(|e| Error::io(&path, e))?,
        };
        let read: Self = serde_json::from_slice(&text).map_err(|e| Error::data(format!("it is damaged: {e}")))?;
        match digest::of_value(&read.files) == read.seal && read.format == 1 {
            true => Ok(read),
            false => Err(Error::data("it is damaged: its checksum is another, or it is of a newer gdrd")),
        }
    }

    /// Each file that is `wanted` with what was found: its size, or in what way it is another.
    pub(super) fn compare(&self, folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<(String, Result<String>)> {
        let compare = |(name, expected): (&String, &Sum)| {
            let found = match Sum::of(&folder.join(name)) {
                Ok(found) if found == *expected => Ok(format!("{} bytes, sha256 {}", found.size, &found.sha256[..12])),
                Ok(found) => Err(Error::data(format!(
                    "expected {} bytes with sha256 {}, found {} with {}",
                    expected.size, expected.sha256, found.size, found.sha256
                ))),
                Err(error) => Err(error),
            };
            (name.clone(), found)
        };
        self.files.iter().filter(|(name, _)| wanted(name)).map(compare).collect()
    }

    /// Whether a file is among them.
    pub(super) fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_of_a_file_or_of_the_checksums_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
        let names = ["a", "b", "none"].map(String::from);
        write("a", "1");
        write("b", "2");
        Checksums::of(folder.path(), &names).and_then(|sums| sums.write(folder.path())).expect("written");
        let found = || Checksums::read(folder.path()).expect("good").compare(folder.path(), |_| true);
        assert_eq!(found().len(), 2);
        assert!(found().iter().all(|(_, found)| found.is_ok()));
        write("a", "7");
        std::fs::remove_file(folder.path().join("b")).expect("removed");
        let wrong: Vec<String> =
            found().into_iter().map(|(_, found)| found.expect_err("changed").to_string()).collect();
        assert!(wrong[0].starts_with("expected 1 bytes with sha256 6b86b273ff34"), "{wrong:?}");
        assert!(wrong[1].contains("no such file or folder"), "{wrong:?}");
        let text = std::fs::read_to_string(folder.path().join(CHECKSUMS)).expect("text");
        write(CHECKSUMS, &text.replace("6b86b2", "6b86b3"));
        assert!(Checksums::read(folder.path()).expect_err("altered").to_string().contains("its checksum is another"));
        std::fs::remove_file(folder.path().join(CHECKSUMS)).expect("removed");
        assert!(Checksums::read(folder.path()).expect_err("gone").to_string().contains("is missing"));
    }
}
