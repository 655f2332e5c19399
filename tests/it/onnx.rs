//! Recognisers in ONNX files, with the feature `onnx` and without.

#[cfg(feature = "onnx")]
use gdrd_tests::on_cpu;
use gdrd_tests::{Bench, Said, TINY};

use crate::gdrd;

/// `tiny.toml` with an ONNX teacher.
fn recipe(bench: &Bench, file: &str) {
    let discriminative = format!(
        "kind = \"onnx\"\nweights = \"{file}\"\nsize = 8\npreprocessing = {{ colour = \"rgb\", mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }}"
    );
    let changed =
        TINY.replace("kind = \"student\"\nweights = \"teachers/discriminative.safetensors\"", &discriminative);
    assert_ne!(changed, TINY);
    bench.write("onnx.toml", changed);
}

#[test]
fn the_kind_is_explained() {
    let bench = Bench::empty();
    let said = Said::by(gdrd(&bench).args(["kinds", "onnx"])).with_code(0);
    assert!(said.stdout.contains("`cargo build --release --features onnx`"), "{said:#?}");
    assert!(said.stdout.contains("  preprocessing (required)"), "{said:#?}");
}

#[cfg(not(feature = "onnx"))]
#[test]
fn a_recipe_that_needs_the_feature_is_told_how_to_get_it() {
    let bench = Bench::empty();
    recipe(&bench, "any.onnx");
    let said = Said::by(gdrd(&bench).args(["check", "onnx.toml"])).with_code(2);
    let expected =
        "error: `kind`: this gdrd is built without ONNX models; `cargo build --release --features onnx` builds";
    assert!(said.stderr.contains(expected) && said.stderr.contains("| kind = \"onnx\""), "{said:#?}");
}

#[cfg(feature = "onnx")]
mod with_the_feature {
    use std::path::PathBuf;

    use candle_core::Device;
    use gdrd_core::face::{Face, FaceBatch};
    use gdrd_core::teacher::{Colour, Output, Preprocessing, Shown, TeacherConfig};
    use gdrd_teachers::OnnxTeacher;

    use super::*;
    use crate::golden::{Golden, formula};

    fn file(name: &str) -> PathBuf {
        gdrd_tests::root().join("tests/golden/onnx").join(name)
    }

    /// What the exporting script does to faces.
    fn config(name: &str, output: Option<&str>) -> OnnxTeacher {
        let preprocessing = Preprocessing {
            colour: Colour::Bgr,
            mean: [0.4, 0.45, 0.5],
            std: [0.2, 0.25, 0.3],
            ..Preprocessing::default()
        };
        OnnxTeacher { weights: file(name).into(), size: 8, preprocessing, output: output.map(str::to_string) }
    }

    fn faces() -> Shown {
        let bytes = formula::bytes("onnx faces", 3 * 192);
        let faces: Vec<Face> = bytes.chunks(192).map(|f| Face::new(8, 8, f.to_vec()).expect("192 bytes")).collect();
        Shown::from(FaceBatch::from_faces(&faces, &Device::Cpu).expect("a batch"))
    }

    fn refused(config: &OnnxTeacher) -> String {
        on_cpu(|cx| config.build(cx)).err().expect("a bad model").to_string()
    }

    #[test]
    fn models_answer_as_in_onnx_runtime() {
        let golden = Golden::read("onnx");
        for (name, output, width) in
            [("fixed.onnx", None, 6), ("dynamic.onnx", Some("embedding"), 6), ("dynamic.onnx", Some("flat"), 128)]
        {
            let config = config(name, output);
            assert!(config.check().is_empty());
            let teacher = on_cpu(|cx| config.build(cx)).expect("a teacher");
            assert_eq!(teacher.card().input_size, Some(8));
            assert_eq!(teacher.shape(&Output::Embedding, 8).expect("a shape"), [width]);
            let found = teacher.features(&faces(), &[Output::Embedding]).expect("embeddings");
            golden.compare(output.unwrap_or("embedding"), &found[0]);
            assert!(teacher.features(&faces(), &[Output::Logits]).is_err());
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let text = refused(&config("dynamic.onnx", None));
        assert!(text.contains("several outputs, name one with `output`; known: embedding, flat"), "{text}");
        let text = refused(&config("dynamic.onnx", Some("embeding")));
        assert!(text.contains("no output is called `embeding`; did you mean `embedding`?"), "{text}");
        let text = refused(&OnnxTeacher { size: 16, ..config("fixed.onnx", None) });
        assert!(
            text.contains("fixed.onnx`: expected an input [1, 3, 16, 16] of F32, found `face` [1, 3, 8, 8]"),
            "{text}"
        );
        let bench = Bench::empty();
        let bytes = std::fs::read(file("fixed.onnx")).expect("a model");
        // The third weight is no number.
        let weight = formula::tensor("conv1.weight", &[8, 3, 3, 3]).flatten_all().and_then(|t| t.to_vec1::<f32>());
        let start: Vec<u8> = weight.expect("weights")[..4].iter().flat_map(|value| value.to_le_bytes()).collect();
        let place = bytes.windows(16).position(|window| window == start).expect("the weights are in the file");
        let mut broken = bytes.clone();
        broken[place + 8..place + 12].copy_from_slice(&f32::NAN.to_le_bytes());
        for (name, content, expected) in [
            ("nan.onnx", &broken[..], "nan.onnx`: `conv1.weight` at [0, 0, 0, 2] is NaN"),
            (
                "pointer.onnx",
                b"version https://git-lfs.github.com/spec/v1\n",
                "pointer.onnx`: not a model: it is a Git LFS",
            ),
            ("empty.onnx", b"", "empty.onnx`: not a model: the file is empty"),
            ("cut.onnx", &bytes[..bytes.len() / 2], "cut.onnx`: not a readable ONNX model"),
            ("page.onnx", b"\n<html>", "page.onnx`: not a model: it looks like a web page"),
        ] {
            let weights = bench.write(name, content).into();
            let text = refused(&OnnxTeacher { weights, ..config("fixed.onnx", None) });
            assert!(text.contains(expected), "{text}");
        }
        let text = refused(&config("gone.onnx", None));
        assert!(text.contains("gone.onnx`: no such file"), "{text}");
    }

    #[test]
    fn a_recipe_is_evaluated_with_it() {
        let bench = Bench::with_teachers();
        std::fs::copy(file("fixed.onnx"), bench.file("fixed.onnx")).expect("copied");
        recipe(&bench, "fixed.onnx");
        let said = Said::by(gdrd(&bench).args(["evaluate", "onnx.toml"])).with_code(0);
        assert!(said.stdout.contains("teacher `discriminative` at 8x8"), "{said:#?}");
    }

    #[test]
    fn the_doctor_examines_it() {
        let bench = Bench::with_teachers();
        std::fs::copy(file("fixed.onnx"), bench.file("fixed.onnx")).expect("copied");
        recipe(&bench, "fixed.onnx");
        let said = Said::by(&mut crate::doctor::doctor(&bench, "onnx.toml")).with_code(0);
        let rows: Vec<&str> = said.stdout.lines().filter(|line| line.starts_with('|')).collect();
        assert!(rows[0].contains("teacher `discriminative`"), "{said:#?}");
        assert!(rows[2].contains("RGB, [-1, 1] (declared)"), "{said:#?}");
    }
}
