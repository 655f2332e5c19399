//! The commands that use a trained student: galleries, photographs, thresholds, models.

use std::path::PathBuf;
use std::process::Stdio;

use candle_core::{DType, Device};
use gdrd_core::face::Face;
use gdrd_core::student::StudentHeader;
use gdrd_student::{FaceEncoder, Gallery};
use gdrd_tests::{Bench, Said, root};
use serde_json::{Value, json};

use crate::gdrd;
use crate::student_file::formed;

fn student_file() -> PathBuf {
    root().join("tests/files/student-format-1.safetensors")
}

/// Fifty people, of whom two photographs each are enrolled and a third is asked about: drawn faces as PNG files.
struct Town {
    bench: Bench,
}

pub(crate) const TOWN: &str = "
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
    // Who is forgotten meanwhile is not recognised any more.
    town.run(&["forget", "town.gallery", "Person 2"], 0);
    town.bench.write("camera/later.png", Town::photograph(2, 2));
    let tag = std::fs::read_to_string(waits("camera/later.png.json")).expect("a tag");
    assert_ne!(serde_json::from_str::<Value>(&tag).expect("JSON")["person"], "Person 2");
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
    assert_eq!(said.stdout.lines().filter(|line| line.contains("nobody known")).count(), 3, "{said:#?}");
    assert!(town.bench.file("again/unknown/ready.png").exists());
    // Another photograph of the same name takes nothing from the one before.
    town.bench.write("camera/ready.png", Town::photograph(3, 2));
    town.run(&once, 0);
    assert_eq!(std::fs::read(town.bench.file("again/unknown/ready.png")).expect("a copy"), Town::photograph(1, 2));
    assert_eq!(std::fs::read(town.bench.file("again/unknown/ready-2.png")).expect("a copy"), Town::photograph(3, 2));
    assert!(!town.bench.file("again/unknown/late-2.png").exists(), "the same photograph is copied once");
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
        let rates: Vec<f64> = at.single.thresholds.iter().map(|point| point.false_match_rate).collect();
        let (single, size) = (&at.single, at.size);
        assert_eq!(
            (rates, single.different_people, single.same_pairs),
            (vec![0.1, 0.01], 1225, 300 * 5),
            "{size} pixels"
        );
        assert!(at.fused.is_empty());
    }
    let quality = trained.quality.clone().expect("300 faces of two sizes are enough");
    assert_eq!(quality.error_versus_reject.len(), 7);
    let encoder = FaceEncoder::open(town.bench.file("run/student.safetensors")).expect("a student");
    let photograph = encoder.face(&Face::new(20, 20, vec![100; 1200]).expect("a face")).expect("an embedding");
    assert!(photograph.quality().is_some_and(|quality| (0.0..=1.0).contains(&quality)));
    let decision = encoder.decide(&photograph, &photograph, 0.01).expect("a threshold");
    assert!(decision.same && decision.threshold == encoder.threshold(0.01, 20).expect("a threshold"));
    assert!(encoder.decide(&photograph, &photograph, 0.001).is_err());
    assert!(encoder.threshold(0.01, 7).expect_err("too small").to_string().contains("for faces of 8 and 16 pixels"));
    let two = gdrd_student::Embedding::fused(&[photograph.clone(), photograph.clone()]).expect("one face of two");
    let text = encoder.decide(&two, &photograph, 0.01).expect_err("not calibrated").to_string();
    assert!(text.contains("no threshold for 2 fused faces"), "{text}");
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
    // What was rounded stays so, and says what that cost.
    town.run(&["calibrate", "short.safetensors", "town.toml", "--no-evaluation", "--out", "shorter.safetensors"], 0);
    let size = |file: &str| std::fs::metadata(town.bench.file(file)).expect("a student").len();
    assert!(size("shorter.safetensors").abs_diff(size("short.safetensors")) < 4096);
    assert_eq!(facts("shorter.safetensors").rounding, facts("short.safetensors").rounding);
    // A licence that the recipe states of the very same part is added; one of another part is not.
    let bytes = std::fs::read(town.bench.file("shorter.safetensors")).expect("a student");
    let (mut header, tensors) = StudentHeader::from_bytes(&bytes).expect("a header");
    for (digest, licence) in [(people.digest.as_str(), people.licence.as_deref()), ("another", None)] {
        let source = header.facts.data.get_mut("people").expect("its data");
        (source.digest, source.licence) = (digest.to_string(), None);
        std::fs::write(town.bench.file("unsaid.safetensors"), header.to_bytes(&tensors).expect("bytes"))
            .expect("written");
        town.run(&["calibrate", "unsaid.safetensors", "town.toml", "--no-evaluation", "--out", "said.safetensors"], 0);
        assert_eq!(facts("said.safetensors").data["people"].licence.as_deref(), licence);
    }
    // An older file gets what it could not say.
    let old = student_file().to_string_lossy().into_owned();
    let again = ["calibrate", &old, "town.toml", "--no-evaluation", "--frames", "2,6", "--out", "new.safetensors"];
    let said = town.run(&again, 0);
    assert!(said.stdout.contains("16 pixels, 6 fused with 6, false match rate 0.1: "), "{said:#?}");
    let new = facts("new.safetensors");
    for at in &new.calibration.as_ref().expect("a calibration").sizes {
        // Six faces of each of 50 people: one fused face of each, which no photograph is left to be compared with.
        let [two, six] = &at.fused[..] else { panic!("2 and 6 faces: {:?}", at.fused) };
        assert_eq!((two.frames, two.with_single.same_pairs, two.with_fused.same_pairs), (2, 300 * 4, 300 * 3));
        assert_eq!((six.with_single.same_pairs, six.with_single.different_pairs), (0, 50 * 49 * 6));
        assert_eq!((six.with_fused.same_pairs, six.with_fused.different_pairs), (0, 50 * 49));
    }
    let said = town.run(&["calibrate", &old, "town.toml", "--no-evaluation", "--frames", "7", "--out", "no"], 1);
    assert!(said.stderr.contains("need two people with 7 faces or more, `people` has 0"), "{said:#?}");
    // A track is one face, judged by a threshold of its own.
    town.run(&["enrol", "new.gallery", "people", "--student", "new.safetensors"], 0);
    let track = ["search", "new.gallery", "people/Person 2/2-0.png", "probes/2-2.png", "--student", "new.safetensors"];
    let said = town.run(&[&track[..], &["--fuse", "--rate", "0.1", "--json"]].concat(), 0);
    let found: Value = serde_json::from_str(&said.stdout).expect("one line of JSON");
    assert_eq!((&found["images"][1], &found["person"]), (&json!("probes/2-2.png"), &json!("Person 2")), "{found}");
    let expected = &new.calibration.as_ref().expect("a calibration").sizes[1].fused[0].with_single.thresholds[0];
    assert_eq!(found["threshold"].as_f64(), Some(expected.similarity));
    assert!(new.calibration.is_some() && new.input.is_some() && new.figures.is_empty());
    let before = candle_core::safetensors::load(student_file(), &Device::Cpu).expect("tensors");
    let after = candle_core::safetensors::load(town.bench.file("new.safetensors"), &Device::Cpu).expect("tensors");
    let values = |tensor: &candle_core::Tensor| {
        tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>()).expect("values")
    };
    assert!(before.iter().all(|(name, tensor)| values(tensor) == values(&after[name])));
}

#[test]
fn a_face_that_nobody_can_judge_takes_nothing_from_the_others() {
    let town = Town::new();
    town.run(&["train", "town.toml", "--run-dir", "run"], 0);
    let student = ["--student", "run/student.safetensors"];
    town.run(&[&["enrol", "town.gallery", "people"][..], &student].concat(), 0);
    let dot = image::RgbImage::from_pixel(6, 6, image::Rgb([90, 80, 70]));
    let mut png = Vec::new();
    dot.write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png).expect("PNG");
    town.bench.write("probes/dot.png", png);
    let search = |rate: &str, code: i32| {
        let probes = ["search", "town.gallery", "probes/dot.png", "gone.png", "probes/0-2.png", "--rate", rate];
        town.run(&[&probes[..], &student].concat(), code)
    };
    let said = search("0.01", 1);
    assert!(said.stdout.contains("probes/dot.png: no decision: no threshold for a face of 6 pixels"), "{said:#?}");
    assert!(said.stdout.contains("probes/0-2.png: "), "{said:#?}");
    assert!(said.stderr.contains("gone.png") && said.stderr.contains("1 of 3 images could not be"), "{said:#?}");
    // What no face could be judged by is said before the first.
    let said = search("0.001", 1);
    assert!(said.stdout.is_empty() && said.stderr.contains("no threshold at a false match rate of 0.001"), "{said:#?}");
    let watch = ["watch", "probes", "town.gallery", "--once", "--rate", "0.001"];
    let said = town.run(&[&watch[..], &student].concat(), 1);
    assert!(said.stderr.contains("no threshold at a false match rate of 0.001"), "{said:#?}");
    let both = ["compare", "probes/dot.png", "probes/0-2.png", "--rate", "0.01", "--json"];
    let said: Value = serde_json::from_str(&town.run(&[&both[..], &student].concat(), 0).stdout).expect("JSON");
    assert!(said["same"].is_null() && said["no_decision"].as_str().is_some_and(|why| why.contains("6 pixels")));
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
