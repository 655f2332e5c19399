//! Situations that nobody has reported, beside those of `faults.rs`: parts of a run as outputs, odd ends of lines, what is asked for
//! in vain, a lock that is gone.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;

use gdrd_tests::Said;

use crate::faults::{ALONE, bench, content, said, with_student};
use crate::gdrd;

#[test]
fn a_part_of_a_run_is_no_output() {
    let bench = with_student();
    symlink("a", bench.file("link")).expect("a link");
    let before = content(&bench.file("a"));
    let checkpoint = "a/checkpoints/step-6/state.safetensors";
    for out in ["a/student.safetensors", "a/evaluation/drawn.json", "link/lock.json", "a/gdrd-run.json", checkpoint] {
        let said = said(&bench, &["embed", "a.png", "--student", "s", "--out", out]).with_code(2);
        assert!(said.stderr.contains("is a part of the run `"), "{said:#?}");
        assert!(content(&bench.file("a")) == before, "{out}");
    }
    // What is beside them is the user's.
    said(&bench, &["evaluate", "r.toml", "--student", "s", "--out", "a/evaluation/again.json"]).with_code(0);
    said(&bench, &["embed", "a.png", "--student", "s", "--out", "a/e"]).with_code(0);
    said(&bench, &["embed", "a.png", "--student", "s", "--out", "a/e"]).with_code(0);
}

#[test]
fn lines_may_end_as_they_like_and_nothing_panics() {
    let bench = bench();
    bench.write("crlf.toml", ALONE.replace('\n', "\r\n"));
    said(&bench, &["check", "crlf.toml"]).with_code(0);
    bench.write("cr.toml", ALONE.replace('\n', "\r"));
    bench.write("ends.toml", format!("{ALONE}x = 1 {}", "\r".repeat(500)));
    for recipe in ["cr.toml", "ends.toml"] {
        let said = said(&bench, &["check", recipe]).with_code(2);
        assert!(said.stderr.contains("error: ") && said.stderr.contains(recipe), "{said:#?}");
    }
}

#[test]
fn what_is_asked_for_in_vain_is_not_passed_over() {
    let bench = bench();
    let refused = |arguments: &[&str], expected: &str| {
        let said = said(&bench, arguments).with_code(2);
        assert!(said.stderr.contains(expected), "no `{expected}`: {said:#?}");
    };
    // A part of a stage that is not run is a misspelt name.
    refused(
        &["check", "r.toml", "--set", "stage.oen.steps=7"],
        "stage `oen` is not listed in `stages` and has no loss",
    );
    refused(&["check", "r.toml", "--set", "stage.oen.steps=7"], "did you mean `one`?");
    bench.write(
        "two.toml",
        ALONE.to_string() + "[stage.two]\nsteps = 1\n[stage.two.loss.identity]\nkind = \"cross-entropy\"\n",
    );
    said(&bench, &["check", "two.toml"]).with_code(0);
    // Of a finished run, too.
    said(&bench, &["train", "r.toml", "--run-dir", "a"]).with_code(0);
    refused(&["train", "r.toml", "--run-dir", "a", "--device", "tpu"], "`--device tpu`: expected `cpu` or `cuda:N`");
    refused(&["resume", "a", "--device", "tpu"], "`--device tpu`: expected `cpu` or `cuda:N`");
    let lock = said(&bench, &["train", "r.toml", "--run-dir", "a", "--lock", "r.toml"]).with_code(1);
    assert!(lock.stderr.contains("`r.toml` is no lock.json of gdrd"), "{lock:#?}");
    refused(&["evaluate", "r.toml"], "the recipe has no teacher; name a student with `--student`");
    for threads in ["many", "-1", "100000"] {
        let said = Said::by(gdrd(&bench).args(["check", "r.toml"]).env("RAYON_NUM_THREADS", threads)).with_code(2);
        assert!(said.stderr.contains("RAYON_NUM_THREADS: expected 1 to 1024 threads"), "{threads}: {said:#?}");
    }
}

#[test]
fn a_run_whose_lock_is_gone_is_not_gone_on_with() {
    let bench = bench();
    said(&bench, &["train", "r.toml", "--run-dir", "a"]).with_code(0);
    fs::remove_file(bench.file("a/lock.json")).expect("removed");
    fs::remove_file(bench.file("a/student.safetensors")).expect("removed");
    let said_now = said(&bench, &["resume", "a"]).with_code(1);
    assert!(said_now.stderr.contains("a/lock.json` is gone"), "{said_now:#?}");
    said(&bench, &["train", "r.toml", "--run-dir", "a", "--fresh"]).with_code(0);
}
