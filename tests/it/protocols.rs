//! Every protocol on drawn faces, in one tiny run.

use std::collections::BTreeMap;

use gdrd_core::evaluation::{Measured, Outcome};
use gdrd_core::observe::Silent;
use gdrd_core::run::train;
use gdrd_tests::{Bench, Said};

use crate::bad_data::{FOLDERS, faces, recipe};
use crate::gdrd;

/// Datasets with sessions and situations, distractors, and faces with something in front of them.
const PROTOCOLS: &str = r#"
format = 1
extends = "tiny.toml"

[data.situations]
kind = "synthetic-faces"
identities = 6
images_per_identity = 8
first_identity = 300
size = 32
situation = "mixed"
sessions = 2

[data.strangers]
kind = "synthetic-faces"
identities = 10
images_per_identity = 3
first_identity = 400
size = 32

[data.covered]
kind = "occluded"
data = "situations"
situations = ["plain", "sunglasses", "scarf", "mask", "side-light"]

[evaluate.verification]
sizes = [8, 16]
gallery_size = "native"

[evaluate.uccs]
kind = "identification"
gallery = "situations"
split.with = { situation = "plain" }
ranks = [3]
group_by = "situation"
sizes = [8, 16]

[evaluate.ar]
kind = "identification"
gallery = "covered"
split.per_person = 4
classifier = "nearest-mean"
group_by = "situation"
flip = true

[evaluate.tinyface]
kind = "retrieval"
gallery = "situations"
distractors = "strangers"
split = { share = 0.5, seed = 3 }
group_by = "session"
sizes = [8, 16]
gallery_size = 32

[evaluate.open]
kind = "open-set-identification"
gallery = "situations"
fpir = [0.3, 0.1]
group_by = "situation"
"#;

fn measured(text: &str) -> Vec<Measured> {
    serde_json::from_str(text).expect("outcomes")
}

/// The figure's value; every figure of these protocols but those that say why not has one.
fn value(outcome: &Outcome, name: &str) -> f64 {
    outcome.get(name).and_then(|figure| figure.value).unwrap_or_else(|| panic!("`{name}` in {outcome:#?}"))
}

#[test]
fn every_protocol_runs_on_drawn_faces() {
    let bench = Bench::with_teachers();
    let path = bench.write("protocols.toml", PROTOCOLS);
    let (run, _) = bench.train(&bench.recipe(&path, &[]), "all");
    let read = |protocol: &str| {
        let file = run.path().join(format!("evaluation/{protocol}.json"));
        std::fs::read_to_string(file).expect("an evaluation")
    };
    let of = |protocol: &str| measured(&read(protocol)).into_iter().map(|row| row.outcome).collect::<Vec<_>>();
    for protocol in ["verification", "uccs", "ar", "tinyface", "open"] {
        let rows = of(protocol);
        assert!(rows.len() >= 3, "the student and a teacher with and without degradation: {}", rows.len());
        for outcome in &rows {
            let headline = outcome.headline().expect("a headline");
            assert!(headline.low <= headline.value && headline.value <= headline.high, "{protocol}: {headline:?}");
            let mean = 100.0 * outcome.items.iter().sum::<f64>() / outcome.items.len() as f64;
            assert!((headline.value.expect("a value") - mean).abs() < 1e-9, "{protocol}: {headline:?}, items {mean}");
        }
    }
    // Two plain faces of eight are known; the other situations have two probes for each of six people.
    for outcome in of("uccs") {
        assert_eq!(outcome.items.len(), 36);
        let groups = ["glasses", "scarf", "side-light"].map(|group| value(&outcome, &format!("rank-1, {group}")));
        assert!((groups.iter().sum::<f64>() / 3.0 - value(&outcome, "rank-1")).abs() < 1e-9, "{groups:?}");
        assert!(outcome.get("rank-1 at 8x8").is_some() && outcome.curves[1].points.len() == 2);
    }
    for outcome in of("ar") {
        assert_eq!(outcome.items.len(), 24);
        let in_group = |group: &str| outcome.get(&format!("rank-1, {group}")).map_or(0, |figure| figure.count);
        let counts = ["plain", "sunglasses", "scarf", "mask", "side-light"].map(in_group);
        assert_eq!(counts.iter().sum::<usize>(), 24, "{counts:?}");
    }
    for outcome in of("tinyface") {
        let note = outcome.headline().expect("a headline").note.clone().unwrap_or_default();
        let expected = "faces not as photographed: drawn by gdrd; a gallery of 24 faces and 30 distractors";
        assert!(note.ends_with(expected), "{note}");
        assert!(value(&outcome, "rank-1") <= value(&outcome, "rank-5"));
        assert!(outcome.get("rank-1, 1").is_some() && outcome.get("rank-1, 2").is_some());
    }
    for outcome in of("open") {
        assert_eq!((outcome.headline.as_str(), outcome.items.len()), ("TPIR at FPIR 0.3", 12));
        assert!(value(&outcome, "TPIR at FPIR 0.1") <= value(&outcome, "TPIR at FPIR 0.3"));
        assert!(value(&outcome, "TPIR at FPIR 0.3") <= value(&outcome, "rank-1 of the enrolled"));
    }
    let report = std::fs::read_to_string(run.path().join("report.md")).expect("a report");
    for part in ["cmc-tinyface.svg", "resolution-uccs.svg", "det-open.svg", "mean average precision", "taken for whom"]
    {
        assert!(report.contains(part), "{part} in {report}");
    }
    // The same bytes by one thread and by two, of the student's file too.
    let scores = ["1", "2"].map(|threads| {
        let mut command = gdrd(&bench);
        command.args([
            "evaluate",
            "protocols.toml",
            "--student",
            "runs/all/student.safetensors",
            "--out",
            "scores.json",
        ]);
        Said::by(command.env("RAYON_NUM_THREADS", threads)).with_code(0);
        std::fs::read_to_string(bench.file("scores.json")).expect("scores")
    });
    assert_eq!(scores[0], scores[1]);
    let scores: BTreeMap<String, Vec<Measured>> = serde_json::from_str(&scores[0]).expect("outcomes");
    for (name, measured) in scores {
        assert_eq!(measured[0].outcome.items, of(&name)[0].items, "{name}");
    }
}

#[test]
fn templates_are_probes() {
    let bench = Bench::empty();
    faces(&bench, &[("Ann", 6), ("Bob", 6), ("Cy", 4), ("Di", 4)]);
    let row = |name: &str, number: usize, template: &str, media: &str| {
        format!("faces/{name}/{name}_{number:04}.jpg,{name},{template},{media}\n")
    };
    let list =
        |name: &str, rows: &[String]| bench.write(name, format!("path,person,template,media\n{}", rows.concat()));
    let known = ["Ann", "Bob"].map(|name| [1, 2].map(|number| row(name, number, "", "a video")));
    list("gallery.csv", &known.concat());
    let mut asked: Vec<String> =
        (3..6).map(|number| row("Ann", number, "t 1", if number < 5 { "v" } else { "s" })).collect();
    asked.push(row("Ann", 6, "t 2", "v"));
    for (name, first) in [("Bob", 3), ("Cy", 1), ("Di", 1)] {
        asked.extend((first..first + 4).map(|number| row(name, number, &format!("{name} {}", number % 2), "v")));
    }
    list("probes.csv", &asked);
    asked.push(row("Cy", 1, "t 2", "v"));
    list("two.csv", &asked);
    let protocol =
        "template = \"template\"\nmedia = \"media\"\ngallery = \"gallery\"\nprobes = \"probes\"\nsizes = [8]\n";
    let text = format!(
        "{}[data.gallery]\nkind = \"listed\"\nlist = \"gallery.csv\"\n[data.probes]\nkind = \"listed\"\nlist = \"probes.csv\"\n\
         [evaluate.open]\nkind = \"open-set-identification\"\nfpir = [0.25]\n{protocol}[evaluate.closed]\nkind = \"identification\"\n\
         classifier = \"nearest-mean\"\nranks = []\n{protocol}",
        recipe(FOLDERS)
    );
    bench.write("r.toml", text);
    let student = gdrd_tests::root().join("assets/students/quickstart.safetensors");
    let evaluate = |sets: &[&str], code: i32| {
        let mut command = gdrd(&bench);
        command.args(["evaluate", "r.toml", "--out", "scores.json", "--student"]).arg(&student);
        sets.iter().for_each(|set| {
            command.args(["--set", set]);
        });
        Said::by(&mut command).with_code(code).stderr
    };
    evaluate(&[], 0);
    let scores = std::fs::read_to_string(bench.file("scores.json")).expect("scores");
    let scores: BTreeMap<String, Vec<Measured>> = serde_json::from_str(&scores).expect("outcomes");
    for (protocol, more) in
        [("open", "2 people are enrolled, 4 probes are of others"), ("closed", "4 probes of people")]
    {
        let outcome = &scores[protocol][0].outcome;
        assert_eq!(outcome.items.len(), 4, "two templates of each who is enrolled: {outcome:#?}");
        let note = outcome.headline().expect("a headline").note.clone().unwrap_or_default();
        assert!(note.contains("the probes are 8 templates of 16 images") && note.contains(more), "{note}");
        assert_eq!(outcome.curves.last().expect("sizes").points.len(), 1);
    }
    let wrong = [
        ("data.probes.list=\"two.csv\"", "`template`: expected faces of one person in `t 2`, found `Ann` and `Cy`"),
        ("evaluate.open.template=\"camera\"", "`template`: 16 of 16 faces of the probes lack the attribute `camera`"),
        ("evaluate.closed.media=\"template\"", "`media`: 4 of 4 faces of the gallery lack the attribute `template`"),
    ];
    for (set, expected) in wrong {
        let said = evaluate(&[set], 1);
        assert!(said.contains(expected), "{set}: {said}");
    }
}

#[test]
fn data_that_does_not_fit_is_an_error_before_the_first_step() {
    let bench = Bench::with_teachers();
    let path = bench.write("protocols.toml", PROTOCOLS);
    let wrong = [
        ("evaluate.uccs.group_by=\"camera\"", "no probe has the attribute `camera`"),
        ("evaluate.uccs.split.with={ situation = \"hat\" }", "`situation` (glasses, plain, scarf, side-light)"),
        ("evaluate.tinyface.distractors=\"covered\"", "who is among the probes"),
        ("evaluate.open.fpir=[0.001]", "cannot measure any of [0.001]"),
    ];
    for (set, said) in wrong {
        let recipe = bench.recipe(&path, &[set]);
        let error = train(&recipe, &bench.place("wrong"), &Silent).expect_err(set).to_string();
        assert!(error.contains(said), "{set}: {error}");
    }
}
