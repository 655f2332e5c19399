//! The operations on files that a run is made of. All of them pass here, so that the tests can let each one fail.
//!
//! The feature `faults`, which only the tests turn on, adds the failures that `GDRD_FAULTS` asks for (`faults.rs`).

use std::fs::File;
use std::io::{Read, Result, Write};
use std::path::Path;

#[cfg(feature = "faults")]
use super::faults::{self, Op};

/// Lets the operation fail, if a test wants it to.
macro_rules! may_fail {
    ($op:ident, $path:expr) => {
        #[cfg(feature = "faults")]
        faults::strike(Op::$op, $path)?;
    };
}

/// Opens a file to read it.
///
/// # Errors
/// If that fails.
pub fn open(path: &Path) -> Result<File> {
    may_fail!(Read, path);
    File::open(path)
}

/// The bytes of a file.
///
/// # Errors
/// If it cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of a file.
///
/// # Errors
/// If it cannot be read or is not UTF-8.
pub fn read_to_string(path: &Path) -> Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Writes all of `bytes` to `file`, which is or will be at `path`.
pub(crate) fn write_all(file: &mut impl Write, path: &Path, bytes: &[u8]) -> Result<()> {
    #[cfg(feature = "faults")]
    faults::strike_write(file, path, bytes)?;
    #[cfg(not(feature = "faults"))]
    let _ = path;
    file.write_all(bytes)
}

/// Brings a file that is or will be at `path` to the disk.
pub(crate) fn sync(file: &File, path: &Path) -> Result<()> {
    may_fail!(Write, path);
    #[cfg(not(feature = "faults"))]
    let _ = path;
    file.sync_all()
}

/// Gives a partial file its name.
pub(super) fn persist(file: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    may_fail!(Write, path);
    file.persist(path).map(drop).map_err(|e| e.error)
}

/// Gives a file or a folder another name.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    may_fail!(Write, to);
    std::fs::rename(from, to)
}

/// Makes a folder in one that is there; one that is there itself is as good.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    may_fail!(Write, path);
    match std::fs::create_dir(path) {
        Err(_) if path.is_dir() => Ok(()),
        made => made,
    }
}

/// Makes a folder and those that it lies in.
pub(crate) fn make_folders(path: &Path) -> Result<()> {
    may_fail!(Write, path);
    match std::fs::create_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_symlink() => {
            Err(std::io::Error::other("a link to a folder that does not exist"))
        }
        made => made,
    }
}

/// Removes a file.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    may_fail!(Remove, path);
    std::fs::remove_file(path)
}

#[cfg(feature = "faults")]
pub(crate) use super::faults::now;

/// What the clock says.
#[cfg(not(feature = "faults"))]
pub(crate) fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
