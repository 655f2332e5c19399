use std::sync::Arc;

use gdrd_student::FaceEncoder;
use rusqlite::Connection;
use tempfile::TempDir;

use super::super::people::People;

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

fn has(path: &Path, text: &str) -> bool {
    let bytes = std::fs::read(path).expect("a file");
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
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
    assert!(said.contains("its tables are of version 99, this gdrd knows up to 3"), "{said}");
    let (_folder, path) = place();
    Connection::open(&path).and_then(|db| db.execute_batch("CREATE TABLE letters (text)")).expect("a database");
    let said = open(&path).err().expect("refused").to_string();
    assert!(said.contains("it is a database of another program"), "{said}");
}

#[test]
fn a_deletion_that_was_cut_off_is_finished_at_the_next_start() {
    let (_folder, path) = place();
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
    assert!(has(&backup, "Ann-who-leaves"));
    drop(store);
    let (store, _) = Store::open(&path, backups(&path, 3)).expect("a database");
    for file in [&path, &backup] {
        assert!(!has(file, "Ann-who-leaves") && has(file, "Bob-who-stays"), "{}", file.display());
    }
    assert_eq!(store.one("SELECT count(*) FROM erasures", [], |row| row.get::<_, i64>(0)).expect("read"), Some(0));
}

#[test]
fn a_backup_that_is_away_stops_nobody_and_is_not_forgotten() {
    let (_folder, path) = place();
    let (there, away) = (path.with_file_name("backups"), path.with_file_name("away"));
    let (mut store, _) = Store::open(&path, backups(&path, 1)).expect("a database");
    let collection = with(&mut store, &["Ann-who-leaves", "Bob-who-stays"]);
    let backup = store.back_up().expect("made").expect("a backup");
    std::fs::rename(&there, &away).expect("moved");
    let ann = store.subject(collection, "Ann-who-leaves").expect("read").expect("Ann");
    let erased = store.erase(collection, Which::Subject(ann)).expect("deleted");
    assert!(erased.examples.len() == 1 && store.unreached());
    drop(store);
    // The next start makes no new folder of its name, where the backup would count as removed, and other backups drive it out of no list.
    let (mut store, _) = Store::open(&path, backups(&path, 1)).expect("a database");
    assert!(store.unreached() && !there.exists());
    let said = store.back_up().expect_err("refused").to_string();
    assert!(said.contains("the folder for backups is not there; put it back"), "{said}");
    drop(store);
    let other = Backups::new(&path.with_file_name("other"), 1).expect("a folder");
    let (mut store, _) = Store::open(&path, Some(other)).expect("a database");
    (0..2).for_each(|_| drop(store.back_up().expect("made")));
    assert_eq!(store.backups().expect("read").len(), 2);
    let said = store.forget_backups(&away).expect_err("refused").to_string();
    assert!(said.contains("expected a folder that has backups") && said.contains("backups`"), "{said}");
    drop(store);
    std::fs::rename(&away, &there).expect("moved back");
    let mut store = open(&path).expect("a database");
    assert!(!store.unreached() && !has(&backup, "Ann-who-leaves") && has(&backup, "Bob-who-stays"));
    let said = store.forget_backups(&there).expect_err("refused").to_string();
    assert!(said.contains("is still there"), "{said}");
    // What is gone for good is forgotten, and keeps nothing open.
    std::fs::remove_dir_all(&there).expect("removed");
    store.erase(collection, Which::All).expect("deleted");
    assert!(store.unreached());
    assert_eq!(store.forget_backups(&there).expect("forgotten"), 1);
    assert!(!store.unreached());
    drop(store);
    let (mut store, _) = Store::open(&path, backups(&path, 1)).expect("a database");
    store.back_up().expect("made");
}

#[test]
fn who_became_one_with_another_leaves_the_backups_with_them() {
    let (_folder, path) = place();
    let (mut store, _) = Store::open(&path, backups(&path, 3)).expect("a database");
    let names = ["Ann-before", "Cleo-before", "Bob-after", "Dan-who-stays"];
    let collection = with(&mut store, &names);
    let backup = store.back_up().expect("made").expect("a backup");
    let ids = names.map(|name| store.subject(collection, name).expect("read").expect("somebody"));
    store.merge(ids[0], ids[1]).expect("one");
    store.merge(ids[1], ids[2]).expect("one");
    assert_eq!(store.examples(collection, Some(ids[2])).expect("read").len(), 3);
    assert!(has(&backup, "Ann-before"), "their faces are in the backup until they are deleted");
    let erased = store.erase(collection, Which::Subject(ids[2])).expect("deleted");
    assert_eq!((erased.examples.len(), erased.subjects.len()), (3, 1));
    for name in &names[..3] {
        assert!(!has(&path, name) && !has(&backup, name), "{name}");
    }
    assert!(has(&backup, "Dan-who-stays"));
    assert_eq!(store.one("SELECT count(*) FROM merged", [], |row| row.get::<_, i64>(0)).expect("read"), Some(0));
}

#[test]
fn another_student_takes_the_thresholds_back() {
    let (_folder, path) = place();
    let mut store = open(&path).expect("a database");
    let collection = with(&mut store, &["Ann"]);
    let encoder = encoder();
    store.set_threshold(collection, Some(0.6)).expect("set");
    let faces = store.faces().expect("read");
    assert!(faces.len() == 1 && faces[0].1);
    assert_eq!(store.image_of(faces[0].0).expect("read").as_deref(), Some(&b"an image"[..]));
    store.set_student(&encoder, &[(faces[0].0, vec![1.0; 12])]).expect("set");
    assert_eq!(store.threshold(collection).expect("read"), None);
    // The same student leaves them.
    store.set_threshold(collection, Some(0.7)).expect("set");
    assert!(!store.is_of_another(&encoder).expect("read"));
    assert_eq!(store.threshold(collection).expect("read"), Some(0.7));
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

fn encoder() -> Arc<FaceEncoder> {
    let student = include_bytes!("../../../../tests/files/student-format-1.safetensors");
    Arc::new(FaceEncoder::from_bytes(student, &candle_core::Device::Cpu).expect("a student"))
}

#[test]
fn a_damaged_embedding_is_named_and_mended() {
    let (_folder, path) = place();
    let encoder = encoder();
    let mut store = open(&path).expect("a database");
    let collection = store.collection("default").expect("a collection");
    let new = New { values: &[1.0; 12], pixels: 16, images: None };
    for name in ["Ann", "Bob"] {
        store.add_example(collection, name, &new).expect("added");
    }
    drop(store);
    for damage in [bytes(&[f32::NAN; 12]), vec![1, 2, 3], vec![0; 48], vec![7; 47], Vec::new()] {
        let mut store = open(&path).expect("a database");
        store
            .change(|db| db.execute("UPDATE examples SET embedding = ?1 WHERE id = 2", [&damage]).map(drop))
            .expect("damaged");
        assert_eq!(store.damaged(&encoder).expect("read"), [2]);
        let said = People::load(store, encoder.clone()).err().expect("refused").to_string();
        let expected = "people.db`: a face of subject `Bob` is damaged (row 2 of `examples`, ";
        assert!(said.contains(expected) && said.contains("--reembed") && said.contains("backup"), "{said}");
        let mut store = open(&path).expect("a database");
        store.mend(&[(2, vec![1.0; 12])]).expect("mended");
        assert!(store.damaged(&encoder).expect("read").is_empty());
        People::load(store, encoder.clone()).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn what_is_no_database_is_not_called_cut() {
    let (_folder, path) = place();
    let said = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("written");
        open(&path).err().expect("refused").to_string()
    };
    let text = said(b"a letter of 24 letters..");
    assert!(text.contains("it is no SQLite database: its 24 bytes begin with `a letter of 24 l`"), "{text}");
    for length in [0, 1, 16] {
        let text = said(&b"SQLite format 3\0"[..length]);
        assert!(
            text.contains(&format!("it is cut after {length} bytes, shorter than its own header of 100;")),
            "{text}"
        );
    }
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
