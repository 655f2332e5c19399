//! Students that start from a teacher of their recipe.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use candle_core::{Device, Tensor};
use gdrd_core::nn::Weights;
use gdrd_core::nn::mobilefacenet::{Layout, MobileFaceNet};
use gdrd_core::nn::weights::Draw;
use gdrd_core::observe::Event;
use gdrd_core::run::Lock;
use gdrd_core::teacher::TeacherConfig;
use gdrd_teachers::MobileFaceNetTeacher;
use gdrd_tests::{Bench, Said, losses, on_cpu};

use crate::{gdrd, refused};

const RECIPE: &str = r#"
format = 1
stages = ["distil"]

[run]
checkpoint_steps = 2
workers = 1

[data.train]
kind = "synthetic-faces"
identities = 3
images_per_identity = 4
size = 32

[degradation]
kind = "downscale"
size = 16

[teacher.discriminative]
kind = "mobilefacenet"
weights = "teacher.safetensors"

[student]
kind = "mobilefacenet"
blocks = [1, 1, 1, 1]
scale = 1
embedding = 8
initial_teacher = "discriminative"

[stage.distil]
steps = 4
batch_size = 4
learning_rate = 0.01

[stage.distil.loss.embedding]
kind = "embedding-regression"

[evaluate.verification]
kind = "verification"
data = "train"
drawn_pairs = 12
folds = 3
"#;

/// Numbers that differ by tensor and place, and suit a network of many layers.
fn drawn(name: &str, count: usize) -> Vec<f32> {
    let start = name.bytes().fold(17u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let noise = (0..count as u32).map(|at| (start ^ at.wrapping_mul(2_654_435_761)).wrapping_mul(0x9e37_79b9) >> 8);
    let unit = noise.map(|bits| bits as f32 / (1 << 23) as f32 - 1.0);
    match name.rsplit('.').next() {
        Some("running_var") => unit.map(|value| 1.0 + 0.3 * value).collect(),
        Some("weight") if count > 1024 || name.contains("conv") => unit.map(|value| 0.2 * value).collect(),
        Some("weight") => unit.map(|value| 1.0 + 0.2 * value).collect(),
        _ => unit.map(|value| 0.1 * value).collect(),
    }
}

fn write(path: &Path, build: impl FnOnce(&Weights)) {
    let draw: Rc<Draw> = Rc::new(|name, count, _| drawn(name, count));
    let made = Weights::create(&Device::Cpu, draw, |weights| {
        build(weights);
        Ok(())
    });
    let tensors: BTreeMap<String, Tensor> = made.expect("a network").1.tensors();
    safetensors::serialize_to_file(&tensors, None, path).expect("written");
}

/// A bench with the recipe, and its teacher: a MobileFaceNet with few blocks.
fn bench() -> Bench {
    let bench = Bench::empty();
    let layout = Layout::Insightface { blocks: [1, 1, 1, 1], scale: 1, embedding: 8 };
    write(&bench.file("teacher.safetensors"), |weights| {
        MobileFaceNet::new(layout, weights).expect("a network");
    });
    bench.write("recipe.toml", RECIPE);
    bench
}

#[test]
fn a_student_starts_from_its_teacher_and_its_file_goes_on() {
    let bench = bench();
    let recipe = bench.file("recipe.toml");
    let (run, events) = bench.train(&bench.recipe(&recipe, &["stage.distil.rates={ backbone = 0.1 }"]), "first");
    let told = events.iter().find_map(|event| match event {
        Event::StudentStarted { teacher, taken, drawn, left } => {
            Some((teacher.clone(), *taken, drawn.len(), left.len()))
        }
        _ => None,
    });
    let bytes = std::fs::read(bench.file("teacher.safetensors")).expect("a file");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors").len();
    assert_eq!(told, Some(("discriminative".to_string(), tensors, 0, 0)));
    let started = Lock::read_file(&run.path().join("lock.json")).expect("a lock").student.expect("a start");
    assert_eq!((started.taken, started.drawn.len()), (tensors, 0));
    let of_run = losses(&events, None);
    assert!(of_run.len() == 4 && of_run.iter().all(|loss| loss.is_finite()), "{of_run:?}");

    // Its file is a teacher's file, and a student's to go on from.
    let path = run.student();
    let options = serde_json::json!({ "weights": path });
    let teacher: MobileFaceNetTeacher = serde_json::from_value(options).expect("options");
    on_cpu(|cx| teacher.build(cx)).expect("the names are the layout's");
    let text = RECIPE.replace("initial_teacher = \"discriminative\"", "initial = \"runs/first/student.safetensors\"");
    let (_, events) = bench.train(&bench.recipe(&bench.write("tune.toml", text), &[]), "tuned");
    assert!(losses(&events, None)[0].is_finite());
    let image = bench.write("face.png", png());
    let image = image.to_str().expect("text");
    let out = ["embed", image, "--student", "runs/tuned/student.safetensors", "--out", "e.safetensors"];
    Said::by(gdrd(&bench).args(out)).with_code(0);
}

fn png() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_fn(112, 112, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
    image.write_to(&mut bytes, image::ImageFormat::Png).expect("written");
    bytes.into_inner()
}

#[test]
fn a_head_of_its_own_is_new_and_said_and_other_networks_are_refused() {
    let bench = bench();
    let recipe = bench.file("recipe.toml");
    let linear =
        ["student.head=\"linear\"", "student.embedding=5", "student.backbone_blocks=4", "stage.distil.steps=2"];
    let (run, events) = bench.train(&bench.recipe(&recipe, &linear), "linear");
    let told = events.iter().find_map(|event| match event {
        Event::StudentStarted { drawn, left, .. } => Some((drawn.clone(), left.len())),
        _ => None,
    });
    assert_eq!(told, Some((vec!["head.bias".to_string(), "head.weight".to_string()], 10)));
    let started = Lock::read_file(&run.path().join("lock.json")).expect("a lock").student.expect("a start");
    assert_eq!(started.drawn, ["head.bias", "head.weight"]);
    let report = std::fs::read_to_string(run.path().join("report.md")).expect("a report");
    assert!(report.contains("`head.bias`, `head.weight` is new"), "{report}");

    let said = refused(&bench, "recipe.toml", &["student.blocks=[1, 2, 1, 1]"], 1);
    assert!(said.contains("tensors that it has not, but the student: `layers.3.layers.1."), "{said}");
    let said = refused(&bench, "recipe.toml", &["student.layout=\"facex-zoo\""], 1);
    assert!(said.contains("cannot start from its weights"), "{said}");
    let said = refused(&bench, "recipe.toml", &["student.initial_teacher=\"discriminativ\""], 2);
    assert!(said.contains("no teacher is called `discriminativ`") && said.contains("discriminative"), "{said}");
    let said = refused(&bench, "recipe.toml", &["student.initial=\"teacher.safetensors\""], 2);
    assert!(said.contains("expected either `initial`, a student file, or `initial_teacher`, found both"), "{said}");
    let said =
        refused(&bench, "recipe.toml", &["student.input=20", "student.embedding=0", "student.backbone_blocks=99"], 2);
    for expected in ["`input`: expected", "`embedding`: expected", "`backbone_blocks`: expected"] {
        assert!(said.contains(expected), "{said}");
    }
}
