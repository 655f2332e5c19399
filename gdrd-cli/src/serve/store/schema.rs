//! The tables, by version.

/// What makes each version of the tables from the one before it; the version is SQLite's `user_version`.
///
/// Numbers of rows are never given twice (`AUTOINCREMENT`), so that a backup's rows are those of the database.
pub(super) const VERSIONS: [&str; 3] = [
    "CREATE TABLE student (digest TEXT NOT NULL, width INTEGER NOT NULL);
     CREATE TABLE collections (
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, threshold REAL);
     CREATE TABLE keys (
        id INTEGER PRIMARY KEY AUTOINCREMENT, collection INTEGER NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
        hash BLOB NOT NULL UNIQUE, made INTEGER NOT NULL);
     CREATE TABLE subjects (
        id INTEGER PRIMARY KEY AUTOINCREMENT, collection INTEGER NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
        name TEXT NOT NULL, folded TEXT NOT NULL, UNIQUE (collection, folded));
     CREATE TABLE examples (
        id INTEGER PRIMARY KEY AUTOINCREMENT, uuid BLOB NOT NULL UNIQUE,
        subject INTEGER NOT NULL REFERENCES subjects (id) ON DELETE CASCADE,
        pixels INTEGER NOT NULL, made INTEGER NOT NULL, embedding BLOB NOT NULL);
     CREATE INDEX examples_of_subject ON examples (subject);
     CREATE TABLE images (
        example INTEGER PRIMARY KEY REFERENCES examples (id) ON DELETE CASCADE, image BLOB NOT NULL, small BLOB NOT NULL);",
    "CREATE TABLE backups (path TEXT PRIMARY KEY, made INTEGER NOT NULL);
     CREATE TABLE erasures (kind TEXT NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (kind, row));",
    // Rows of subjects who became one with another: backups have them still, and they go when the other goes.
    "CREATE TABLE merged (
        row INTEGER PRIMARY KEY, subject INTEGER NOT NULL REFERENCES subjects (id) ON DELETE CASCADE);",
];

/// The number that tells gdrd's databases from others: `gdrd` in ASCII.
pub(super) const APPLICATION: i64 = 0x6764_7264;
