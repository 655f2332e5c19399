//! The stranger's program runs a recipe that uses both of its plug-ins.

use std::process::Command;

const RECIPE: &str = r#"
format = 1
stages = ["distil"]

[data.train]
kind = "synthetic-faces"
identities = 6
images_per_identity = 8
size = 32

[teacher.colours]
kind = "colour-histogram"
bins = 4

[student]
kind = "resnet-trunk"
channels = [4, 8]
blocks = [1, 1]
strides = [1, 2]
embedding = 8

[stage.distil]
steps = 30
batch_size = 16
learning_rate = 0.01
optimizer.kind = "adamw"

[stage.distil.loss.colours]
kind = "huber"
delta = 0.5

[evaluate.verification]
kind = "verification"
data = "train"
drawn_pairs = 40
folds = 2
"#;

fn program(folder: &std::path::Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gdrd-extension-example"));
    let output = command.current_dir(folder).args(arguments).output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_recipe_uses_a_strangers_teacher_and_loss() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("colours.toml"), RECIPE).expect("a recipe");
    let (code, stdout, stderr) = program(folder.path(), &["train", "colours.toml", "--run-dir", "runs/a"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("features of teacher `colours`"), "{stderr}");
    assert!(stdout.contains("student at 16x16") && stdout.contains("teacher `colours` at 112x112"), "{stdout}");
    let metrics = std::fs::read_to_string(folder.path().join("runs/a/metrics.jsonl")).expect("metrics");
    let value = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).expect("JSON")["terms"]["colours"].as_f64().expect("the term")
    };
    let values: Vec<f64> = metrics.lines().map(value).collect();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    assert!(mean(&values[20..]) < 0.5 * mean(&values[..5]), "the loss goes down: {values:?}");
    let resolved = std::fs::read_to_string(folder.path().join("runs/a/recipe.resolved.toml")).expect("a recipe");
    assert!(resolved.contains("kind = \"huber\"") && resolved.contains("bins = 4"), "{resolved}");
}

#[test]
fn the_plug_ins_are_listed_explained_and_checked_like_our_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, stdout, _) = program(folder.path(), &["kinds"]);
    assert_eq!(code, Some(0));
    for line in ["colour-histogram", "huber", "feature-regression", "diffusion-encoder"] {
        assert!(stdout.contains(&format!("  {line} ")), "{line} in\n{stdout}");
    }
    let (_, stdout, _) = program(folder.path(), &["kinds", "huber"]);
    assert!(stdout.contains("loss `huber`") && stdout.contains("delta (default 1.0)"), "{stdout}");
    std::fs::write(folder.path().join("wrong.toml"), RECIPE.replace("bins = 4", "bins = 0")).expect("a recipe");
    let (code, _, stderr) = program(folder.path(), &["check", "wrong.toml"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("`bins`: expected at least 1, found 0"), "{stderr}");
}
