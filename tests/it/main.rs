//! Tests across the crates.

use std::process::Command;

use gdrd_tests::{Bench, Said, files_below};

mod ablation;
mod align;
mod bad_data;
mod bad_recipe;
mod bad_training;
mod bad_weights;
mod benchmarks;
mod cli;
mod closed_form;
mod compared;
mod contrast;
mod cuda;
mod cuda_on_the_host;
mod data_commands;
mod doctor;
mod errors_page;
mod faults;
mod features;
mod flow;
mod from_teacher;
mod golden;
mod golden_closed_form;
mod golden_compared;
mod golden_data;
mod golden_diffusers;
mod golden_layers;
mod golden_losses;
mod golden_mobilenet;
mod golden_networks;
mod golden_protocols;
mod golden_readers;
mod golden_recognisers;
mod golden_training;
mod house;
mod hub;
mod hub_push;
mod hub_refuses;
mod licences;
mod losses;
mod neighbours;
mod online_teacher;
mod onnx;
mod pages;
mod people;
mod probe;
mod protocols;
mod reported;
mod restoration;
mod resume;
mod review;
mod rounds;
mod serve;
mod stops;
mod student_file;
mod student_hub;
mod tensorboard;
mod told;
mod training_options;
mod verify;
mod weight_files;

/// The `gdrd` command, started in the bench's folder.
fn gdrd(bench: &Bench) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gdrd-under-test"));
    command.current_dir(bench.path());
    command
}

/// Sends a signal, such as `INT`, to a process.
#[cfg(unix)]
fn kill(process: u32, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &process.to_string()]).status().expect("kill runs");
    assert!(sent.success());
}

/// What `gdrd train` says of a recipe that it must refuse with this exit code before the first step, leaving nothing
/// half-written.
#[track_caller]
fn refused(bench: &Bench, recipe: &str, sets: &[&str], code: i32) -> String {
    // What a refused run before this one has left: its recipe and its lock.
    let _ = std::fs::remove_dir_all(bench.file("runs/refused"));
    let mut command = gdrd(bench);
    command.args(["train", recipe, "--run-dir", "runs/refused"]);
    sets.iter().for_each(|set| {
        command.args(["--set", set]);
    });
    let said = Said::by(&mut command).with_code(code);
    assert_eq!(said.stdout, "", "data goes to standard output, and there is none");
    assert!(said.stderr.contains("error: "), "{}", said.stderr);
    assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
    let steps = std::fs::read(bench.file("runs/refused/metrics.jsonl")).unwrap_or_default();
    assert!(steps.is_empty(), "steps were made before this was said: {}", said.stderr);
    assert_nothing_half_written(bench);
    said.stderr
}

#[track_caller]
fn assert_nothing_half_written(bench: &Bench) {
    let runs = bench.file("runs");
    let half = |name: &str| name.contains(".tmp") || name.contains(".partial");
    let mut left = files_below(&runs, "");
    left.retain(|path| half(&path.strip_prefix(&runs).expect("below").to_string_lossy()));
    assert!(left.is_empty(), "{left:?}");
}
