//! What a reader of the code once found: numbers that would be wrong without a word.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use gdrd_student::{Face, FaceEncoder};
use gdrd_tests::{Bench, Said};

use crate::faults::ALONE;
use crate::{gdrd, refused};

fn said(bench: &Bench, arguments: &[&str]) -> Said {
    Said::by(gdrd(bench).args(arguments))
}

fn tensors(path: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).expect("tensors")
}

#[test]
fn a_face_that_is_not_square_is_not_squashed() {
    let bench = Bench::empty();
    bench.write("r.toml", ALONE);
    said(&bench, &["train", "r.toml", "--run-dir", "a"]).with_code(0);
    let student = FaceEncoder::open(bench.file("a/student.safetensors")).expect("a student");
    let face = Face::new(20, 16, vec![9; 960]).expect("a face");
    let error = student.embed(&[face]).expect_err("not square").to_string();
    assert!(error.contains("expected a square face, found 20x16 pixels; crop it to the face first"), "{error}");
}

#[test]
fn a_student_as_a_teacher_sees_faces_as_its_file_says() {
    let bench = Bench::empty();
    let other = "[degradation]\nkind = \"downscale\"\nsize = 8\nkernel = \"nearest\"\nantialias = false\n";
    bench.write("r.toml", format!("{ALONE}{other}"));
    said(&bench, &["train", "r.toml", "--run-dir", "a"]).with_code(0);
    let pixel = |x: u32, y: u32| image::Rgb([(x * 83 + y * 57) as u8, (x * 131) as u8, (y * 199) as u8]);
    image::RgbImage::from_fn(32, 32, pixel).save(bench.file("a.png")).expect("an image");
    let teacher = "[teacher.t]\nkind = \"student\"\nweights = \"a/student.safetensors\"\n";
    bench.write("t.toml", format!("{ALONE}{teacher}"));
    let embed = |by: &[&str], out: &str| {
        said(&bench, &[&["embed", "a.png"], by, &["--out", out]].concat()).with_code(0);
        tensors(&bench.file(out))["embeddings"].to_vec2::<f32>().expect("rows")
    };
    let (student, teacher) =
        (embed(&["--student", "a/student.safetensors"], "s"), embed(&["--recipe", "t.toml", "--teacher", "t"], "t"));
    let far = student[0].iter().zip(&teacher[0]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < 1e-5, "{student:?} and {teacher:?}");
}

#[test]
fn one_empty_folder_among_several_is_named() {
    let bench = Bench::empty();
    std::fs::create_dir(bench.file("hollow")).expect("a folder");
    for number in 0..4 {
        let image = image::RgbImage::from_pixel(16, 16, image::Rgb([40 * number as u8; 3]));
        let path = bench.write(&format!("faces/p{}/{number}.png", number % 2), "");
        image.save(path).expect("an image");
    }
    bench.write("r.toml", ALONE);
    for kind in ["identity-folders", "image-folder"] {
        let set = format!("data.train={{ kind = \"{kind}\", folders = [\"faces\", \"hollow\"] }}");
        let text = refused(&bench, "r.toml", &[&set], 1);
        assert!(text.contains("hollow` holds no "), "{kind}: {text}");
    }
}

#[test]
fn a_stage_of_one_step_takes_its_time_in_the_plan() {
    let bench = Bench::empty();
    bench.write("r.toml", ALONE.replace("channels = [4]", "channels = [64]").replace("size = 16", "size = 64"));
    let plan = said(&bench, &["plan", "r.toml", "--set", "stage.one.steps=1", "--set", "stage.one.batch_size=16"]);
    let plan = plan.with_code(0);
    let line = plan.stdout.lines().find(|line| line.contains("s per step")).expect("a time");
    let seconds: f64 = line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("seconds");
    assert!(seconds > 0.0, "{line}");
}
