//! `gdrd probe`: what each layer knows of who a face is.

use std::path::Path;

use gdrd_tests::{Bench, Said};
use serde_json::Value;

use crate::gdrd;

/// Runs `gdrd probe tiny.toml` with these arguments, writing to `out`.
fn probe(bench: &Bench, arguments: &[&str]) -> Said {
    Said::by(gdrd(bench).args(["probe", "tiny.toml", "--faces", "40", "--out", "out"]).args(arguments))
}

fn rows(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("probe.json")).expect("results");
    let found: Value = serde_json::from_str(&text).expect("JSON");
    found["rows"].as_array().expect("rows").clone()
}

fn outputs<'r>(rows: &'r [Value], teacher: Option<&str>) -> Vec<&'r str> {
    let of = |row: &&Value| row["teacher"].as_str() == teacher;
    let mut found: Vec<&str> = rows.iter().filter(of).map(|row| row["output"].as_str().expect("a name")).collect();
    found.sort_unstable();
    found
}

#[test]
fn every_layer_is_ranked() {
    let bench = Bench::with_teachers();
    let said = probe(&bench, &[]).with_code(0);
    let all = rows(&bench.file("out"));
    assert_eq!(
        outputs(&all, Some("generative")),
        ["input_blocks.0", "input_blocks.1", "input_blocks.2", "input_blocks.3", "middle_block"]
    );
    assert_eq!(outputs(&all, Some("discriminative")), ["backbone", "embedding", "stage0", "stem"]);
    assert_eq!(outputs(&all, None), ["pixels"]);
    let headline = |row: &Value| {
        let figures = row["outcome"]["figures"].as_array().expect("figures").clone();
        figures[0]["value"].as_f64().expect("a value")
    };
    assert!(all.windows(2).all(|two| headline(&two[0]) >= headline(&two[1])), "best first");
    // What the target says itself is the nearest to it, and it is shown whole faces.
    let most = |row: &&Value| (1e6 * row["explained"].as_f64().expect("a share")) as i64;
    let nearest = all.iter().max_by_key(most).expect("rows");
    assert_eq!((nearest["teacher"].as_str(), nearest["view"].as_str()), (Some("discriminative"), Some("high")));
    for name in ["probe.md", "probe.csv", "probe.svg", "probe.png"] {
        assert!(bench.file("out").join(name).is_file(), "{name}");
    }
    assert!(said.stdout.contains("to the embedding of teacher `discriminative`, 40 faces, verification:"), "{said:#?}");
    assert_eq!(said.stdout.lines().filter(|line| line.starts_with("| ")).count(), all.len() + 2, "{said:#?}");
    // Again over its own files, and not over others.
    probe(&bench, &["--map", "embedding", "--teacher", "discriminative", "--view", "low", "--view", "high"])
        .with_code(0);
    let views: Vec<Value> = rows(&bench.file("out")).iter().map(|row| row["view"].clone()).collect();
    assert_eq!(views.len(), 3, "two views, and the pixels of the small one: {views:?}");
    bench.write("mine/probe.md", "mine");
    let said = probe(&bench, &["--out", "mine"]);
    assert!(said.code != Some(0), "{said:#?}");
}

#[test]
fn options_are_varied_and_equal_sources_are_probed_once() {
    let bench = Bench::with_teachers();
    let vary = ["--vary", "timestep=0,500,999", "--teacher", "generative", "--map", "middle_block", "--json"];
    let said = probe(&bench, &vary).with_code(0);
    let found: Value = serde_json::from_str(&said.stdout).expect("JSON alone");
    let all = found["rows"].as_array().expect("rows");
    let timesteps: Vec<&str> = all.iter().filter_map(|row| row["varied"][0][1].as_str()).collect();
    assert_eq!(all.iter().filter(|row| row["teacher"] == "generative").count(), 3, "{timesteps:?}");
    assert_eq!(all.iter().filter(|row| row["teacher"].is_null()).count(), 1, "the pixels do not vary: {timesteps:?}");
    assert!(bench.file("out/probe-varied.svg").is_file());
    let explained: Vec<f64> = all.iter().filter_map(|row| row["explained"].as_f64()).collect();
    assert!(explained.windows(2).any(|two| two[0] != two[1]), "the timestep changes the features: {explained:?}");
}

#[test]
fn a_student_is_probed_and_people_are_held_out_where_no_protocol_is() {
    let bench = Bench::with_teachers();
    let recipe = bench.tiny(&["stages=[\"generative\"]", "stage.generative.steps=2"]);
    bench.train(&recipe, "student");
    bench.write("bare.toml", "format = 1\nextends = \"tiny.toml\"\n[data.train]\nidentities = 20\n[evaluate.verification]\nenabled = false\n");
    let student = ["--student", "runs/student/student.safetensors", "--identity"];
    let run = ["probe", "bare.toml", "--faces", "1000", "--values", "100", "--out", "out"];
    Said::by(gdrd(&bench).args(run).args(student)).with_code(0);
    let text = std::fs::read_to_string(bench.file("out/probe.json")).expect("results");
    let found: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(found["target"], "identity");
    assert_eq!(found["protocol"], "held-out people of train");
    // Four of twenty people, with eight faces each, are held out.
    assert_eq!(found["faces"], 128);
    let all = found["rows"].as_array().expect("rows");
    assert_eq!(outputs(all, Some("student-file")), ["backbone", "embedding", "stage0", "stem"]);
    let stem = all.iter().find(|row| row["output"] == "stem").expect("a stem");
    assert_eq!((&stem["shape"], &stem["pooled"]), (&serde_json::json!([4, 16, 16]), &serde_json::json!([4, 5, 5])));
}

#[test]
fn what_is_not_there_is_named() {
    let bench = Bench::with_teachers();
    let says = |arguments: &[&str], code: i32, expected: &str| {
        let said = probe(&bench, arguments).with_code(code);
        assert!(said.stderr.contains(expected), "expected `{expected}`, found {said:#?}");
        assert!(!bench.file("out").exists(), "{said:#?}");
    };
    says(&["--teacher", "generativ"], 2, "no teacher is called `generativ`");
    says(&["--view", "middle"], 2, "no view is called `middle`");
    says(&["--map", "neck", "--teacher", "generative"], 2, "found `neck`");
    says(&["--target", "generative"], 1, "teacher `generative` has no embeddings");
    says(&["--protocol", "lfw"], 2, "no protocol is called `lfw`");
    says(&["--data", "trian"], 2, "no dataset is called `trian`");
    says(&["--vary", "timestep=1000", "--teacher", "generative"], 2, "expected 0 to 999, found 1000");
    says(&["--vary", "timestpe=1", "--teacher", "generative"], 2, "did you mean `timestep`?");
    says(&["--vary", "timestep=1"], 2, "needs one `--teacher`");
    says(&["--values", "0"], 2, "0 is not in 1..=41000");
    says(&["--ridge", "0"], 2, "expected 0.0001 to 1000000");
}
