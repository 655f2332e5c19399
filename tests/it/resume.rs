//! Real processes, killed and stopped in the middle of a run: what goes on ends as if nothing had happened.
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gdrd_core::seed::{Seed, shuffled};
use gdrd_tests::{Bench, Said, step_numbers};

use crate::{gdrd, kill};

/// Steps of each of the two stages.
const STEPS: usize = 40;

/// Long enough to be caught in the middle, with a checkpoint at every third step.
const SETS: [&str; 7] = [
    "stage.generative.steps=40",
    "stage.discriminative.steps=40",
    "stage.generative.augment={ flip = true, shift = 1 }",
    "stage.discriminative.images_per_person=3",
    "stage.discriminative.loss.relation.queue=20",
    "stage.discriminative.loss.similarity={ kind = \"relation-similarity\", queue = 30 }",
    "run.keep_checkpoints=2",
];

fn train(bench: &Bench, run: &str) -> Command {
    let mut command = gdrd(bench);
    command.args(["train", "tiny.toml", "--run-dir", run]);
    SETS.iter().for_each(|set| {
        command.args(["--set", set]);
    });
    command
}

fn resume(bench: &Bench, run: &str) -> Command {
    let mut command = gdrd(bench);
    command.args(["resume", run]);
    command
}

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("gdrd starts")
}

fn lines(path: &Path) -> usize {
    std::fs::read(path).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count())
}

/// Waits until `good`; fails the test if the process ends before.
fn wait_until(child: &mut Child, what: &str, good: impl Fn() -> bool) {
    let since = Instant::now();
    while !good() {
        assert!(since.elapsed() < Duration::from_secs(120), "waited too long for {what}");
        if let Some(status) = child.try_wait().expect("a status") {
            panic!("the process ended ({status}) before {what}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Kills the process as soon as its log has `steps` lines.
fn kill_after(steps: usize, command: &mut Command, run: &Path) {
    let mut child = start(command);
    let log = run.join("metrics.jsonl");
    wait_until(&mut child, &format!("step {steps}"), || lines(&log) >= steps);
    child.kill().expect("killed");
    let status = child.wait().expect("a status");
    assert_eq!(status.code(), None, "it was killed and did not end by itself");
}

/// What must not depend on interruptions: the student, the scores, and every step's numbers.
fn outcome(run: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<(PathBuf, Vec<u8>)> = ["student.safetensors", "evaluation/verification.json", "samples.png"]
        .iter()
        .map(|name| (PathBuf::from(name), std::fs::read(run.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))))
        .collect();
    let log = std::fs::read_to_string(run.join("metrics.jsonl")).expect("a log");
    assert_eq!(log.lines().count(), 2 * STEPS);
    for line in log.lines() {
        let step = step_numbers(line);
        files.push((format!("metrics.jsonl {}", step["total_step"]).into(), step.to_string().into_bytes()));
    }
    files
}

#[track_caller]
fn assert_same(found: &Path, expected: &Path) {
    for ((name, found), (_, expected)) in outcome(found).iter().zip(&outcome(expected)) {
        assert!(found == expected, "{} differs from the run that was never stopped", name.display());
    }
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let bench = Bench::with_teachers();
    let whole = bench.file("runs/whole");
    Said::by(&mut train(&bench, "runs/whole")).with_code(0);
    // A step in each half of each stage, then two kills in one run.
    let order = shuffled(&mut Seed(7).stream("kills", &[]), STEPS - 8);
    let cases = [vec![2 + order[0] / 2], vec![STEPS + 2 + order[1]], vec![4 + order[2] / 2, STEPS + 4 + order[3]]];
    for (at, kills) in cases.iter().enumerate() {
        let name = format!("runs/killed-{at}");
        let run = bench.file(&name);
        kill_after(kills[0], &mut train(&bench, &name), &run);
        assert!(!run.join("report.md").exists());
        for kill in &kills[1..] {
            kill_after(*kill, &mut resume(&bench, &name), &run);
        }
        let said = Said::by(&mut resume(&bench, &name)).with_code(0);
        assert!(said.stderr.contains("going on from step"), "{said:#?}");
        assert_same(&run, &whole);
        let left = gdrd_tests::files_below(&run.join("checkpoints"), "").len();
        assert_eq!(left, 4, "two checkpoints of two files, and nothing half-written");
    }
}

#[test]
fn a_run_killed_before_its_first_checkpoint_begins_again() {
    let bench = Bench::with_teachers();
    Said::by(&mut train(&bench, "runs/whole")).with_code(0);
    let run = bench.file("runs/early");
    let mut child = start(&mut train(&bench, "runs/early"));
    wait_until(&mut child, "the lock", || run.join("lock.json").exists());
    child.kill().expect("killed");
    child.wait().expect("a status");
    let again = Said::by(&mut train(&bench, "runs/early")).with_code(2);
    assert!(again.stderr.contains("gdrd resume runs/early"), "{again:#?}");
    Said::by(&mut resume(&bench, "runs/early")).with_code(0);
    assert_same(&run, &bench.file("runs/whole"));
}

#[test]
fn ctrl_c_writes_a_checkpoint_and_says_how_to_go_on() {
    let bench = Bench::with_teachers();
    Said::by(&mut train(&bench, "runs/whole")).with_code(0);
    let run = bench.file("runs/stopped");
    let log = run.join("metrics.jsonl");
    // Checkpoints so far apart that only the one of the interrupt can be there.
    let rare = |command: &mut Command| start(command.args(["--set", "run.checkpoint_steps=1000"]));
    let mut child = rare(&mut train(&bench, "runs/stopped"));
    wait_until(&mut child, "step 50", || lines(&log) >= STEPS + 10);
    kill(child.id(), "INT");
    let said = Said::from(child.wait_with_output().expect("an end")).with_code(130);
    assert!(said.stderr.contains("stopping after this step"), "{said:#?}");
    assert!(said.stderr.contains("of stage `discriminative`"), "{said:#?}");
    assert!(said.stderr.contains("`gdrd resume runs/stopped` goes on from here"), "{said:#?}");
    assert_eq!(said.stdout, "");
    let made = lines(&log);
    assert!(made < 2 * STEPS, "it stopped before the end");
    assert!(run.join(format!("checkpoints/step-{made}/state.safetensors")).exists(), "a checkpoint of step {made}");
    Said::by(&mut resume(&bench, "runs/stopped")).with_code(0);
    // Another `checkpoint_steps` is another digest in the student's header; the weights must be the same.
    let read = |run: &str| {
        let path = bench.file(run).join("student.safetensors");
        let bytes = std::fs::read(path).expect("a student");
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("a student").tensors();
        let mut tensors: Vec<_> = tensors.into_iter().map(|(name, view)| (name, view.data().to_vec())).collect();
        tensors.sort();
        tensors
    };
    assert!(read("runs/stopped") == read("runs/whole"), "the weights differ from the run that was never stopped");
}

#[test]
fn resume_refuses_what_is_no_run_and_what_has_changed() {
    let bench = Bench::with_teachers();
    let said = Said::by(&mut resume(&bench, "teachers")).with_code(2);
    assert!(said.stderr.contains("`teachers` is no run folder"), "{said:#?}");
    kill_after(5, &mut train(&bench, "runs/a"), &bench.file("runs/a"));
    let teacher = bench.file("teachers/discriminative.safetensors");
    let other = Bench::empty();
    let recipe = other.write("d.toml", gdrd_tests::DISCRIMINATIVE);
    let (run, _) = other.train(&other.recipe(&recipe, &["run.seed=99"]), "other");
    std::fs::copy(run.student(), &teacher).expect("another teacher");
    let said = Said::by(&mut resume(&bench, "runs/a")).with_code(1);
    assert!(said.stderr.contains("lock.json"), "{said:#?}");
    assert!(said.stderr.contains("changed since this run began: teacher `discriminative`"), "{said:#?}");
}

#[test]
fn a_finished_run_is_not_made_twice() {
    let bench = Bench::with_teachers();
    let run = ["train", "tiny.toml", "--run-dir", "runs/a"];
    let first = Said::by(gdrd(&bench).args(run)).with_code(0);
    let time = |name| std::fs::metadata(bench.file(name)).and_then(|m| m.modified()).expect("a file");
    let before = time("runs/a/student.safetensors");
    let again = Said::by(gdrd(&bench).args(run)).with_code(0);
    assert_eq!(again.stdout, first.stdout);
    assert!(again.stderr.contains("--fresh"), "{again:#?}");
    assert_eq!(time("runs/a/student.safetensors"), before);
    let other = Said::by(gdrd(&bench).args(run).args(["--set", "run.seed=8"])).with_code(2);
    assert!(other.stderr.contains("`runs/a` holds the finished run of another recipe"), "{other:#?}");
    assert_eq!((other.stdout.as_str(), time("runs/a/student.safetensors")), ("", before));
    Said::by(gdrd(&bench).args(run).arg("--fresh")).with_code(0);
    assert_ne!(time("runs/a/student.safetensors"), before);
}
