//! How people leave the database, at once and for good.
//!
//! `secure_delete` overwrites what is deleted with zeros, but not the copies that SQLite leaves behind when it moves live rows from page to
//! page and that become the only traces of a row that is deleted later. So every deletion is followed by `VACUUM`, which writes the
//! database anew, and by a checkpoint that empties the log. What is still to be done stands in the table `erasures`, in the transaction
//! of the deletion: a server that is killed goes on when it is started again. It stays there too while a backup cannot be reached.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gdrd_core::error::{Error, Result};
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::backup::{gone, in_reach};
use super::open::{beside, connect};
use super::{Store, Which, of_sqlite};

/// What was deleted.
#[derive(Debug, Default)]
pub(crate) struct Erased {
    /// Faces, with number and name of the subject of each.
    pub(crate) examples: Vec<(Uuid, i64, String)>,
    /// Subjects that are no more.
    pub(crate) subjects: Vec<i64>,
}

/// Rows of the two tables.
struct Rows {
    examples: Vec<i64>,
    subjects: Vec<i64>,
}

impl Store {
    /// Deletes faces, and where they are asked for as a whole, their subjects: from the database, its log, and the backups.
    ///
    /// A backup that cannot be reached is no error: that is said, [`unreached`](Self::unreached) is true, and it is tried again.
    ///
    /// # Errors
    /// If something could not be deleted from the database or its log; what could not is done when the server is started again.
    pub(crate) fn erase(&mut self, collection: i64, which: Which) -> Result<Erased> {
        let (erased, rows) = self.find(collection, which)?;
        if rows.examples.is_empty() && rows.subjects.is_empty() {
            return Ok(erased);
        }
        self.change(|db| {
            let query = "INSERT OR IGNORE INTO erasures (kind, row) VALUES (?1, ?2)";
            db.execute(query, params!["file", 0])?;
            for (kind, rows) in [("example", &rows.examples), ("subject", &rows.subjects)] {
                rows.iter().try_for_each(|row| db.prepare_cached(query)?.execute(params![kind, row]).map(drop))?;
            }
            delete(db, &rows)
        })?;
        self.finish_erasures()?;
        Ok(erased)
    }

    fn find(&self, collection: i64, which: Which) -> Result<(Erased, Rows)> {
        let query = "SELECT e.id, e.uuid, e.subject, s.name FROM examples e JOIN subjects s ON s.id = e.subject \
                     WHERE s.collection = ?1";
        type Found = (i64, (Uuid, i64, String));
        let row = |row: &rusqlite::Row| -> rusqlite::Result<Found> {
            Ok((row.get(0)?, (Uuid::from_bytes(row.get(1)?), row.get(2)?, row.get(3)?)))
        };
        let (found, subjects): (_, Vec<i64>) = match which {
            Which::All => {
                let subjects = self.subjects(collection)?.into_iter().map(|(id, _)| id).collect();
                (self.rows(query, [collection], row)?, subjects)
            }
            Which::Subject(id) => (self.rows(&format!("{query} AND s.id = ?2"), [collection, id], row)?, vec![id]),
            Which::Examples(ids) => {
                let query = format!("{query} AND e.uuid = ?2");
                let mut found: Vec<Found> = Vec::new();
                for id in ids {
                    let new = self.one(&query, params![collection, id.as_bytes()], row)?;
                    found.extend(new.filter(|(row, _)| found.iter().all(|(known, _)| known != row)));
                }
                (found, Vec::new())
            }
        };
        let (examples, named) = found.into_iter().unzip();
        let mut all = subjects.clone();
        for subject in &subjects {
            all.extend(self.rows("SELECT row FROM merged WHERE subject = ?1", [subject], |row| row.get::<_, i64>(0))?);
        }
        Ok((Erased { examples: named, subjects }, Rows { examples, subjects: all }))
    }

    /// Whether people who were deleted are in a backup that could not be reached.
    pub(crate) fn unreached(&self) -> bool {
        self.unreached
    }

    /// Brings every deletion that was begun to its end. Where a backup cannot be reached, they stay open.
    pub(super) fn finish_erasures(&mut self) -> Result<()> {
        if self.one("SELECT 1 FROM erasures LIMIT 1", [], |_| Ok(()))?.is_none() {
            return Ok(());
        }
        written_anew(&self.db).map_err(|e| self.wrong(e).at("people were deleted, but not yet overwritten"))?;
        let of = |kind: &str| self.rows("SELECT row FROM erasures WHERE kind = ?1", [kind], |row| row.get(0));
        let rows = Rows { examples: of("example")?, subjects: of("subject")? };
        let mut missed: BTreeMap<PathBuf, (usize, Error)> = BTreeMap::new();
        for path in self.backups()? {
            if let Err(error) = erase_from(&path, &rows) {
                let folder = path.parent().unwrap_or(&path).to_path_buf();
                missed.entry(folder).or_insert((0, error)).0 += 1;
            }
        }
        for (folder, (count, error)) in &missed {
            talk!(
                "warning: people were deleted from `{database}`, but not yet from {count} of its backups in `{folder}`: {error}. It is \
                 tried again at the next deletion and the next start. Put the folder back, or remove what cannot be read; if the folder is \
                 gone for good, `gdrd serve {database} --forget-backup {folder}` forgets it",
                database = self.path.display(),
                folder = folder.display(),
            );
        }
        self.unreached = !missed.is_empty();
        match self.unreached {
            true => Ok(()),
            false => self.change(|db| db.execute("DELETE FROM erasures", []).map(drop)),
        }
    }
}

fn delete(db: &Connection, rows: &Rows) -> rusqlite::Result<()> {
    for (query, rows) in [
        ("DELETE FROM images WHERE example = ?1", &rows.examples),
        ("DELETE FROM examples WHERE id = ?1", &rows.examples),
        ("DELETE FROM subjects WHERE id = ?1", &rows.subjects),
    ] {
        rows.iter().try_for_each(|row| db.prepare_cached(query)?.execute([row]).map(drop))?;
    }
    Ok(())
}

/// Writes a database anew without what was deleted, and empties its log.
fn written_anew(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch("VACUUM")?;
    let busy: i64 = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    match busy {
        0 => Ok(()),
        _ => Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
            Some("the log could not be emptied".into()),
        )),
    }
}

/// Deletes rows from a backup; one that somebody has removed holds nobody.
fn erase_from(path: &Path, rows: &Rows) -> Result<()> {
    if !in_reach(path) {
        return Err(Error::data("the folder is not there"));
    }
    gone(&beside(path, ".partial"))?;
    if !path.try_exists().map_err(|e| Error::io(path, e))? {
        return Ok(());
    }
    let erased = || -> rusqlite::Result<()> {
        let db = connect(path)?;
        delete(&db, rows)?;
        written_anew(&db)?;
        // Without a log beside it, it is one file again.
        db.pragma_update(None, "journal_mode", "DELETE")?;
        db.close().map_err(|(_, error)| error)
    };
    erased().map_err(|e| of_sqlite(path, &e))
}
