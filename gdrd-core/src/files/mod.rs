//! Files that are there completely or not at all, and names that may become files.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind as Io, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

mod disk;
mod mapped;
mod name;
mod partial;
mod sealed;

pub use disk::{FaultInjector, FileOperation, inject_faults, open, read, read_to_string};
pub(crate) use disk::{make_folder, make_folders, now, rename, sync, write_all};
pub use mapped::Mapped;
pub use name::{NAME_RULE, is_name, plain_name};
pub(crate) use partial::{Readers, is_partial, partial_file, sweep};
pub use partial::{sweep_of, sweep_own};
pub(crate) use sealed::{Seal, sealed, unsealed};

/// Links that are followed from an output to its file.
const LINKS: usize = 40;

/// Writes a file so that it is there completely or not at all, whatever happens. A link stays a link and its file is
/// replaced; permissions are kept. What is no file (a pipe, a device) is written to.
///
/// # Errors
/// If it cannot be written, is a folder or read-only, or its folder does not exist; a file that was there before stays as it
/// was.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    write_parts(path, [bytes])
}

/// The same for a file that is made part by part, so that it need not lie in memory as a whole.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_parts(path: &Path, parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<()> {
    write(path, parts, Readers::All)
}

/// The same for what is nobody else's business: a file that was not there before, only its owner may read, from its first byte on.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_secret(path: &Path, parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<()> {
    write(path, parts, Readers::Owner)
}

fn write(path: &Path, parts: impl IntoIterator<Item = impl AsRef<[u8]>>, readers: Readers) -> Result<()> {
    let failed = |e| Error::io(path, e);
    let mut parts = parts.into_iter();
    let target = match target(path)? {
        Target::File(target) => target,
        Target::Stream => {
            let mut stream = OpenOptions::new().append(true).open(path).map_err(failed)?;
            let mut written = parts.try_for_each(|part| stream.write_all(part.as_ref()));
            written = written.and_then(|()| stream.flush());
            return written.map_err(failed);
        }
    };
    let mut file = partial_file(&target, readers)?;
    parts.try_for_each(|part| write_all(&mut file, &target, part.as_ref())).map_err(failed)?;
    sync(file.as_file(), &target).map_err(failed)?;
    persist(file, &target)
}

/// Gives a partial file its name, and makes sure that it has it after a loss of power.
pub(crate) fn persist(file: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    disk::persist(file, path).map_err(|e| Error::io(path, e))?;
    sync_folder(folder_of(path))
}

/// Brings the names in a folder to the disk.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    // Only Unix opens folders, and some of its file systems cannot do this: there is nothing more to be done there.
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if cfg!(unix) && !matches!(error.kind(), Io::InvalidInput | Io::Unsupported) => {
            Err(Error::io(folder, error))
        }
        _ => Ok(()),
    }
}

/// Refuses an output that could not be written, or that is one of `inputs`, before the work for it begins.
///
/// # Errors
/// If it is a folder or read-only, its folder does not exist, or it is the same file as an input, by whatever name.
pub fn check_output<'a>(path: &Path, inputs: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let Target::File(target) = target(path)? else { return Ok(()) };
    let Some(own) = identity(&target) else { return Ok(()) };
    match inputs.into_iter().find(|input| identity(input).as_ref() == Some(&own)) {
        None => Ok(()),
        Some(input) => {
            let input = input.display();
            let message =
                format!("`{}` is the input `{input}`, which would be lost; name another output", path.display());
            Err(Error::recipe(message))
        }
    }
}

/// Whether an output is no file but a pipe, a terminal or another device.
pub fn is_stream(path: &Path) -> bool {
    matches!(target(path), Ok(Target::Stream))
}

/// Where the bytes of an output go.
enum Target {
    /// Into this file, which need not exist.
    File(PathBuf),
    /// Into something that is no file, or is a file that this process has open already, such as its standard output.
    Stream,
}

fn target(path: &Path) -> Result<Target> {
    let wrong = |what: &str| Error::new(ErrorKind::Io, format!("`{}` {what}", path.display()));
    if path.file_name().is_none() || path.to_string_lossy().ends_with(['/', std::path::MAIN_SEPARATOR]) {
        return Err(wrong("is a folder, expected a file"));
    }
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(wrong("is a folder, expected a file")),
        Ok(found) if !found.is_file() => return Ok(Target::Stream),
        Ok(found) if found.permissions().readonly() => return Err(wrong("is read-only")),
        Ok(_) => {}
        Err(error) if error.kind() == Io::NotFound => {}
        Err(error) => return Err(Error::io(path, error)),
    }
    let mut file = path.to_path_buf();
    for _ in 0..LINKS {
        let folder = folder_of(&file);
        match folder.canonicalize() {
            // Links to open files, as `/dev/stdout` leads to.
            Ok(folder) if folder.starts_with("/proc") => return Ok(Target::Stream),
            Ok(folder) if folder.is_dir() => {}
            _ => return Err(wrong(&format!("cannot be written: there is no folder `{}`", folder.display()))),
        }
        match std::fs::read_link(&file) {
            Ok(link) => file = folder.join(link),
            Err(_) => return Ok(Target::File(file)),
        }
    }
    Err(wrong("is a link that leads nowhere"))
}

/// Removes a file or a link; one that is not there, and a folder, stay as they are.
///
/// # Errors
/// If it cannot be removed.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_dir() => disk::remove_file(path).map_err(|e| Error::io(path, e)),
        _ => Ok(()),
    }
}

/// Removes a folder if nothing is in it.
pub(crate) fn remove_empty(folder: &Path) {
    // That it is not empty is the one reason to stay that matters.
    let _ = std::fs::remove_dir(folder);
}

/// The folder that a path is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What two names of one file have in common; none if there is no file.
#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok()
}

/// A lock on a file, which the system takes back when the process ends, however it ends.
#[derive(Debug)]
pub struct Held {
    /// None on a file system that knows no locks.
    file: Option<File>,
}

impl Held {
    /// Whether the file system keeps others out.
    pub(crate) fn keeps_out(&self) -> bool {
        self.file.is_some()
    }
}

/// Takes the lock on the file at `path`, which is made; none if somebody else has it.
///
/// # Errors
/// If the file cannot be made.
pub fn hold(path: &Path) -> Result<Option<Held>> {
    let open = || OpenOptions::new().create(true).append(true).open(path).map_err(|e| Error::io(path, e));
    let mut file = open()?;
    for _ in 0..5 {
        match file.try_lock() {
            // Whoever held it may have removed it before this one had its turn: then others would lock another file.
            Ok(()) if !is_at(&file, path) => file = open()?,
            Ok(()) => return Ok(Some(Held { file: Some(file) })),
            // It may be somebody who only looks, as `is_held` does.
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
            Err(TryLockError::Error(_)) => return Ok(Some(Held { file: None })),
        }
    }
    Ok(None)
}

/// Whether the file is the one at the path.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let same = |a: std::fs::Metadata, b: std::fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    file.metadata().and_then(|open| Ok(same(open, std::fs::metadata(path)?))).unwrap_or(false)
}

/// Whether the file is the one at the path: an open file cannot be removed there.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

/// Whether somebody holds the lock on the file at `path`. Makes nothing.
pub(crate) fn is_held(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_older_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        write_atomically(&path, b"old").expect("written");
        assert!(write_atomically(&path.join("below-a-file"), b"new").is_err());
        assert_eq!(std::fs::read(&path).expect("read"), b"old");
    }

    #[test]
    fn folders_and_places_that_are_not_there_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let said = |name: &str| write_atomically(&folder.path().join(name), b"x").expect_err(name).to_string();
        assert!(said("").contains("is a folder, expected a file"), "{}", said(""));
        assert!(said("new/").contains("is a folder, expected a file"), "{}", said("new/"));
        assert!(said("gone/file").contains("there is no folder `"), "{}", said("gone/file"));
        assert!(!folder.path().join("gone").exists());
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing half-written");
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_is_on_the_file_that_others_find() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        // Somebody has the lock, and removes the file while another one waits for it.
        let first = hold(&path).expect("a file").expect("the lock");
        let waiting = std::thread::scope(|scope| {
            let waits = scope.spawn(|| hold(&path));
            std::thread::sleep(Duration::from_millis(30));
            std::fs::remove_file(&path).expect("removed");
            drop(first);
            waits.join().expect("no panic")
        });
        let held = waiting.expect("a file").expect("the lock");
        assert!(is_held(&path), "who comes now finds it taken");
        drop(held);
        assert!(!is_held(&path));
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_links_and_permissions_stay() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().expect("a folder");
        let [file, link, far] = ["file", "link", "far"].map(|name| folder.path().join(name));
        std::fs::write(&file, "old").expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).expect("set");
        symlink("file", &link).expect("a link");
        symlink("link", &far).expect("a link");
        write_atomically(&far, b"new").expect("written");
        assert!([&link, &far].into_iter().all(|path| path.is_symlink()));
        assert_eq!(std::fs::read(&file).expect("read"), b"new");
        assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o640);
        std::fs::remove_file(&file).expect("removed");
        write_atomically(&link, b"again").expect("a link that leads to a new file");
        assert_eq!(std::fs::read(&file).expect("read"), b"again");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o444)).expect("set");
        assert!(write_atomically(&link, b"x").expect_err("read-only").to_string().contains("is read-only"));
        for (link, to) in [("a", "b"), ("b", "a")] {
            symlink(to, folder.path().join(link)).expect("a link");
        }
        assert!(write_atomically(&folder.path().join("a"), b"x").is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn devices_are_written_to() {
        write_atomically(Path::new("/dev/null"), b"x").expect("it takes everything");
        assert!(is_stream(Path::new("/dev/null")) && is_stream(Path::new("/dev/stdout")));
        assert!(std::fs::metadata("/dev/null").is_ok_and(|found| !found.is_file()));
        assert!(write_atomically(Path::new("/dev/full"), b"x").is_err());
    }

    #[test]
    fn an_input_is_no_output() {
        let folder = tempfile::tempdir().expect("a folder");
        let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(name));
        std::fs::write(&a, "input").expect("written");
        std::fs::hard_link(&a, &b).expect("another name");
        let round = folder.path().join("..").join(folder.path().file_name().expect("a name")).join("a");
        for output in [&a, &b, &round] {
            let error = check_output(output, [&*c, &*a]).expect_err("an input").to_string();
            assert!(error.contains("is the input `"), "{error}");
        }
        check_output(&c, [&*a, &*b]).expect("a new file");
        check_output(&a, [&*c]).expect("an older output");
    }

    #[test]
    fn a_lock_is_held_until_it_is_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        assert!(!is_held(&path) && !path.exists());
        let held = hold(&path).expect("a file").expect("free");
        assert!(held.keeps_out() && is_held(&path) && hold(&path).expect("a file").is_none());
        drop(held);
        assert!(!is_held(&path) && hold(&path).expect("a file").is_some());
    }
}
