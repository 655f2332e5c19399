//! Files that are not complete: each lies beside its target, whose name it has in its own.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::{Target, folder_of, now, target};
use crate::error::{Error, Result};

/// How the name of a file that is not complete begins and ends. Between them are the target's name, a hyphen and letters by chance.
const PARTIAL: (&str, &str) = (".gdrd-", ".partial");
/// Letters by chance.
const CHANCE: usize = 6;
/// Bytes of the target's name at most, so that no name is longer than a file system takes.
const NAMED: usize = 200;
/// A partial file that nobody holds and that is older than this was left by a process that was killed.
const LEFT: Duration = Duration::from_secs(60);

/// Who may read a file that was not there before.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Readers {
    /// Whoever may read an ordinary new file.
    All,
    /// Its owner alone.
    Owner,
}

/// How the names of a target's partial files begin.
fn beginning(target: &Path) -> String {
    let mut name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    while name.len() > NAMED {
        name.pop();
    }
    format!("{}{name}-", PARTIAL.0)
}

/// A file beside `target` that vanishes unless it is given a name, with the permissions of the file that is there.
pub(crate) fn partial_file(target: &Path, readers: Readers) -> Result<tempfile::NamedTempFile> {
    let folder = folder_of(target);
    let older = std::fs::metadata(target).ok().map(|older| older.permissions());
    let beginning = beginning(target);
    let mut builder = tempfile::Builder::new();
    builder.prefix(&beginning).suffix(PARTIAL.1).rand_bytes(CHANCE);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let new = match readers {
            Readers::All => 0o666,
            Readers::Owner => 0o600,
        };
        // No moment at which somebody else may open it.
        builder.permissions(older.clone().unwrap_or(std::fs::Permissions::from_mode(new)));
    }
    #[cfg(not(unix))]
    let _ = readers;
    let file = builder.tempfile_in(folder).map_err(|e| Error::io(folder, e))?;
    if let Some(older) = older {
        // Those that a new file of this process would not have.
        file.as_file().set_permissions(older).map_err(|e| Error::io(target, e))?;
    }
    // Held as long as it is open, so that `sweep` can tell it from one that was left. A file system without locks only
    // loses this: there everything is older than a minute at some time, and a file under way may be swept.
    let _ = file.as_file().try_lock();
    Ok(file)
}

/// Whether a file of this name is one that was never completed.
pub(crate) fn is_partial(name: &str) -> bool {
    name.starts_with(PARTIAL.0) && name.ends_with(PARTIAL.1)
}

/// Removes what processes that were killed have left in `folder`. Files that cannot be removed stay, as does what is being
/// written by someone else.
pub(crate) fn sweep(folder: &Path) {
    sweep_older(folder, LEFT, is_partial);
}

/// Removes what is not complete from a folder where nobody else writes, since this process holds it: it was left behind.
pub fn sweep_own(folder: &Path) {
    sweep_older(folder, Duration::ZERO, is_partial);
}

/// Removes what was left of a file that nobody else writes, since this process holds it; files beside it and their partial files stay.
pub fn sweep_of(path: &Path) {
    let Ok(Target::File(target)) = target(path) else { return };
    let beginning = beginning(&target);
    let is_its = |name: &str| {
        let chance = name.strip_prefix(&beginning).and_then(|rest| rest.strip_suffix(PARTIAL.1));
        chance.is_some_and(|it| it.len() == CHANCE && it.bytes().all(|letter| letter.is_ascii_alphanumeric()))
    };
    sweep_older(folder_of(&target), Duration::ZERO, is_its);
}

fn sweep_older(folder: &Path, left: Duration, is_one: impl Fn(&str) -> bool) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let age = |file: &File| now().duration_since(file.metadata().and_then(|m| m.modified()).ok()?).ok();
        let old = |file: &File| left.is_zero() || age(file).is_some_and(|age| age > left);
        if entry.file_name().to_str().is_some_and(&is_one)
            && let Ok(file) = File::open(entry.path())
            && old(&file)
            && file.try_lock().is_ok()
        {
            // Rubbish that stays does no harm.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;
    use crate::files::{write_parts, write_secret};

    fn partials(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
        names.retain(|name| is_partial(name));
        names.sort();
        names
    }

    #[test]
    fn what_was_left_is_swept_and_what_is_written_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let left = folder.path().join(".gdrd-left.partial");
        std::fs::write(&left, "half").expect("written");
        let young = partial_file(&folder.path().join("file"), Readers::All).expect("a file");
        sweep(folder.path());
        assert!(left.exists(), "it may be under way");
        let long_ago = std::time::SystemTime::now() - 2 * LEFT;
        for path in [&*left, young.path()] {
            OpenOptions::new().append(true).open(path).and_then(|file| file.set_modified(long_ago)).expect("set");
        }
        sweep(folder.path());
        assert!(!left.exists() && young.path().exists());
    }

    #[test]
    fn a_sweep_knows_whose_a_partial_file_is() {
        let folder = tempfile::tempdir().expect("a folder");
        // The second name looks like a partial file of the first; names at the longest that a file system takes.
        let long = "\u{e9}".repeat(127);
        for name in ["a", "a-bcdefg", "a.previous", &long] {
            let target = folder.path().join(name);
            let (_, left) = partial_file(&target, Readers::All).expect("a file").keep().expect("kept");
            let others = ["a", "a-bcdefg", "a.previous", &long].into_iter().filter(|other| *other != name);
            others.for_each(|other| sweep_of(&folder.path().join(other)));
            assert!(left.exists(), "another's");
            let writing = partial_file(&target, Readers::All).expect("a file");
            sweep_of(&target);
            assert!(!left.exists() && writing.path().exists(), "{name}");
        }
        assert_eq!(partials(folder.path()), Vec::<String>::new());
    }

    #[cfg(unix)]
    #[test]
    fn a_partial_file_may_be_read_by_those_who_may_read_its_target() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().expect("a folder");
        let mode = |path: &Path| std::fs::metadata(path).expect("a file").permissions().mode() & 0o777;
        let [path, link, new] = ["people", "link", "new"].map(|name| folder.path().join(name));
        let written = |path: &Path, secret: bool, expected: u32| {
            let look = std::iter::once("x").inspect(|_| {
                let found = partials(folder.path());
                assert!(found.len() == 1 && !found[0].starts_with(".gdrd-link"), "{found:?}");
                assert_eq!(mode(&folder.path().join(&found[0])), expected, "before the first byte");
            });
            if secret { write_secret(path, look) } else { write_parts(path, look) }.expect("written");
            assert_eq!(mode(path), expected);
        };
        written(&path, true, 0o600);
        symlink("people", &link).expect("a link");
        for kept in [0o640, 0o606, 0o600] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(kept)).expect("set");
            [false, true].into_iter().for_each(|secret| written(&link, secret, kept));
        }
        std::fs::write(&new, "").expect("written");
        let ordinary = mode(&new);
        std::fs::remove_file(&new).expect("removed");
        written(&new, false, ordinary);
    }
}
