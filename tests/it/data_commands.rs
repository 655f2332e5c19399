//! `gdrd data`: what datasets hold, import, lists, comparison, cleaning.

use gdrd_tests::{Bench, Said, root};
use serde_json::Value;

use crate::bad_data::{FOLDERS, faces, recipe};
use crate::gdrd;

fn people(bench: &Bench) {
    faces(bench, &[("Ann", 4), ("Bob", 4), ("Cy", 4), ("Di", 4), ("Eve", 2), ("Fay", 2)]);
}

#[track_caller]
fn data(bench: &Bench, words: &[&str]) -> Said {
    Said::by(gdrd(bench).arg("data").args(words))
}

#[test]
fn inspect_counts_and_finds_what_is_broken_and_twice() {
    let bench = Bench::empty();
    people(&bench);
    bench.write("faces/Di/Di_0009.jpg", "");
    let ann = std::fs::read(bench.file("faces/Ann/Ann_0001.jpg")).expect("an image");
    bench.write("faces/Bob/again.jpg", ann);
    let said = data(&bench, &["inspect", "faces", "--out", "found.json"]).with_code(0).stdout;
    assert!(said.contains("faces: 21 faces, 6 people, 0 faces of nobody known"), "{said}");
    assert!(said.contains("| 3 to 4 | 3 | 12 |") && said.contains("| 5 to 9 | 1 | 5 |"), "{said}");
    assert!(said.contains("images that are there more than once: 1, of them 1 as several people"), "{said}");
    assert!(said.contains("note: left out, images that cannot be read: 1\n"), "{said}");
    assert_eq!(said.matches("Di_0009.jpg").count(), 1, "{said}");
    let found: Value = serde_json::from_slice(&std::fs::read(bench.file("found.json")).expect("a file")).expect("JSON");
    assert!(said.contains("\nbroken: 1, of them 1 left out\n"), "{said}");
    let broken = found["census"]["broken"].as_array().expect("a list");
    assert!(broken.len() == 1 && broken[0].as_str().is_some_and(|why| why.contains("Di_0009.jpg")), "{broken:?}");
    assert_eq!(found["census"]["duplicates"][0]["places"].as_array().map(Vec::len), Some(2));
    let text = data(&bench, &["inspect", "nowhere"]).with_code(1).stderr;
    assert!(text.contains("nowhere`: no such file or folder"), "{text}");
}

#[test]
fn images_that_cannot_be_read_are_an_error_or_named() {
    let bench = Bench::empty();
    people(&bench);
    bench.write("faces/Di/Di_0009.jpg", "");
    bench.write("faces/Ann/Ann_0009.jpg", "no image");
    let student = root().join("assets/students/quickstart.safetensors");
    let student = student.to_str().expect("UTF-8");
    let commands: [&[&str]; 5] = [
        &["import", "faces", "--out", "out"],
        &["pairs", "faces", "--out", "out", "--folds", "2", "--each", "3"],
        &["split", "faces", "--out", "out"],
        &["diff", "faces", "faces", "--out", "out"],
        &["clean", "faces", "--student", student, "--out", "out"],
    ];
    for words in commands {
        let text = data(&bench, words).with_code(1).stderr;
        assert!(
            text.contains("`faces`: 2 of 22 images cannot be read; `--skip-unreadable` leaves them out:"),
            "{text}"
        );
        assert!(text.contains("Di_0009.jpg") && text.contains("Ann_0009.jpg"), "{text}");
        assert!(!bench.file("out").exists(), "{words:?}");
        let said = data(&bench, &[words, &["--skip-unreadable"]].concat()).with_code(0).stdout;
        assert!(said.contains("note: faces: left out, images that cannot be read: 2:"), "{said}");
        assert!(said.contains("Di_0009.jpg") && said.contains("Ann_0009.jpg"), "{said}");
        std::fs::remove_file(bench.file("out")).expect("written");
    }
    // A recipe's dataset says itself what becomes of them.
    bench.write("r.toml", recipe(FOLDERS));
    let text = data(&bench, &["pairs", "r.toml:train", "--out", "out", "--skip-unreadable"]).with_code(1).stderr;
    assert!(text.contains("`unreadable = \"skip\"` leaves them out"), "{text}");
}

#[test]
fn what_a_terminal_would_obey_is_written_out() {
    let bench = Bench::empty();
    bench.write("list.csv", "path\n\u{1b}[31mred.png\n");
    let text = data(&bench, &["inspect", "list.csv"]).with_code(1).stderr;
    assert!(text.contains("\\u001b[31mred.png") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn what_is_imported_trains_the_same_student() {
    let bench = Bench::empty();
    people(&bench);
    bench.write("folders.toml", recipe(FOLDERS));
    data(&bench, &["import", "folders.toml:train", "--out", "all.pack"]).with_code(0);
    bench.write("packed.toml", recipe("kind = \"packed\"\nfile = \"all.pack\""));
    for name in ["folders", "packed"] {
        Said::by(gdrd(&bench).args(["train", &format!("{name}.toml"), "--run-dir", name])).with_code(0);
    }
    let losses = |name: &str| -> Vec<Value> {
        let log = std::fs::read_to_string(bench.file(&format!("{name}/metrics.jsonl"))).expect("a log");
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.map(|line| line["loss"].clone()).filter(|loss| !loss.is_null()).collect()
    };
    assert!(losses("folders").len() >= 3);
    assert_eq!(losses("folders"), losses("packed"), "the same faces in the same order");
    // The small faces alone: 768 bytes each.
    let view = ["--view", "low", "--recipe", "folders.toml"];
    let said = data(&bench, &[&["import", "faces", "--out", "low.pack"], &view[..]].concat()).with_code(0).stdout;
    assert!(said.contains("low.pack: 20 faces as pixels in the view low"), "{said}");
    bench.write("low.toml", recipe("kind = \"packed\"\nfile = \"low.pack\""));
    Said::by(gdrd(&bench).args(["train", "low.toml", "--run-dir", "low"])).with_code(0);
    let mut bytes = std::fs::read(bench.file("low.pack")).expect("a file");
    bytes[40] ^= 1;
    bench.write("low.pack", bytes);
    let text = Said::by(gdrd(&bench).args(["train", "low.toml", "--run-dir", "damaged"])).with_code(1).stderr;
    assert!(text.contains("1 of 20 images do not fit their checksums, the first is `Ann/Ann_0001`"), "{text}");
    assert!(!bench.file("damaged").exists(), "nothing was begun");
}

#[test]
fn lists_are_drawn_and_read_again() {
    let bench = Bench::empty();
    people(&bench);
    data(&bench, &["pairs", "faces", "--out", "pairs.txt", "--folds", "2", "--each", "3"]).with_code(0);
    data(&bench, &["split", "faces", "--out", "split.csv", "--least", "4"]).with_code(0);
    let list = std::fs::read_to_string(bench.file("split.csv")).expect("a list");
    assert_eq!((list.matches(",gallery").count(), list.matches(",probe").count()), (8, 8), "{list}");
    let protocols = "\n[data.listed]\nkind = \"listed\"\nlist = \"split.csv\"\nsize = 32\n[evaluate.pairs]\nkind = \"verification\"\n\
                     data = \"train\"\npairs = \"pairs.txt\"\n[evaluate.people]\nkind = \"retrieval\"\ngallery = \"listed\"\n\
                     split = { with = { side = \"gallery\" } }\n";
    bench.write("r.toml", recipe(FOLDERS) + protocols);
    Said::by(gdrd(&bench).args(["train", "r.toml", "--run-dir", "run"])).with_code(0);
    let student = "run/student.safetensors";
    let said = Said::by(gdrd(&bench).args(["evaluate", "r.toml", "--student", student])).with_code(0).stdout;
    assert!(said.contains("pairs:") && said.contains("people:"), "{said}");
    let said = data(&bench, &["diff", "faces", "faces", "--student", student]).with_code(0).stdout;
    assert!(said.contains("people of the same name: 6") && said.contains("identical images: 20"), "{said}");
    assert!(said.contains("people whose means have a cosine of 0.6 or more: "), "{said}");
    let said = data(&bench, &["clean", "faces", "--student", student, "--out", "clean.json"]).with_code(0).stdout;
    assert!(said.contains("20 of 20 faces were judged"), "{said}");
    let text = data(&bench, &["clean", "faces"]).with_code(2).stderr;
    assert!(text.contains("expected `--student FILE`, or `--recipe FILE --teacher NAME`"), "{text}");
}

#[test]
fn pairs_that_a_dataset_brings_are_verified() {
    let bench = Bench::empty();
    people(&bench);
    let bin = root().join("tests/golden/readers/lfw_py3_4.bin");
    std::fs::copy(bin, bench.file("lfw.bin")).expect("copied");
    let protocol = "\n[data.lfw]\nkind = \"insightface-bin\"\nfile = \"lfw.bin\"\n[evaluate.lfw]\nkind = \"verification\"\n\
                    data = \"lfw\"\nfolds = 3\n";
    bench.write("r.toml", recipe(FOLDERS) + protocol);
    Said::by(gdrd(&bench).args(["train", "r.toml", "--run-dir", "run"])).with_code(0);
    data(&bench, &["import", "lfw.bin", "--out", "lfw.pack"]).with_code(0);
    let said = data(&bench, &["inspect", "lfw.pack"]).with_code(0).stdout;
    assert!(said.contains("pairs: 3"), "{said}");
}
