//! Opening a database, new, old, cut or in use.

use std::io::Read;
use std::path::{Path, PathBuf};

use gdrd_core::error::{Context, Error, Result};
use gdrd_core::files::hold;
use gdrd_student::FaceEncoder;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Row, params};

use super::schema::{APPLICATION, VERSIONS};
use super::{Backups, Store, of_sqlite};

impl Store {
    /// Opens the database at `path`, or makes a new one; second, whether something came back from the log of a server that was killed.
    ///
    /// # Errors
    /// If another program has it, it is damaged or no database of gdrd, or a later gdrd made it. It is left as it is then.
    pub(crate) fn open(path: &Path, backups: Option<Backups>) -> Result<(Self, bool)> {
        let held = hold(&beside(path, ".lock")).at(|| format!("`{}`", path.display()))?;
        let held = held.ok_or_else(|| {
            Error::data(format!(
                "`{}`: another server has it open; end that first, or name another database",
                path.display()
            ))
        })?;
        let log = beside(path, "-wal");
        let recovered = std::fs::metadata(&log).is_ok_and(|log| log.len() > 0);
        match std::fs::metadata(path) {
            Ok(about) if about.is_file() => check_length(path, about.len(), recovered)?,
            Ok(_) => return Err(Error::data(format!("`{}` is a folder, expected a database", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && recovered => {
                return Err(Error::data(format!(
                    "`{}` is not there, but its log `{}` is; put the database back, or remove the log with what it holds",
                    path.display(),
                    log.display()
                )));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => create(path)?,
            Err(error) => return Err(Error::io(path, error)),
        }
        let db = connect(path).map_err(|e| of_sqlite(path, &e))?;
        check(&db, path)?;
        let mut store = Self { db, path: path.to_path_buf(), backups, unreached: false, _held: held };
        store.migrate()?;
        // From here on the log may be brought into the database.
        store.db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(|e| store.wrong(e))?;
        store.remove_partial()?;
        store.finish_erasures()?;
        store.make_folder()?;
        Ok((store, recovered))
    }

    fn migrate(&mut self) -> Result<()> {
        let version = version(&self.db).map_err(|e| self.wrong(e))?;
        for (at, statements) in VERSIONS.iter().enumerate().skip(version) {
            self.change(|db| {
                db.execute_batch(statements)?;
                db.pragma_update(None, "user_version", at as i64 + 1)
            })?;
        }
        Ok(())
    }

    /// Takes note of the student whose embeddings are kept. Whether those that are there are another's.
    pub(crate) fn is_of_another(&mut self, encoder: &FaceEncoder) -> Result<bool> {
        let known = self.one("SELECT digest FROM student", [], |row| row.get::<_, String>(0))?;
        if known.as_deref() == Some(encoder.digest()) {
            return Ok(false);
        }
        let any = self.one("SELECT 1 FROM examples LIMIT 1", [], |_| Ok(()))?;
        match any {
            Some(()) => Ok(true),
            None => self.set_student(encoder, &[]).map(|()| false),
        }
    }

    /// Puts embeddings of a student in the place of those that are there. Thresholds are taken back, and that is said: they were chosen
    /// among another student's similarities.
    pub(crate) fn set_student(&mut self, encoder: &FaceEncoder, all: &[(i64, Vec<f32>)]) -> Result<()> {
        let width = encoder.header().card.embedding.unwrap_or(0) as i64;
        let cleared = self.change(|db| {
            put(db, all)?;
            db.execute("DELETE FROM student", [])?;
            let query = "INSERT INTO student (digest, width) VALUES (?1, ?2)";
            db.execute(query, params![encoder.digest(), width])?;
            db.execute("UPDATE collections SET threshold = NULL WHERE threshold IS NOT NULL", [])
        })?;
        if cleared > 0 {
            talk!(
                "warning: {}: the thresholds of {cleared} collections were chosen for another student, and are none now: the nearest is \
                 named, however far; choose them anew",
                self.path.display()
            );
        }
        Ok(())
    }

    /// Puts embeddings of the same student in the place of those of some rows.
    pub(crate) fn mend(&mut self, all: &[(i64, Vec<f32>)]) -> Result<()> {
        self.change(|db| put(db, all))
    }

    /// The rows whose embeddings are none of this student: of another width, or without a direction.
    pub(crate) fn damaged(&self, encoder: &FaceEncoder) -> Result<Vec<i64>> {
        let is_wrong = |row: &Row| {
            let wrong = encoder.embedding(&super::values(row.get_ref(1)?), 1).is_err();
            Ok(if wrong { Some(row.get(0)?) } else { None })
        };
        let found = self.rows("SELECT id, embedding FROM examples ORDER BY id", [], is_wrong)?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The rows of all faces, and whether the image of each was kept.
    pub(crate) fn faces(&self) -> Result<Vec<(i64, bool)>> {
        let query =
            "SELECT e.id, i.example IS NOT NULL FROM examples e LEFT JOIN images i ON i.example = e.id ORDER BY e.id";
        self.rows(query, [], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// The image of a row of [`faces`](Self::faces), if it was kept.
    pub(crate) fn image_of(&self, row: i64) -> Result<Option<Vec<u8>>> {
        self.one("SELECT image FROM images WHERE example = ?1", [row], |row| row.get(0))
    }
}

/// Writes embeddings into their rows.
fn put(db: &Connection, all: &[(i64, Vec<f32>)]) -> rusqlite::Result<()> {
    for (row, values) in all {
        db.execute("UPDATE examples SET embedding = ?2 WHERE id = ?1", params![row, super::bytes(values)])?;
    }
    Ok(())
}

/// The path of a file beside the database.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(ending);
    name.into()
}

/// Makes a database that is there completely or not at all.
fn create(path: &Path) -> Result<()> {
    let new = beside(path, ".new");
    for old in [&new, &beside(&new, "-journal")] {
        if let Err(error) = std::fs::remove_file(old)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(Error::io(old, error));
        }
    }
    private(&new)?;
    let made = || -> rusqlite::Result<()> {
        let db = Connection::open(&new)?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "application_id", APPLICATION)?;
        db.close().map_err(|(_, error)| error)
    };
    made().map_err(|e| of_sqlite(path, &e))?;
    std::fs::rename(&new, path).map_err(|e| Error::io(path, e))
}

/// Makes an empty file that nobody else on this machine may read; what SQLite puts beside it has its permissions.
pub(super) fn private(path: &Path) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.create_new(true).write(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path).map(drop).map_err(|e| Error::io(path, e))
}

/// Refuses a file that ends before its header says. SQLite takes an empty one for a new database. With a log the file may have been
/// growing when its server was killed; then SQLite decides.
fn check_length(path: &Path, length: u64, has_log: bool) -> Result<()> {
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    const HEADER: usize = 100;
    let mut head = Vec::with_capacity(HEADER);
    std::fs::File::open(path)
        .and_then(|file| file.take(HEADER as u64).read_to_end(&mut head))
        .map_err(|e| Error::io(path, e))?;
    if !head.starts_with(MAGIC) && !MAGIC.starts_with(&head) {
        let begins = head[..head.len().min(MAGIC.len())].escape_ascii();
        return Err(Error::data(format!(
            "`{}`: it is no SQLite database: its {length} bytes begin with `{begins}`, expected `SQLite format 3`",
            path.display()
        )));
    }
    if head.len() < HEADER {
        return Err(Error::data(format!(
            "`{}`: it is cut after {length} bytes, shorter than its own header of {HEADER}; restore a backup of it (`--backups` makes \
             them). It was left as it is",
            path.display()
        )));
    }
    let page = match u64::from(u16::from_be_bytes([head[16], head[17]])) {
        1 => 65536,
        page => page,
    };
    let pages = u64::from(u32::from_be_bytes([head[28], head[29], head[30], head[31]]));
    match has_log || length >= page * pages {
        true => Ok(()),
        false => Err(Error::data(format!(
            "`{}`: it is cut after {length} of {} bytes; restore a backup of it (`--backups` makes them). It was left as it is",
            path.display(),
            page * pages
        ))),
    }
}

/// Opens what is there, with all that the promises of `store` rest on. What is found damaged is not written to: the log stays as it is
/// until that is known.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // A database may come from anywhere.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    db.pragma_update(None, "trusted_schema", false)?;
    db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "secure_delete", true)?;
    db.pragma_update(None, "foreign_keys", true)?;
    Ok(db)
}

fn version(db: &Connection) -> rusqlite::Result<usize> {
    db.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).map(|version| version.max(0) as usize)
}

/// Refuses what is damaged, another program's, or a later gdrd's.
fn check(db: &Connection, path: &Path) -> Result<()> {
    let failed = |error| of_sqlite(path, &error);
    let application: i64 = db.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(failed)?;
    if application != APPLICATION {
        return Err(Error::data(format!("`{}`: it is a database of another program", path.display())));
    }
    let found: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if found != "ok" {
        return Err(Error::data(format!(
            "`{}`: it is damaged ({}); restore a backup of it (`--backups` makes them). It was left as it is",
            path.display(),
            found.lines().last().unwrap_or_default()
        )));
    }
    let version = version(db).map_err(failed)?;
    match version <= VERSIONS.len() {
        true => Ok(()),
        false => Err(Error::data(format!(
            "`{}`: its tables are of version {version}, this gdrd knows up to {}; use the gdrd that made it",
            path.display(),
            VERSIONS.len()
        ))),
    }
}
