//! What `gdrd features` writes is what a teacher of kind `precomputed` says again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use gdrd_core::face::{Face, FaceBatch};
use gdrd_core::nn::weights::read_safetensors;
use gdrd_core::teacher::{Output, Teacher, TeacherConfig};
use gdrd_teachers::Precomputed;
use gdrd_tests::{Bench, Said, on_cpu};

use crate::{gdrd, refused};

/// Writes what both teachers of `tiny.toml` say of its training faces.
fn write_features(bench: &Bench, more: &[&str]) {
    for (teacher, said) in [
        ("generative", "map input_blocks.0 [8, 16, 16], map input_blocks.1 [8, 16, 16], map input_blocks.2 [8, 8, 8]"),
        ("discriminative", "embedding [8], map backbone [8, 8, 8]"),
    ] {
        let mut command = gdrd(bench);
        command.args(["features", "tiny.toml", "--teacher", teacher, "--data", "train"]).args(more);
        let said_now = Said::by(command.args(["--out", &format!("{teacher}.safetensors")])).with_code(0);
        assert!(said_now.stdout.contains(&format!(" rows by {teacher}: {said}")), "{said_now:#?}");
    }
}

/// The set that puts a teacher's file in its place.
fn precomputed(bench: &Bench, teacher: &str, more: &str) -> String {
    let file = bench.file(&format!("{teacher}.safetensors"));
    format!("teacher.{teacher}={{ kind = \"precomputed\", file = \"{}\"{more} }}", file.display())
}

#[test]
fn a_run_with_precomputed_features_is_the_run_with_the_teachers() {
    let bench = Bench::with_teachers();
    write_features(&bench, &["--flip"]);
    let flip = ["stage.generative.augment.flip=true", "stage.discriminative.augment.flip=true"];
    let (with_teachers, _) = bench.train(&bench.tiny(&flip), "teachers");
    let generative = precomputed(&bench, "generative", ", tap = \"middle_block\"");
    let discriminative = precomputed(&bench, "discriminative", "");
    let sets = [generative.as_str(), discriminative.as_str(), flip[0], flip[1]];
    let (with_files, _) = bench.train(&bench.tiny(&sets), "files");
    let tensors = |run: &gdrd_core::run::RunFolder| read_safetensors(&run.student()).expect("a student");
    let (expected, found) = (tensors(&with_teachers), tensors(&with_files));
    assert_eq!(expected.len(), found.len());
    for (name, tensor) in expected {
        let values =
            |t: &Tensor| t.flatten_all().and_then(|t| t.to_dtype(DType::F32)?.to_vec1::<f32>()).expect("values");
        assert_eq!(values(&tensor), values(&found[&name]), "{name}");
    }
    // Protocols meet faces that the file has not.
    let measured = with_files.results().expect("results");
    let names: Vec<&str> = measured["verification"].iter().map(|row| row.embedder.as_str()).collect();
    assert_eq!(names, ["student at 16x16"]);
    let doctor = |arguments: &[&str], expected: &str| {
        let mut command = crate::doctor::doctor(&bench, "tiny.toml");
        let said = Said::by(command.args(["--set", &discriminative]).args(arguments));
        assert!(said.code != Some(0) && said.stderr.contains(expected), "{said:#?}");
    };
    doctor(&["--teacher", "discriminative"], "teacher `discriminative`: it knows no other faces than its file's");
    doctor(&[], "the recipe has no teacher that embeds any face");
}

#[test]
fn faces_without_rows_are_refused_before_the_first_step() {
    let bench = Bench::with_teachers();
    write_features(&bench, &[]);
    let set = precomputed(&bench, "generative", ", tap = \"middle_block\"");
    let mirrored = [set.as_str(), "stage.generative.augment.flip=true"];
    let text = refused(&bench, "tiny.toml", &mirrored, 1);
    assert!(text.contains("error: teacher `generative`: mirrored faces `"), "{text}");
    assert!(text.contains("32 of 32 faces are none of the 48 faces in `"), "{text}");
    assert!(text.contains("`gdrd features --flip` writes both"), "{text}");
    let other = [set.as_str(), "data.train.first_identity=50"];
    assert!(refused(&bench, "tiny.toml", &other, 1).contains("32 of 32 faces are none"));
    let other = [set.as_str(), "data.train.size=24"];
    assert!(refused(&bench, "tiny.toml", &other, 1).contains("here 24x24"));
}

#[test]
fn both_sides_of_a_face_are_stored_as_each_alone() {
    let stored = |flips: &[&str]| -> BTreeMap<String, Vec<u8>> {
        let bench = Bench::with_teachers();
        for (at, flip) in flips.iter().enumerate() {
            let set = format!("stage.generative.augment.flip={flip}");
            bench.train(&bench.tiny(&[&set, "stages=[\"generative\"]"]), &at.to_string());
        }
        let files =
            fs::read_dir(bench.file("runs/.features")).expect("a store").map(|file| file.expect("a file").path());
        let features = files.filter(|path| path.extension().is_some_and(|ending| ending == "safetensors"));
        let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
        features.map(|path| (name(&path), fs::read(&path).expect("features"))).collect()
    };
    let (at_once, one_after_the_other) = (stored(&["true"]), stored(&["false", "true"]));
    assert_eq!(at_once.len(), 2);
    assert_eq!(at_once, one_after_the_other);
    assert_ne!(at_once.values().next(), at_once.values().nth(1));
}

/// Faces of 16x16 pixels and their files, `0.png` to `3.png`.
fn images(bench: &Bench) -> Vec<Face> {
    let pixels = |number: usize| (0..768).map(|i| (i * (number + 2) % 251) as u8).collect();
    let faces: Vec<Face> = (0..4).map(|number| Face::new(16, 16, pixels(number)).expect("a face")).collect();
    for (number, face) in faces.iter().enumerate() {
        let image = image::RgbImage::from_raw(16, 16, face.pixels().to_vec()).expect("an image");
        image.save(bench.file(&format!("{number}.png"))).expect("written");
    }
    faces
}

fn rows(teacher: &dyn Teacher, faces: &[Face]) -> Vec<Vec<f32>> {
    let batch = FaceBatch::from_faces(faces, &Device::Cpu).expect("a batch");
    let found = teacher.features(&batch.clone().into(), &[Output::Embedding]).expect("rows");
    found[0].to_vec2().expect("rows")
}

#[test]
fn embeddings_of_other_programs_are_matched_by_a_list_of_images() {
    let bench = Bench::empty();
    let faces = images(&bench);
    let values = Tensor::arange(0f32, 12.0, &Device::Cpu).and_then(|t| t.reshape((4, 3))).expect("four rows");
    let values = values.to_dtype(DType::F64).expect("doubles");
    values.write_npy(bench.file("e.npy")).expect("written");
    let list = bench.write("lists/order.txt", "../2.png\n../0.png\n../3.png\r\n../1.png\n\n");
    let config =
        Precomputed { file: bench.file("e.npy").into(), images: Some(list.clone().into()), size: Some(16), tap: None };
    let build = |config: &Precomputed| on_cpu(|cx| config.build(cx));
    let teacher = build(&config).expect("a teacher");
    assert_eq!(rows(&*teacher, &faces)[1..], [[9.0, 10.0, 11.0], [0.0, 1.0, 2.0], [6.0, 7.0, 8.0]]);
    let error = build(&Precomputed { file: list.clone().into(), ..config.clone() }).err().expect("no tensors");
    assert!(error.to_string().contains("order.txt`: not a complete safetensors file"), "{error}");
    bench.write("lists/order.txt", "../2.png\n../0.png\n../3.png\n");
    let error = build(&config).err().expect("three images").to_string();
    assert!(error.contains("e.npy`: `embedding` has 4 rows for 3 faces"), "{error}");
    bench.write("lists/order.txt", "../2.png\n../gone.png\n");
    let error = build(&config).err().expect("no image").to_string();
    assert!(error.contains("order.txt`: ") && error.contains("gone.png"), "{error}");
    bench.write("lists/order.txt", "../2.png\n../0.png\n");
    let ones = |shape: &[usize], dtype| Tensor::ones(shape, dtype, &Device::Cpu).expect("ones");
    for (tensor, expected) in [
        (ones(&[2, 3, 1], DType::F32), "`embedding`: expected [rows, values] of floats, found [2, 3, 1] of F32"),
        (ones(&[2, 3], DType::I64), "expected an array of float16, float32 or float64, found int64"),
        (ones(&[0, 3], DType::F32), "`embedding` has 0 rows for 2 faces"),
        ((ones(&[2, 3], DType::F32) / 0.0).expect("infinite"), "`embedding` at [0, 0] is inf; expected finite numbers"),
    ] {
        tensor.write_npy(bench.file("e.npy")).expect("written");
        let error = build(&config).err().expect("no embeddings").to_string();
        assert!(error.contains("e.npy`: ") && error.contains(expected), "{error}");
    }
    ones(&[2, 3], DType::F16).write_npy(bench.file("e.npy")).expect("written");
    assert_eq!(rows(&*build(&config).expect("a teacher"), &faces[2..3]), [[1.0, 1.0, 1.0]]);
    // Big-endian float64, the first dimension's neighbours side by side: rows 1 2 3 and 4 5 6, for faces 2 and 0.
    let header = "{'descr': '>f8', 'fortran_order': True, 'shape': (2, 3), }\n";
    let values = [1f64, 4.0, 2.0, 5.0, 3.0, 6.0].into_iter().flat_map(f64::to_be_bytes);
    let start = [b"\x93NUMPY\x03\x00", (header.len() as u32).to_le_bytes().as_slice(), header.as_bytes()].concat();
    bench.write("e.npy", start.into_iter().chain(values).collect::<Vec<u8>>());
    assert_eq!(rows(&*build(&config).expect("a teacher"), &faces[..1]), [[4.0, 5.0, 6.0]]);
    for (broken, expected) in [
        (b"\x93NUMPY\x01\x00v\x00{".as_slice(), "not a complete .npy file: it ends within its header"),
        (b"<!doctype html>", "not a .npy file; it looks like a web page"),
    ] {
        bench.write("e.npy", broken);
        let error = build(&config).err().expect("no array").to_string();
        assert!(error.contains("e.npy`: ") && error.contains(expected), "{error}");
    }
}

#[test]
fn images_become_rows() {
    let bench = Bench::with_teachers();
    let faces = images(&bench);
    let mut command = gdrd(&bench);
    command.args(["features", "tiny.toml", "2.png", "1.png", "--teacher", "generative", "--size", "16"]);
    let said = Said::by(command.args(["--tap", "middle_block", "--out", "g.safetensors"])).with_code(0);
    assert_eq!(said.stdout, "g.safetensors: 2 rows by generative: map middle_block [16, 8, 8]\n");
    let found = read_safetensors(&bench.file("g.safetensors")).expect("a file");
    assert_eq!(found.keys().collect::<Vec<_>>(), ["faces", "middle_block"]);
    let teacher = on_cpu(|cx| bench.tiny(&[]).teachers["generative"].config.build(cx)).expect("a teacher");
    let batch = FaceBatch::from_faces(&[faces[2].clone(), faces[1].clone()], &Device::Cpu).expect("a batch");
    let expected = teacher.features(&batch.clone().into(), &[Output::Map("middle_block".into())]).expect("features");
    let gap =
        (&expected[0] - &found["middle_block"]).and_then(|gap| gap.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>());
    assert_eq!(gap.expect("a gap"), 0.0);
    // An embeddings file is one of features, too.
    let mut command = gdrd(&bench);
    command.args(["embed", "0.png", "1.png", "--recipe", "tiny.toml", "--teacher", "discriminative"]);
    Said::by(command.args(["--size", "112", "--out", "e.safetensors"])).with_code(0);
    let config = Precomputed { file: bench.file("e.safetensors").into(), images: None, size: None, tap: None };
    let teacher = on_cpu(|cx| config.build(cx)).expect("a teacher");
    let shown = gdrd_core::data::read_face(&bench.file("1.png"), Some(112)).expect("a face");
    assert_eq!(rows(&*teacher, &[shown])[0].len(), 8);
    for (arguments, expected) in [
        (&["--teacher", "nobody", "0.png"][..], "no teacher is called `nobody`"),
        (&["--teacher", "generative", "--data", "none"], "no dataset is called `none`"),
        (&["--teacher", "generative", "0.png", "--tap", "input_blocks.77"], "no `input_blocks.77`"),
        (&["--teacher", "generative"], "Usage: gdrd"),
    ] {
        let mut command = gdrd(&bench);
        let said = Said::by(command.args(["features", "tiny.toml", "--out", "n"]).args(arguments));
        assert!(said.code.is_some_and(|code| code > 0) && said.stderr.contains(expected), "{said:#?}");
    }
}
