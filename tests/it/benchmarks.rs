//! The recipes of the paper's four benchmarks, on a few drawn faces that lie as the datasets are distributed.

use std::fmt::Write;
use std::path::Path;

use gdrd_core::run::RunFolder;
use gdrd_core::student::StudentHeader;
use gdrd_tests::{Bench, Said, root};

use crate::bad_data::faces;
use crate::gdrd;
use crate::student_file::formed_for;

/// Datasets in the forms that the recipes expect.
fn datasets() -> Bench {
    let bench = Bench::empty();
    faces(&bench, &[("Ann", 4), ("Bob", 4), ("Cleo", 4), ("Dan", 4)]);
    let put = |from: &Path, to: &str| {
        let to = bench.file(to);
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        std::fs::copy(from, to).expect("copied");
    };
    let face = |person: &str, number: usize| bench.file(&format!("faces/{person}/{person}_{number:04}.jpg"));
    let people = ["Ann", "Bob", "Cleo", "Dan"];
    let mut list = String::from("path,person,x,y,width,height,side\n");
    for (at, person) in people.iter().enumerate() {
        for number in 1..=4 {
            let from = face(person, number);
            put(&from, &format!("lfw/aligned/{person}/{person}_{number:04}.jpg"));
            put(&from, &format!("uccs/{person}{number}.jpg"));
            put(&from, &format!("tinyface/Training_Set/{at}/{at}_{number}.jpg"));
            // In AR an image's number says what it shows: plain, light from a side, sunglasses, scarf.
            put(&from, &format!("ar/M-{:03}-{:02}.jpg", at + 1, [1, 5, 8, 11][number - 1]));
            let side = if number <= 2 { "train" } else { "test" };
            writeln!(list, "{person}{number}.jpg,{person},2,2,28,28,{side}").expect("a line");
        }
        put(&face(person, 1), &format!("tinyface/Testing_Set/Gallery_Distractor/{at}.jpg"));
    }
    bench.write("uccs/faces.csv", list);
    // Two folds: a pair of each person, and as many of two people.
    let pairs = "2\t2\nAnn\t1\t2\nBob\t1\t2\nAnn\t1\tBob\t1\nAnn\t2\tBob\t2\n\
                 Cleo\t1\t2\nDan\t1\t2\nCleo\t1\tDan\t1\nCleo\t2\tDan\t2\n";
    bench.write("lfw/pairs.txt", pairs);
    let readers = root().join("tests/golden/readers");
    for (list, name, folder) in [
        ("gallery.mat", "gallery_match_img_ID_pairs.mat", "Gallery_Match"),
        ("probes.mat", "probe_img_ID_pairs.mat", "Probe"),
    ] {
        put(&readers.join(list), &format!("tinyface/Testing_Set/{name}"));
        for image in gdrd_tests::files_below(&readers.join("images"), "") {
            let below = image.strip_prefix(readers.join("images")).expect("below");
            put(&image, &format!("tinyface/Testing_Set/{folder}/{}", below.display()));
        }
    }
    bench
}

#[test]
fn the_four_benchmarks_of_a_student_are_one_page() {
    let bench = datasets();
    let student = root().join("assets/students/quickstart.safetensors");
    let recipe = |name: &str| root().join(format!("assets/recipes/benchmarks/{name}.toml"));
    let here = |arguments: &[&str], name: &str| {
        let mut command = gdrd(&bench);
        command.arg(arguments[0]).arg(recipe(name)).args(&arguments[1..]);
        for (variable, folder) in [("LFW", "lfw"), ("UCCS", "uccs"), ("TINYFACE", "tinyface"), ("AR", "ar")] {
            command.env(format!("GDRD_{variable}"), bench.file(folder));
        }
        Said::by(command.env("GDRD_STUDENT", &student)).with_code(0)
    };
    let file = student.to_str().expect("UTF-8");
    for name in ["lfw", "uccs", "tinyface", "ar"] {
        let said = here(&["evaluate", "--student", file, "--run-dir", &format!("runs/{name}")], name);
        assert!(said.stdout.contains(&format!("{name}:")) && said.stdout.contains("student at 16x16"), "{said:#?}");
    }
    let few = ["--set", "stage.fine-tuning.epochs=1", "--set", "stage.fine-tuning.batch_size=8"];
    here(&[&["train", "--run-dir", "runs/tuned"], &few[..]].concat(), "tinyface");

    // What was measured is that student: its weights, its thresholds, and where it comes from.
    let header = |path: &Path| StudentHeader::from_bytes(&std::fs::read(path).expect("a file")).expect("a student");
    let (before, weights) = header(&student);
    let (measured, same) = header(&RunFolder::new(bench.file("runs/lfw")).student());
    assert_eq!((&measured.facts.calibration, &measured.facts.views), (&before.facts.calibration, &before.facts.views));
    assert!(measured.teachers.is_empty() && measured.facts.data.is_empty());
    let values = |tensor: &candle_core::Tensor| tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("values");
    assert!(weights.iter().all(|(name, tensor)| values(&same[name]) == values(tensor)) && weights.len() == same.len());
    let (tuned, other) = header(&RunFolder::new(bench.file("runs/tuned")).student());
    for facts in [&measured.facts, &tuned.facts] {
        assert_eq!(facts.began_with.len(), 1);
        assert_eq!((&facts.began_with[0].recipe, &facts.began_with[0].data), (&before.recipe, &before.facts.data));
    }
    assert!(
        tuned.facts.data.contains_key("train") && weights.iter().any(|(name, x)| values(&other[name]) != values(x))
    );

    // A run folder like others: whole, finished, measured again to the same numbers.
    for name in ["lfw", "tuned"] {
        let said = Said::by(gdrd(&bench).args(["verify", &format!("runs/{name}"), "--again"])).with_code(0);
        assert!(!said.stdout.contains("wrong"), "{said:#?}");
    }
    let said = here(&["evaluate", "--student", file, "--run-dir", "runs/lfw"], "lfw");
    assert!(said.stderr.contains("this run is finished"), "{said:#?}");
    Said::by(gdrd(&bench).args([
        "report",
        "runs/lfw",
        "runs/uccs",
        "runs/tinyface",
        "runs/tuned",
        "runs/ar",
        "--markdown",
    ]))
    .with_code(0);
    let tables = std::fs::read_to_string(bench.file("runs/report/tables.md")).expect("tables");
    for table in ["Table I:", "Table II:", "Table III:", "Table IV:"] {
        let part = tables.split(table).nth(1).unwrap_or_else(|| panic!("no {table} in {tables}"));
        let part = part.split("Table ").next().unwrap_or_default();
        assert!(part.contains("student at 16x16") && part.contains("GDRD"), "{table} {part}");
    }
}

#[test]
fn a_student_of_another_size_is_measured_at_its_own() {
    let bench = datasets();
    let options = serde_json::json!({ "channels": [4], "blocks": [1], "strides": [2], "embedding": 5 });
    let twelve = bench.write("twelve.safetensors", formed_for("resnet-trunk", options, 12));
    let mut command = gdrd(&bench);
    command.arg("evaluate").arg(root().join("assets/recipes/benchmarks/lfw.toml")).env("GDRD_LFW", bench.file("lfw"));
    command.arg("--student").arg(&twelve).args(["--run-dir", "runs/twelve"]);
    let said = Said::by(command.env_remove("GDRD_STUDENT")).with_code(0);
    assert!(said.stdout.contains("student at 12x12"), "{said:#?}");
    let said = Said::by(gdrd(&bench).args(["evaluate", "x.toml", "--student", "s", "--run-dir", "r", "--out", "o"]))
        .with_code(2);
    assert!(said.stderr.contains("--out"), "{said:#?}");
    // What is no student is no run.
    bench.write("none.safetensors", b"none");
    let mut command = gdrd(&bench);
    command.arg("evaluate").arg(root().join("assets/recipes/benchmarks/lfw.toml")).env("GDRD_LFW", bench.file("lfw"));
    let said = Said::by(command.args(["--student", "none.safetensors", "--run-dir", "runs/none"])).with_code(1);
    assert!(said.stderr.contains("`none.safetensors`: not a complete safetensors file"), "{said:#?}");
    assert!(!bench.file("runs/none").exists());
}
