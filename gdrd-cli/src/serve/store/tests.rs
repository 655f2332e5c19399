use rusqlite::Connection;
use tempfile::TempDir;

use super::schema::{APPLICATION, VERSIONS};
use super::*;

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("people.db");
    (folder, path)
}

fn open(path: &Path) -> Result<Store> {
    Store::open(path, None).map(|(store, _)| store)
}

fn backups(path: &Path, keep: usize) -> Option<Backups> {
    Some(Backups::new(&path.with_file_name("backups"), keep).expect("a folder"))
}

/// A collection with a face of each of these people.
fn with(store: &mut Store, names: &[&str]) -> i64 {
    let collection = store.collection("default").expect("a collection");
    let new = New { values: &[0.6, 0.8], pixels: 16, images: Some((b"an image", b"a small one")) };
    for name in names {
        store.add_example(collection, name, &new).expect("added");
    }
    collection
}

#[test]
fn tables_of_every_version_are_brought_to_the_present() {
    for version in 0..=VERSIONS.len() {
        let (_folder, path) = place();
        let db = Connection::open(&path).expect("a database");
        db.pragma_update(None, "application_id", APPLICATION).expect("set");
        VERSIONS[..version].iter().for_each(|statements| db.execute_batch(statements).expect("made"));
        db.pragma_update(None, "user_version", version as i64).expect("set");
        if version > 0 {
            db.execute_batch("INSERT INTO collections (name) VALUES ('old')").expect("inserted");
        }
        db.close().expect("closed");
        let mut store = open(&path).unwrap_or_else(|error| panic!("{version}: {error}"));
        assert_eq!(store.collections().expect("read").len(), usize::from(version > 0));
        with(&mut store, &["Ann"]);
        drop(store);
        let found: i64 = Connection::open(&path)
            .and_then(|db| db.query_row("PRAGMA user_version", [], |row| row.get(0)))
            .expect("read");
        assert_eq!(found, VERSIONS.len() as i64);
    }
}

#[test]
fn a_later_gdrd_s_tables_and_other_databases_are_refused() {
    let (_folder, path) = place();
    drop(open(&path).expect("a database"));
    let db = Connection::open(&path).expect("a database");
    db.pragma_update(None, "user_version", 99).expect("set");
    db.close().expect("closed");
    let said = open(&path).err().expect("refused").to_string();
    assert!(said.contains("its tables are of version 99, this gdrd knows up to 2"), "{said}");
    let (_folder, path) = place();
    Connection::open(&path).and_then(|db| db.execute_batch("CREATE TABLE letters (text)")).expect("a database");
    let said = open(&path).err().expect("refused").to_string();
    assert!(said.contains("it is a database of another program"), "{said}");
}

#[test]
fn a_deletion_that_was_cut_off_is_finished_at_the_next_start() {
    let (folder, path) = place();
    let (mut store, _) = Store::open(&path, backups(&path, 3)).expect("a database");
    let collection = with(&mut store, &["Ann-who-leaves", "Bob-who-stays"]);
    let backup = store.back_up().expect("made").expect("a backup");
    let ann = store.subject(collection, "ann-who-leaves").expect("read").expect("Ann");
    // As if the server had been killed right after the transaction.
    store
        .change(|db| {
            db.execute(
                "INSERT INTO erasures (kind, row) SELECT 'example', id FROM examples WHERE subject = ?1",
                [ann],
            )?;
            db.execute("INSERT INTO erasures (kind, row) VALUES ('subject', ?1)", [ann])?;
            db.execute("DELETE FROM subjects WHERE id = ?1", [ann])
        })
        .expect("deleted");
    let has = |path: &Path, text: &str| {
        let bytes = std::fs::read(path).expect("a file");
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    };
    assert!(has(&backup, "Ann-who-leaves"));
    drop(store);
    let (store, _) = Store::open(&path, backups(&path, 3)).expect("a database");
    for file in [&path, &backup] {
        assert!(!has(file, "Ann-who-leaves") && has(file, "Bob-who-stays"), "{}", file.display());
    }
    assert_eq!(store.one("SELECT count(*) FROM erasures", [], |row| row.get::<_, i64>(0)).expect("read"), Some(0));
    // A backup whose folder is away keeps the deletion open, and says so; one that was removed holds nobody.
    let away = folder.path().join("away");
    drop(store);
    let (mut store, _) = Store::open(&path, backups(&path, 3)).expect("a database");
    std::fs::rename(path.with_file_name("backups"), &away).expect("moved");
    let said = store.erase(collection, Which::All).expect_err("refused").to_string();
    assert!(said.contains("not yet from a backup") && said.contains("its folder is not there"), "{said}");
    std::fs::rename(&away, path.with_file_name("backups")).expect("moved back");
    store.finish_erasures().expect("finished");
    assert!(!has(&backup, "Bob-who-stays"));
}

#[test]
fn the_newest_backups_are_kept_and_can_be_served() {
    let (_folder, path) = place();
    let (mut store, _) = Store::open(&path, backups(&path, 2)).expect("a database");
    let collection = with(&mut store, &["Ann"]);
    assert_eq!(store.backed_up().expect("read"), None);
    let made: Vec<PathBuf> = (0..4).map(|_| store.back_up().expect("made").expect("a backup")).collect();
    let there: Vec<bool> = made.iter().map(|path| path.exists()).collect();
    assert_eq!(there, [false, false, true, true]);
    assert!(store.backed_up().expect("read").is_some_and(|seconds| seconds < 60));
    #[cfg(unix)]
    for path in [&path, &path.with_file_name("people.db-wal"), &made[3]] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: others may read it", path.display());
    }
    let again = open(&made[3]).expect("a backup is a database");
    assert!(again.subject(collection, "Ann").expect("read").is_some());
    assert_eq!(again.examples(collection, None).expect("read")[0].values, [0.6, 0.8]);
}

#[test]
fn a_log_without_its_database_is_no_new_database() {
    let (_folder, path) = place();
    std::fs::write(path.with_file_name("people.db-wal"), "frames").expect("written");
    let said = open(&path).err().expect("refused").to_string();
    assert!(said.contains("is not there, but its log"), "{said}");
}

#[test]
fn keys_are_compared_by_their_hashes() {
    let (_folder, path) = place();
    let mut store = open(&path).expect("a database");
    let key = store.new_key("default").expect("a key");
    let keys = store.keys().expect("read");
    assert!(keys.len() == 1 && keys[0].is(&key) && keys[0].is(&key.to_uppercase()));
    assert!(!keys[0].is(&Uuid::new_v4().to_string()) && !keys[0].is(""));
    assert!(store.new_key(" ").is_err() && store.new_key("a\nb").is_err());
}
