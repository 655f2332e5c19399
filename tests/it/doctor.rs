//! `gdrd doctor`.

use std::process::Command;

use gdrd_tests::{Bench, Said};

use crate::gdrd;

/// `gdrd doctor teacher` on faces that give enough pairs.
pub(crate) fn doctor(bench: &Bench, recipe: &str) -> Command {
    let mut command = gdrd(bench);
    command.args(["doctor", "teacher", recipe, "--set", "data.held-out.identities=12"]);
    command.args(["--set", "data.held-out.images_per_identity=8"]);
    command
}

#[test]
fn every_contract_of_a_teacher_is_scored_and_a_verdict_given() {
    let bench = Bench::with_teachers();
    let said = Said::by(&mut doctor(&bench, "tiny.toml")).with_code(0);
    let rows: Vec<&str> = said.stdout.lines().filter(|line| line.starts_with('|')).collect();
    // The header, the rule below it, and eleven contracts, the declared one first.
    assert!(rows[0].contains("teacher `discriminative`"), "{said:#?}");
    assert!(rows[2].contains("RGB, [0, 1] (declared)"), "{said:#?}");
    assert_eq!(rows.len(), 2 + 11, "{said:#?}");
    let verdict = said.stdout.lines().rev().find(|line| !line.is_empty()).expect("a verdict");
    let gain = |row: &&&str| row.split('|').nth(4).and_then(|cell| cell.trim().parse::<f64>().ok()).expect("a gain");
    let is_best = rows[2..].iter().all(|row| gain(&row) <= 0.0);
    assert_eq!(verdict == "No contract beats the declared one.", is_best, "{said:#?}");
    assert!(!said.stdout.contains("generative"), "it has no embedding: {said:#?}");
}

#[test]
fn what_is_not_there_is_named() {
    let bench = Bench::with_teachers();
    let refused = |arguments: &[&str], expected: &str| {
        let said = Said::by(doctor(&bench, "tiny.toml").args(arguments));
        assert!(said.code != Some(0) && said.stderr.contains(expected), "{said:#?}");
        assert_eq!(said.stdout, "");
    };
    refused(&["--teacher", "none"], "no teacher is called `none`; there are `discriminative`, `generative`");
    refused(&["--teacher", "generative"], "teacher `generative`: the teacher cannot offer `embedding`");
    refused(&["--data", "none"], "no dataset is called `none`; there are `held-out`, `train`");
    refused(&["--pairs", "none.txt"], "none.txt");
    refused(&["--set", "data.held-out.identities=2"], "dataset `held-out`: 200 same and 200 different pairs");
}
