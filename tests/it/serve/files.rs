//! The database: who is deleted is in no file, what is damaged is refused and left, and what was acknowledged survives `kill -9`.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use gdrd_tests::kills::{Kills, has_text};
use gdrd_tests::service::{Client, face};
use gdrd_tests::{Bench, Said, files_below};
use serde_json::json;

use super::abuse::{connect, rest};
use super::here::{ROOT, begun, program, started, student};
use super::requests::add;
use crate::gdrd;

/// The files that have a text in them.
fn with_text(bench: &Bench, text: &[u8]) -> Vec<String> {
    let name = |path: &Path| path.strip_prefix(bench.path()).expect("below").display().to_string();
    let has = |path: &Path| has_text(&std::fs::read(path).unwrap_or_default(), text);
    files_below(bench.path(), "").iter().filter(|path| has(path)).map(|path| name(path)).collect()
}

/// The bytes of an embedding as the database has them.
fn embedding(client: &Client, number: u32) -> Vec<u8> {
    let path = "/api/v1/detection/detect?face_plugins=calculator";
    let found = client.form(path, &[("file", &face(number))]).1;
    let values = found["result"][0]["embedding"].as_array().expect("an embedding").clone();
    values.iter().flat_map(|value| (value.as_f64().expect("a number") as f32).to_le_bytes()).collect()
}

fn wait_for(done: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "it does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn who_is_deleted_is_in_no_file() {
    let (bench, mut server, client) = begun(&["--backups", "backups"]);
    let count = 60;
    let name = |number: u32| format!("Person-{number:04}-of-the-test");
    for number in 0..count {
        add(&client, &name(number), number);
        add(&client, &name(number), number + 1000);
    }
    // The backup of the first start is empty: as if it were removed by hand, the next start makes one of everybody.
    server.kill();
    for path in files_below(&bench.file("backups"), "") {
        std::fs::remove_file(path).expect("a backup");
    }
    let server = started(&bench, &["--backups", "backups"]).unwrap_or_else(|said| panic!("{said}"));
    let client = server.client(&client.key);
    wait_for(|| with_text(&bench, name(1).as_bytes()).iter().any(|file| file.ends_with(".backup")));
    let mut gone = Vec::new();
    for number in (0..count).step_by(6) {
        let marks =
            [name(number).into_bytes(), face(number)[400..440].to_vec(), embedding(&client, number)[..16].to_vec()];
        assert!(marks.iter().all(|mark| !with_text(&bench, mark).is_empty()), "{number}: it is there before");
        match number % 3 {
            0 => drop(client.json("DELETE", &format!("{ROOT}/subjects/{}", name(number)))),
            1 => drop(client.json("DELETE", &format!("{ROOT}/faces?subject={}", name(number)))),
            _ => {
                let list = client.json("GET", &format!("{ROOT}/faces?subject={}", name(number))).1;
                let ids: Vec<_> =
                    list["faces"].as_array().expect("faces").iter().map(|one| one["image_id"].clone()).collect();
                client.with_json("POST", &format!("{ROOT}/faces/delete"), &json!(ids));
                client.json("DELETE", &format!("{ROOT}/subjects/{}", name(number)));
            }
        }
        gone.extend(marks);
        for mark in &gone {
            let found = with_text(&bench, mark);
            assert!(found.is_empty(), "{number}: {:?} is in {found:?}", String::from_utf8_lossy(mark));
        }
    }
    assert!(!with_text(&bench, name(1).as_bytes()).is_empty(), "others are still there");
    assert_eq!(client.json("DELETE", &format!("{ROOT}/subjects")).0, 200);
    for number in 0..count {
        assert!(with_text(&bench, name(number).as_bytes()).is_empty(), "{number}");
    }
}

#[test]
fn a_backup_that_is_away_is_said_and_can_be_forgotten() {
    let (bench, mut server, client) = begun(&["--backups", "backups"]);
    add(&client, "Ann", 1);
    let there = bench.file("backups");
    wait_for(|| !files_below(&there, ".backup").is_empty());
    std::fs::rename(&there, bench.file("away")).expect("moved");
    let mut stream = connect(&server);
    let key = &client.key;
    let head =
        format!("DELETE {ROOT}/subjects/Ann HTTP/1.1\r\nHost: x\r\nx-api-key: {key}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    let said = rest(&stream);
    assert!(said.starts_with("HTTP/1.1 200") && said.contains("warning: 199 gdrd \"people who were deleted"), "{said}");
    // Every address says so, whatever it answers, if the document of addresses has the header there.
    let document = client.json("GET", "/openapi.json").1;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, about) in methods.as_object().expect("methods") {
            let path = path.replace("{key}", key).replace("{image_id}", &"0".repeat(32)).replace("{subject}", "Ann");
            let mut stream = connect(&server);
            let method = method.to_uppercase();
            let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nx-api-key: {key}\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).expect("sent");
            let said = rest(&stream);
            let answers = about["responses"].as_object().expect("responses");
            let documented = answers.values().any(|answer| answer["headers"]["warning"].is_object());
            assert_eq!(said.contains("\r\nwarning: 199 gdrd "), documented, "{method} {path}: {said}");
        }
    }
    server.kill();
    let mut server = started(&bench, &["--backups", "backups"]).unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(server.client(key).json("GET", &format!("{ROOT}/subjects")), (200, json!({ "subjects": [] })));
    assert!(!there.exists());
    server.kill();
    let forget =
        |code| Said::by(gdrd(&bench).args(["serve", "people.db", "--forget-backup", "backups"])).with_code(code);
    let said = forget(0);
    assert!(said.stdout.contains("people.db: 1 backups in `backups` are forgotten"), "{said:#?}");
    forget(2);
}

#[test]
fn a_cut_database_is_refused_and_left_as_it_is() {
    let (bench, mut server, client) = begun(&[]);
    (0..12).for_each(|number| drop(add(&client, "Ann", number)));
    drop(client);
    super::abuse::stop(&mut server);
    drop(server);
    let whole = std::fs::read(bench.file("people.db")).expect("a database");
    assert!(whole.len() > 20_000 && !bench.file("people.db-wal").exists());
    let lengths =
        [0, 1, 15, 50, 99, 100, 1000, 4095, 4096, 4097, 8192, whole.len() / 2, whole.len() - 4096, whole.len() - 1];
    for length in lengths {
        bench.write("people.db", &whole[..length]);
        let said = started(&bench, &[]).err().unwrap_or_else(|| panic!("{length} of {} bytes were taken", whole.len()));
        assert!(said.contains("people.db`: it is cut after") && said.contains("restore a backup"), "{length}: {said}");
        assert_eq!(std::fs::read(bench.file("people.db")).expect("a file"), &whole[..length], "{length}");
    }
    // Damage inside, and with a log beside it.
    let mut damaged = whole.clone();
    damaged[4096..8192].fill(0x55);
    for (bytes, log) in [(&damaged[..], false), (&whole[..whole.len() / 2], true), (b"a letter to nobody, longer than one hundred bytes, which no database begins with, as everybody knows by now.", false)] {
        bench.write("people.db", bytes);
        if log {
            bench.write("people.db-wal", b"not a log");
        }
        let said = started(&bench, &[]).err().expect("it is refused");
        assert!(said.contains("people.db`: it is ") && !said.contains("panicked"), "{said}");
        assert_eq!(std::fs::read(bench.file("people.db")).expect("a file"), bytes);
    }
    // What is put back is served.
    bench.write("people.db", &whole);
    std::fs::remove_file(bench.file("people.db-wal")).ok();
    started(&bench, &[]).unwrap_or_else(|said| panic!("{said}"));
}

#[test]
fn a_log_that_is_cut_gives_its_last_complete_state() {
    let (bench, mut server, client) = begun(&[]);
    (0..8).for_each(|number| drop(add(&client, "Ann", number)));
    server.kill();
    let (database, log) = (bench.file("people.db"), bench.file("people.db-wal"));
    let (whole, frames) = (std::fs::read(&database).expect("a database"), std::fs::read(&log).expect("a log"));
    assert!(frames.len() > 20_000, "all is in the log: {}", frames.len());
    let mut before = u64::MAX;
    for part in [16, 12, 8, 5, 3, 1] {
        std::fs::write(&database, &whole).expect("a database");
        std::fs::write(&log, &frames[..frames.len() * part / 16]).expect("a log");
        match started(&bench, &[]) {
            Ok(server) => {
                let faces = server.client(&client.key).json("GET", &format!("{ROOT}/faces")).1;
                let count = faces["total_elements"].as_u64().unwrap_or(0);
                assert!(count <= before && (part < 16 || count == 8), "{part}: {count}");
                before = count;
            }
            Err(said) => panic!("{part}: {said}"),
        }
    }
    assert!(before < 8);
}

#[test]
fn other_databases_and_second_servers_are_refused() {
    let (bench, server, client) = begun(&[]);
    add(&client, "Ann", 1);
    let at = server.address.strip_prefix("http://").expect("an address");
    let mut second = gdrd(&bench);
    second.args(["serve", "other.db", "--listen", at, "--student"]).arg(student());
    let said = Said::by(&mut second).with_code(1).stderr;
    assert!(said.contains(&format!("error: `--listen {at}`: ")) && said.contains("name another port"), "{said}");
    let said = started(&bench, &[]).err().expect("it is refused");
    assert!(said.contains("people.db`: another server has it open"), "{said}");
    assert_eq!(client.json("GET", &format!("{ROOT}/faces")).1["total_elements"], 1, "the first goes on");
    std::fs::create_dir(bench.file("folder")).expect("a folder");
    for (path, expected) in [("folder", "is a folder, expected a database"), ("nowhere/people.db", "nowhere/people.db")]
    {
        let student = student();
        let arguments = [path, "--student", student.to_str().expect("UTF-8")];
        let said =
            gdrd_tests::service::Server::start(program(), bench.path(), &arguments).err().expect("it is refused");
        assert!(said.contains(expected) && !said.contains("panicked"), "{said}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let mut kills = Kills::new(program().to_path_buf(), student());
    let mut acknowledged = 0;
    for seed in 0..6 {
        let round = kills.round(seed, Duration::from_millis(400)).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        acknowledged += round.acknowledged;
    }
    kills.last().unwrap_or_else(|why| panic!("{why}"));
    assert!(acknowledged > 10, "{acknowledged}");
}
