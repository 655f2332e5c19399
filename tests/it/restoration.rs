//! A diffusion network with a condition: its training, its report, and its encoder as a teacher.

use std::fs;

use gdrd_core::context::BuildContext;
use gdrd_core::face::{Face, FaceBatch};
use gdrd_core::nn::Mode;
use gdrd_core::plugin::Workbench;
use gdrd_core::student::StudentFile;
use gdrd_core::teacher::{Output, Shown, Teacher};
use gdrd_tests::{Bench, RESTORING, Said, losses};
use serde_json::Value;

use crate::gdrd;

fn bench() -> Bench {
    let bench = Bench::empty();
    bench.write("restoring.toml", RESTORING);
    bench
}

#[test]
fn the_report_says_what_it_knows_and_repeats() {
    let bench = bench();
    let recipe = bench.recipe(&bench.file("restoring.toml"), &[]);
    let (run, events) = bench.train(&recipe, "one");
    let losses = losses(&events, None);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(&losses[18..]) < mean(&losses[..6]), "{losses:?}");
    let report = fs::read_to_string(run.path().join("report.md")).expect("a report");
    for expected in [
        "| student at 16x16 |",
        "![Denoising loss](denoising-loss-restored.svg)",
        "![faces, restored](faces-restored.png)",
        "| timestep | face, % | loss, % |",
        "| 125      |",
        "| 875      |",
    ] {
        assert!(report.contains(expected), "{expected}: {report}");
    }
    let picture = image::open(run.path().join("faces-restored.png")).expect("a picture");
    assert_eq!((picture.width(), picture.height()), (10 * 112, 3 * 112), "small, restored and whole faces");
    // Noise and order are the same in every run.
    let (again, _) = bench.train(&recipe, "two");
    for file in ["evaluation/restored.json", "faces-restored.png"] {
        let bytes = |run: &gdrd_core::run::RunFolder| fs::read(run.path().join(file)).expect("a file");
        assert_eq!(bytes(&run), bytes(&again), "{file}");
    }
    let said = Said::by(gdrd(&bench).args(["verify", "runs/one", "--again"])).with_code(0);
    assert!(said.stdout.contains("faces-restored.png"), "{said:#?}");
}

/// The teacher of the run's weights, with these options.
fn teacher(bench: &Bench, options: Value) -> Box<dyn Teacher> {
    let mut all = serde_json::json!({
        "weights": bench.file("runs/one/student.safetensors"),
        "network": { "image_size": 16, "in_channels": 6, "patch": 2, "model_channels": 8, "channel_mult": [1, 2],
            "num_res_blocks": 1, "norm_groups": 4 },
        "condition": "low",
    });
    for (key, value) in options.as_object().expect("options") {
        all[key] = value.clone();
    }
    let config: gdrd_teachers::DiffusionEncoder = serde_json::from_value(all).expect("options");
    let problems = gdrd_core::teacher::TeacherConfig::check(&config);
    assert!(problems.is_empty(), "{problems:?}");
    let workbench = Workbench::new(candle_core::Device::Cpu);
    gdrd_core::teacher::TeacherConfig::build(&config, &BuildContext::new(&workbench)).expect("a teacher")
}

fn faces(size: usize) -> FaceBatch {
    let face = |seed: usize| {
        let pixels = (0..3 * size * size).map(|at| ((at * (seed + 3)) % 251) as u8).collect();
        Face::new(size, size, pixels).expect("a face")
    };
    FaceBatch::from_faces(&[face(1), face(2)], &candle_core::Device::Cpu).expect("faces")
}

#[test]
fn its_encoder_is_a_teacher_of_the_small_the_whole_or_the_restored_face() {
    let bench = bench();
    bench.train(&bench.recipe(&bench.file("restoring.toml"), &["evaluate.restored.enabled=false"]), "one");
    let (small, whole) = (faces(8), faces(16));
    let tap = Output::Map("middle_block".into());
    let found = |options: Value, views: Vec<FaceBatch>| {
        let teacher = teacher(&bench, options);
        assert_eq!(teacher.card().views.len(), views.len());
        assert_eq!(teacher.shape(&tap, 8).expect("a shape"), [16, 4, 4]);
        let maps = teacher.features(&Shown::new(views).expect("views"), std::slice::from_ref(&tap)).expect("maps");
        assert_eq!(maps[0].dims(), [2, 16, 4, 4]);
        maps[0].flatten_all().and_then(|map| map.to_vec1::<f32>()).expect("values")
    };
    let small_alone = found(serde_json::json!({}), vec![small.clone()]);
    let seen_whole = found(serde_json::json!({ "view": "whole" }), vec![whole.clone(), small.clone()]);
    let restored = found(serde_json::json!({ "restore": 2 }), vec![small.clone()]);
    let noisy = found(serde_json::json!({ "timestep": 300, "add_noise": true }), vec![small.clone()]);
    for other in [&seen_whole, &restored, &noisy] {
        assert!(small_alone.iter().zip(other).any(|(a, b)| (a - b).abs() > 1e-4));
    }
    assert_eq!(restored, found(serde_json::json!({ "restore": 2 }), vec![small.clone()]), "a teacher is a function");
    // As the backbone of a student, whose face is its own condition, it sees the same.
    let text = "format = 1\nextends = \"restoring.toml\"\nstages = [\"names\"]\n[student]\nkind = \"diffusion-trunk\"\nview = \"low\"\n\
                weights = \"runs/one/student.safetensors\"\nencoder_size = 16\nembedding = 12\n[student.network]\nimage_size = 16\n\
                in_channels = 6\npatch = 2\nmodel_channels = 8\nchannel_mult = [1, 2]\nnum_res_blocks = 1\nnorm_groups = 4\n\
                [stage.names]\nsteps = 1\nbatch_size = 8\ntrains = [\"head\"]\n[stage.names.loss.identity]\nkind = \"cross-entropy\"\n\
                [evaluate.restored]\nenabled = false\n";
    let path = bench.write("trunk.toml", text);
    let (run, _) = bench.train(&bench.recipe(&path, &[]), "trunk");
    let bytes = std::fs::read(run.student()).expect("a student");
    let file = StudentFile::open(&bytes, &candle_core::Device::Cpu, &gdrd_student::BuiltIn).expect("a student");
    let map = file.student.backbone(&small, Mode::Evaluate).and_then(|map| Ok(map.flatten_all()?.to_vec1::<f32>()?));
    assert_eq!(map.expect("a map"), small_alone);
}

#[test]
fn options_that_do_not_fit_are_told_before_anything_runs() {
    let bench = bench();
    let check = |sets: &[&str]| {
        let mut command = gdrd(&bench);
        command.args(["check", "restoring.toml"]);
        sets.iter().for_each(|set| {
            command.args(["--set", set]);
        });
        Said::by(&mut command)
    };
    check(&[]).with_code(0);
    let said = check(&["stage.denoising.loss.denoising.condition=lwo"]);
    assert!(said.code != Some(0) && format!("{said:?}").contains("lwo"), "{said:#?}");
    let said = check(&["student.network.in_channels=5"]);
    assert!(format!("{said:?}").contains("expected 3, or 6 for a network with a condition, found 5"), "{said:#?}");
    let shift = bench.recipe(&bench.file("restoring.toml"), &["stage.denoising.augment.shift=1"]);
    let (error, steps) = bench.fails(&shift, "shift");
    assert!(steps == 0 && error.to_string().contains("expected no `augment.shift`"), "{error}");
}
