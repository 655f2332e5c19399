//! What the commands for people tell: images that cannot be read, names that there are not, files that are something else.

use gdrd_tests::{Bench, Said, root};
use serde_json::Value;

use crate::gdrd;

/// A PNG of waves and a file that is no image.
fn bench() -> Bench {
    let bench = Bench::empty();
    let pixel = |x: u32, y: u32| image::Rgb([(x * 9) as u8, (y * 7) as u8, (x * y % 251) as u8]);
    let mut png = Vec::new();
    image::RgbImage::from_fn(24, 24, pixel)
        .write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png)
        .expect("PNG");
    for name in ["people/Ann/1.png", "camera/good.png"] {
        bench.write(name, &png);
    }
    bench.write("camera/bad.jpg", "no image");
    std::fs::copy(root().join("tests/files/student-format-1.safetensors"), bench.file("s")).expect("a student");
    bench
}

fn said(bench: &Bench, arguments: &[&str], code: i32) -> Said {
    Said::by(gdrd(bench).args(arguments)).with_code(code)
}

fn lines(said: &Said) -> Vec<Value> {
    said.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The images of lines that say an error, each with a text in it.
#[track_caller]
fn errors(lines: &[Value], expected: &[(&str, &str)]) {
    let found: Vec<&Value> = lines.iter().filter(|line| !line["error"].is_null()).collect();
    assert_eq!(found.len(), expected.len(), "{lines:?}");
    for (line, (image, why)) in found.iter().zip(expected) {
        assert!(line["image"] == *image && line["error"].as_str().is_some_and(|text| text.contains(why)), "{line}");
    }
}

#[test]
fn images_that_cannot_be_read_are_lines_too_and_the_others_are_tried() {
    let bench = bench();
    said(&bench, &["enrol", "g", "people", "--student", "s"], 0);
    let images = ["camera/bad.jpg", "camera/good.png", "gone.png"];
    let wrong = [("camera/bad.jpg", "not a readable image"), ("gone.png", "no such file")];
    let search =
        said(&bench, &[&["search", "g"], &images[..], &["--student", "s", "--threshold", "0.9", "--json"]].concat(), 1);
    let found = lines(&search);
    errors(&found, &wrong);
    assert!(found.len() == 3 && found[1]["person"] == "Ann", "{search:#?}");
    assert!(search.stderr.contains("2 of 3 images could not be read"), "{search:#?}");

    let watch = ["watch", "camera", "g", "--student", "s", "--threshold", "0.9", "--once", "--every", "10", "--json"];
    let watched = said(&bench, &watch, 1);
    let found = lines(&watched);
    errors(&found, &wrong[..1]);
    assert!(found.len() == 2 && watched.stderr.contains("1 of 2 images could not be read"), "{watched:#?}");

    let embed = |images: &[&str], more: &[&str], code| {
        said(&bench, &[&["embed"], images, &["--student", "s"], more].concat(), code)
    };
    let embedded = embed(&images, &["--json"], 1);
    let found = lines(&embedded);
    errors(&found, &wrong);
    let alone = lines(&embed(&images[1..2], &["--json"], 0));
    assert!(found.contains(&alone[0]) && embedded.stderr.contains("2 of 3 images could not be read"), "{embedded:#?}");
    let written = embed(&images, &["--out", "e"], 1);
    assert!(written.stderr.contains("gone.png") && written.stderr.contains("`e` was not written"), "{written:#?}");
    assert!(written.stdout.is_empty() && !bench.file("e").exists());
    std::fs::remove_file(bench.file("camera/bad.jpg")).expect("removed");
    said(&bench, &watch, 0);
}

#[test]
fn a_dataset_that_there_is_not_is_said_before_anything_is_measured() {
    let bench = bench();
    bench.write("town.toml", crate::people::TOWN);
    let calibrate = ["calibrate", "s", "town.toml", "--data", "poeple", "--out", "new"];
    let text = said(&bench, &calibrate, 2).stderr;
    assert!(text.contains("error: `town.toml`: no dataset is called `poeple`; there is `people`"), "{text}");
}

#[test]
fn files_that_are_missing_cut_or_something_else_are_named_once() {
    let bench = bench();
    let search = |gallery: &str, student: &str| {
        said(&bench, &["search", gallery, "camera/good.png", "--student", student], 1).stderr
    };
    let text = search("nothere.gallery", "s");
    assert!(text.contains("error: `nothere.gallery`: no such file or folder; `gdrd enrol` makes a gallery"), "{text}");
    bench.write("j", b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01");
    assert!(search("g", "j").contains("it is a JPEG image"), "{}", search("g", "j"));
    let whole = std::fs::read(bench.file("s")).expect("a student");
    for length in [4, 100, whole.len() - 1] {
        bench.write("cut", &whole[..length]);
        let text = search("g", "cut");
        assert!(text.contains("was a download or a copy cut short?"), "{length} bytes: {text}");
    }
}

#[test]
fn models_completions_and_pages_are_written() {
    let bench = bench();
    let text = said(&bench, &["export", "s", "--onnx", "student.onnx"], 0);
    assert!(text.stdout.contains("`faces` bytes [batch, 16, 16, 3], RGB"), "{text:#?}");
    let text = said(&bench, &["export", "s", "--onnx", "student.onnx", "--preprocess", "metadata"], 0);
    assert!(text.stdout.contains("float32 [batch, 3, 16, 16]"), "{text:#?}");
    assert!(std::fs::read(bench.file("student.onnx")).expect("a model").windows(9).any(|part| part == b"embedding"));
    assert!(said(&bench, &["export", "s", "--onnx", "s"], 2).stderr.contains("is the input"));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = said(&bench, &["completions", shell], 0);
        assert!(["enrol", "calibrate", "search"].iter().all(|command| text.stdout.contains(command)), "{shell}");
    }
    said(&bench, &["manual", "pages"], 0);
    for (page, text) in [("gdrd.1", "gdrd\\-train"), ("gdrd-search.1", "threshold"), ("gdrd-hub-pull.1", "refresh")] {
        let found = std::fs::read_to_string(bench.file(&format!("pages/{page}"))).unwrap_or_default();
        assert!(found.contains(text), "{page}: {found}");
    }
}
