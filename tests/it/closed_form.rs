//! A stage that is solved and not trained.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Device, Tensor};
use gdrd_core::data::{Augment, LOW, Variant};
use gdrd_core::error::ErrorKind;
use gdrd_core::experiment::Experiment;
use gdrd_core::face::FaceBatch;
use gdrd_core::nn::Mode;
use gdrd_core::observe::{Event, Flow, Observer, Silent};
use gdrd_core::run::{Assembly, RunFolder, train};
use gdrd_core::student::StudentFile;
use gdrd_core::teacher::{Output, Shown, prepared};
use gdrd_tests::{Bench, Said, registry};

use crate::{gdrd, refused};

const SOLVED: &str = r#"
format = 1
extends = "tiny.toml"
stages = ["generative", "solved", "discriminative"]

[student]
embedding = 8

[stage.generative]
steps = 3

[stage.solved]
batch_size = 7

[stage.solved.closed_form]
teacher = "target"

[teacher.target]
kind = "transformed"
teacher = "discriminative"
mirror = true

[stage.discriminative]
steps = 3

[stage.discriminative.loss]
logits.teacher = "discriminative"
relation.teacher = "discriminative"
"#;

fn solved(bench: &Bench, sets: &[&str]) -> Experiment {
    let path = bench.write("solved.toml", SOLVED);
    bench.recipe(&path, sets)
}

/// Stops a run when it is in the middle of what is called so.
struct StopIn(&'static str, AtomicBool);

impl Observer for StopIn {
    fn on(&self, event: &Event) -> Flow {
        match event {
            Event::Working { what, done, .. } if what.contains(self.0) && *done > 0 => {
                self.1.store(true, Ordering::Relaxed);
                Flow::Stop
            }
            _ => Flow::Continue,
        }
    }
}

fn student(run: &RunFolder) -> Vec<u8> {
    std::fs::read(run.student()).expect("a student")
}

#[test]
fn the_layer_explains_what_the_run_says() {
    let bench = Bench::with_teachers();
    let recipe = solved(&bench, &["stages=[\"generative\", \"solved\"]"]);
    let (run, events) = bench.train(&recipe, "solved");
    let told = events.iter().find_map(|event| match event {
        Event::StageSolved { rows, inputs, outputs, explained, .. } => Some((*rows, *inputs, *outputs, *explained)),
        _ => None,
    });
    let (rows, inputs, outputs, explained) = told.expect("a solved stage");
    // 48 faces and their mirror images; a map of 8 channels at 8x8.
    assert_eq!((rows, inputs, outputs), (96, 8 * 8 * 8, 8));
    // The same by the student's file, the teacher and the faces, without the trainer.
    let place = bench.place("solved");
    let parts = Assembly::new(&recipe, &place, &Silent).expect("parts");
    let (views, teacher) = (parts.context().views("train").expect("views"), parts.context().teacher("discriminative"));
    let teacher = teacher.expect("a teacher");
    let file = StudentFile::open(&student(&run), &Device::Cpu, &registry()).expect("a student");
    let unit = |t: Tensor| {
        let length = t.sqr().and_then(|t| t.sum_keepdim(1)?.sqrt()).expect("lengths");
        t.broadcast_div(&length).expect("rows of unit length")
    };
    let seen = |view: &str, mirrored: bool, size: Option<usize>| {
        let face = |index: usize| {
            let mut random = gdrd_core::seed::Seed(0).stream("unused", &[]);
            let face = views.face(index, view, (&Augment::none(), Variant { draw: 0, mirrored }), &mut random);
            let face = face.expect("a face");
            if size.is_some() { prepared(teacher.card(), face).expect("a face") } else { face }
        };
        let faces: Vec<_> = (0..views.dataset().len()).map(face).collect();
        FaceBatch::from_faces(&faces, &Device::Cpu).expect("a batch")
    };
    let says = |mirrored: bool| {
        let shown = Shown::from(seen("high", mirrored, Some(32)));
        unit(teacher.features(&shown, &[Output::Embedding]).expect("features").remove(0))
    };
    let target = unit((says(false) + says(true)).expect("a sum"));
    let (mut left, mut all) = (0.0, 0.0);
    for mirrored in [false, true] {
        let map = file.student.backbone(&seen(LOW, mirrored, None), Mode::Evaluate).expect("maps");
        let found = file.student.head(&map, Mode::Evaluate).expect("embeddings");
        let squares = |t: Tensor| t.sqr().and_then(|t| t.sum_all()?.to_scalar::<f32>()).expect("a number");
        left += squares((found - &target).expect("differences"));
        all += squares(target.broadcast_sub(&target.mean_keepdim(0).expect("a mean")).expect("differences"));
    }
    let expected = 1.0 - f64::from(left) / f64::from(all);
    let explained = explained.expect("targets vary");
    assert!(explained > 0.2 && (explained - expected).abs() < 2e-3, "told {explained}, found {expected}");
    let report = std::fs::read_to_string(run.path().join("report.md")).expect("a report");
    let said = format!("512 to 8 values from 96 faces; it explains {:.1} %", 100.0 * explained);
    assert!(report.contains(&said), "{report}");
    let metrics = std::fs::read_to_string(run.path().join("metrics.jsonl")).expect("a log");
    assert!(metrics.lines().last().expect("lines").contains("\"solved\":{\"rows\":96,"), "{metrics}");
}

#[test]
fn neither_a_stop_nor_the_threads_change_the_bytes() {
    let bench = Bench::with_teachers();
    let recipe = solved(&bench, &[]);
    let (whole, _) = bench.train(&recipe, "whole");
    for (at, what) in ["features before", "factor of"].into_iter().enumerate() {
        let place = bench.place(&format!("stopped-{at}"));
        let observer = StopIn(what, AtomicBool::new(false));
        let error = train(&recipe, &place, &observer).expect_err("stopped");
        assert_eq!((error.kind(), observer.1.load(Ordering::Relaxed)), (ErrorKind::Stopped, true), "{error}");
        let resumed = train(&recipe, &place, &Silent).expect("resumed");
        assert!(student(&resumed) == student(&whole), "stopped in `{what}`");
        let lines =
            |run: &RunFolder| std::fs::read_to_string(run.path().join("metrics.jsonl")).expect("a log").lines().count();
        assert_eq!((lines(&resumed), lines(&whole)), (7, 7));
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    let (alone, _) = pool.install(|| bench.train(&recipe, "alone"));
    assert!(student(&alone) == student(&whole), "one thread gives another student");
}

#[test]
fn what_does_not_fit_is_said_before_anything_is_done() {
    let bench = Bench::with_teachers();
    bench.write("solved.toml", SOLVED);
    let says = |sets: &[&str], code: i32, expected: &str| {
        let text = refused(&bench, "solved.toml", sets, code);
        assert!(text.contains(expected), "expected `{expected}`, found {text}");
    };
    says(&["stage.solved.epochs=3"], 2, "`epochs` does not apply to a stage with `closed_form`");
    says(&["stage.solved.trains=[\"head\"]"], 2, "`trains` does not apply");
    says(&["stage.solved.loss.a.kind=\"cross-entropy\""], 2, "`loss` does not apply");
    says(&["stage.solved.closed_form.ridge=0"], 2, "`ridge`: expected at least 0.0001, found 0");
    says(&["stage.solved.closed_form.rigde=1"], 2, "did you mean `ridge`?");
    says(&["stage.solved.closed_form.teacher=\"discriminativ\""], 2, "did you mean `discriminative`?");
    says(&["stage.solved.augment.shift=1"], 2, "`shift`: expected 0");
    says(&["student.embedding=9"], 1, "has 8 values, the student's embedding 9");
    says(&["student.head={ normalise = true }"], 1, "does not end with one that has a bias");
    says(&["stage.solved.closed_form.map=\"neck\""], 1, "map neck");
}

#[test]
fn the_plan_knows_what_is_solved() {
    let bench = Bench::with_teachers();
    bench.write("solved.toml", SOLVED);
    let said = Said::by(gdrd(&bench).args(["plan", "solved.toml"])).with_code(0);
    assert!(said.stdout.contains("stage `solved`: 1 steps"), "{said:#?}");
    assert!(said.stdout.contains("4104 parameters solved in closed form"), "{said:#?}");
}
