//! Weight files that do not fit: the error names the file and the tensors, before the first step.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
use gdrd_core::nn::weights::read_safetensors;
use gdrd_core::student::StudentHeader;
use gdrd_student::{Face, FaceEncoder};
use gdrd_tests::Bench;

use crate::golden::formula;
use crate::refused;

/// Rewrites a safetensors file, its metadata included; a student file gets a checksum that is right.
fn rewrite(bench: &Bench, file: &str, change: impl FnOnce(&mut BTreeMap<String, Tensor>)) {
    let path = bench.file(file);
    let bytes = std::fs::read(&path).expect("a file");
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).expect("metadata");
    let metadata: Option<HashMap<String, String>> = metadata.metadata().clone();
    let mut tensors = read_safetensors(&path).expect("tensors");
    change(&mut tensors);
    let bytes = match StudentHeader::from_bytes(&bytes) {
        Ok((header, _)) => header.to_bytes(&tensors).expect("bytes"),
        Err(_) => safetensors::serialize(&tensors, metadata).expect("bytes"),
    };
    bench.write(file, bytes);
}

const TEACHERS: [(&str, &str); 2] =
    [("generative", "input_blocks.0.0.weight"), ("discriminative", "backbone.stem.conv.weight")];

#[test]
fn missing_misshapen_and_left_over_tensors_are_named() {
    for (teacher, tensor) in TEACHERS {
        let bench = Bench::with_teachers();
        let file = format!("teachers/{teacher}.safetensors");
        let place = format!("error: teacher `{teacher}`: `{}`: tensors do not fit", bench.file(&file).display());
        let known: Vec<String> = read_safetensors(&bench.file(&file)).expect("a teacher").into_keys().collect();
        assert!(known.iter().any(|name| name == tensor), "`{tensor}` is none of {known:#?}");
        rewrite(&bench, &file, |tensors| {
            let found = tensors.remove(tensor).expect("a tensor of the teacher");
            tensors.insert(format!("{tensor}x"), found);
        });
        let text = refused(&bench, "tiny.toml", &[], 1);
        assert!(text.contains(&place), "{text}");
        assert!(!bench.file("runs/refused").exists(), "a run that never began left its folder");
        let expected = format!("1 missing:\n  `{tensor}` (nearest in the file: `{tensor}x`)");
        assert!(text.contains(&expected), "{text}");
        rewrite(&bench, &file, |tensors| {
            tensors.remove(&format!("{tensor}x"));
            tensors.insert(tensor.to_string(), Tensor::zeros((2, 5), DType::F32, &Device::Cpu).expect("a tensor"));
        });
        let text = refused(&bench, "tiny.toml", &[], 1);
        assert!(text.contains(&place), "{text}");
        assert!(text.contains("1 with another shape:"), "{text}");
        assert!(text.contains(&format!("`{tensor}` expected [")) && text.contains("found [2, 5]"), "{text}");
    }
}

#[test]
fn a_web_page_in_the_place_of_weights_is_recognised() {
    for (teacher, _) in TEACHERS {
        let bench = Bench::with_teachers();
        let file = format!("teachers/{teacher}.safetensors");
        bench.write(&file, "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n");
        let text = refused(&bench, "tiny.toml", &[], 1);
        assert!(text.contains(&format!("error: teacher `{teacher}`: ")), "{text}");
        assert!(text.contains(&bench.file(&file).display().to_string()), "{text}");
        assert!(text.contains("it looks like a web page"), "{text}");
    }
}

#[test]
fn pointers_and_empty_files_in_the_place_of_weights_are_recognised() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 174383860\n";
    let bench = Bench::with_teachers();
    for (teacher, _) in TEACHERS {
        let file = format!("teachers/{teacher}.safetensors");
        let whole = std::fs::read(bench.file(&file)).expect("a teacher");
        for (content, expected) in
            [(pointer, "`git lfs pull`"), ("", "the file is empty"), ("{\"error\": 1}", "it looks like JSON")]
        {
            bench.write(&file, content);
            let text = refused(&bench, "tiny.toml", &[], 1);
            assert!(text.contains(&bench.file(&file).display().to_string()) && text.contains(expected), "{text}");
        }
        bench.write(&file, whole);
    }
}

#[test]
fn values_that_are_not_finite_are_refused_before_the_first_step() {
    let bench = Bench::with_teachers();
    for (teacher, tensor) in TEACHERS {
        let file = format!("teachers/{teacher}.safetensors");
        let whole = std::fs::read(bench.file(&file)).expect("a teacher");
        rewrite(&bench, &file, |tensors| {
            let shape = tensors[tensor].dims().to_vec();
            let mut values = vec![0.1f32; tensors[tensor].elem_count()];
            values[1] = f32::NAN;
            tensors.insert(tensor.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).expect("a tensor"));
        });
        let text = refused(&bench, "tiny.toml", &[], 1);
        let expected = format!("1 with a value that is not finite:\n  `{tensor}` at [0, 0, 0, 1] is NaN");
        assert!(text.contains(&format!("teacher `{teacher}`")) && text.contains(&expected), "{text}");
        bench.write(&file, whole);
    }
    let path = bench.file("teachers/discriminative.safetensors");
    rewrite(&bench, "teachers/discriminative.safetensors", |tensors| {
        let values = Tensor::full(f32::INFINITY, 8, &Device::Cpu).expect("a tensor");
        let name = tensors.iter().find(|(_, t)| t.dims() == [8]).expect("a vector").0.clone();
        tensors.insert(name, values);
    });
    let text = FaceEncoder::open(&path).err().expect("infinite").to_string();
    assert!(text.contains("at [0] is inf") && text.contains(&path.display().to_string()), "{text}");
}

#[test]
fn a_truncated_and_a_missing_file_are_named() {
    for (teacher, _) in TEACHERS {
        let bench = Bench::with_teachers();
        let path = bench.file(&format!("teachers/{teacher}.safetensors"));
        let bytes = std::fs::read(&path).expect("a teacher");
        std::fs::write(&path, &bytes[..bytes.len() - 7]).expect("a part");
        let text = refused(&bench, "tiny.toml", &[], 1);
        assert!(text.contains("not a complete safetensors file"), "{text}");
        assert!(text.contains(&path.display().to_string()), "{text}");
        std::fs::remove_file(&path).expect("removed");
        let text = refused(&bench, "tiny.toml", &[], 1);
        assert!(text.contains(&format!("error: teacher `{teacher}`: `{}`: ", path.display())), "{text}");
    }
}

#[test]
fn a_file_of_another_network_is_no_student() {
    let bench = Bench::with_teachers();
    let generative = bench.file("teachers/generative.safetensors");
    let text = refused(&bench, "tiny.toml", &["teacher.discriminative.weights=teachers/generative.safetensors"], 1);
    assert!(text.contains("teacher `discriminative`: the teacher cannot offer `embedding`"), "{text}");
    let error = FaceEncoder::open(&generative).err().expect("no embedding").to_string();
    assert!(error.contains("generative.safetensors"), "{error}");
    let plain = Tensor::zeros(3, DType::F32, &Device::Cpu).expect("a tensor");
    bench.write("teachers/plain.safetensors", safetensors::serialize([("w", &plain)], None).expect("bytes"));
    let text = refused(&bench, "tiny.toml", &["teacher.discriminative.weights=teachers/plain.safetensors"], 1);
    assert!(text.contains("plain.safetensors") && text.contains("not a student of gdrd"), "{text}");
}

#[test]
fn a_loss_that_needs_what_its_teacher_cannot_offer_is_refused() {
    let bench = Bench::with_teachers();
    let cases = [
        (
            "stage.discriminative.loss.relation.teacher=generative",
            "stage `discriminative`, loss `relation`: teacher `generative`: the teacher cannot offer `embedding`",
            "`middle_block`",
        ),
        (
            "stage.generative.loss.regression.tap=input_blocks.99",
            "stage `generative`, loss `regression`: teacher `generative`: ",
            "input_blocks.99",
        ),
        (
            "stage.generative.loss.regression.tap=input_blocks.0",
            "stage `generative`, loss `regression`: map input_blocks.0 of teacher `generative` is [8, 16, 16]",
            "the student's map is [8, 8, 8]",
        ),
        (
            "stage.discriminative.loss.logits.teacher_logits=offered",
            "stage `discriminative`, loss `logits`: expected one teacher that offers logits, found []",
            "name one with `teacher`",
        ),
        ("stage.discriminative.loss.identity.enabled=false", "expected one classifying term in the stage", "found []"),
        (
            "stage.discriminative.loss.logits.classifier=relation",
            "`relation` is no classifying term of this stage",
            "[\"identity\"]",
        ),
        (
            "stage.generative.loss.regression={ kind = \"denoising\" }",
            "stage `generative`, step 0: loss `regression`: ",
            "this student cannot denoise",
        ),
    ];
    for (set, place, detail) in cases {
        // What the recipe alone says wrongly is found by its check; what a file or a network decides, when they are read.
        let code = if set.contains(".identity.enabled") || set.contains(".classifier") { 2 } else { 1 };
        let text = refused(&bench, "tiny.toml", &[set], code);
        assert!(text.contains(place) && text.contains(detail), "{set}:\n{text}");
    }
}

#[test]
fn class_weights_of_another_shape_are_named() {
    let bench = Bench::with_teachers();
    let weight = Tensor::zeros((5, 8), DType::F32, &Device::Cpu).expect("a tensor");
    let path = bench.write("classes.safetensors", safetensors::serialize([("weight", &weight)], None).expect("bytes"));
    let sets = [
        "stage.discriminative.loss.logits.teacher_logits=file",
        "stage.discriminative.loss.logits.file=classes.safetensors",
    ];
    let text = refused(&bench, "tiny.toml", &sets, 1);
    let expected = format!("`{}`: expected a tensor `weight` [6, 8], found [5, 8]", path.display());
    assert!(text.contains(&expected), "{text}");
}

/// A file of gdrd's first format, whatever the code that writes them is by now; `files/ORIGIN.md` says how it was made.
#[test]
fn a_student_of_the_first_format_is_read_and_embeds_as_it_did() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("files");
    let encoder = FaceEncoder::open(folder.join("student-format-1.safetensors")).expect("a student");
    let text = std::fs::read_to_string(folder.join("student-format-1.json")).expect("its embedding");
    let expected: Vec<f32> = serde_json::from_str(&text).expect("numbers");
    let face = Face::new(32, 32, formula::bytes("student", 3 * 32 * 32)).expect("a face");
    let found = encoder.embed(&[face]).expect("an embedding");
    assert_eq!(found.row(0).expect("a row").len(), expected.len());
    for (found, expected) in found.row(0).expect("a row").iter().zip(expected) {
        assert!((found - expected).abs() < 1e-5, "{found} for {expected}");
    }
}
