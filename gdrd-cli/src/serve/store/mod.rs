//! People and their faces in an SQLite file.
//!
//! A change is answered once its transaction is on the disk (write-ahead log, `synchronous = FULL`). One process has the file: a lock
//! beside it keeps a second server out with a clear message, and SQLite's exclusive locking keeps every other program out, so that a
//! checkpoint always reaches the end of the log. `erase.rs` says how deleted people leave the file.

mod backup;
mod erase;
mod open;
mod schema;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use gdrd_core::digest;
use gdrd_core::error::{Error, Result};
use gdrd_core::files::Held;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};
use subtle::ConstantTimeEq;
use uuid::Uuid;

pub(super) use backup::Backups;
pub(super) use erase::Erased;

/// An open database.
pub(super) struct Store {
    db: Connection,
    path: PathBuf,
    backups: Option<Backups>,
    /// Whether a backup could not be reached when people were last erased, and has them still.
    unreached: bool,
    _held: Held,
}

/// A key, as it is kept: its hash and its collection.
#[derive(Clone)]
pub(super) struct Key {
    hash: [u8; 32],
    pub(super) collection: i64,
}

/// A face of a subject.
pub(super) struct Example {
    /// Its row of the table `examples`.
    pub(super) row: i64,
    pub(super) id: Uuid,
    pub(super) subject: i64,
    /// The embedding's values.
    pub(super) values: Vec<f32>,
    /// Height of the face, in pixels.
    pub(super) pixels: usize,
}

/// What is kept of a face that is enrolled.
pub(super) struct New<'a> {
    pub(super) values: &'a [f32],
    pub(super) pixels: usize,
    /// The image as it came, and the face as the student sees it.
    pub(super) images: Option<(&'a [u8], &'a [u8])>,
}

/// Which faces of a collection.
#[derive(Clone, Copy)]
pub(super) enum Which<'a> {
    /// With their subjects.
    All,
    Subject(i64),
    Examples(&'a [Uuid]),
}

impl Store {
    /// The database's file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn wrong(&self, error: rusqlite::Error) -> Error {
        of_sqlite(&self.path, &error)
    }

    /// What `query` gives for each row.
    fn rows<T>(
        &self,
        query: &str,
        with: impl rusqlite::Params,
        row: impl FnMut(&Row) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let all = || -> rusqlite::Result<Vec<T>> { self.db.prepare_cached(query)?.query_map(with, row)?.collect() };
        all().map_err(|e| self.wrong(e))
    }

    fn one<T>(
        &self,
        query: &str,
        with: impl rusqlite::Params,
        row: impl FnOnce(&Row) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let one = || -> rusqlite::Result<Option<T>> { self.db.prepare_cached(query)?.query_row(with, row).optional() };
        one().map_err(|e| self.wrong(e))
    }

    /// Changes something in one transaction.
    fn change<T>(&mut self, change: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let done = || -> rusqlite::Result<T> {
            let transaction = self.db.transaction()?;
            let made = change(&transaction)?;
            transaction.commit()?;
            Ok(made)
        };
        let done = done();
        done.map_err(|e| of_sqlite(&self.path, &e))
    }

    /// The number of a collection, which is made if need be.
    fn collection(&mut self, name: &str) -> Result<i64> {
        self.change(|db| {
            db.execute("INSERT OR IGNORE INTO collections (name) VALUES (?1)", [name])?;
            db.query_row("SELECT id FROM collections WHERE name = ?1", [name], |row| row.get(0))
        })
    }

    /// A new key of a collection. It is kept as its hash alone: a key has 122 random bits, so that nobody finds it by trying, and a slow
    /// hash would only slow down requests.
    pub(super) fn new_key(&mut self, collection: &str) -> Result<String> {
        if collection.trim().is_empty() || collection.chars().any(char::is_control) {
            return Err(Error::recipe(format!("expected a collection's name on one line, found {collection:?}")));
        }
        let key = Uuid::new_v4().to_string();
        let id = self.collection(collection)?;
        let hash = hash(&key);
        self.change(|db| {
            db.execute("INSERT INTO keys (collection, hash, made) VALUES (?1, ?2, ?3)", params![id, hash, now()])
        })?;
        Ok(key)
    }

    /// Makes the keys of a collection invalid; how many those were.
    ///
    /// # Errors
    /// If there is no such collection.
    pub(super) fn revoke_keys(&mut self, collection: &str) -> Result<usize> {
        let id = self.one("SELECT id FROM collections WHERE name = ?1", [collection], |row| row.get::<_, i64>(0))?;
        let id = id.ok_or_else(|| Error::data(format!("no collection is called `{collection}`")))?;
        self.change(|db| db.execute("DELETE FROM keys WHERE collection = ?1", [id]))
    }

    pub(super) fn keys(&self) -> Result<Vec<Key>> {
        self.rows("SELECT hash, collection FROM keys", [], |row| Ok(Key { hash: row.get(0)?, collection: row.get(1)? }))
    }

    pub(super) fn collections(&self) -> Result<Vec<i64>> {
        self.rows("SELECT id FROM collections", [], |row| row.get(0))
    }

    /// The names of the subjects of a collection by their numbers, in the order of their names.
    pub(super) fn subjects(&self, collection: i64) -> Result<Vec<(i64, String)>> {
        let query = "SELECT id, name FROM subjects WHERE collection = ?1 ORDER BY folded";
        self.rows(query, [collection], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// A subject by name, whatever its case, as CompreFace finds it.
    pub(super) fn subject(&self, collection: i64, name: &str) -> Result<Option<i64>> {
        let query = "SELECT id FROM subjects WHERE collection = ?1 AND folded = ?2";
        self.one(query, params![collection, folded(name)], |row| row.get(0))
    }

    /// Adds a subject; its number.
    pub(super) fn add_subject(&mut self, collection: i64, name: &str) -> Result<i64> {
        self.change(|db| {
            let query = "INSERT INTO subjects (collection, name, folded) VALUES (?1, ?2, ?3)";
            db.execute(query, params![collection, name, folded(name)])?;
            Ok(db.last_insert_rowid())
        })
    }

    /// Gives a subject another name.
    pub(super) fn rename(&mut self, subject: i64, name: &str) -> Result<()> {
        self.change(|db| {
            let query = "UPDATE subjects SET name = ?2, folded = ?3 WHERE id = ?1";
            db.execute(query, params![subject, name, folded(name)]).map(drop)
        })
    }

    /// Gives the faces of a subject to another one; the first is no more. Its row is remembered, for backups have it under its old name.
    pub(super) fn merge(&mut self, from: i64, into: i64) -> Result<()> {
        self.change(|db| {
            db.execute("UPDATE examples SET subject = ?2 WHERE subject = ?1", [from, into])?;
            db.execute("UPDATE merged SET subject = ?2 WHERE subject = ?1", [from, into])?;
            db.execute("INSERT INTO merged (row, subject) VALUES (?1, ?2)", [from, into])?;
            db.execute("DELETE FROM subjects WHERE id = ?1", [from]).map(drop)
        })
    }

    /// Adds a face to a subject, who is made if there is nobody of this name yet.
    pub(super) fn add_example(&mut self, collection: i64, name: &str, new: &New) -> Result<Example> {
        let known = self.subject(collection, name)?;
        let id = Uuid::new_v4();
        self.change(|db| {
            let subject = match known {
                Some(subject) => subject,
                None => {
                    let query = "INSERT INTO subjects (collection, name, folded) VALUES (?1, ?2, ?3)";
                    db.execute(query, params![collection, name, folded(name)])?;
                    db.last_insert_rowid()
                }
            };
            let query = "INSERT INTO examples (uuid, subject, pixels, made, embedding) VALUES (?1, ?2, ?3, ?4, ?5)";
            db.execute(query, params![id.as_bytes(), subject, new.pixels as i64, now(), bytes(new.values)])?;
            let row = db.last_insert_rowid();
            if let Some((image, small)) = new.images {
                let query = "INSERT INTO images (example, image, small) VALUES (?1, ?2, ?3)";
                db.execute(query, params![row, image, small])?;
            }
            Ok(Example { row, id, subject, values: new.values.to_vec(), pixels: new.pixels })
        })
    }

    /// The embedding of one face.
    pub(super) fn example(&self, collection: i64, id: Uuid) -> Result<Option<Example>> {
        let query = "SELECT e.uuid, e.subject, e.pixels, e.embedding, e.id FROM examples e JOIN subjects s ON s.id = e.subject \
                     WHERE s.collection = ?1 AND e.uuid = ?2";
        self.one(query, params![collection, id.as_bytes()], example)
    }

    /// The embeddings of a subject, or of all of a collection, in the order in which they came.
    pub(super) fn examples(&self, collection: i64, subject: Option<i64>) -> Result<Vec<Example>> {
        let query = "SELECT e.uuid, e.subject, e.pixels, e.embedding, e.id FROM examples e JOIN subjects s ON s.id = e.subject \
                     WHERE s.collection = ?1 AND (?2 IS NULL OR s.id = ?2) ORDER BY e.id";
        self.rows(query, params![collection, subject], example)
    }

    /// A page of faces with the names of their subjects, and how many there are on all pages.
    pub(super) fn page(
        &self,
        collection: i64,
        subject: Option<i64>,
        page: u64,
        size: u64,
    ) -> Result<(Vec<(Uuid, String)>, u64)> {
        let from =
            "FROM examples e JOIN subjects s ON s.id = e.subject WHERE s.collection = ?1 AND (?2 IS NULL OR s.id = ?2)";
        let count =
            self.one(&format!("SELECT count(*) {from}"), params![collection, subject], |row| row.get::<_, i64>(0))?;
        let query = format!("SELECT e.uuid, s.name {from} ORDER BY e.id LIMIT ?3 OFFSET ?4");
        let with = params![collection, subject, as_i64(size), as_i64(page.saturating_mul(size))];
        let rows = self.rows(&query, with, |row| Ok((Uuid::from_bytes(row.get(0)?), row.get(1)?)))?;
        Ok((rows, count.unwrap_or(0).unsigned_abs()))
    }

    /// The image of a face: as it came, or as the student sees it.
    pub(super) fn image(&self, collection: i64, id: Uuid, small: bool) -> Result<Option<Vec<u8>>> {
        let query = "SELECT CASE WHEN ?3 THEN i.small ELSE i.image END FROM images i JOIN examples e ON e.id = i.example \
                     JOIN subjects s ON s.id = e.subject WHERE s.collection = ?1 AND e.uuid = ?2";
        self.one(query, params![collection, id.as_bytes(), small], |row| row.get(0))
    }

    /// The similarity from which on a face of a collection is named; none if that was not said.
    pub(super) fn threshold(&self, collection: i64) -> Result<Option<f64>> {
        let found = self
            .one("SELECT threshold FROM collections WHERE id = ?1", [collection], |row| row.get::<_, Option<f64>>(0))?;
        Ok(found.flatten())
    }

    pub(super) fn set_threshold(&mut self, collection: i64, threshold: Option<f64>) -> Result<()> {
        self.change(|db| {
            let query = "UPDATE collections SET threshold = ?2 WHERE id = ?1";
            db.execute(query, params![collection, threshold]).map(drop)
        })
    }
}

impl Key {
    /// Whether `key` is this one, in a time that does not say how much of it is right.
    pub(super) fn is(&self, key: &str) -> bool {
        self.hash.ct_eq(&hash(key)).into()
    }
}

fn hash(key: &str) -> [u8; 32] {
    // A UUID is the same in either case.
    digest::of_bytes(key.to_ascii_lowercase().as_bytes())
}

fn example(row: &Row) -> rusqlite::Result<Example> {
    let pixels: i64 = row.get(2)?;
    let (id, pixels) = (Uuid::from_bytes(row.get(0)?), pixels.max(1) as usize);
    Ok(Example { row: row.get(4)?, id, subject: row.get(1)?, values: values(row.get_ref(3)?), pixels })
}

/// The values of an embedding; none of what is no list of numbers, which whoever takes them for an embedding finds.
pub(super) fn values(found: ValueRef) -> Vec<f32> {
    let (fours, rest) = found.as_blob().unwrap_or_default().as_chunks::<4>();
    match rest.is_empty() {
        true => fours.iter().map(|four| f32::from_le_bytes(*four)).collect(),
        false => Vec::new(),
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A name as it is compared.
fn folded(name: &str) -> String {
    name.to_lowercase()
}

fn as_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Seconds since 1970.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| as_i64(since.as_secs()))
}

/// What SQLite says of a file, and what can be done about it.
fn of_sqlite(path: &Path, error: &rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, NotADatabase};
    let what = match error.sqlite_error_code() {
        Some(DatabaseCorrupt) => "it is damaged; restore a backup of it (`--backups` makes them)",
        Some(NotADatabase) => "it is no SQLite database",
        Some(DatabaseBusy | DatabaseLocked) => "another program has it open; end that first",
        Some(DiskFull) => "the disk is full",
        _ => return Error::data(format!("`{}`: {error}", path.display())),
    };
    Error::data(format!("`{}`: {what} ({error})", path.display()))
}

#[cfg(test)]
mod tests;
