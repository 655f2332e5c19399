//! Backups: complete databases in a folder.

use std::fs::File;
use std::path::{Component, Path, PathBuf};

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
    /// Backups in `folder`, which [`Store::open`] makes.
    pub(crate) fn new(folder: &Path, keep: usize) -> Result<Self> {
        let folder = whole(folder);
        match folder.to_str() {
            Some(_) => Ok(Self { folder, keep }),
            None => Err(Error::recipe(format!("`{}`: expected a folder whose name is UTF-8", folder.display()))),
        }
    }
}

/// A folder as the database names it, whether it is there or not.
fn whole(folder: &Path) -> PathBuf {
    match (folder.canonicalize(), folder.components().next_back()) {
        (Ok(whole), _) => whole,
        (Err(_), Some(Component::Normal(name))) => match folder.parent() {
            Some(parent) if parent != Path::new("") => whole(parent).join(name),
            _ => whole(Path::new(".")).join(name),
        },
        (Err(_), _) => folder.to_path_buf(),
    }
}

/// Whether the folder of a backup is there. If so, a backup that is not was removed; if not, it may come back.
pub(super) fn in_reach(backup: &Path) -> bool {
    backup.parent().is_some_and(Path::is_dir)
}

impl Store {
    /// The backups that are known.
    pub(super) fn backups(&self) -> Result<Vec<PathBuf>> {
        self.rows("SELECT path FROM backups ORDER BY made", [], |row| row.get::<_, String>(0).map(PathBuf::from))
    }

    /// The backups that are known in a folder.
    fn backups_in(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        Ok(self.backups()?.into_iter().filter(|path| path.parent() == Some(folder)).collect())
    }

    /// Makes the folder for backups, unless there are backups in it: then it is there, or away with them. In a new one of the same name
    /// they would count as removed.
    pub(super) fn make_folder(&self) -> Result<()> {
        match &self.backups {
            Some(Backups { folder, .. }) if self.backups_in(folder)?.is_empty() => {
                std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))
            }
            _ => Ok(()),
        }
    }

    /// Forgets the backups in a folder that is gone for good: nobody is erased from them any longer. How many those were.
    ///
    /// # Errors
    /// If no backup is known there, or one is still there.
    pub(crate) fn forget_backups(&mut self, folder: &Path) -> Result<usize> {
        let folder = whole(folder);
        let paths = self.backups_in(&folder)?;
        if paths.is_empty() {
            let known: std::collections::BTreeSet<String> =
                self.backups()?.iter().filter_map(|path| Some(format!("`{}`", path.parent()?.display()))).collect();
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Error::recipe(format!(
                "`--forget-backup {}`: expected a folder that has backups of `{}`: {}",
                folder.display(),
                self.path.display(),
                if known.is_empty() { "there is none" } else { &known }
            )));
        }
        if let Some(path) = paths.iter().find(|path| path.exists()) {
            return Err(Error::recipe(format!(
                "`--forget-backup {}`: `{}` is still there; who is deleted is deleted from it too. Remove it if it is not needed",
                folder.display(),
                path.display()
            )));
        }
        self.change(|db| {
            paths.iter().try_for_each(|path| {
                db.execute("DELETE FROM backups WHERE path = ?1", [path.to_string_lossy()]).map(drop)
            })
        })?;
        self.finish_erasures()?;
        Ok(paths.len())
    }

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
        if !folder.is_dir() {
            return Err(Error::data(format!(
                "`{0}`: the folder for backups is not there; put it back, or if it is gone for good, `gdrd serve {1} --forget-backup {0}` \
                 forgets it, and the next start makes it anew",
                folder.display(),
                self.path.display()
            )));
        }
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
            // One that is away is not forgotten: who is deleted is to be deleted from it when it comes back.
            if !in_reach(Path::new(&old)) {
                continue;
            }
            gone(Path::new(&old))?;
            self.change(|db| db.execute("DELETE FROM backups WHERE path = ?1", [old]).map(drop))?;
        }
        Ok(Some(path))
    }

    /// Removes what backups have left that were broken off.
    pub(super) fn remove_partial(&self) -> Result<()> {
        self.backups()?.iter().filter(|path| in_reach(path)).try_for_each(|path| gone(&beside(path, ".partial")))
    }
}

/// Removes a file, if it is there.
pub(super) fn gone(path: &Path) -> Result<()> {
    // A disk that nobody may write to refuses to remove what is not there.
    match path.try_exists().and_then(|there| if there { std::fs::remove_file(path) } else { Ok(()) }) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, error)),
        _ => Ok(()),
    }
}
