//! Photographs to aligned faces: the geometry against scikit-image and OpenCV, `gdrd data align` by boxes, and with the feature `align`
//! the detectors against OpenCV and insightface. `golden/front_end/ORIGIN.md` says how the values were made.

use std::path::Path;

use gdrd_core::data::{Decoding, png, read_image};
use gdrd_core::face::Face;
use gdrd_student::front_end::{Landmarks, align, similarity, template};
use gdrd_tests::{Bench, Said, files_below};

use crate::gdrd;
use crate::golden::{Golden, formula};

fn photograph(name: &str, width: usize, height: usize) -> Face {
    Face::new(width, height, formula::bytes(name, 3 * width * height)).expect("three bytes for each pixel")
}

/// The rows of a golden matrix of float32.
fn rows(golden: &Golden, name: &str) -> Vec<Vec<f32>> {
    golden.get(name).to_vec2().expect("a matrix")
}

#[test]
fn faces_are_aligned_as_by_scikit_image_and_opencv() {
    let golden = Golden::read("front_end");
    for name in ["upright", "turned", "border"] {
        let points = rows(&golden, &format!("align.{name}.landmarks"));
        let landmarks: Landmarks = std::array::from_fn(|at| [points[at][0], points[at][1]]);
        for size in [112, 224] {
            let found = similarity(&landmarks, &template(size)).expect("a face");
            let expected = golden.get(&format!("align.{name}.{size}")).flatten_all().and_then(|t| t.to_vec1::<f64>());
            let found = [found.a, -found.b, found.dx, found.b, found.a, found.dy];
            for (found, expected) in found.iter().zip(expected.expect("a matrix")) {
                assert!((found - expected).abs() < 1e-5 * expected.abs().max(1.0), "`{name}`: {found} {expected}");
            }
        }
        // A third of `border` is beyond the border.
        let face = align(&photograph("photograph", 250, 190), &landmarks, 112).expect("a face");
        let expected = golden.bytes(&format!("align.{name}.face"));
        let off: Vec<u8> =
            face.pixels().iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).filter(|gap| *gap > 0).collect();
        assert!(off.iter().all(|gap| *gap == 1) && off.len() * 200 < expected.len(), "`{name}`: {} bytes", off.len());
    }
}

/// A folder of photographs of two people, with a box each; the second of Ann's has landmarks.
fn photographs() -> Bench {
    let bench = Bench::empty();
    for (at, name) in ["Ann/1.png", "Ann/2.png", "Bob/1.png", "Bob/none.png"].iter().enumerate() {
        bench.write(&format!("photos/{name}"), png(&photograph(name, 60 + at, 50)).expect("a PNG"));
    }
    let points = template(112).map(|[x, y]| format!("{},{}", x / 4.0 + 10.0, y / 4.0 + 5.0)).join(",");
    let none = ",".repeat(9);
    bench.write(
        "boxes.csv",
        format!(
            "image,left,top,width,height,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\nAnn/1.png,10,10,16,20,{none}\n\
             Ann/2.png,12,8,20,24,{points}\nBob/1.png,5,6,7,8,{none}\nBob/1.png,30,20,20,20,{none}\n"
        ),
    );
    bench
}

fn align_boxes(bench: &Bench, more: &[&str], code: i32) -> Said {
    let mut command = gdrd(bench);
    command.args(["data", "align", "photos", "out", "--boxes", "boxes.csv"]).args(more);
    Said::by(&mut command).with_code(code)
}

/// Everything in a folder, by path, with its bytes.
fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let name = |path: &Path| path.strip_prefix(folder).expect("below").to_string_lossy().replace('\\', "/");
    let mut all: Vec<_> =
        files_below(folder, "").iter().map(|path| (name(path), std::fs::read(path).expect("a file"))).collect();
    all.sort();
    all
}

#[test]
fn a_box_is_enough_and_landmarks_are_better() {
    let bench = photographs();
    let before = content(&bench.file("photos"));
    let said = align_boxes(&bench, &[], 0);
    assert!(said.stdout.starts_with("4 photographs: 3 with a face, 1 without, 0 unreadable\n"), "{said:#?}");
    assert!(said.stdout.contains("faces: 4 faces\n"), "{said:#?}");
    assert_eq!(content(&bench.file("photos")), before, "photographs are never written to");
    let read = |name: &str| read_image(&bench.file("out/faces").join(name), Decoding::default()).expect(name);
    let source = photograph("Ann/1.png", 60, 50);
    // 20 pixels around the middle (18, 20), as they were.
    let face = read("Ann/1.png");
    assert_eq!((face.width(), &face.pixels()[..3]), (20, &source.pixels()[3 * (60 * 10 + 8)..][..3]));
    assert_eq!(read("Ann/2.png").width(), 112);
    assert_eq!((read("Bob/1.png").width(), read("Bob/1.face2.png").width()), (20, 8), "the largest first");
    let table = std::fs::read_to_string(bench.file("out/faces.csv")).expect("a table");
    assert!(table.contains("\nBob/1.png,Bob/1.face2.png,2,,5,6,7,8,"), "{table}");
    let missing = std::fs::read_to_string(bench.file("out/not-found.csv")).expect("a table");
    assert_eq!(missing, "image,why\nBob/none.png,no face\n");
    let sheet = read_image(&bench.file("out/contact-sheet.png"), Decoding::default()).expect("a picture");
    assert_eq!((sheet.width(), sheet.height()), (5 * 96, 96));
    // What was found says where faces are, to the bit.
    let mut command = gdrd(&bench);
    command.args(["data", "align", "photos", "again", "--boxes", "out/faces.csv"]);
    Said::by(&mut command).with_code(0);
    assert_eq!(content(&bench.file("again/faces")), content(&bench.file("out/faces")));
}

#[test]
fn what_is_done_is_not_done_again() {
    let bench = photographs();
    align_boxes(&bench, &["--margin", "0.1"], 0);
    let time =
        |name: &str| std::fs::metadata(bench.file("out/faces").join(name)).and_then(|m| m.modified()).expect(name);
    let (kept, changed, lost) = (time("Ann/2.png"), time("Ann/1.png"), "Bob/1.png");
    bench.write("photos/Ann/1.png", png(&photograph("another", 60, 50)).expect("a PNG"));
    std::fs::remove_file(bench.file("out/faces").join(lost)).expect("removed");
    let boxes = std::fs::read_to_string(bench.file("boxes.csv")).expect("boxes");
    std::thread::sleep(std::time::Duration::from_millis(20));
    align_boxes(&bench, &["--margin", "0.1"], 0);
    assert_eq!(time("Ann/2.png"), kept);
    assert!(time("Ann/1.png") > changed && bench.file("out/faces").join(lost).exists());
    // A box less: its face goes, another person's stays.
    bench.write("boxes.csv", boxes.replace("Bob/1.png,5,6,7,8,,,,,,,,,,\n", ""));
    align_boxes(&bench, &["--margin", "0.1"], 0);
    assert!(!bench.file("out/faces/Bob/1.face2.png").exists());
    assert_eq!(time("Ann/2.png"), kept);
    let said = align_boxes(&bench, &[], 2);
    assert!(said.stderr.contains("margin was 0.1") && said.stderr.contains("now 0.0"), "{said:#?}");
}

#[cfg(unix)]
#[test]
fn killed_at_any_moment_it_goes_on() {
    let bench = Bench::empty();
    let mut boxes = "image,left,top,width,height\n".to_string();
    std::fs::create_dir_all(bench.file("photos")).expect("a folder");
    for at in 0..60 {
        bench.write(&format!("photos/{at}.png"), png(&photograph(&at.to_string(), 200, 150)).expect("a PNG"));
        boxes += &format!("{at}.png,{at},20,90,100\n");
    }
    bench.write("boxes.csv", boxes);
    for round in 0..8 {
        let mut command = gdrd(&bench);
        command.args(["data", "align", "photos", "killed", "--boxes", "boxes.csv"]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut child = command.spawn().expect("started");
        std::thread::sleep(std::time::Duration::from_millis(15 + 12 * round));
        let _ = child.kill();
        child.wait().expect("ended");
        for path in files_below(&bench.file("killed/faces"), ".png") {
            read_image(&path, Decoding::default()).expect("a whole face");
        }
    }
    for out in ["killed", "whole"] {
        let mut command = gdrd(&bench);
        command.args(["data", "align", "photos", out, "--boxes", "boxes.csv"]);
        Said::by(&mut command).with_code(0);
    }
    let without_journal = |out: &str| {
        let mut all = content(&bench.file(out));
        all.retain(|(name, _)| name != "align.jsonl");
        all
    };
    assert_eq!(without_journal("killed"), without_journal("whole"), "nothing half-written, nothing left, nothing lost");
}

#[test]
fn wrong_photographs_and_boxes_are_named_and_the_others_are_done() {
    let bench = photographs();
    let image = |image: image::DynamicImage, name: &str| image.save(bench.file("photos/Bob").join(name)).expect(name);
    image(image::GrayImage::from_pixel(40, 40, image::Luma([90])).into(), "grey.png");
    image(image::ImageBuffer::<image::Luma<u16>, _>::from_pixel(40, 40, image::Luma([40_000])).into(), "deep.png");
    image(image::RgbaImage::from_pixel(40, 40, image::Rgba([255, 0, 0, 128])).into(), "alpha.png");
    image(image::RgbImage::new(1, 1).into(), "one.png");
    image(image::GrayImage::new(20_000, 3).into(), "wide.png");
    let cmyk = gdrd_tests::root().join("tests/golden/front_end/cmyk.jpg");
    bench.write("photos/Bob/cmyk.jpg", std::fs::read(cmyk).expect("a JPEG for printers"));
    bench.write("photos/Bob/empty.jpg", "");
    bench.write("photos/Bob/text.jpg", "no image at all");
    bench.write("photos/Bob/notes.txt", "no image either");
    let mut boxes =
        "image,left,top,width,height\nAnn/1.png,900,1,5,5\nAnn/2.png,10,10,20,20\nBob/empty.jpg,1,2,3,4\n".to_string();
    for name in ["grey.png", "deep.png", "alpha.png", "one.png", "wide.png", "cmyk.jpg"] {
        boxes += &format!("Bob/{name},0,0,30,30\n");
    }
    bench.write("boxes.csv", &boxes);
    let said = align_boxes(&bench, &[], 1);
    assert!(said.stdout.contains("12 photographs: 7 with a face, 2 without, 3 unreadable"), "{said:#?}");
    assert!(
        said.stderr.contains("passed over, not named as images: 1: ") && said.stderr.contains("notes.txt"),
        "{said:#?}"
    );
    assert!(
        said.stderr.contains("3 photographs could not be read: `Ann/1.png`, `Bob/empty.jpg`, `Bob/text.jpg`"),
        "{said:#?}"
    );
    let missing = std::fs::read_to_string(bench.file("out/not-found.csv")).expect("a table");
    for expected in [
        "Ann/1.png,\"the box (left 900, top 1, width 5, height 5) is outside of the photograph, which has 60x50 pixels",
        "Bob/empty.jpg,\"not a readable image: it is empty",
        "Bob/text.jpg,\"not a readable image: it is text that begins with",
        "Bob/1.png,no face",
    ] {
        assert!(missing.contains(expected), "{expected}: {missing}");
    }
    let face = |name: &str| read_image(&bench.file("out/faces/Bob").join(name), Decoding::default()).expect(name);
    assert_eq!(face("grey.png").pixels()[..3], [90; 3]);
    assert_eq!(face("deep.png").pixels()[..3], [156; 3]);
    assert_eq!(face("alpha.png").pixels()[..3], [128, 0, 0]);
    // Pillow says 216, 137, 66.
    let printed = face("cmyk.png");
    assert!(
        printed.pixels()[..3].iter().zip([216_u8, 137, 66]).all(|(a, b)| a.abs_diff(b) < 4),
        "{:?}",
        &printed.pixels()[..3]
    );
    align_boxes(&bench, &["--skip-unreadable"], 0);

    bench.write("boxes.csv", "image,left,top,width,height\nAnn/9.png,1,1,5,5\n");
    let said = align_boxes(&bench, &[], 1);
    assert!(said.stderr.contains("names 1 images that are not in `photos`: `Ann/9.png`"), "{said:#?}");
    bench.write("boxes.csv", "image,left,top,width,height\nAnn/1.png,NaN,1,5,5\n");
    assert!(align_boxes(&bench, &[], 1).stderr.contains("line 2: left is `NaN`, expected a finite number"));
}

#[test]
fn results_stay_out_of_the_photographs_and_of_other_folders() {
    let bench = photographs();
    let run = |photos: &str, out: &str| {
        let mut command = gdrd(&bench);
        Said::by(command.args(["data", "align", photos, out, "--boxes", "boxes.csv"]))
    };
    for (photos, out) in [("photos", "photos"), ("photos", "photos/new"), ("photos/Ann", "photos")] {
        let said = run(photos, out).with_code(2);
        assert!(said.stderr.contains("lie in each other"), "{said:#?}");
    }
    bench.write("boxes.csv", "image,left,top,width,height\n");
    std::fs::create_dir(bench.file("mine")).expect("a folder");
    bench.write("mine/letter.txt", "x");
    let said = run("photos", "mine").with_code(2);
    assert!(said.stderr.contains("it holds `letter.txt`"), "{said:#?}");
    assert!(run("nowhere", "out").with_code(1).stderr.contains("no such file or folder"));
}

#[cfg(not(feature = "align"))]
#[test]
fn a_build_without_detectors_says_how_to_get_them() {
    let bench = photographs();
    let said = Said::by(gdrd(&bench).args(["data", "align", "photos", "out", "--detector", "yunet.onnx"])).with_code(2);
    assert!(said.stderr.contains("`cargo build --release --features align` builds one with them"), "{said:#?}");
    assert!(
        said.stderr.contains("`gdrd data align --boxes FILE` needs none") && !bench.file("out").exists(),
        "{said:#?}"
    );
}

#[cfg(feature = "align")]
mod with_the_feature {
    use gdrd_student::front_end::{Detection, Detector, DetectorOptions, OnnxDetector};

    use super::*;

    fn file(name: &str) -> std::path::PathBuf {
        gdrd_tests::root().join("tests/golden").join(name)
    }

    /// Left, top, width, height, five points, score: as in the golden values.
    fn row(found: &Detection) -> Vec<f32> {
        let bounds = [found.bounds.left, found.bounds.top, found.bounds.width, found.bounds.height];
        bounds.into_iter().chain(found.landmarks.into_iter().flatten()).chain([found.score]).collect()
    }

    /// How many rows of `from` have a like one in `among`.
    fn alike(from: &[Vec<f32>], among: &[Vec<f32>]) -> usize {
        let same = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-3 * b.abs().max(1.0));
        from.iter().filter(|a| among.iter().any(|b| same(a, b))).count()
    }

    #[test]
    fn detectors_find_what_opencv_and_insightface_find() {
        let golden = Golden::read("front_end");
        for (name, image, overlap) in
            [("yunet", photograph("photograph", 250, 190), 0.3), ("scrfd", photograph("frame", 192, 160), 1.0)]
        {
            let options = DetectorOptions { score: 0.6, overlap, ..DetectorOptions::default() };
            let detector = OnnxDetector::open(file(&format!("front_end/{name}.onnx")), options).expect(name);
            let found: Vec<Vec<f32>> = detector.detect(&image).expect("faces").iter().map(row).collect();
            let expected = rows(&golden, name);
            // Of overlaps that are nearly as large as the bound, a pixel decides.
            let (ours, theirs) = (alike(&found, &expected), alike(&expected, &found));
            assert!(
                ours * 100 >= found.len() * 95 && theirs * 100 >= expected.len() * 95,
                "{name}: {ours} of {}, {theirs} of {}",
                found.len(),
                expected.len()
            );
            assert!(found.len() > 100 && found.windows(2).all(|two| two[0][14] >= two[1][14]), "the surest first");
        }
    }

    #[test]
    fn what_is_no_detector_is_refused() {
        let open =
            |name: &str| OnnxDetector::open(file(name), DetectorOptions::default()).err().expect(name).to_string();
        let error = open("onnx/dynamic.onnx");
        assert!(
            error.contains("expected YuNet (outputs cls_8") && error.contains("found outputs embedding, flat"),
            "{error}"
        );
        let error = open("front_end/values.safetensors");
        assert!(error.contains("not a readable ONNX model"), "{error}");
        let bytes = std::fs::read(file("front_end/yunet.onnx")).expect("a model");
        for length in (0..bytes.len()).step_by(997) {
            assert!(OnnxDetector::from_bytes(&bytes[..length], DetectorOptions::default()).is_err(), "cut to {length}");
        }
        let nonsense = DetectorOptions { score: f32::NAN, ..DetectorOptions::default() };
        assert!(OnnxDetector::from_bytes(&bytes, nonsense).err().expect("NaN").to_string().contains("`score`"));
    }

    #[test]
    fn photographs_of_any_size_are_searched() {
        let detector =
            OnnxDetector::open(file("front_end/yunet.onnx"), DetectorOptions::default()).expect("a detector");
        for (width, height) in [(1, 1), (1, 700), (20_000, 3), (33, 31), (900, 1200)] {
            let found = detector.detect(&photograph("any", width, height)).expect("a photograph");
            assert!(found.iter().all(|one| one.bounds.within(width, height).is_ok()), "{width}x{height}");
        }
        // Enlarged and reduced photographs give boxes in their own pixels.
        let options = DetectorOptions { enlarge: 4.0, longest_side: 256, ..DetectorOptions::default() };
        let detector = OnnxDetector::open(file("front_end/scrfd.onnx"), options).expect("a detector");
        let found = detector.detect(&photograph("any", 48, 40)).expect("a photograph");
        assert!(found.iter().all(|one| one.bounds.width < 48.0), "{found:?}");
    }

    #[test]
    fn a_folder_is_aligned_and_goes_on() {
        let bench = photographs();
        let run = |more: &[&str], code| {
            let mut command = gdrd(&bench);
            command.args(["data", "align", "photos", "out", "--take", "all", "--detector"]);
            Said::by(command.arg(file("front_end/yunet.onnx")).args(more)).with_code(code)
        };
        let said = run(&[], 0);
        assert!(said.stdout.starts_with("4 photographs: "), "{said:#?}");
        let faces = content(&bench.file("out"));
        assert!(faces.iter().any(|(name, _)| name == "faces/Ann/1.png"), "{said:#?}");
        run(&[], 0);
        assert_eq!(content(&bench.file("out")), faces);
        assert!(run(&["--score", "0.9"], 2).stderr.contains("score was 0.7, now 0.9"));
        assert!(run(&["--score", "7"], 2).stderr.contains("`score`: expected a number between 0 and 1, found 7"));
    }

    /// Photographs of people, and not aligned faces: each is looked at by the detector, and every face of it is somebody or nobody.
    #[test]
    fn people_are_enrolled_and_found_on_photographs() {
        let bench = photographs();
        let student = gdrd_tests::root().join("tests/files/student-format-1.safetensors");
        let run = |arguments: &[&str], code| {
            let mut command = gdrd(&bench);
            command.args(arguments).arg("--student").arg(&student);
            Said::by(command.arg("--detector").arg(file("front_end/yunet.onnx"))).with_code(code)
        };
        let said = run(&["enrol", "town.gallery", "photos"], 0);
        assert!(said.stdout.contains("faces enrolled"), "{said:#?}");
        let photograph = "photos/Ann/1.png";
        let search =
            |more: &[&str]| run(&[&["search", "town.gallery", photograph, "--threshold", "0.9"], more].concat(), 0);
        let said = search(&["--json"]);
        let faces: Vec<serde_json::Value> =
            said.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let largest = &faces[0];
        assert_eq!(
            (&largest["person"], largest["box"].as_array().map(Vec::len)),
            (&"Ann".into(), Some(4)),
            "{largest}"
        );
        assert!(largest["pixels"].as_u64().is_some_and(|pixels| (1..=112).contains(&pixels)), "{largest}");
        assert!(search(&[]).stdout.contains(" pixels at ("));
        assert!(search(&["--score", "0.999999"]).stdout.ends_with("/1.png: no face is found\n"));
        assert!(run(&["compare", photograph, photograph], 0).stdout.contains("(similarity 1.000"));
        std::fs::create_dir(bench.file("incoming")).expect("a folder");
        std::fs::copy(bench.file(photograph), bench.file("incoming/new.png")).expect("copied");
        let watch = "watch incoming town.gallery --threshold 0.9 --once --every 1 --tag --sort sorted";
        run(&watch.split(' ').collect::<Vec<_>>(), 0);
        assert!(bench.file("sorted/Ann/new.png").is_file());
        let tag: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(bench.file("incoming/new.png.json")).expect("a tag"))
                .expect("JSON");
        assert_eq!(tag["faces"].as_array().map(Vec::len), Some(faces.len()), "{tag}");
    }
}
