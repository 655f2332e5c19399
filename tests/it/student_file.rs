//! A trained student in other people's programs: its file, ONNX models, PyTorch, threads, dependencies.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;

use candle_core::Device;
use gdrd_core::context::Bare;
use gdrd_core::degrade::Downscale;
use gdrd_core::digest;
use gdrd_core::face::Face;
use gdrd_core::nn::{Colour, OnnxInput, Preprocessing, Weights};
use gdrd_core::student::{STUDENT_FORMAT, StudentFacts, StudentHeader, StudentKinds, build};
use gdrd_student::{BuiltIn, FaceEncoder, WeightPrecision};
use gdrd_tests::{Said, registry, root};
use serde_json::{Value, json};

use crate::golden::formula;

fn student_file() -> PathBuf {
    root().join("tests/files/student-format-1.safetensors")
}

/// A student of these options with weights by the formula, as the bytes of its file.
pub(crate) fn formed(kind: &str, options: Value) -> Vec<u8> {
    formed_for(kind, options, 16)
}

/// The same for faces of so many pixels.
pub(crate) fn formed_for(kind: &str, options: Value, size: usize) -> Vec<u8> {
    let config = BuiltIn.config(kind, &options).expect("options of the kind");
    let draw = Rc::new(|_: &str, count: usize, _| vec![0.0; count]);
    let made = Weights::create(&Device::Cpu, draw, |weights| build(&*config, size, weights, &Bare(Device::Cpu)));
    let (student, variables) = made.expect("a student");
    let header = StudentHeader {
        format: STUDENT_FORMAT,
        kind: kind.into(),
        options,
        card: student.card().clone(),
        prepare: Downscale { size, ..Downscale::default() },
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
        (
            "trunk-wavelet",
            "resnet-trunk",
            json!({"channels": [4, 6], "blocks": [1, 1], "strides": [1, 2], "downsample": "wavelet", "embedding": 5}),
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
            let most =
                embedded.row(row).expect("a row").iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
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
    // Every option, as in the file of a run.
    let wavelet = json!({
        "channels": [4, 6], "blocks": [1, 2], "strides": [1, 2], "stem_stride": 1, "downsample": "wavelet", "last_relu": true,
        "embedding": 7,
        "head": {
            "channels": [8], "blocks": 1, "pool": "average", "hidden": [9], "dropout": 0.0, "normalise": true,
        },
    });
    let wavelet = formed("resnet-trunk", wavelet);
    if std::env::var_os("GDRD_UPDATE").is_some_and(|value| value == "1") {
        let path = std::env::temp_dir().join("gdrd-wavelet-student.safetensors");
        std::fs::write(&path, &wavelet).expect("written");
        panic!("written: run tests/golden/pytorch_loader/export.py on {}", path.display());
    }
    let expected: BTreeMap<String, Vec<f32>> =
        serde_json::from_str(&read(folder.join("values.json"))).expect("numbers");
    let face = Face::new(16, 16, formula::bytes("pytorch loader", 768)).expect("a face");
    let students = [
        ("format-1", FaceEncoder::open(student_file()).expect("a student")),
        ("wavelet", FaceEncoder::from_bytes(&wavelet, &Device::Cpu).expect("a student")),
    ];
    for (name, encoder) in students {
        let (found, expected) = (encoder.face(&face).expect("an embedding"), &expected[name]);
        assert_eq!(found.values().len(), expected.len());
        assert!(
            found.values().iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5),
            "{name}: {:?}, {expected:?}",
            found.values()
        );
    }
}

/// Rounded weights move embeddings a little, once, and are what a model for ONNX has; kinds without an inference form refuse them.
#[test]
fn a_student_holds_rounded_weights() {
    let options = json!({"channels": [16, 32], "blocks": [1, 1], "strides": [1, 2], "embedding": 24});
    let open = || FaceEncoder::from_bytes(&formed("resnet-trunk", options.clone()), &Device::Cpu).expect("a student");
    let rounded = |encoder: FaceEncoder| encoder.with_weights(WeightPrecision::Bfloat16).expect("held");
    let face = Face::new(16, 16, formula::bytes("bfloat16", 768)).expect("a face");
    let embed = |encoder: &FaceEncoder| encoder.face(&face).expect("an embedding");
    let (full, half) = (embed(&open()), embed(&rounded(open())));
    let similarity = full.similarity(&half).expect("of one student");
    assert!(full.values() != half.values() && similarity > 0.999, "{similarity}");
    // Bits that are gone do not come back.
    let again = rounded(rounded(open())).with_weights(WeightPrecision::Float32).expect("held");
    assert_eq!(embed(&again).values(), half.values());
    assert_eq!(
        open().with_weights(WeightPrecision::Float32).map(|encoder| embed(&encoder)).expect("held").values(),
        full.values()
    );
    let model = |encoder: &FaceEncoder| encoder.to_onnx(OnnxInput::Floats).expect("a model");
    assert_ne!(model(&open()), model(&again));
    // In 8 bits they move a little more, and an image's embedding does not depend on those beside it.
    let bytes = open().with_weights(WeightPrecision::Int8).expect("held");
    let eighth = embed(&bytes);
    let similarity = full.similarity(&eighth).expect("of one student");
    assert!(eighth.values() != half.values() && similarity > 0.99, "{similarity}");
    let other = Face::new(16, 16, formula::bytes("another", 768)).expect("a face");
    assert_eq!(bytes.faces(&[other, face.clone()]).expect("embeddings")[1].values(), eighth.values());
    assert_ne!(model(&bytes), model(&again));
    let evolve = json!({"layout": "evolve-se", "depth": 34, "embedding": 8});
    let encoder = FaceEncoder::from_bytes(&formed("iresnet", evolve), &Device::Cpu).expect("a student");
    let text = encoder.with_weights(WeightPrecision::Bfloat16).err().expect("refused").to_string();
    assert!(text.contains("kind `iresnet` holds its weights in float32"), "{text}");
}

/// Crates that a program that embeds is built with, gdrd's two among them: nearly all of them are those of candle-core.
const MOST_CRATES: usize = 139;

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
    assert!(
        found.len() <= MOST_CRATES,
        "{} crates in everybody's program, expected at most {MOST_CRATES}: `cargo tree -p gdrd-student -e normal -i CRATE` says who \
         brings one. Do without it, put it behind a feature, or, if it belongs there, say why in the commit that raises MOST_CRATES",
        found.len()
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
    // What a header says of its network's input is what that does.
    let mut turned = header.clone();
    turned.facts.input = turned.facts.input.map(|input| Preprocessing { colour: Colour::Bgr, ..input });
    let text = said(&turned.to_bytes(&tensors).expect("bytes"));
    assert!(text.contains("contradicts its network: `facts.input` says"), "{text}");
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

#[test]
fn the_student_that_ships_says_that_its_faces_were_drawn() {
    let encoder = FaceEncoder::open(root().join("assets/students/quickstart.safetensors")).expect("a student");
    let facts = &encoder.header().facts;
    assert!(facts.data.values().all(|source| source.made == ["drawn by gdrd"]), "{:?}", facts.data);
    assert!(facts.rounding.is_some() && facts.quality.is_some(), "float16, and a quality model");
    assert_eq!(facts.figures["held-out"][0].name, "accuracy");
    // A stranger of another face is no match at the rate that its thresholds were set at.
    let shade = |value: u8| Face::new(16, 16, vec![value; 3 * 16 * 16]).expect("a face");
    let (dark, light) = (encoder.face(&shade(10)).expect("an embedding"), encoder.face(&shade(240)).expect("one"));
    for (rate, pixels) in [(0.1, 8), (0.001, 16), (0.0001, 8), (0.0001, 112)] {
        assert!(encoder.threshold(rate, pixels).is_ok(), "{rate} at {pixels} pixels");
    }
    let licences = &encoder.header().licences;
    assert!(["generative", "discriminative"].iter().all(|name| licences[*name].contains("MIT")), "{licences:?}");
    assert!(facts.data.values().all(|source| source.licence.is_some()), "{:?}", facts.data);
    // Of what shows nothing, or is smaller than all that were measured, nothing is known.
    let noise = |side: usize| Face::new(side, side, formula::bytes("noise", 3 * side * side)).expect("a face");
    for nothing in [shade(127), noise(1), noise(7)] {
        assert_eq!(encoder.face(&nothing).expect("an embedding").quality(), Some(0.0));
    }
    let text = encoder.threshold(0.001, 1).expect_err("too small").to_string();
    assert!(
        text.contains(
            "no threshold for a face of 1 pixel; the student was calibrated for faces of 8, 12 and 16 pixels"
        ),
        "{text}"
    );
    assert!(dark.similarity(&dark).is_ok_and(|same| (same - 1.0).abs() < 1e-5));
    assert!(dark.similarity(&light).is_ok_and(f32::is_finite));
}
