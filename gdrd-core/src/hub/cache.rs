//! The Hub's cache, in the layout that `huggingface_hub` and the crate `hf-hub` share:
//!
//! ```text
//! .locks/models--org--name/ETAG.lock      held while the blob is written
//! models--org--name/blobs/ETAG            the bytes; ETAG is their sha256, or git's hash for small files
//! models--org--name/refs/REVISION         the commit that a branch or tag stood at
//! models--org--name/snapshots/COMMIT/PATH a link to the blob, or the blob itself where the file system has no links
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{HubAddress, RepositoryType};
use crate::error::{Error, Result};
use crate::files::write_atomically;
use hf_hub::{CacheRepo, Repo, RepoType};

/// The part of the cache that belongs to one repository.
pub(super) struct Cache {
    snapshots: CacheRepo,
    folder: PathBuf,
    locks: PathBuf,
}

/// A file that the cache has.
pub(super) struct Cached {
    pub(super) path: PathBuf,
    pub(super) commit: String,
}

impl Cache {
    pub(super) fn of(root: &Path, address: &HubAddress) -> Self {
        let kind = match address.repository_type {
            RepositoryType::Model => RepoType::Model,
            RepositoryType::Dataset => RepoType::Dataset,
            RepositoryType::Space => RepoType::Space,
        };
        let repository = Repo::new(address.repository.clone(), kind);
        let name = repository.folder_name();
        Self {
            snapshots: hf_hub::Cache::new(root.to_path_buf()).repo(repository),
            folder: root.join(&name),
            locks: root.join(".locks").join(name),
        }
    }

    /// The file at a branch, tag or commit, if it is here.
    pub(super) fn find(&self, revision: &str, path: &str) -> Option<Cached> {
        let commit = match is_commit(revision) {
            true => revision.to_string(),
            false => std::fs::read_to_string(self.reference(revision)).ok()?.trim().to_string(),
        };
        let path = self.snapshot(&commit, path);
        (is_commit(&commit) && path.is_file()).then_some(Cached { path, commit })
    }

    /// Whether the cache says where a branch or tag stands.
    pub(super) fn knows(&self, revision: &str) -> bool {
        self.reference(revision).is_file()
    }

    /// The commits at which the cache has a file, in order.
    pub(super) fn commits_with(&self, path: &str) -> Vec<String> {
        let folders = std::fs::read_dir(self.folder.join("snapshots")).into_iter().flatten().flatten();
        let commits = folders.filter_map(|folder| folder.file_name().into_string().ok());
        let mut commits: Vec<String> =
            commits.filter(|commit| is_commit(commit) && self.snapshot(commit, path).is_file()).collect();
        commits.sort();
        commits
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }

    fn snapshot(&self, commit: &str, path: &str) -> PathBuf {
        self.snapshots.pointer_path(commit).join(path)
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Where a blob is written before it is complete.
    pub(super) fn incomplete(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// Makes the blob the file `path` of `commit`, and notes that `revision` stands there. A blob that is new has no other links.
    pub(super) fn link(&self, etag: &str, revision: &str, commit: &str, path: &str, is_new: bool) -> Result<PathBuf> {
        let link = self.snapshot(commit, path);
        let folder = link.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        // From `snapshots/COMMIT`, and from as many folders below it as the path has, up to `blobs`.
        let up = "../".repeat(2 + path.matches('/').count());
        place(&self.blob(etag), &format!("{up}blobs/{etag}"), &link, is_new, symbolic_link)?;
        if revision != commit {
            let reference = self.reference(revision);
            let folder = reference.parent().unwrap_or(&self.folder);
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
            write_atomically(&reference, commit.as_bytes())?;
        }
        Ok(link)
    }

    /// Waits until no other process writes the blob. `waiting` is called from time to time and may give up.
    pub(super) fn lock(&self, etag: &str, mut waiting: impl FnMut() -> Result<()>) -> Result<BlobLock> {
        std::fs::create_dir_all(&self.locks).map_err(|e| Error::io(&self.locks, e))?;
        let blobs = self.folder.join("blobs");
        std::fs::create_dir_all(&blobs).map_err(|e| Error::io(&blobs, e))?;
        let path = self.locks.join(format!("{etag}.lock"));
        loop {
            let file = File::options().create(true).append(true).open(&path).map_err(|e| Error::io(&path, e))?;
            match file.try_lock() {
                // Whoever had it may have removed the file meanwhile; then it locks nothing.
                Ok(()) if is_at(&file, &path) => return Ok(BlobLock { _file: file }),
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => {
                    waiting()?;
                    std::thread::sleep(Duration::from_millis(100));
                }
                // A file system without locks. The checksum still holds, whoever else writes.
                Err(std::fs::TryLockError::Error(_)) => return Ok(BlobLock { _file: file }),
            }
        }
    }
}

/// The right to write a blob, until it is dropped.
pub(super) struct BlobLock {
    _file: File,
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(here), Ok(there)) = (file.metadata(), std::fs::metadata(path)) else { return false };
    (here.dev(), here.ino()) == (there.dev(), there.ino())
}

#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

/// Puts a relative link at `link`, whatever stood there, in one step. On a file system without links the file itself comes
/// there, as the Python client does it: moved if it is new, copied if other snapshots may need it.
fn place(
    blob: &Path,
    target: &str,
    link: &Path,
    is_new: bool,
    symbolic_link: impl Fn(&str, &Path) -> std::io::Result<()>,
) -> Result<()> {
    let near =
        link.with_file_name(format!(".{}.{}", std::process::id(), link.file_name().unwrap_or_default().display()));
    let _ = std::fs::remove_file(&near);
    match symbolic_link(target, &near) {
        Ok(()) => {}
        Err(_) if is_new => std::fs::rename(blob, &near).map_err(|e| Error::io(blob, e))?,
        Err(_) => drop(std::fs::copy(blob, &near).map_err(|e| Error::io(&near, e))?),
    }
    std::fs::rename(&near, link).map_err(|e| Error::io(link, e))
}

#[cfg(unix)]
fn symbolic_link(target: &str, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symbolic_link(_: &str, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Whether a revision is a whole commit, which nothing can move.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The sha256 that the cache says a file has: the name of its blob, where that is one.
pub(super) fn sha256_by_name(path: &Path) -> Option<String> {
    let blob = std::fs::canonicalize(path).ok()?;
    let name = blob.file_name()?.to_str()?;
    (name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())).then(|| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file system without links answers.
    fn refused(_: &str, _: &Path) -> std::io::Result<()> {
        Err(std::io::Error::from_raw_os_error(1))
    }

    #[test]
    fn without_links_the_file_itself_is_moved_or_copied() {
        let folder = tempfile::tempdir().expect("a folder");
        let (blob, link) = (folder.path().join("blob"), folder.path().join("link"));
        std::fs::write(&blob, "bytes").expect("a blob");
        place(&blob, "blob", &link, false, refused).expect("copied");
        assert!(blob.exists() && !link.is_symlink());
        assert_eq!(std::fs::read(&link).expect("a copy"), b"bytes");
        std::fs::write(&blob, "newer").expect("a blob");
        place(&blob, "blob", &link, true, refused).expect("moved");
        assert!(!blob.exists());
        assert_eq!(std::fs::read(&link).expect("a file"), b"newer");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing is left over");
        std::fs::write(&blob, "linked").expect("a blob");
        place(&blob, "blob", &link, true, symbolic_link).expect("linked or moved");
        assert_eq!(std::fs::read(&link).expect("a file"), b"linked");
    }
}
