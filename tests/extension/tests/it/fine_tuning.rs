//! Going on from a student's file.

use crate::bench::Bench;

#[test]
fn a_student_begins_with_the_weights_of_a_file() {
    let bench = Bench::new();
    bench.good(&["train", "all.toml", "--run-dir", "runs/first"]);
    let from = "student.initial=\"runs/first/student.safetensors\"";
    bench.good(&["train", "all.toml", "--run-dir", "runs/second", "--set", from, "--set", "stage.distil.steps=2"]);
    let (scratch, tuned) = (bench.term("runs/first", "direction")[0], bench.term("runs/second", "direction")[0]);
    assert!(tuned < 0.5 * scratch, "the first step from the file: {tuned}, from scratch: {scratch}");
    let resolved = bench.text("runs/second/recipe.resolved.toml");
    assert!(resolved.contains("student.safetensors"), "{resolved}");

    let other = ["--set", "student.channels=8"];
    let said = bench.run(&[&["train", "all.toml", "--run-dir", "runs/third", "--set", from][..], &other].concat());
    assert_eq!(said.code, Some(1), "{said:#?}");
    assert!(said.stderr.contains("backbone.patches.weight"), "{said:#?}");
}
