//! Files that are read through a memory map.

use std::ops::Deref;
use std::path::Path;

use crate::error::{Error, Result};

/// The bytes of a file, which the system brings into memory as they are asked for.
#[derive(Debug)]
pub struct Mapped(memmap2::Mmap);

impl Mapped {
    /// Maps a file.
    ///
    /// # Errors
    /// If it cannot be opened, or is no file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = super::open(path).map_err(|e| Error::io(path, e))?;
        if !file.metadata().map_err(|e| Error::io(path, e))?.is_file() {
            return Err(Error::data(format!("`{}` is no file; expected one", path.display())));
        }
        #[allow(
            unsafe_code,
            reason = "a memory map is unsafe because another process could change the file; a run names the file's sha256 \
                      and stops when it was changed, a student's file states its checksum, and every reader checks each \
                      length that it finds in it"
        )]
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        Ok(Self(map))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
