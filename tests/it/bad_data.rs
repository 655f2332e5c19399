//! Data that is wrong: the error names the folder, the image or the line, before the first step.

use std::path::Path;

use gdrd_core::data::{DatasetConfig, SyntheticFaces};
use gdrd_tests::{Bench, Said, on_cpu};

use crate::{gdrd, refused};

/// A stage of cross-entropy on `data.train`, which `data` describes; faces of its folder come from [`faces`].
pub(crate) fn recipe(data: &str) -> String {
    format!(
        "format = 1\nstages = [\"recognition\"]\n[data.train]\n{data}\n[student]\nkind = \"resnet-trunk\"\n\
         channels = [4]\nblocks = [1]\nstrides = [2]\nembedding = 8\n[degradation]\nkind = \"downscale\"\nsize = 16\n\
         [stage.recognition]\nsteps = 3\nbatch_size = 4\n[stage.recognition.loss.identity]\nkind = \"cross-entropy\"\n"
    )
}

/// A folder of people at 32 pixels.
pub(crate) const FOLDERS: &str = "kind = \"identity-folders\"\nfolders = [\"faces\"]\nsize = 32";

/// Writes `faces/<person>/<person>_000N.jpg`.
pub(crate) fn faces(bench: &Bench, people: &[(&str, usize)]) {
    for (at, (person, count)) in people.iter().enumerate() {
        let config = SyntheticFaces {
            identities: 1,
            images_per_identity: *count,
            first_identity: at as u64,
            size: 32,
            fixed_appearance: true,
            ..SyntheticFaces::default()
        };
        let data = on_cpu(|cx| config.build(cx)).expect("drawn faces");
        for number in 0..*count {
            let face = data.face(number).expect("a face");
            let image = image::RgbImage::from_raw(32, 32, face.pixels().to_vec()).expect("32 x 32 pixels");
            let path = bench.file(&format!("faces/{person}/{person}_{:04}.jpg", number + 1));
            std::fs::create_dir_all(path.parent().expect("a person")).expect("a folder");
            image.save(path).expect("an image");
        }
    }
}

#[test]
fn a_missing_folder_is_named() {
    let bench = Bench::empty();
    bench.write("r.toml", recipe(FOLDERS));
    let text = refused(&bench, "r.toml", &[], 1);
    let folder = bench.file("faces");
    assert!(text.contains(&format!("error: dataset `train`: `{}`: ", folder.display())), "{text}");
    std::fs::create_dir(&folder).expect("an empty folder");
    let text = refused(&bench, "r.toml", &[], 1);
    assert!(text.contains("holds no folder with an image (JPEG, PNG, BMP, WebP and GIF)"), "{text}");
}

#[test]
fn a_truncated_image_is_named() {
    let bench = Bench::empty();
    faces(&bench, &[("Ann", 4), ("Bob", 4)]);
    bench.write("r.toml", recipe(FOLDERS));
    for (file, keep) in [("faces/Bob/Bob_0002.jpg", 2), ("faces/Ann/Ann_0004.jpg", 10)] {
        let path = bench.file(file);
        let whole = std::fs::read(&path).expect("an image");
        std::fs::write(&path, &whole[..whole.len() * keep / 12]).expect("a part of it");
        let said = Said::by(gdrd(&bench).args(["train", "r.toml", "--run-dir", "runs/cut"])).with_code(1);
        assert!(said.stderr.contains(&format!("`{}`", path.display())), "{said:#?}");
        assert!(!bench.file("runs/cut/student.safetensors").exists());
        std::fs::write(&path, whole).expect("the whole image");
        let _ = std::fs::remove_dir_all(bench.file("runs/cut"));
    }
    bench.write("faces/Ann/Ann_0001.jpg", "<html>");
    let said = Said::by(gdrd(&bench).args(["train", "r.toml", "--run-dir", "runs/cut"])).with_code(1);
    assert!(said.stderr.contains("Ann_0001.jpg") && said.stderr.contains("not a readable image"), "{said:#?}");
}

/// Puts a table that is none into the compressed part of a JPEG: from outside it begins and ends as one.
fn damage(path: &Path) {
    let whole = std::fs::read(path).expect("an image");
    let (front, back) = whole.split_at(whole.len() - 20);
    std::fs::write(path, [front, &[0xff, 0xc4, 0, 3, 0xff], back].concat()).expect("damaged");
}

#[test]
fn images_that_are_damaged_inside_are_named_before_the_first_step_and_decoded_once() {
    const DECODED: &str = "images decoded for the first time";
    let bench = Bench::empty();
    faces(&bench, &[("Ann", 35), ("Bob", 35)]);
    bench.write("r.toml", recipe(FOLDERS));
    let damaged = ["faces/Ann/Ann_0030.jpg", "faces/Bob/Bob_0002.jpg"].map(|name| bench.file(name));
    damaged.iter().for_each(|path| damage(path));
    // What has just changed is not remembered.
    std::thread::sleep(std::time::Duration::from_millis(2200));
    let text = refused(&bench, "r.toml", &[], 1);
    assert!(text.contains("2 of 70 images cannot be read; `unreadable = \"skip\"` leaves them out"), "{text}");
    assert!(text.contains(DECODED), "{text}");
    for path in &damaged {
        assert!(text.contains(&format!("`{}`: not a readable image: ", path.display())), "{text}");
    }
    let mut command = gdrd(&bench);
    command.args(["train", "r.toml", "--run-dir", "runs/good", "--set", "data.train.unreadable=\"skip\""]);
    let said = Said::by(&mut command).with_code(0).stderr;
    assert!(said.contains("dataset `train`: left out, images that cannot be read: 2:"), "{said}");
    assert!(!said.contains(DECODED), "what the first run found is remembered: {said}");
}

#[test]
fn broken_images_of_every_dataset_are_named_at_once() {
    let bench = Bench::empty();
    faces(&bench, &[("Ann", 4), ("Bob", 4)]);
    bench.write("other/a.jpg", "");
    std::fs::copy(bench.file("faces/Ann/Ann_0001.jpg"), bench.file("other/b.jpg")).expect("copied");
    bench.write("faces/Bob/Bob_0002.jpg", "");
    // What a protocol uses, behind a dataset that is made of it.
    let more = "[data.other]\nkind = \"image-folder\"\nfolders = [\"other\"]\n[data.both]\nkind = \"joined\"\n\
                parts = [\"train\", \"other\"]\n[data.idle]\nkind = \"image-folder\"\nfolders = [\"nowhere\"]\n\
                [evaluate.lfw]\nkind = \"verification\"\ndata = \"both\"\npairs = \"pairs.txt\"\n";
    bench.write("r.toml", recipe(FOLDERS) + more);
    let student = gdrd_tests::root().join("assets/students/quickstart.safetensors");
    let mut evaluate = gdrd(&bench);
    evaluate.args(["evaluate", "r.toml", "--student"]).arg(student);
    for text in [refused(&bench, "r.toml", &[], 1), Said::by(&mut evaluate).with_code(1).stderr] {
        assert!(text.contains("error: 2 datasets cannot be read:\n  dataset `train`: "), "{text}");
        assert!(
            text.contains("\n  dataset `other`: ") && !text.contains("`both`") && !text.contains("nowhere"),
            "{text}"
        );
        assert!(text.contains("Bob_0002.jpg") && text.contains("a.jpg"), "{text}");
    }
}

#[test]
fn broken_images_behind_a_teacher_are_named_with_the_others() {
    let bench = Bench::with_teachers();
    faces(&bench, &[("Ann", 4), ("Bob", 4)]);
    std::fs::create_dir(bench.file("other")).expect("a folder");
    std::fs::copy(bench.file("faces/Ann/Ann_0001.jpg"), bench.file("other/b.jpg")).expect("copied");
    bench.write("other/a.jpg", "");
    bench.write("faces/Bob/Bob_0002.jpg", "");
    // A dataset that only a teacher of a teacher uses, behind another dataset.
    let recipe = format!(
        "format = 1\nextends = \"tiny.toml\"\n[data.asked]\n{FOLDERS}\n[data.other]\nkind = \"image-folder\"\nfolders = [\"other\"]\n\
         size = 32\n[data.both]\nkind = \"joined\"\nparts = [\"train\", \"other\"]\n[teacher.centred]\nkind = \"transformed\"\n\
         teacher = \"discriminative\"\nwhiten = 0.25\ndata = \"both\"\n[teacher.targets]\nkind = \"transformed\"\nteacher = \"centred\"\n\
         mirror = true\n[evaluate.verification]\ndata = \"asked\"\n"
    );
    bench.write("r.toml", recipe);
    let said = |arguments: &[&str]| Said::by(gdrd(&bench).args(arguments)).with_code(1).stderr;
    let texts = [
        refused(&bench, "r.toml", &[], 1),
        said(&["ablate", "r.toml", "--seeds", "1,2", "--run-dir", "cells"]),
        said(&["evaluate", "r.toml"]),
    ];
    for text in texts {
        assert!(text.contains("error: 2 datasets cannot be read:\n  dataset `asked`: "), "{text}");
        assert!(text.contains("\n  dataset `other`: ") && !text.contains("`both`"), "{text}");
        assert!(text.contains("Bob_0002.jpg") && text.contains("a.jpg"), "{text}");
    }
}

#[test]
fn someone_with_one_image_is_named() {
    let bench = Bench::empty();
    faces(&bench, &[("Ann", 4), ("Bob", 1)]);
    bench.write("r.toml", recipe(FOLDERS));
    let text = refused(&bench, "r.toml", &["data.train.min_images=2"], 1);
    assert!(text.contains("1 people have fewer than min_images = 2 images: `Bob` (1)"), "{text}");
}

#[test]
fn absent_people_of_a_pairs_file_are_named_with_their_lines() {
    let bench = Bench::empty();
    faces(&bench, &[("Ann", 4), ("Bob", 4)]);
    let protocol = "[evaluate.lfw]\nkind = \"verification\"\ndata = \"train\"\npairs = \"pairs.txt\"\n";
    bench.write("r.toml", recipe(FOLDERS) + protocol);
    let pairs = bench.write("pairs.txt", "2\t1\nAnn\t1\t2\nAnn\t1\tCleo\t1\nBob\t1\t9\nAnn\t2\tBob\t1\n");
    let text = refused(&bench, "r.toml", &[], 1);
    let expected = format!(
        "error: protocol `lfw`: `{}`: 2 images are not in the dataset: Bob 9 (line 4), Cleo 1 (line 3)",
        pairs.display()
    );
    assert!(text.contains(&expected), "{text}");
    bench.write("pairs.txt", "2\t1\nAnn\t1\n");
    let text = refused(&bench, "r.toml", &[], 1);
    assert!(text.contains("line 2: expected a same pair"), "{text}");
    std::fs::remove_file(&pairs).expect("removed");
    let text = refused(&bench, "r.toml", &[], 1);
    assert!(text.contains("pairs.txt"), "{text}");
    // The same recipe with good pairs trains.
    bench.write("pairs.txt", "2\t1\nAnn\t1\t2\nAnn\t1\tBob\t1\nBob\t1\t3\nAnn\t2\tBob\t1\n");
    Said::by(gdrd(&bench).args(["train", "r.toml", "--run-dir", "runs/good"])).with_code(0);
}

#[test]
fn a_batch_larger_than_the_data_is_refused() {
    let bench = Bench::empty();
    faces(&bench, &[("Ann", 4), ("Bob", 4)]);
    bench.write("r.toml", recipe(FOLDERS));
    let text = refused(&bench, "r.toml", &["stage.recognition.batch_size=9"], 1);
    assert!(text.contains("stage `recognition`: a batch of 9 needs as many faces, the data has 8"), "{text}");
}

#[test]
fn faces_without_identities_cannot_be_classified() {
    let bench = Bench::empty();
    faces(&bench, &[("Ann", 4), ("Bob", 4)]);
    bench.write("r.toml", recipe("kind = \"image-folder\"\nfolders = [\"faces\"]\nsize = 32"));
    let text = refused(&bench, "r.toml", &[], 1);
    let expected =
        "stage `recognition`, loss `identity`: expected a dataset with at least 2 identities, found 0 in `train`";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn every_loss_that_needs_identities_says_so_before_the_first_step() {
    let bench = Bench::with_teachers();
    faces(&bench, &[("Ann", 6), ("Bob", 6)]);
    let data = "[data.nobody]\nkind = \"image-folder\"\nfolders = [\"faces\"]\nsize = 32\n";
    for loss in ["arcface", "cosface", "cross-entropy", "relational-contrastive"] {
        let text = format!(
            "format = 1\nextends = \"tiny.toml\"\nstages = [\"alone\"]\n{data}\n[stage.alone]\nsteps = 2\nbatch_size = 4\n\
             data = \"nobody\"\n[stage.alone.loss.term]\nkind = \"{loss}\"\n"
        );
        bench.write("r.toml", text);
        let text = refused(&bench, "r.toml", &[], 1);
        assert!(text.contains("stage `alone`, loss `term`") && text.contains("`nobody`"), "{loss}: {text}");
    }
}

#[test]
fn pairs_cannot_be_drawn_from_faces_of_nobody() {
    let bench = Bench::empty();
    faces(&bench, &[("Ann", 4), ("Bob", 4)]);
    let text = recipe(FOLDERS)
        + "[data.nobody]\nkind = \"image-folder\"\nfolders = [\"faces\"]\nsize = 32\n\
           [evaluate.drawn]\nkind = \"verification\"\ndata = \"nobody\"\n";
    bench.write("r.toml", text);
    let text = refused(&bench, "r.toml", &[], 1);
    assert!(text.contains("protocol `drawn`: pairs can only be drawn from a dataset with identities"), "{text}");
    assert!(Path::new(&bench.file("faces")).exists());
}
