//! The commands as processes: exit codes, data on standard output, talk on standard error.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use gdrd_core::experiment;
use gdrd_tests::{Bench, Said, files_below, on_cpu, registry, root};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::gdrd;

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    let bench = Bench::empty();
    for arguments in
        [&[][..], &["trian"], &["train"], &["train", "a.toml", "--no-such"], &["embed", "x.png", "--out", "y"]]
    {
        let said = Said::by(gdrd(&bench).args(arguments)).with_code(2);
        assert!(said.stderr.contains("Usage: gdrd"), "{said:#?}");
        assert_eq!(said.stdout, "");
    }
    bench.write("tiny.toml", gdrd_tests::TINY);
    let said = Said::by(gdrd(&bench).args(["train", "tiny.toml", "--device", "tpu"])).with_code(2);
    assert!(said.stderr.contains("`--device tpu`: expected `cpu` or `cuda:N`"), "{said:#?}");
    for good in ["--help", "--version"] {
        let said = Said::by(gdrd(&bench).arg(good)).with_code(0);
        assert!(said.stdout.starts_with("gdrd") || said.stdout.contains("Usage: gdrd"), "{said:#?}");
        assert_eq!(said.stderr, "");
    }
}

#[test]
fn a_closed_pipe_ends_the_output_quietly() {
    // The schema is longer than what a pipe holds.
    let mut child = gdrd(&Bench::empty())
        .arg("schema")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let said = child.wait_with_output().expect("the program ends");
    assert_eq!((said.status.code(), String::from_utf8_lossy(&said.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn every_shipped_recipe_is_good() {
    let recipes = files_below(&root().join("assets/recipes"), ".toml");
    let text = |path: &PathBuf| std::fs::read_to_string(path).expect("a recipe");
    // What is laid over others by `--set @FILE` has no format of its own.
    let is_whole = |path: &&PathBuf| text(path).lines().any(|line| line.starts_with("format = "));
    let (whole, laid_over): (Vec<&PathBuf>, Vec<&PathBuf>) = recipes.iter().partition(is_whole);
    let compared: Vec<&PathBuf> =
        whole.iter().copied().filter(|path| path.parent().is_some_and(|p| p.ends_with("compared"))).collect();
    assert!(!compared.is_empty() && laid_over.len() == 1, "{laid_over:?}");
    let over = |path: &PathBuf| (compared.clone(), Some(format!("@{}", path.display())));
    for (checked, set) in [(whole.clone(), None)].into_iter().chain(laid_over.into_iter().map(over)) {
        let bench = Bench::empty();
        let mut command = gdrd(&bench);
        command.arg("check").args(&checked).args(set.iter().flat_map(|set| ["--set", set]));
        // Recipes for real faces name their folders by environment variables.
        for path in &recipes {
            for name in text(path).split("${").skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name) {
                command.env(name, bench.path());
            }
        }
        let said = Said::by(&mut command).with_code(0);
        assert_eq!(said.stdout.lines().count(), checked.len(), "{said:#?}");
        assert!(said.stdout.lines().all(|line| line.ends_with(": good")), "{said:#?}");
        assert_eq!(said.stderr, "");
    }
}

#[test]
fn kinds_are_listed_and_explained() {
    let bench = Bench::empty();
    let said = Said::by(gdrd(&bench).arg("kinds")).with_code(0);
    assert_eq!(said.stderr, "");
    for kind in registry().kinds() {
        // A teacher and a student may have one name.
        let names = |line: &&str| line.trim_start().starts_with(&format!("{} ", kind.name));
        let lines: Vec<&str> = said.stdout.lines().filter(names).collect();
        assert!(lines.iter().any(|line| line.ends_with(kind.purpose)), "{}: {lines:?}", kind.name);
        let one = Said::by(gdrd(&bench).args(["kinds", kind.name])).with_code(0);
        assert!(one.stdout.contains(kind.purpose), "{one:#?}");
        let options = kind.schema.get("properties").and_then(|p| p.as_object());
        for (option, schema) in options.into_iter().flatten() {
            assert!(one.stdout.contains(&format!("  {option} (")), "{}: `{option}` in {one:#?}", kind.name);
            assert!(schema.get("description").is_some(), "{}: `{option}` is not explained", kind.name);
        }
    }
    let said = Said::by(gdrd(&bench).args(["kinds", "attention-transfer"])).with_code(0);
    assert!(said.stdout.contains("- \"squared\": The mean square difference"), "{said:#?}");
    let said = Said::by(gdrd(&bench).args(["kinds", "arcfaec"])).with_code(2);
    assert!(said.stderr.contains("did you mean `arcface`?"), "{said:#?}");
}

#[test]
fn the_schema_is_the_committed_one() {
    let bench = Bench::empty();
    let said = Said::by(gdrd(&bench).arg("schema")).with_code(0);
    assert_eq!(said.stderr, "");
    let schema: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(schema, experiment::schema(&registry()));
    let path = root().join("assets/schema/recipe.schema.json");
    if std::env::var_os("GDRD_UPDATE").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, &said.stdout).expect("written");
    }
    let committed = std::fs::read_to_string(&path).expect("a committed schema");
    assert!(committed == said.stdout, "the schema has changed: run this test with GDRD_UPDATE=1 and commit the file");
}

#[test]
fn a_plan_shows_shapes_and_costs_and_writes_nothing() {
    let bench = Bench::with_teachers();
    // What files are known by is remembered beside the features; nothing else is left.
    let files = || -> Vec<PathBuf> {
        let known = bench.file("runs/.features/known");
        files_below(bench.path(), "").into_iter().filter(|path| !path.starts_with(&known)).collect()
    };
    let before = files();
    let said = Said::by(gdrd(&bench).args(["plan", "tiny.toml"])).with_code(0);
    for text in [
        "dataset `train`: 48 faces, 6 identities",
        "student `resnet-trunk`: input 16, map [8, 8, 8], embedding 12",
        "stage `generative`: 8 steps",
        "reads map middle_block of teacher `generative`, [16, 8, 8]",
        "trains loss.generative.regression.connector.weight, [16, 8, 1, 1]",
        "stage `discriminative`: 8 steps",
        "reads embedding of teacher `discriminative`, [8]",
        "trained parameters",
        "s per step",
    ] {
        assert!(said.stdout.contains(text), "no `{text}` in\n{}", said.stdout);
    }
    assert_eq!(files(), before, "a plan writes nothing");
}

/// Images of the held-out people of `tiny.toml`.
fn images(bench: &Bench) -> Vec<PathBuf> {
    let recipe = bench.tiny(&[]);
    let data = on_cpu(|cx| recipe.data["held-out"].config.build(cx)).expect("faces");
    let write = |index: usize| {
        let face = data.face(index).expect("a face");
        let image = image::RgbImage::from_raw(32, 32, face.pixels().to_vec()).expect("an image");
        let path = bench.file(&format!("face-{index}.png"));
        image.save(&path).expect("written");
        path
    };
    (0..5).map(write).collect()
}

/// Names and rows of an embeddings file.
fn embeddings(path: &Path) -> (Vec<String>, Vec<Vec<f32>>) {
    let bytes = std::fs::read(path).expect("a file");
    let (_, metadata) = SafeTensors::read_metadata(&bytes).expect("metadata");
    let names = serde_json::from_str(&metadata.metadata().as_ref().expect("metadata")["images"]).expect("names");
    let file = SafeTensors::deserialize(&bytes).expect("a file");
    let tensor = file.tensor("embeddings").expect("embeddings");
    let values: Vec<f32> =
        tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    (names, values.chunks_exact(tensor.shape()[1]).map(<[f32]>::to_vec).collect())
}

#[test]
fn images_are_embedded_by_a_student_and_by_a_teacher() {
    let bench = Bench::with_teachers();
    let images = images(&bench);
    Said::by(gdrd(&bench).args(["train", "tiny.toml", "--run-dir", "runs/a"])).with_code(0);
    let by = [
        (&["--student", "runs/a/student.safetensors"][..], 12, "student at 16x16"),
        (&["--recipe", "tiny.toml", "--teacher", "discriminative"], 8, "discriminative"),
    ];
    for (arguments, width, name) in by {
        let mut command = gdrd(&bench);
        let said = Said::by(command.arg("embed").args(&images).args(arguments).args(["--out", "e.safetensors"]));
        let said = said.with_code(0);
        assert_eq!(said.stdout, format!("e.safetensors: 5 embeddings of {width} values by {name}\n"));
        let (names, rows) = embeddings(&bench.file("e.safetensors"));
        assert_eq!(names, images.iter().map(|path| path.display().to_string()).collect::<Vec<_>>());
        assert!(rows.iter().all(|row| row.len() == width));
        assert!(rows.iter().all(|row| (row.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-4), "unit length");
        assert_ne!(rows[0], rows[4]);
        // The same for programs, with a file beside it or without.
        for out in [&[][..], &["--out", "j.safetensors"]] {
            let mut command = gdrd(&bench);
            let said =
                Said::by(command.arg("embed").args(&images).args(arguments).arg("--json").args(out)).with_code(0);
            let lines: Vec<Value> = said.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            let told = |line: &Value| serde_json::from_value::<Vec<f32>>(line["embedding"].clone()).expect("numbers");
            assert_eq!(lines.iter().map(told).collect::<Vec<_>>(), rows);
            assert!(lines.iter().zip(&names).all(|(line, name)| line["image"] == *name), "{said:#?}");
            assert!(lines.iter().all(|line| line["face"].as_str().is_some_and(|face| face.len() == 64)), "{said:#?}");
            assert_eq!(bench.file("j.safetensors").exists(), !out.is_empty());
        }
        assert_eq!(embeddings(&bench.file("j.safetensors")), (names, rows));
        std::fs::remove_file(bench.file("j.safetensors")).expect("removed");
    }
    let mut command = gdrd(&bench);
    command.arg("embed").args(&images).args([
        "--student",
        "runs/a/student.safetensors",
        "--json",
        "--out",
        "/dev/stdout",
    ]);
    let said = Said::by(&mut command).with_code(2);
    assert!(said.stdout.is_empty() && said.stderr.contains("found the stream `/dev/stdout`"), "{said:#?}");
    // Weights in bfloat16 move embeddings a little; a teacher's have no such form.
    let held = |numbers: &[&str]| {
        let mut command = gdrd(&bench);
        command.arg("embed").args(&images).args(["--student", "runs/a/student.safetensors"]).args(numbers);
        Said::by(command.args(["--out", "held.safetensors"])).with_code(0);
        embeddings(&bench.file("held.safetensors")).1
    };
    let (full, half) = (held(&["--weights", "float32"]), held(&["--weights", "bfloat16"]));
    assert_eq!(full, held(&[]));
    assert_ne!(full, half);
    let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    assert!(full.iter().zip(&half).all(|(a, b)| cosine(a, b) > 0.99), "{full:?} {half:?}");
    let mut command = gdrd(&bench);
    command.arg("embed").args(&images).args(["--recipe", "tiny.toml", "--teacher", "discriminative", "--out", "n"]);
    Said::by(command.args(["--weights", "bfloat16"])).with_code(2);
    let mut command = gdrd(&bench);
    command.args(["embed", "gone.png", "--student", "runs/a/student.safetensors", "--out", "none.safetensors"]);
    let said = Said::by(&mut command).with_code(1);
    assert!(said.stderr.contains("`gone.png`"), "{said:#?}");
    assert!(!bench.file("none.safetensors").exists());
    let mut command = gdrd(&bench);
    command.arg("embed").arg(&images[0]).args(["--recipe", "tiny.toml", "--teacher", "nobody", "--out", "n"]);
    let said = Said::by(&mut command).with_code(2);
    assert!(said.stderr.contains("no teacher is called `nobody`"), "{said:#?}");
}

#[test]
fn students_and_teachers_are_evaluated() {
    let bench = Bench::with_teachers();
    Said::by(gdrd(&bench).args(["train", "tiny.toml", "--run-dir", "runs/a"])).with_code(0);
    let student = ["evaluate", "tiny.toml", "--student", "runs/a/student.safetensors", "--out", "s.json"];
    let said = Said::by(gdrd(&bench).args(student)).with_code(0);
    assert!(said.stdout.starts_with("verification:\n"), "{said:#?}");
    assert!(said.stdout.contains("student at 16x16") && !said.stdout.contains("teacher"), "{said:#?}");
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(bench.file(name)).expect("a file")).expect("JSON")
    };
    let in_run = read("runs/a/evaluation/verification.json");
    assert_eq!(read("s.json")["verification"][0], in_run[0]);
    let said = Said::by(gdrd(&bench).args(["evaluate", "tiny.toml", "--out", "t.json"])).with_code(0);
    assert!(said.stdout.contains("teacher `discriminative` at 32x32"), "{said:#?}");
    assert!(said.stdout.contains("teacher `discriminative` on upsampled 16x16 faces"), "{said:#?}");
    assert_eq!(read("t.json")["verification"], serde_json::json!([in_run[1], in_run[2]]));
    let none = ["evaluate", "tiny.toml", "--set", "evaluate.verification.enabled=false"];
    let said = Said::by(gdrd(&bench).args(none)).with_code(2);
    assert!(said.stderr.contains("the recipe has no `[evaluate]`"), "{said:#?}");
}

#[test]
fn training_talks_on_standard_error_and_gives_data_on_standard_output() {
    let bench = Bench::with_teachers();
    let said = Said::by(gdrd(&bench).args(["train", "tiny.toml"])).with_code(0);
    let last = said.stdout.lines().last().expect("the run folder");
    assert!(last.starts_with("runs/tiny-") && bench.file(last).join("report.md").exists(), "{last}");
    assert!(said.stdout.starts_with("verification:\n"), "{said:#?}");
    for line in [
        "run runs/tiny-",
        "features of teacher `generative`",
        "stage `generative`: train backbone; L = regression (feature-regression)",
        "stage `discriminative`: train head; L = identity (cross-entropy) + 0.25 logits (logit-distillation) + 4 relation",
        "generative: 8 of 8",
        "images/s",
        "verification: student at 16x16: ",
    ] {
        assert!(said.stderr.contains(line), "no `{line}` in\n{}", said.stderr);
    }
    assert!(!said.stderr.contains('\u{1b}'), "no colours or cursor moves on a pipe");
}
