//! `gdrd verify`: every change of a finished run is found, and a run that nobody touched is good.
#![cfg(unix)]

use std::fs;
use std::path::Path;

use gdrd_tests::{Bench, Said};

use crate::faults::ALONE;
use crate::gdrd;

fn bench() -> Bench {
    let bench = Bench::empty();
    bench.write("r.toml", ALONE);
    Said::by(gdrd(&bench).args(["train", "r.toml", "--run-dir", "a"])).with_code(0);
    bench
}

fn verify(bench: &Bench, more: &[&str]) -> Said {
    Said::by(gdrd(bench).args(["verify", "a"]).args(more))
}

/// The findings that are not good, as `what: verdict`.
fn not_good(said: &Said) -> Vec<String> {
    let value: serde_json::Value =
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:#?}"));
    assert_eq!(value["good"], said.code == Some(0), "{said:#?}");
    let findings = value["findings"].as_array().expect("findings").iter();
    let bad = findings.filter(|finding| finding["verdict"] != "good");
    bad.map(|finding| {
        format!("{}: {}", finding["what"].as_str().expect("text"), finding["verdict"].as_str().expect("text"))
    })
    .collect()
}

#[test]
fn a_run_that_nobody_touched_is_good_and_its_student_measures_the_same_again() {
    let bench = bench();
    let said = verify(&bench, &["--again"]).with_code(0);
    for expected in [
        "| lock.json",
        "| checkpoints/step-6",
        "| student.safetensors: weights",
        "| those of checkpoint 6",
        "| drawn, student at 16x16: accuracy",
        "| report.md: text",
        "| loss-one.svg",
        "| drawn, student at 16x16: measured again",
        "| data and teachers",
    ] {
        assert!(said.stdout.contains(expected), "{expected}: {}", said.stdout);
    }
    assert!(!said.stdout.contains("WRONG") && !said.stdout.contains("unknown"), "{}", said.stdout);
    assert_eq!(not_good(&verify(&bench, &["--json"])), [""; 0]);
    let none = Said::by(gdrd(&bench).args(["verify", "b"])).with_code(2);
    assert!(none.stderr.contains("`b` is no run folder"), "{none:#?}");
}

#[test]
fn what_thresholds_are_measured_on_stands_in_the_lock() {
    let bench = Bench::empty();
    let others = "\n[data.others]\nkind = \"synthetic-faces\"\nidentities = 40\nimages_per_identity = 3\nsize = 16\nfirst_identity = 500\n";
    bench.write("r.toml", format!("{ALONE}{others}\n[calibration]\ndata = \"others\"\n"));
    Said::by(gdrd(&bench).args(["train", "r.toml", "--run-dir", "a"])).with_code(0);
    let lock = fs::read_to_string(bench.file("a/lock.json")).expect("text");
    assert!(lock.contains("\"others\""), "{lock}");
    assert_eq!(not_good(&verify(&bench, &["--again", "--json"])), [""; 0]);
}

#[test]
fn every_change_is_found_by_its_name() {
    let bench = bench();
    let text = |from: &'static str, to: &'static str| {
        move |path: &Path| {
            let text = fs::read_to_string(path).expect("text");
            assert!(text.contains(from), "{text}");
            fs::write(path, text.replacen(from, to, 1)).expect("written");
        }
    };
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).expect("bytes");
        *bytes.last_mut().expect("some") ^= 1;
        fs::write(path, bytes).expect("written");
    };
    let remove = |path: &Path| fs::remove_file(path).expect("removed");
    let lines = |path: &Path| {
        let text = fs::read_to_string(path).expect("text");
        fs::write(path, text.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>()).expect("written");
    };
    let grey = |path: &Path| fs::write(path, fs::read("/dev/null").expect("nothing")).expect("emptied");
    type Change<'a> = &'a dyn Fn(&Path);
    let changes: [(&str, Change, &str); 15] = [
        ("gdrd-run.json", &grey, "gdrd-run.json: wrong"),
        ("student.safetensors", &flip, "student.safetensors: wrong"),
        ("report.md", &text("accuracy", "Accuracy"), "report.md: text: wrong"),
        ("evaluation/drawn.json", &text("\"items\": \"", "\"items\": \"0"), "evaluation: wrong"),
        ("evaluation/drawn.json", &remove, "evaluation: wrong"),
        ("metrics.jsonl", &lines, "metrics.jsonl: steps: wrong"),
        ("metrics.jsonl", &text("\"loss\":", "\"loss\":7"), "loss-one.svg: wrong"),
        ("loss-one.svg", &grey, "loss-one.svg: wrong"),
        ("samples.png", &flip, "samples.png: checksum: wrong"),
        ("lock.json", &text("\"recipe\": \"", "\"recipe\": \"0"), "recipe.resolved.toml: digest: wrong"),
        ("lock.json", &grey, "lock.json: wrong"),
        ("recipe.resolved.toml", &text("steps = 6", "steps = 7"), "recipe.resolved.toml: digest: wrong"),
        ("checkpoints/step-6/state.safetensors", &flip, "checkpoints/step-6: wrong"),
        ("checksums.json", &text("\"size\": ", "\"size\": 1"), "checksums.json: wrong"),
        ("report.md", &remove, "report.md: checksum: wrong"),
    ];
    for (name, change, expected) in changes {
        let path = bench.file("a").join(name);
        let before = fs::read(&path).expect(name);
        change(&path);
        let bad = not_good(&verify(&bench, &["--json"]).with_code(1));
        assert!(bad.iter().any(|line| line == expected), "{name}: expected `{expected}` in {bad:#?}");
        fs::write(&path, before).expect("put back");
    }
    verify(&bench, &[]).with_code(0);
    // A mark that denies the end of the run hides nothing.
    text("\"finished\": true", "\"finished\": false")(&bench.file("a/gdrd-run.json"));
    let bad = not_good(&verify(&bench, &["--json"]).with_code(0));
    assert_eq!(bad, ["gdrd-run.json: unknown"]);
    text("accuracy", "Accuracy")(&bench.file("a/report.md"));
    let bad = not_good(&verify(&bench, &["--json"]).with_code(1));
    assert!(bad.iter().any(|line| line == "report.md: text: wrong"), "{bad:#?}");
}

#[test]
fn altered_results_are_in_no_table_and_unfinished_runs_have_none() {
    let bench = bench();
    let path = bench.file("a/evaluation/drawn.json");
    let whole = fs::read_to_string(&path).expect("text");
    fs::write(&path, whole.replacen("\"value\": ", "\"value\": 1", 1)).expect("altered");
    let said = Said::by(gdrd(&bench).args(["resume", "a"])).with_code(1);
    assert!(said.stderr.contains("drawn.json` was altered since the run wrote it"), "{said:#?}");
    let begun = Said::by(gdrd(&bench).args(["train", "r.toml", "--run-dir", "b"]).env("GDRD_FAULTS", "torn:18"));
    assert_eq!(begun.code, None, "{begun:#?}");
    let said = Said::by(gdrd(&bench).args(["verify", "b"])).with_code(0);
    assert!(said.stdout.contains("the run is not finished"), "{said:#?}");
}

#[test]
fn changed_data_are_found_when_the_student_is_measured_again() {
    let bench = Bench::empty();
    for (person, number) in (0..4).flat_map(|person| (0..4).map(move |number| (person, number))) {
        let image =
            image::RgbImage::from_fn(16, 16, |x, y| image::Rgb([40 * person as u8, (x * y) as u8, 50 * number]));
        let path = bench.file(&format!("faces/p{person}/{number}.png"));
        fs::create_dir_all(path.parent().expect("below")).expect("a folder");
        image.save(path).expect("an image");
    }
    let drawn = "kind = \"synthetic-faces\"\nidentities = 4\nimages_per_identity = 4\nsize = 16";
    bench.write("r.toml", ALONE.replace(drawn, "kind = \"identity-folders\"\nfolders = [\"faces\"]"));
    Said::by(gdrd(&bench).args(["train", "r.toml", "--run-dir", "a"])).with_code(0);
    assert_eq!(not_good(&verify(&bench, &["--again", "--json"])), [""; 0]);
    image::RgbImage::new(16, 16).save(bench.file("faces/p1/2.png")).expect("another image");
    assert_eq!(not_good(&verify(&bench, &["--json"])), [""; 0], "the run folder is what it was");
    let bad = not_good(&verify(&bench, &["--again", "--json"]).with_code(1));
    assert!(bad.contains(&"the dataset `train`: wrong".to_string()), "{bad:#?}");
}
