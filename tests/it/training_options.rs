//! What stages can do beside the paper's: each alone does what it says, and all together are stopped, resumed and shared among
//! threads without a trace.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use candle_core::{Device, Tensor};
use gdrd_core::error::ErrorKind;
use gdrd_core::experiment::Experiment;
use gdrd_core::face::{Face, FaceBatch};
use gdrd_core::nn::weights::read_safetensors;
use gdrd_core::observe::{Event, Flow, Observer, Silent};
use gdrd_core::run::{Assembly, RunFolder, train};
use gdrd_core::teacher::{Output, Shown, prepared};
use gdrd_tests::{Bench, Said, losses, step_numbers};

use crate::gdrd;

/// Whether an event is the one to stop at.
type Moment = Box<dyn FnMut(&Event) -> bool + Send>;

/// Stops when something happens.
struct StopWhen<F>(Mutex<F>);

impl<F: FnMut(&Event) -> bool + Send> Observer for StopWhen<F> {
    fn on(&self, event: &Event) -> Flow {
        let stop = self.0.lock().expect("one thread tells")(event);
        if stop { Flow::Stop } else { Flow::Continue }
    }
}

/// Whether this is the step after so many others that were told since.
fn after(steps: usize) -> impl FnMut(&Event) -> bool + Send {
    let mut seen = 0;
    move |event| {
        seen += usize::from(matches!(event, Event::StepDone { .. }));
        seen == steps
    }
}

/// The student's bytes, and every step's numbers but for its speed.
fn outcome(run: &RunFolder) -> (Vec<u8>, Vec<String>) {
    let log = std::fs::read_to_string(run.path().join("metrics.jsonl")).expect("a log");
    let numbers = |line: &str| step_numbers(line).to_string();
    (std::fs::read(run.student()).expect("a student"), log.lines().map(numbers).collect())
}

/// A run that is stopped at each of these moments and resumed; its outcome must be that of one that was not.
#[track_caller]
fn assert_stops_leave_no_trace(bench: &Bench, recipe: &Experiment, stops: Vec<Moment>) -> RunFolder {
    let (whole, _) = bench.train(recipe, "whole");
    for (at, stop) in stops.into_iter().enumerate() {
        let stopped = train(recipe, &bench.place("stopped"), &StopWhen(Mutex::new(stop)));
        let error = stopped.err().unwrap_or_else(|| panic!("stop {at} never came"));
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
    let whole =
        assert_stops_leave_no_trace(&bench, &bench.recipe(&path, &[]), vec![Box::new(after(2)), Box::new(after(3))]);
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

/// Everything at once: a random view, mixtures, a changed target, a backbone that is frozen for a while and mimics T_g to the end,
/// an average, statistics estimated at both ends, gradients of the terms.
const EVERYTHING: &str = r#"
format = 1
extends = "tiny.toml"
stages = ["all"]

[view.rough]
kind = "random-downscale"
size = 16
sizes = [8, 12, 24]

[teacher.targets]
kind = "transformed"
teacher = "discriminative"
mirror = true
whiten = 0.25
identity = 0.5
data = "train"

[student]
head = { hidden = [16], dropout = 0.2, normalise = true }

[stage.all]
trains = ["backbone", "head"]
steps = 12
batch_size = 8
learning_rate = 0.02
view = "rough"
frozen_until = { backbone = 0.25 }
frozen_statistics = "moving"
estimate_statistics = ["begin"]
ema = 0.9
term_gradients = 2
augment = { flip = true, translate = 0.05, draws = 2, mixup = { faces = 0.5, alpha = 0.4 } }
last = { share = 0.25, view = "low" }

[stage.all.loss.embedding]
kind = "embedding-regression"
teacher = "targets"

[stage.all.loss.regression]
kind = "feature-regression"
teacher = "generative"
weight = 0.1

[stage.all.loss.identity]
kind = "cross-entropy"
weight = 0.1
"#;

#[test]
fn all_options_at_once_are_resumed_to_the_bit_on_any_number_of_threads() {
    let bench = Bench::with_teachers();
    let path = bench.write("everything.toml", EVERYTHING);
    let estimating = |batch: usize, in_all: usize| {
        let mut seen = 0;
        move |event: &Event| match event {
            Event::Working { what, done, .. } if what.starts_with("running statistics") => {
                seen += usize::from(*done == batch);
                seen == in_all
            }
            _ => false,
        }
    };
    // In the statistics of the beginning, while the backbone is frozen, after that, in the last phase, in the statistics of the end.
    let stops: Vec<Moment> = vec![
        Box::new(estimating(3, 1)),
        Box::new(after(2)),
        Box::new(after(3)),
        Box::new(after(5)),
        Box::new(estimating(4, 1)),
    ];
    let whole = assert_stops_leave_no_trace(&bench, &bench.recipe(&path, &[]), stops);
    let (one, two) = (with_threads(&bench, &path, 1), with_threads(&bench, &path, 2));
    assert_eq!(one.1, two.1, "the numbers of the steps");
    assert!(one.0 == two.0, "the students differ");
    // Gradients are measured at every second step, and measuring changes nothing.
    let measured = |line: &String| line.contains("embedding.cosine.regression") && line.contains("identity.gradient");
    let lines = outcome(&whole).1;
    assert!(lines.iter().enumerate().all(|(at, line)| measured(line) == (at % 2 == 0)), "{lines:#?}");
    let unmeasured = bench.recipe(&path, &["stage.all.term_gradients=1000000"]);
    let (unmeasured, _) = bench.train(&unmeasured, "unmeasured");
    assert!(tensors(&unmeasured.student()) == tensors(&whole.student()), "measuring changes the student");
    // What has no test of its own is not without effect.
    for set in [
        "stage.all.view=low",
        "stage.all.frozen_statistics=kept",
        "stage.all.augment.mixup.targets=mixed",
        "stage.all.last.augment=true",
        "teacher.targets.identity=0.0",
    ] {
        let (other, _) = bench.train(&bench.recipe(&path, &[set]), set);
        assert!(tensors(&other.student()) != tensors(&whole.student()), "{set} changes nothing");
    }
}

/// The bits of every tensor of a file, by name.
fn tensors(path: &Path) -> BTreeMap<String, Vec<u32>> {
    let bits = |tensor: &Tensor| {
        let values = tensor.flatten_all().and_then(|t| t.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>());
        values.expect("values").into_iter().map(f32::to_bits).collect()
    };
    let read = read_safetensors(path).unwrap_or_else(|error| panic!("{error}"));
    read.iter().map(|(name, tensor)| (name.clone(), bits(tensor))).collect()
}

/// The student's tensors after a step, by name.
fn student_at(run: &RunFolder, step: u64) -> BTreeMap<String, Vec<u32>> {
    let path = run.path().join(format!("checkpoints/step-{step}/state.safetensors"));
    let of_student =
        |(name, bits): (String, Vec<u32>)| Some((name.strip_prefix("variable.student.")?.to_string(), bits));
    tensors(&path).into_iter().filter_map(of_student).collect()
}

/// One stage of the head's losses, with every step kept.
fn kept(bench: &Bench, run: &str, sets: &[&str]) -> RunFolder {
    let usual = [
        "stages=[\"discriminative\"]",
        "run.checkpoint_steps=1",
        "run.keep_checkpoints=99",
        "stage.discriminative.loss.relation.enabled=false",
    ];
    bench.train(&bench.tiny(&[&usual[..], sets].concat()), run).0
}

#[test]
fn a_part_is_frozen_for_its_share_and_its_statistics_move_when_asked() {
    let bench = Bench::with_teachers();
    let both = "stage.discriminative.trains=[\"backbone\",\"head\"]";
    let until = "stage.discriminative.frozen_until={ backbone = 0.5 }";
    let changes = |run: &RunFolder, steps: [u64; 2], running: bool, part: &str| {
        let of = |step| -> BTreeMap<String, Vec<u32>> {
            let of_part = |name: &String| name.starts_with(part) && name.contains("running") == running;
            student_at(run, step).into_iter().filter(|(name, _)| of_part(name)).collect()
        };
        assert!(!of(steps[0]).is_empty());
        of(steps[0]) != of(steps[1])
    };
    let run = kept(&bench, "kept", &[both, until]);
    for (running, part, expected) in [(false, "backbone.", false), (true, "backbone.", false), (false, "head.", true)] {
        assert_eq!(changes(&run, [1, 4], running, part), expected, "{part} running {running}");
    }
    assert!(changes(&run, [4, 5], false, "backbone.") && changes(&run, [4, 5], true, "backbone."));
    let run = kept(&bench, "moving", &[both, until, "stage.discriminative.frozen_statistics=moving"]);
    assert!(!changes(&run, [1, 4], false, "backbone.") && changes(&run, [1, 4], true, "backbone."));
    // The other way round: a head that waits for the backbone.
    let run = kept(&bench, "head", &[both, "stage.discriminative.frozen_until={ head = 0.5 }"]);
    assert!(!changes(&run, [1, 4], false, "head.") && changes(&run, [1, 4], false, "backbone."));
    assert!(changes(&run, [4, 5], false, "head."));
    // Estimated at the beginning, the statistics of a frozen backbone are the data's; its weights stay.
    let [plain, estimated] = [&[][..], &["stage.discriminative.estimate_statistics=[\"begin\"]"]]
        .map(|sets| student_at(&kept(&bench, &format!("begin{}", sets.len()), sets), 1));
    let differs = |name: &str| plain[name] != estimated[name];
    assert!(differs("backbone.stem.bn.running_mean") && differs("backbone.stem.bn.running_var"));
    assert!(!differs("backbone.stem.conv.weight") && !differs("backbone.stem.bn.weight"));
}

#[test]
fn a_stage_with_an_average_leaves_the_average_of_its_steps_behind() {
    let bench = Bench::with_teachers();
    let both = "stage.discriminative.trains=[\"backbone\",\"head\"]";
    let run = kept(&bench, "average", &[both, "stage.discriminative.ema=0.6"]);
    let plain = kept(&bench, "plain", &[both]);
    let student = tensors(&run.student());
    let steps: Vec<_> = (1..8).map(|step| student_at(&run, step)).collect();
    // The steps themselves are those of a run without an average; the last one is in that run's file.
    assert_eq!(steps[6], student_at(&plain, 7));
    let last = tensors(&plain.student());
    let value = |bits: u32| f64::from(f32::from_bits(bits));
    let mut averaged = 0;
    for (name, found) in student.iter().filter(|(name, _)| !name.contains("running")) {
        for (at, bits) in found.iter().enumerate() {
            let path = steps.iter().chain([&last]).map(|step| value(step[name][at]));
            let (sum, weights) = path.enumerate().fold((0.0, 0.0), |(sum, weights), (step, value)| {
                let weight = 0.6f64.powi(7 - step as i32);
                (sum + weight * value, weights + weight)
            });
            assert!((value(*bits) - sum / weights).abs() < 1e-5, "{name}[{at}]");
            averaged += usize::from(value(*bits) != value(last[name][at]));
        }
    }
    assert!(averaged > 100, "{averaged} values are averages");
    let statistics = |tensors: &BTreeMap<String, Vec<u32>>| tensors["backbone.stem.bn.running_var"].clone();
    assert_ne!(statistics(&student), statistics(&last), "they are estimated again");
}

#[test]
fn stored_and_live_answers_are_mixed_alike() {
    let bench = Bench::with_teachers();
    let mixed = "stage.discriminative.augment={ flip = true, mixup = { faces = 0.7, targets = \"mixed\" } }";
    let live = "stage.discriminative.store_features=false";
    let of = |run: &str, sets: &[&str]| {
        let sets = [&["stages=[\"discriminative\"]"], sets].concat();
        losses(&bench.train(&bench.tiny(&sets), run).1, Some("logits"))
    };
    let (stored, live, whole) = (of("stored", &[mixed]), of("live", &[mixed, live]), of("whole", &[]));
    for (step, (stored, live)) in stored.iter().zip(&live).enumerate() {
        // Stored features have half precision.
        assert!((stored - live).abs() < 5e-3 * live.abs().max(1.0), "step {step}: {stored} and {live}");
    }
    assert_ne!(stored, whole);
}

#[test]
fn a_transformed_teacher_is_mirrored_whitened_and_drawn_to_people() {
    let bench = Bench::with_teachers();
    let embeddings = |text: &str, mirrored: bool, with_keys: bool| -> Vec<Vec<f32>> {
        let recipe = bench.recipe(&bench.write("targets.toml", text), &[]);
        let place = bench.place("unused");
        let parts = Assembly::new(&recipe, &place, &Silent).expect("parts");
        let cx = parts.context();
        let (teacher, dataset) = (cx.teacher("targets").expect("a teacher"), cx.dataset("train").expect("data"));
        let face = |index| -> Face {
            let face = dataset.face(index).expect("a face");
            prepared(teacher.card(), if mirrored { face.flipped() } else { face }).expect("a face")
        };
        let faces: Vec<Face> = (0..dataset.len()).map(face).collect();
        let shown = Shown::from(FaceBatch::from_faces(&faces, &Device::Cpu).expect("a batch"));
        let keys = (0..dataset.len()).map(|index| dataset.key(index)).collect();
        let shown = if with_keys { shown.with_keys(keys) } else { shown };
        let found = teacher.features(&shown, &[Output::Embedding]).expect("features");
        found[0].to_vec2().expect("rows")
    };
    let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let whole = embeddings(EVERYTHING, false, false);
    for (row, mirrored) in whole.iter().zip(&embeddings(EVERYTHING, true, false)) {
        assert!((cosine(row, row) - 1.0).abs() < 1e-5 && cosine(row, mirrored) > 0.999);
    }
    let length_of_mean = |rows: &[Vec<f32>]| {
        let mean: Vec<f32> = (0..rows[0].len()).map(|at| rows.iter().map(|row| row[at]).sum::<f32>()).collect();
        cosine(&mean, &mean).sqrt() / rows.len() as f64
    };
    // Eight images of each of six people.
    let within = |rows: &[Vec<f32>]| {
        let pairs = (0..48).flat_map(|a| (a + 1..48).map(move |b| (a, b))).filter(|(a, b)| a / 8 == b / 8);
        pairs.map(|(a, b)| cosine(&rows[a], &rows[b])).sum::<f64>() / 168.0
    };
    let unwhitened = embeddings(&EVERYTHING.replace("whiten = 0.25\n", ""), false, false);
    assert!(length_of_mean(&whole) < 0.5 * length_of_mean(&unwhitened), "the mean is removed");
    let drawn = embeddings(EVERYTHING, false, true);
    assert!(within(&drawn) > within(&whole) + 0.1, "{} and {}", within(&drawn), within(&whole));
}
