//! What stages can do beside the paper's: each alone does what it says, and all together are stopped, resumed and shared among
//! threads without a trace.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use gdrd_core::error::ErrorKind;
use gdrd_core::experiment::Experiment;
use gdrd_core::observe::{Event, Flow, Observer, Silent};
use gdrd_core::run::{RunFolder, train};
use gdrd_tests::{Bench, Said};

use crate::gdrd;

/// Stops after so many more steps.
struct StopAfter {
    steps: usize,
    seen: AtomicUsize,
}

impl Observer for StopAfter {
    fn on(&self, event: &Event) -> Flow {
        let is_step = matches!(event, Event::StepDone { .. });
        let seen = self.seen.fetch_add(usize::from(is_step), Ordering::Relaxed) + usize::from(is_step);
        if is_step && seen == self.steps { Flow::Stop } else { Flow::Continue }
    }
}

/// The student's bytes, and every step's numbers but for its speed.
fn outcome(run: &RunFolder) -> (Vec<u8>, Vec<String>) {
    let log = std::fs::read_to_string(run.path().join("metrics.jsonl")).expect("a log");
    let without_speed = |line: &str| {
        let mut step: serde_json::Value = serde_json::from_str(line).expect("JSON");
        step.as_object_mut().expect("a step").remove("images_per_second");
        step.to_string()
    };
    (std::fs::read(run.student()).expect("a student"), log.lines().map(without_speed).collect())
}

/// A run that is stopped after each of these numbers of steps and resumed; its outcome must be that of one that was not.
#[track_caller]
fn assert_stops_leave_no_trace(bench: &Bench, recipe: &Experiment, stops: &[usize]) -> RunFolder {
    let (whole, _) = bench.train(recipe, "whole");
    for steps in stops {
        let observer = StopAfter { steps: *steps, seen: AtomicUsize::new(0) };
        let error = train(recipe, &bench.place("stopped"), &observer).expect_err("it is stopped");
        assert_eq!(error.kind(), ErrorKind::Stopped, "{error}");
    }
    let stopped = train(recipe, &bench.place("stopped"), &Silent).unwrap_or_else(|error| panic!("{error}"));
    let (found, expected) = (outcome(&stopped), outcome(&whole));
    assert_eq!(found.1, expected.1, "the numbers of the steps");
    assert!(found.0 == expected.0, "the students differ");
    whole
}

/// A run of the recipe at `path`, by the program with so many threads.
fn with_threads(bench: &Bench, path: &Path, threads: usize) -> (Vec<u8>, Vec<String>) {
    let run = format!("runs/threads-{threads}");
    let mut command = gdrd(bench);
    command.env("RAYON_NUM_THREADS", threads.to_string()).arg("train").arg(path).args(["--run-dir", &run]);
    Said::by(&mut command).with_code(0);
    outcome(&RunFolder::new(bench.file(&run)))
}

/// What the usual way of training a recogniser has: Nesterov's momentum, one cycle of the rate, dropout, a normalised embedding.
const USUAL: &str = r#"
format = 1
extends = "tiny.toml"
stages = ["discriminative"]

[student]
head = { hidden = [16], dropout = 0.4, normalise = true }

[stage.discriminative]
trains = ["backbone", "head"]
accumulate = 2
optimizer = { kind = "sgd", nesterov = true }
schedule = { kind = "one-cycle", rise = 0.25 }
"#;

#[test]
fn the_usual_way_to_train_is_resumed_to_the_bit_on_any_number_of_threads() {
    let bench = Bench::with_teachers();
    let path = bench.write("usual.toml", USUAL);
    let whole = assert_stops_leave_no_trace(&bench, &bench.recipe(&path, &[]), &[2, 3]);
    let rates: Vec<f64> = outcome(&whole).1.iter().map(|line| number(line, "rate")).collect();
    // Up in two of the eight steps, from a twenty-fifth; then down.
    assert!((rates[0] - 0.02 * 0.04).abs() < 1e-12 && (rates[2] - 0.02).abs() < 1e-12, "{rates:?}");
    assert!(rates[..3].is_sorted() && rates[2..].is_sorted_by(|a, b| a > b), "{rates:?}");
    let (one, two) = (with_threads(&bench, &path, 1), with_threads(&bench, &path, 2));
    assert_eq!(one.1, two.1, "the numbers of the steps");
    assert!(one.0 == two.0, "the students differ");
    // Without dropout it is another run.
    let (kept, _) = bench.train(&bench.recipe(&path, &["student.head.dropout=0.0"]), "kept");
    assert_ne!(outcome(&kept).1, outcome(&whole).1);
}

fn number(line: &str, key: &str) -> f64 {
    let step: serde_json::Value = serde_json::from_str(line).expect("JSON");
    step[key].as_f64().unwrap_or_else(|| panic!("no number `{key}` in {line}"))
}
