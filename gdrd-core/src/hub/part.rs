//! A blob while it is written: it can be gone on with after a stop, and is what it should be before it gets its name.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::digest::hex;
use crate::error::{Error, Result};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Bytes that are read and written at once.
const CHUNK: usize = 256 << 10;

/// The bytes that are here of a blob of `size` bytes, and their digests.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    size: u64,
    etag: String,
    pub(super) done: u64,
    sha256: Sha256,
    git: Sha1,
}

/// Git's digest of a file begins with its kind and size.
fn git(size: u64) -> Sha1 {
    Sha1::new_with_prefix(format!("blob {size}\0"))
}

impl Part {
    /// Opens what an earlier try has left, or begins.
    pub(super) fn open(path: PathBuf, etag: &str, size: u64) -> Result<Self> {
        let file = File::options().create(true).read(true).append(true).open(&path).map_err(|e| Error::io(&path, e))?;
        let etag = etag.to_string();
        let mut part = Self { path, file, size, etag, done: 0, sha256: Sha256::new(), git: git(size) };
        let left = part.file.metadata().map_err(|e| Error::io(&part.path, e))?.len();
        if left > size {
            part.done = left;
            part.restart()?;
        }
        part.file.seek(SeekFrom::Start(0)).map_err(|e| Error::io(&part.path, e))?;
        let mut buffer = vec![0; CHUNK];
        while part.done < left.min(size) {
            match part.file.read(&mut buffer).map_err(|e| Error::io(&part.path, e))? {
                0 => break,
                count => part.note(&buffer[..count]),
            }
        }
        Ok(part)
    }

    fn note(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.git.update(bytes);
        self.done += bytes.len() as u64;
    }

    /// Takes one chunk of `body`; false at its end.
    ///
    /// # Errors
    /// The outer one if the disk fails, the inner one if the body does.
    pub(super) fn take(&mut self, body: &mut impl Read) -> Result<std::io::Result<bool>> {
        let mut buffer = vec![0; CHUNK.min((self.size - self.done) as usize)];
        let count = match body.read(&mut buffer) {
            Ok(0) => return Ok(Ok(false)),
            Ok(count) => count,
            Err(error) => return Ok(Err(error)),
        };
        self.file.write_all(&buffer[..count]).map_err(|e| self.unwritten(e))?;
        self.note(&buffer[..count]);
        Ok(Ok(self.done < self.size))
    }

    fn unwritten(&self, error: std::io::Error) -> Error {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::hub(format!(
                "no space for `{}`: {} of {} bytes were written; HF_HOME says where the cache is",
                self.path.display(),
                self.done,
                self.size
            )),
            _ => Error::io(&self.path, error),
        }
    }

    /// Forgets what is here.
    pub(super) fn restart(&mut self) -> Result<()> {
        if self.done > 0 {
            self.file.set_len(0).map_err(|e| Error::io(&self.path, e))?;
        }
        (self.done, self.sha256, self.git) = (0, Sha256::new(), git(self.size));
        Ok(())
    }

    pub(super) fn is_complete(&self) -> bool {
        self.done == self.size
    }

    /// The sha256 of the bytes, if they are the ones that the ETag names.
    ///
    /// # Errors
    /// A sentence with the digest that was expected and the one that was found.
    pub(super) fn verified(&self) -> std::result::Result<String, String> {
        let sha256 = hex(&self.sha256.clone().finalize());
        // The ETag of a large file is its sha256, that of a small one is git's digest; mirrors may have others.
        let (what, found) = match self.etag.len() {
            64 => ("sha256", sha256.clone()),
            40 => ("git digest", hex(&self.git.clone().finalize())),
            _ => return Ok(sha256),
        };
        match found == self.etag {
            true => Ok(sha256),
            false => Err(format!("the bytes are wrong: expected {what} {}, found {found}", self.etag)),
        }
    }

    /// Gives the complete blob its name.
    pub(super) fn persist(self, blob: &Path) -> Result<()> {
        self.file.sync_all().map_err(|e| self.unwritten(e))?;
        std::fs::rename(&self.path, blob).map_err(|e| Error::io(blob, e))
    }

    /// Removes what is here.
    pub(super) fn discard(self) {
        // Nothing better can be done about a file that cannot be removed; the next try begins with its bytes.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    /// `printf abc | git hash-object --stdin`
    const GIT_ABC: &str = "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f";

    #[test]
    fn what_is_left_is_gone_on_with_and_checked() {
        let folder = tempfile::tempdir().expect("a folder");
        for etag in [ABC, GIT_ABC] {
            let path = folder.path().join(format!("{etag}.incomplete"));
            std::fs::write(&path, "ab").expect("a part");
            let mut part = Part::open(path.clone(), etag, 3).expect("opened");
            assert_eq!(part.done, 2);
            assert!(!part.take(&mut &b"cd"[..]).expect("written").expect("read"), "no byte more than the size");
            assert_eq!(part.verified(), Ok(ABC.into()));
            part.persist(&folder.path().join(etag)).expect("named");
            assert!(!path.exists());
            assert_eq!(std::fs::read(folder.path().join(etag)).expect("a blob"), b"abc");
        }
    }

    #[test]
    fn wrong_and_left_over_bytes_are_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.incomplete");
        std::fs::write(&path, "abX").expect("a part");
        let mut part = Part::open(path.clone(), ABC, 3).expect("opened");
        let error = part.verified().expect_err("another digest");
        assert!(error.contains(&format!("expected sha256 {ABC}, found ")), "{error}");
        part.restart().expect("empty");
        assert_eq!((part.done, std::fs::metadata(&path).expect("a file").len()), (0, 0));
        std::fs::write(&path, "abcdef").expect("too much");
        assert_eq!(Part::open(path.clone(), ABC, 3).expect("opened").done, 0);
        Part::open(path.clone(), ABC, 3).expect("opened").discard();
        assert!(!path.exists());
    }
}
