//! Files that are there completely or not at all.

use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// A file in `folder` that vanishes unless it is given a name, with the permissions of an ordinary new file.
pub(crate) fn partial_file(folder: &Path) -> Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder).map_err(|e| Error::io(folder, e))
}

/// Writes a file so that it is there completely or not at all. Its folder is made if there is none.
///
/// # Errors
/// If it cannot be written; a file that was there before stays as it was.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let mut file = partial_file(folder)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(|e| Error::io(path, e))?;
    file.persist(path).map_err(|e| Error::io(path, e.error))?;
    Ok(())
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
}
