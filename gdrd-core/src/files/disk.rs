//! The operations on files that a run is made of. All of them pass here, so that tests can let each one fail.

use std::fs::File;
use std::io::{Read, Result, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::time::SystemTime;

/// What an operation on a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileOperation {
    /// It reads.
    Read,
    /// It writes, makes or gives another name.
    Write,
    /// It removes.
    Remove,
}

/// Lets operations on files fail, and the clock go wrong: for tests.
///
/// ```
/// use std::io::{Error, Result, Write};
/// use std::path::Path;
/// use std::time::SystemTime;
///
/// use gdrd_core::files::{FaultInjector, FileOperation, inject_faults, write_atomically};
///
/// /// A disk that nothing can be written to.
/// struct Full;
///
/// impl FaultInjector for Full {
///     fn before(&self, operation: FileOperation, _: &Path) -> Result<()> {
///         if operation == FileOperation::Write { Err(Error::other("the disk is full")) } else { Ok(()) }
///     }
///
///     fn before_write(&self, _: &mut dyn Write, path: &Path, _: &[u8]) -> Result<()> {
///         self.before(FileOperation::Write, path)
///     }
///
///     fn now(&self) -> SystemTime {
///         SystemTime::UNIX_EPOCH
///     }
/// }
///
/// inject_faults(&Full);
/// let path = std::env::temp_dir().join("gdrd-fault-injector-example");
/// assert!(write_atomically(&path, b"lost").is_err());
/// assert!(!path.exists());
/// ```
pub trait FaultInjector: Sync {
    /// Called before an operation on the file at `path`.
    ///
    /// # Errors
    /// The operation's, which does not happen then.
    fn before(&self, operation: FileOperation, path: &Path) -> Result<()>;

    /// The same before `bytes` are written to `file`, of which it may write some.
    ///
    /// # Errors
    /// The write's, which does not happen then.
    fn before_write(&self, file: &mut dyn Write, path: &Path, bytes: &[u8]) -> Result<()>;

    /// What the clock says.
    fn now(&self) -> SystemTime;
}

static INJECTOR: OnceLock<&'static dyn FaultInjector> = OnceLock::new();

/// Has every later operation of this process ask `injector`; the first one stays. Only tests call this.
pub fn inject_faults(injector: &'static dyn FaultInjector) {
    INJECTOR.get_or_init(|| injector);
}

/// Lets the operation fail, if a test wants it to.
fn may_fail(operation: FileOperation, path: &Path) -> Result<()> {
    INJECTOR.get().map_or(Ok(()), |injector| injector.before(operation, path))
}

/// Opens a file to read it.
///
/// # Errors
/// If that fails.
pub fn open(path: &Path) -> Result<File> {
    may_fail(FileOperation::Read, path)?;
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
    if let Some(injector) = INJECTOR.get() {
        injector.before_write(file, path, bytes)?;
    }
    file.write_all(bytes)
}

/// Brings a file that is or will be at `path` to the disk.
pub(crate) fn sync(file: &File, path: &Path) -> Result<()> {
    may_fail(FileOperation::Write, path)?;
    file.sync_all()
}

/// Gives a partial file its name.
pub(super) fn persist(file: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    may_fail(FileOperation::Write, path)?;
    file.persist(path).map(drop).map_err(|e| e.error)
}

/// Gives a file or a folder another name.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    may_fail(FileOperation::Write, to)?;
    std::fs::rename(from, to)
}

/// Makes a folder in one that is there; one that is there itself is as good.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    may_fail(FileOperation::Write, path)?;
    match std::fs::create_dir(path) {
        Err(_) if path.is_dir() => Ok(()),
        made => made,
    }
}

/// Makes a folder and those that it lies in.
pub(crate) fn make_folders(path: &Path) -> Result<()> {
    may_fail(FileOperation::Write, path)?;
    match std::fs::create_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_symlink() => {
            Err(std::io::Error::other("a link to a folder that does not exist"))
        }
        made => made,
    }
}

/// Removes a file.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    may_fail(FileOperation::Remove, path)?;
    std::fs::remove_file(path)
}

/// What the clock says.
pub(crate) fn now() -> SystemTime {
    INJECTOR.get().map_or_else(SystemTime::now, |injector| injector.now())
}
