//! A folder of this process for readers that want a file, in memory where the system has such a place.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

static FOLDER: OnceLock<TempDir> = OnceLock::new();

/// The folder.
pub(crate) fn path() -> &'static Path {
    let make = || {
        let memory = Path::new("/dev/shm");
        let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        made.expect("a temporary folder")
    };
    FOLDER.get_or_init(make).path()
}

/// The file `name` in it with these bytes; folders on the way are made.
pub(crate) fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = path().join(name);
    std::fs::create_dir_all(path.parent().expect("in the folder")).expect("a folder");
    std::fs::write(&path, bytes).expect("a file");
    path
}
