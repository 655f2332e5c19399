//! Backups: complete databases in a folder.

use std::fs::File;
use std::path::{Path, PathBuf};

use gdrd_core::error::{Error, Result};
use rusqlite::params;

use super::open::{beside, private};
use super::{Store, as_i64, now, of_sqlite};

/// Where backups go, and how many stay.
pub(crate) struct Backups {
    folder: PathBuf,
    keep: usize,
}

impl Backups {
    /// Backups in `folder`, which is made.
    pub(crate) fn new(folder: &Path, keep: usize) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let folder = folder.canonicalize().map_err(|e| Error::io(folder, e))?;
        match folder.to_str() {
            Some(_) => Ok(Self { folder, keep }),
            None => Err(Error::recipe(format!("`{}`: expected a folder whose name is UTF-8", folder.display()))),
        }
    }
}

impl Store {
    /// Seconds since the newest backup that is still there; none if there is none.
    pub(crate) fn backed_up(&self) -> Result<Option<u64>> {
        let row = |row: &rusqlite::Row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
        let all = self.rows("SELECT path, made FROM backups ORDER BY made DESC", [], row)?;
        let newest = all.into_iter().find(|(path, _)| Path::new(path).exists());
        Ok(newest.map(|(_, made)| now().saturating_sub(made).unsigned_abs()))
    }

    /// Writes a backup, complete or not at all, and removes those that are too old. Where it is; none without a folder for it.
    pub(crate) fn back_up(&mut self) -> Result<Option<PathBuf>> {
        let Some(Backups { folder, keep }) = &self.backups else { return Ok(None) };
        let (name, keep) = (self.path.file_name().unwrap_or_default().to_string_lossy().into_owned(), *keep);
        let newest = self.one("SELECT max(made) FROM backups", [], |row| row.get::<_, Option<i64>>(0))?.flatten();
        // Later than every other, whatever the clock does.
        let least = now().max(newest.map_or(0, |newest| newest + 1));
        let at = |made: i64| folder.join(format!("{name}.{made}.backup"));
        let made = (least..).find(|made| !at(*made).exists()).unwrap_or(least);
        let path = at(made);
        let partial = beside(&path, ".partial");
        let (path_text, partial_text) = (path.to_string_lossy().into_owned(), partial.to_string_lossy().into_owned());
        // Known before it is there, so that nobody stays in a backup that is not known.
        self.change(|db| {
            db.execute("INSERT INTO backups (path, made) VALUES (?1, ?2)", params![path_text, made]).map(drop)
        })?;
        self.remove_partial()?;
        private(&partial)?;
        self.db.execute("VACUUM INTO ?1", [partial_text]).map_err(|e| of_sqlite(&partial, &e))?;
        File::open(&partial).and_then(|file| file.sync_all()).map_err(|e| Error::io(&partial, e))?;
        std::fs::rename(&partial, &path).map_err(|e| Error::io(&path, e))?;
        let query = "SELECT path FROM backups ORDER BY made DESC LIMIT -1 OFFSET ?1";
        for old in self.rows(query, [as_i64(keep as u64)], |row| row.get::<_, String>(0))? {
            gone(Path::new(&old))?;
            self.change(|db| db.execute("DELETE FROM backups WHERE path = ?1", [old]).map(drop))?;
        }
        Ok(Some(path))
    }

    /// Removes what backups have left that were broken off.
    pub(super) fn remove_partial(&self) -> Result<()> {
        let paths = self.rows("SELECT path FROM backups", [], |row| row.get::<_, String>(0))?;
        paths.iter().try_for_each(|path| gone(&beside(Path::new(path), ".partial")))
    }
}

fn gone(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, error)),
        _ => Ok(()),
    }
}
