//! A trained student in other people's hands: its file, ONNX models, galleries, and the commands that use them.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::rc::Rc;

use candle_core::{DType, Device};
use gdrd_core::context::Bare;
use gdrd_core::digest;
use gdrd_core::face::Face;
use gdrd_core::nn::{OnnxInput, Weights};
use gdrd_core::student::{STUDENT_FORMAT, StudentFacts, StudentHeader, StudentKinds, build};
use gdrd_student::{BuiltIn, FaceEncoder, Gallery};
use gdrd_tests::{Bench, Said, registry, root};
use serde_json::{Value, json};

use crate::gdrd;
use crate::golden::formula;

fn student_file() -> PathBuf {
    root().join("tests/files/student-format-1.safetensors")
}

/// A student of these options with weights by the formula, as the bytes of its file.
fn formed(kind: &str, options: Value) -> Vec<u8> {
    let config = BuiltIn.config(kind, &options).expect("options of the kind");
    let draw = Rc::new(|_: &str, count: usize, _| vec![0.0; count]);
    let made = Weights::create(&Device::Cpu, draw, |weights| build(&*config, 16, weights, &Bare(Device::Cpu)));
    let (student, variables) = made.expect("a student");
    let header = StudentHeader {
        format: STUDENT_FORMAT,
        kind: kind.into(),
        options,
        card: student.card().clone(),
        prepare: Default::default(),
        recipe: "formula".into(),
        teachers: Default::default(),
        licences: Default::default(),
        facts: StudentFacts { input: student.input(), ..StudentFacts::default() },
    };
    header.to_bytes(&formula::tensors(&variables).0).expect("bytes")
}

/// Every kind with a form of its own, with both inputs, against ONNX Runtime: the bytes of the models are those that it ran.
#[test]
fn onnx_models_give_in_onnx_runtime_what_students_give() {
    let bgr = json!({"colour": "bgr", "mean": [0.4, 0.5, 0.6], "std": [0.5, 0.4, 0.3], "alignment": "arcface"});
    let trunk = json!({
        "channels": [4, 6], "blocks": [1, 2], "strides": [1, 2], "embedding": 7, "last_relu": false,
        "head": {"channels": [8], "pool": "average", "hidden": [9], "normalise": true},
    });
    let students = [
        ("trunk", "resnet-trunk", trunk, OnnxInput::Bytes),
        (
            "trunk-floats",
            "resnet-trunk",
            json!({"channels": [4], "blocks": [1], "strides": [2], "embedding": 5}),
            OnnxInput::Floats,
        ),
        ("foamliu", "mobilefacenet", json!({"layout": "foamliu", "embedding": 128}), OnnxInput::Bytes),
        (
            "insightface",
            "mobilefacenet",
            json!({"scale": 1, "embedding": 16, "head": "linear", "preprocessing": bgr}),
            OnnxInput::Floats,
        ),
        ("iresnet", "iresnet", json!({"layout": "insightface", "depth": 18, "embedding": 16}), OnnxInput::Bytes),
        ("cvlface", "iresnet", json!({"layout": "cvlface", "depth": 18, "embedding": 16}), OnnxInput::Floats),
    ];
    let updates = std::env::var_os("GDRD_UPDATE").is_some_and(|value| value == "1");
    let folder = std::env::temp_dir().join("gdrd-onnx-models");
    let text = std::fs::read_to_string(root().join("tests/golden/onnx_export/values.json")).unwrap_or_default();
    let golden: Value = serde_json::from_str(&text).unwrap_or_default();
    for (name, kind, options, input) in students {
        let encoder = FaceEncoder::from_bytes(&formed(kind, options), &Device::Cpu).expect("a student");
        let model = encoder.to_onnx(input).expect("a model");
        let pixels = formula::bytes(name, 2 * 3 * 256);
        if updates {
            std::fs::create_dir_all(&folder).expect("a folder");
            std::fs::write(folder.join(format!("{name}.onnx")), &model).expect("written");
            std::fs::write(folder.join(format!("{name}.faces")), &pixels).expect("written");
            continue;
        }
        let expected = &golden[name];
        let found = digest::hex(&digest::of_bytes(&model));
        assert_eq!(
            expected["sha256"], found,
            "{name}: another model than ONNX Runtime ran; see export.py beside values.json"
        );
        let faces = pixels.chunks_exact(768).map(|face| Face::new(16, 16, face.to_vec()).expect("a face"));
        let embedded = encoder.embed(&faces.collect::<Vec<_>>()).expect("embeddings");
        for (row, expected) in expected["embeddings"].as_array().expect("rows").iter().enumerate() {
            let expected =
                expected.as_array().expect("values").iter().map(|value| value.as_f64().expect("a number") as f32);
            let most = embedded.row(row).iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(most < 1e-4, "{name}, face {row}: {most}");
        }
    }
    assert!(!updates, "written to {}: run tests/golden/onnx_export/export.py on it", folder.display());
}

#[test]
fn a_student_without_a_form_for_onnx_is_refused_by_name() {
    let options = json!({"layout": "evolve-se", "depth": 34, "embedding": 8});
    let encoder = FaceEncoder::from_bytes(&formed("iresnet", options), &Device::Cpu).expect("a student");
    let text = encoder.to_onnx(OnnxInput::Bytes).expect_err("no form").to_string();
    assert!(text.contains("kind `iresnet` with these options has no form for ONNX"), "{text}");
}

/// The loader of the page is the one whose values are kept, and gives them.
#[test]
fn the_pytorch_loader_of_the_page_gives_what_the_student_gives() {
    let folder = root().join("tests/golden/pytorch_loader");
    let read = |path: PathBuf| std::fs::read_to_string(path).expect("a file");
    let loader = read(folder.join("loader.py"));
    assert!(read(root().join("docs/student-file.md")).contains(&loader), "docs/student-file.md has another loader");
    let expected: Vec<f32> = serde_json::from_str(&read(folder.join("values.json"))).expect("numbers");
    let encoder = FaceEncoder::open(student_file()).expect("a student");
    let face = Face::new(16, 16, formula::bytes("pytorch loader", 768)).expect("a face");
    let found = encoder.face(&face).expect("an embedding");
    assert!(
        found.values().iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5),
        "{:?}, {expected:?}",
        found.values()
    );
}

/// What a program that embeds is built with.
#[test]
fn a_program_that_embeds_is_built_with_these_crates_alone() {
    let cargo = std::env::var("CARGO").unwrap_or("cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "tree",
        "-p",
        "gdrd-student",
        "-e",
        "normal",
        "--prefix",
        "none",
        "--offline",
        "--locked",
        "-f",
        "{p}",
    ]);
    let said = Said::by(command.current_dir(root())).with_code(0);
    let name = |line: &str| line.split_whitespace().next().map(str::to_string);
    let mut found: Vec<String> = said.stdout.lines().filter_map(name).collect();
    found.sort();
    found.dedup();
    let path = root().join("tests/files/student-crates.txt");
    if std::env::var_os("GDRD_UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(&path, found.join("\n") + "\n").expect("written");
    }
    let known = std::fs::read_to_string(&path).expect("the list");
    let new: Vec<&String> = found.iter().filter(|name| !known.lines().any(|line| line == name.as_str())).collect();
    assert!(
        new.is_empty(),
        "new crates in everybody's program: {new:?}; GDRD_UPDATE=1 writes the list if they belong there"
    );
    // No trainer, no TOML, no image formats, no network, no terminal.
    for part in [
        "toml",
        "image",
        "ureq",
        "rustls",
        "clap",
        "plotters",
        "schemars",
        "hf-hub",
        "tokio",
        "gdrd-teachers",
        "gdrd-cli",
    ] {
        assert!(!found.iter().any(|name| name == part), "{part}");
    }
}

/// Fifty people, of whom two photographs each are enrolled and a third is asked about: drawn faces as PNG files.
struct Town {
    bench: Bench,
}

const TOWN: &str = "
format = 1
stages = [\"only\"]

[data.people]
kind = \"synthetic-faces\"
identities = 50
images_per_identity = 6
size = 32

[student]
kind = \"resnet-trunk\"
channels = [4]
blocks = [1]
strides = [2]
embedding = 12

[stage.only]
data = \"people\"
steps = 2
batch_size = 8
learning_rate = 0.01

[stage.only.loss.identity]
kind = \"cross-entropy\"

[evaluate.pairs]
kind = \"verification\"
data = \"people\"
drawn_pairs = 60
folds = 3

[calibration]
data = \"people\"
sizes = [8, 16]

[licences]
\"data.people\" = \"drawn here, free of rights\"
";

impl Town {
    fn new() -> Self {
        let bench = Bench::empty();
        bench.write("town.toml", TOWN);
        for person in 0..4u8 {
            for photograph in 0..3u8 {
                let folder = if photograph < 2 { format!("people/Person {person}") } else { "probes".into() };
                bench.write(&format!("{folder}/{person}-{photograph}.png"), Self::photograph(person, photograph));
            }
        }
        Self { bench }
    }

    /// Waves that are each person's own, a little brighter from photograph to photograph.
    fn photograph(person: u8, photograph: u8) -> Vec<u8> {
        let pixel = |x: u32, y: u32| {
            let wave = (x as f32 * (0.2 + 0.15 * f32::from(person))).sin()
                + (y as f32 * (0.7 - 0.13 * f32::from(person))).cos();
            let value = (120.0 + 50.0 * wave + 2.0 * f32::from(photograph)) as u8;
            image::Rgb([value, value / 2 + 20 * person, 255 - value])
        };
        let image = image::RgbImage::from_fn(48, 48, pixel);
        let mut bytes = Vec::new();
        image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).expect("PNG");
        bytes
    }

    fn run(&self, arguments: &[&str], code: i32) -> Said {
        Said::by(gdrd(&self.bench).args(arguments)).with_code(code)
    }

    fn enrolled(self) -> Self {
        let student = student_file();
        let said = self.run(&["enrol", "town.gallery", "people", "--student", &student.to_string_lossy()], 0);
        assert!(said.stdout.contains("8 faces enrolled; it has 4 people, 8 faces"), "{said:#?}");
        self
    }
}

#[test]
fn people_are_enrolled_found_and_forgotten() {
    let town = Town::new();
    town.bench.write("people/Person 1/broken.jpg", "no image");
    let town = town.enrolled();
    let student = student_file().to_string_lossy().into_owned();
    let search = |extra: &[&str]| {
        let probes = ["search", "town.gallery", "probes/0-2.png", "probes/3-2.png", "--student", &student];
        town.run(&[&probes[..], extra].concat(), 0).stdout
    };
    let lines: Vec<Value> = search(&["--json", "--threshold", "0.9"])
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 2);
    for (line, person) in lines.iter().zip(["Person 0", "Person 3"]) {
        assert_eq!(
            (line["person"].as_str(), line["nearest"][0]["person"].as_str()),
            (Some(person), Some(person)),
            "{line}"
        );
        assert_eq!(line["nearest"].as_array().map(Vec::len), Some(3));
    }
    assert!(search(&["--threshold", "0.9", "--top", "1"]).contains("probes/0-2.png: Person 0 (nearest: Person 0 "));
    assert!(search(&["--threshold", "1"]).contains("nobody known"));
    assert!(search(&[]).contains("no decision: the student's file has no thresholds"));
    let said = town.run(&["search", "town.gallery", "probes/0-2.png", "--student", &student, "--rate", "0.01"], 1);
    assert!(said.stderr.contains("no thresholds; `gdrd calibrate` measures them"), "{said:#?}");
    // Again, and again the same; then one person less.
    let before = std::fs::read(town.bench.file("town.gallery")).expect("a gallery").len();
    let said = town.run(&["enrol", "town.gallery", "people", "--student", &student, "--json"], 0);
    let found: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!((&found["enrolled"], &found["faces"]), (&json!(8), &json!(8)));
    assert!(said.stderr.contains("passed over: ") && said.stderr.contains("broken.jpg"), "{said:#?}");
    assert_eq!(std::fs::read(town.bench.file("town.gallery")).expect("a gallery").len(), before);
    assert!(town.run(&["forget", "town.gallery", "Nobody"], 1).stderr.contains("nobody is called `Nobody`"));
    town.run(&["forget", "town.gallery", "Person 0"], 0);
    let gallery = Gallery::open(town.bench.file("town.gallery")).expect("a gallery");
    assert_eq!(gallery.people(), ["Person 1", "Person 2", "Person 3"]);
    for file in ["town.gallery", "town.gallery.previous"] {
        let bytes = std::fs::read(town.bench.file(file)).expect("a file");
        assert!(!bytes.windows(8).any(|part| part == b"Person 0"), "{file}");
    }
}

#[test]
fn a_gallery_of_another_student_and_a_cut_one_are_said() {
    let town = Town::new().enrolled();
    let other = formed("resnet-trunk", json!({"channels": [4], "blocks": [1], "strides": [2], "embedding": 12}));
    town.bench.write("other.safetensors", other);
    let said = town.run(&["search", "town.gallery", "probes/0-2.png", "--student", "other.safetensors"], 1);
    assert!(said.stderr.contains("embeddings of two students"), "{said:#?}");
    let student = student_file().to_string_lossy().into_owned();
    town.run(&["enrol", "town.gallery", "people", "--student", &student], 0);
    let path = town.bench.file("town.gallery");
    let whole = std::fs::read(&path).expect("a gallery");
    std::fs::write(&path, &whole[..whole.len() - 9]).expect("cut");
    let said = town.run(&["search", "town.gallery", "probes/0-2.png", "--student", &student, "--threshold", "0.9"], 0);
    assert!(said.stderr.contains("warning: ") && said.stderr.contains(".previous` is used"), "{said:#?}");
    assert!(said.stdout.contains("Person 0"), "{said:#?}");
}

#[test]
fn two_photographs_are_compared() {
    let town = Town::new();
    let student = student_file().to_string_lossy().into_owned();
    let said = |a: &str, b: &str, extra: &[&str]| {
        town.run(&[&["compare", a, b, "--student", &student], extra].concat(), 0).stdout
    };
    let same = said("people/Person 0/0-0.png", "probes/0-2.png", &["--threshold", "0.95"]);
    assert!(same.starts_with("the same person (similarity "), "{same}");
    let other = said("people/Person 0/0-0.png", "probes/3-2.png", &["--threshold", "0.999"]);
    assert!(other.starts_with("not recognised as the same person"), "{other}");
    assert!(said("probes/0-2.png", "probes/0-2.png", &[]).starts_with("no decision"));
    let json: Value = serde_json::from_str(&said("probes/0-2.png", "probes/0-2.png", &["--json"])).expect("JSON");
    assert!(json["same"].is_null() && json["similarity"].as_f64().is_some_and(|one| one > 0.999), "{json}");
    let missing = town.run(&["compare", "gone.png", "probes/0-2.png", "--student", &student], 1);
    assert!(missing.stderr.contains("gone.png"), "{missing:#?}");
}

#[test]
fn photographs_are_recognised_as_they_come_half_written_ones_too() {
    let town = Town::new().enrolled();
    std::fs::create_dir(town.bench.file("camera")).expect("a folder");
    let student = student_file();
    let arguments = ["watch", "camera", "town.gallery", "--sort", "sorted", "--tag", "--every", "100", "--json"];
    let mut command = gdrd(&town.bench);
    command.args(arguments).args(["--threshold", "0.9", "--student"]).arg(student);
    let mut watching = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let whole = Town::photograph(2, 2);
    let (first, second) = whole.split_at(whole.len() / 2);
    town.bench.write("camera/late.png", first);
    town.bench.write("camera/ready.png", Town::photograph(1, 2));
    town.bench.write("camera/notes.txt", "no photograph");
    let waits = |name: &str| {
        let path = town.bench.file(name);
        let start = std::time::Instant::now();
        while !path.exists() {
            assert!(start.elapsed().as_secs() < 60, "{name} does not come");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        path
    };
    waits("sorted/Person-1/ready.png");
    std::fs::write(town.bench.file("camera/late.png"), [first, second].concat()).expect("the rest");
    let sorted = waits("sorted/Person-2/late.png");
    assert_eq!(std::fs::read(sorted).expect("a copy"), whole);
    let tag = std::fs::read_to_string(waits("camera/late.png.json")).expect("a tag");
    assert_eq!(serde_json::from_str::<Value>(&tag).expect("JSON")["person"], "Person 2");
    watching.kill().expect("it is stopped");
    let said = watching.wait_with_output().expect("its output");
    let lines = String::from_utf8_lossy(&said.stdout);
    assert!(lines.contains("\"person\":\"Person 1\"") && lines.contains("\"person\":\"Person 2\""), "{lines}");
    // Those that are there, once; a stranger to this threshold is nobody.
    let student = student_file().to_string_lossy().into_owned();
    let once = [
        "watch",
        "camera",
        "town.gallery",
        "--once",
        "--every",
        "10",
        "--sort",
        "again",
        "--threshold",
        "1",
        "--student",
        &student,
    ];
    let said = town.run(&once, 0);
    assert_eq!(said.stdout.lines().filter(|line| line.contains("nobody known")).count(), 2, "{said:#?}");
    assert!(town.bench.file("again/unknown/ready.png").exists());
}

#[test]
fn a_run_writes_what_its_student_can_and_calibrate_writes_it_anew() {
    let town = Town::new();
    town.run(&["train", "town.toml", "--run-dir", "run"], 0);
    town.run(&["verify", "run"], 0);
    let facts = |file: &str| {
        let bytes = std::fs::read(town.bench.file(file)).expect("a student");
        StudentHeader::from_bytes(&bytes).expect("a header").0.facts
    };
    let trained = facts("run/student.safetensors");
    let people = &trained.data["people"];
    assert_eq!(people.licence.as_deref(), Some("drawn here, free of rights"));
    assert_eq!(trained.views["low"]["size"], 16);
    assert_eq!((trained.figures["pairs"][0].name.as_str(), trained.figures["pairs"][0].count), ("accuracy", 60));
    let calibration = trained.calibration.clone().expect("a calibration");
    assert_eq!((calibration.faces, calibration.people, &calibration.digest), (300, 50, &people.digest));
    for at in &calibration.sizes {
        // 1,225 pairs of people: a rate of one in a thousand would be one of them.
        let rates: Vec<f64> = at.thresholds.iter().map(|point| point.false_match_rate).collect();
        assert_eq!((rates, at.different_people, at.same_pairs), (vec![0.1, 0.01], 1225, 300 * 5), "{} pixels", at.size);
    }
    let quality = trained.quality.clone().expect("300 faces of two sizes are enough");
    assert_eq!(quality.error_versus_reject.len(), 7);
    let encoder = FaceEncoder::open(town.bench.file("run/student.safetensors")).expect("a student");
    let photograph = encoder.face(&Face::new(20, 20, vec![100; 1200]).expect("a face")).expect("an embedding");
    assert!(photograph.quality().is_some_and(|quality| (0.0..=1.0).contains(&quality)));
    let decision = encoder.decide(&photograph, &photograph, 0.01).expect("a threshold");
    assert!(decision.same && decision.threshold == encoder.threshold(0.01, 20).expect("a threshold"));
    assert!(encoder.decide(&photograph, &photograph, 0.001).is_err());
    assert!(encoder.threshold(0.01, 7).expect_err("too small").to_string().contains("calibrated for [8, 16]"));
    let short = ["calibrate", "run/student.safetensors", "town.toml", "--out", "short.safetensors", "--sizes", "16"];
    let said = town.run(&[&short[..], &["--weights", "bfloat16"]].concat(), 0);
    assert!(said.stdout.contains("weights bfloat16: cosine with those before 0.99"), "{said:#?}");
    let rounded = facts("short.safetensors");
    let rounding = rounded.rounding.expect("it says what it lost");
    assert!((0.9..1.0).contains(&rounding.mean_cosine) && rounding.least_cosine <= rounding.mean_cosine);
    assert_eq!((rounding.faces, &rounding.figures_before["pairs"]), (300, &trained.figures["pairs"][0]));
    assert_eq!(rounded.calibration.expect("a calibration").sizes.len(), 1);
    let bytes = std::fs::read(town.bench.file("short.safetensors")).expect("a student");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
    assert!(tensors.tensors().iter().all(|(_, tensor)| tensor.dtype() == safetensors::Dtype::BF16));
    // An older file gets what it could not say.
    let old = student_file().to_string_lossy().into_owned();
    town.run(&["calibrate", &old, "town.toml", "--no-evaluation", "--out", "new.safetensors"], 0);
    let new = facts("new.safetensors");
    assert!(new.calibration.is_some() && new.input.is_some() && new.figures.is_empty());
    let before = candle_core::safetensors::load(student_file(), &Device::Cpu).expect("tensors");
    let after = candle_core::safetensors::load(town.bench.file("new.safetensors"), &Device::Cpu).expect("tensors");
    let values = |tensor: &candle_core::Tensor| {
        tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>()).expect("values")
    };
    assert!(before.iter().all(|(name, tensor)| values(tensor) == values(&after[name])));
}

#[test]
fn calibrations_that_cannot_be_are_named_in_the_recipe() {
    let town = Town::new();
    for (set, expected) in [
        ("calibration.data=poeple", "no dataset is called `poeple`"),
        ("calibration.sizes=[16, 8]", "expected rising sizes, found [16, 8]"),
        ("calibration.faces=1", "calibration"),
        ("licences={ \"data.nobody\" = \"MIT\" }", "`data.nobody`: expected a part of the recipe"),
    ] {
        let said = town.run(&["check", "town.toml", "--set", set], 2);
        assert!(said.stderr.contains(expected), "{set}: {said:#?}");
    }
}

#[test]
fn models_completions_and_pages_are_written() {
    let town = Town::new();
    let student = student_file().to_string_lossy().into_owned();
    let said = town.run(&["export", &student, "--onnx", "student.onnx"], 0);
    assert!(said.stdout.contains("`faces` bytes [batch, 16, 16, 3], RGB"), "{said:#?}");
    let said = town.run(&["export", &student, "--onnx", "student.onnx", "--preprocess", "metadata"], 0);
    assert!(said.stdout.contains("float32 [batch, 3, 16, 16]"), "{said:#?}");
    assert!(
        std::fs::read(town.bench.file("student.onnx")).expect("a model").windows(9).any(|part| part == b"embedding")
    );
    assert!(town.run(&["export", &student, "--onnx", &student], 2).stderr.contains("is the input"));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = town.run(&["completions", shell], 0);
        assert!(["enrol", "calibrate", "search"].iter().all(|command| said.stdout.contains(command)), "{shell}");
    }
    town.run(&["manual", "pages"], 0);
    for (page, text) in [("gdrd.1", "gdrd\\-train"), ("gdrd-search.1", "threshold"), ("gdrd-hub-pull.1", "refresh")] {
        let found = std::fs::read_to_string(town.bench.file(&format!("pages/{page}"))).unwrap_or_default();
        assert!(found.contains(text), "{page}: {found}");
    }
}

/// What a student's file must not be, each with what is said.
#[test]
fn students_that_are_cut_altered_later_or_unknown_are_refused() {
    let bytes = formed("resnet-trunk", json!({"channels": [4], "blocks": [1], "strides": [2], "embedding": 12}));
    let said = |bytes: &[u8]| FaceEncoder::from_bytes(bytes, &Device::Cpu).err().expect("refused").to_string();
    for length in (0..bytes.len()).step_by(97) {
        assert!(said(&bytes[..length]).contains("not a complete safetensors file"), "{length} bytes");
    }
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    for at in (header..bytes.len()).step_by(41) {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        assert!(said(&altered).contains("altered or is damaged"), "byte {at}");
    }
    let (header, tensors) = StudentHeader::from_bytes(&bytes).expect("whole");
    let later = StudentHeader { format: 3, ..header.clone() }.to_bytes(&tensors).expect("bytes");
    assert!(
        said(&later).contains("format 3, which a later gdrd wrote; this one reads 1 to 2: update it"),
        "{}",
        said(&later)
    );
    let unknown = StudentHeader { kind: "mixer".into(), ..header }.to_bytes(&tensors).expect("bytes");
    assert!(said(&unknown).contains("kind `mixer`") && said(&unknown).contains("`FaceEncoder::with_kinds`"));
    // A program with a registry names the plug-ins that it has.
    let error = FaceEncoder::with_kinds(&unknown, &Device::Cpu, &registry()).err().expect("refused").to_string();
    assert!(error.contains("mixer"), "{error}");
}

#[test]
fn one_student_embeds_on_many_threads_what_it_embeds_on_one() {
    let encoder = FaceEncoder::open(student_file()).expect("a student");
    let faces: Vec<Face> =
        (0..24).map(|at| Face::new(30, 30, formula::bytes(&format!("face {at}"), 2700)).expect("a face")).collect();
    let alone: Vec<_> = faces.iter().map(|face| encoder.face(face).expect("an embedding")).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for (face, expected) in faces.iter().zip(&alone) {
                    let found = encoder.face(face).expect("an embedding");
                    assert!(found.similarity(expected).expect("one student") > 0.99999);
                }
            });
        }
    });
    let sides = [Face::new(1, 1, vec![9, 8, 7]), Face::new(3000, 3000, vec![50; 27_000_000])];
    for face in sides.map(|face| face.expect("a face")) {
        assert!(encoder.face(&face).expect("an embedding").values().iter().all(|value| value.is_finite()));
    }
    assert!(encoder.face(&Face::new(2, 1, vec![0; 6]).expect("a face")).is_err());
    assert!(encoder.embedding(&[1.0], 16).is_err() && encoder.embedding(&[f32::NAN; 12], 16).is_err());
    assert!(FaceEncoder::open("no such file").err().expect("missing").to_string().contains("no such file"));
}
