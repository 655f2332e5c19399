//! Situations from reports about other programs, of which a wrong number would come without a word.

use std::path::Path;

use gdrd_tests::{Bench, Said, files_below};

use crate::bad_data::{FOLDERS, faces, recipe};
use crate::faults::ALONE;
use crate::{gdrd, refused};

fn said(bench: &Bench, arguments: &[&str]) -> Said {
    Said::by(gdrd(bench).args(arguments))
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

/// A figure of the first row of a protocol's results.
fn figure(bench: &Bench, run: &str, protocol: &str, name: &str) -> serde_json::Value {
    let rows = json(&bench.file(&format!("runs/{run}/evaluation/{protocol}.json")));
    let figures = rows[0]["outcome"]["figures"].as_array().unwrap_or_else(|| panic!("figures in {rows:#}"));
    let found = figures.iter().find(|figure| figure["name"] == name);
    found.unwrap_or_else(|| panic!("no `{name}` in {figures:#?}")).clone()
}

#[test]
fn recipes_of_one_name_are_not_one_row() {
    let bench = Bench::empty();
    bench.write("x/r.toml", ALONE);
    bench.write("y/r.toml", ALONE.replace("steps = 6", "steps = 5"));
    let refused = said(&bench, &["ablate", "x/r.toml", "y/r.toml", "--seeds", "7", "--run-dir", "cells"]).with_code(2);
    assert!(refused.stderr.contains("`x/r.toml` and `y/r.toml` are both called `r`"), "{refused:#?}");
    let refused = said(&bench, &["ablate", "x/r.toml", "--seeds", "7,8,7", "--run-dir", "cells"]).with_code(2);
    assert!(refused.stderr.contains("row `r` has seed 7 twice; expected each seed once"), "{refused:#?}");
    assert!(!bench.file("cells").exists(), "it is said before anything is trained");
}

#[test]
fn a_name_that_two_people_have_is_no_pair() {
    let bench = Bench::empty();
    faces(&bench, &[("Ann", 3), ("Bob", 3)]);
    std::fs::rename(bench.file("faces"), bench.file("a")).expect("renamed");
    faces(&bench, &[("Cleo", 3), ("Ann", 3)]);
    std::fs::rename(bench.file("faces"), bench.file("b")).expect("renamed");
    let protocol = "[evaluate.lfw]\nkind = \"verification\"\ndata = \"train\"\npairs = \"pairs.txt\"\n";
    bench.write("r.toml", recipe(&FOLDERS.replace("[\"faces\"]", "[\"a\", \"b\"]")) + protocol);
    bench.write("pairs.txt", "1\t1\nAnn\t1\t2\nBob\t1\tCleo\t1\n");
    let text = refused(&bench, "r.toml", &[], 1);
    for file in ["a/Ann/Ann_0001.jpg", "b/Ann/Ann_0001.jpg"] {
        assert!(text.contains(&bench.file(file).display().to_string()), "no `{file}` in {text}");
    }
    assert!(text.contains("pairs.txt` line 2") && text.contains("is not one face but 2"), "{text}");
}

#[test]
fn a_list_of_one_fold_is_measured_and_says_so() {
    let bench = Bench::empty();
    faces(&bench, &[("Ann", 4), ("Bob", 4)]);
    let protocol = "[evaluate.dev]\nkind = \"verification\"\ndata = \"train\"\npairs = \"pairsDevTest.txt\"\n";
    bench.write("r.toml", recipe(FOLDERS) + protocol);
    bench.write("pairsDevTest.txt", "2\nAnn\t1\t2\nBob\t1\t3\nAnn\t1\tBob\t1\nAnn\t2\tBob\t1\n");
    said(&bench, &["train", "r.toml", "--run-dir", "runs/one"]).with_code(0);
    let accuracy = figure(&bench, "one", "dev", "accuracy");
    let note = accuracy["note"].as_str().unwrap_or_default();
    assert!(note.starts_with("one fold: the threshold was chosen on these pairs themselves"), "{note}");
    assert_eq!(accuracy["value"], figure(&bench, "one", "dev", "accuracy at the single best threshold")["value"]);
    let report = std::fs::read_to_string(bench.file("runs/one/report.md")).expect("a report");
    assert!(report.contains("one fold: the threshold was chosen"), "{report}");
}

#[test]
fn a_rate_that_cannot_be_measured_has_its_reason_in_the_table() {
    let bench = Bench::empty();
    faces(&bench, &[("Ann", 4), ("Bob", 4)]);
    let protocol =
        "[evaluate.few]\nkind = \"verification\"\ndata = \"train\"\ndrawn_pairs = 8\nfolds = 2\nfar = [0.001]\n";
    bench.write("r.toml", recipe(FOLDERS) + protocol);
    let run = said(&bench, &["train", "r.toml", "--run-dir", "runs/few"]).with_code(0);
    let far = figure(&bench, "few", "few", "TAR at FAR 0.001");
    assert_eq!(far["value"], serde_json::Value::Null);
    let reason = "4 different pairs cannot measure a rate of 0.001";
    assert_eq!(far["note"], reason);
    assert!(run.stdout.contains("TAR at FAR 0.001"), "{run:#?}");
    let report = std::fs::read_to_string(bench.file("runs/few/report.md")).expect("a report");
    assert!(report.contains(reason) && report.contains("TAR at FAR 0.001"), "{report}");
}

#[test]
fn what_programs_keep_beside_people_is_nobody() {
    let bench = Bench::empty();
    faces(&bench, &[("Ann", 4), ("Bob", 4), (".ipynb_checkpoints", 4), ("__MACOSX", 4)]);
    bench.write("r.toml", recipe(FOLDERS));
    said(&bench, &["train", "r.toml", "--run-dir", "runs/a"]).with_code(0);
    let data = json(&bench.file("runs/a/lock.json"))["data"]["train"].clone();
    assert_eq!((&data["faces"], &data["identities"]), (&8.into(), &2.into()), "{data}");
}

#[test]
fn classification_of_one_person_is_refused() {
    let bench = Bench::empty();
    faces(&bench, &[("Ann", 6)]);
    bench.write("r.toml", recipe(FOLDERS));
    let text = refused(&bench, "r.toml", &[], 1);
    assert!(text.contains("expected a dataset with at least 2 identities, found 1 in `train`"), "{text}");
}

#[test]
fn nothing_to_do_is_no_run() {
    let bench = Bench::empty();
    bench.write("tiny.toml", gdrd_tests::TINY);
    for (set, message) in [
        ("stages=[]", "expected at least one stage, or a student's file to measure (`student.initial`), found neither"),
        ("degradation.size=0", "`size`: expected at least 4, found 0"),
        ("data.train.size=0", "`size`: expected at least 8, found 0"),
        ("student.embedding=0", "`embedding`: expected at least 1, found 0"),
    ] {
        let text = refused(&bench, "tiny.toml", &[set], 2);
        assert!(text.contains(message), "{set}: {text}");
    }
}

#[test]
fn numbers_out_of_bounds_are_named_wherever_they_stand() {
    let bench = Bench::empty();
    bench.write("tiny.toml", gdrd_tests::TINY);
    for (set, message) in [
        ("stage.generative.learning_rate=nan", "`learning_rate`: expected a finite number, found NaN"),
        ("stage.generative.learning_rate=-0.0", "`learning_rate`: expected above 0, found -0"),
        ("stage.generative.clip_norm=inf", "`clip_norm`: expected a finite number, found inf"),
        ("stage.generative.rates={ backbone = -1 }", "`rates.backbone`: expected above 0, found -1"),
        ("stage.generative.augment.rotate=181", "`augment.rotate`: expected at most 180, found 181"),
        ("stage.discriminative.loss.identity.classes.label_smoothing=1", "`classes.label_smoothing`: expected below 1"),
        ("stage.discriminative.loss.identity.weight=nan", "`weight`: expected a finite number, found NaN"),
        ("stage.discriminative.loss.identity.weight=1e10", "`weight`: expected at most 1000000000, found 10000000000"),
        ("stage.generative.optimizer={ kind = \"adamw\", beta1 = 1 }", "`beta1`: expected below 1, found 1"),
        ("stage.generative.schedule={ kind = \"cosine\", end = -1 }", "`end`: expected at least 0, found -1"),
        ("stage.generative.schedule={ kind = \"step\", milestones = [0.5, 2] }", "`milestones[1]`: expected at most 1"),
        ("evaluate.verification.far=[0.1, 0]", "`far[1]`: expected at least 1e-9, found 0"),
        ("student.head={ hidden = [8, 0] }", "`head.hidden[1]`: expected at least 1, found 0"),
        ("teacher.generative.network.model_channels=100000", "`network.model_channels`: expected at most 16384"),
        ("teacher.generative.network.num_res_blocks=100000", "`network.num_res_blocks`: expected at most 1024"),
    ] {
        let text = refused(&bench, "tiny.toml", &[set], 2);
        assert!(text.contains(message), "no `{message}` for {set}:\n{text}");
        assert!(text.contains(&format!("--set {set}")) || text.contains("^"), "no place for {set}:\n{text}");
        assert_eq!(text.matches("error: ").count(), 1, "{set} has one mistake:\n{text}");
    }
}

#[test]
fn web_addresses_of_the_hub_are_read_and_others_refused() {
    let bench = Bench::empty();
    bench.write("tiny.toml", gdrd_tests::TINY);
    let set = |address: &str| format!("teacher.generative.weights={address}");
    let pasted = set("https://huggingface.co/org/name/blob/main/a/x.safetensors");
    said(&bench, &["check", "tiny.toml", "--set", &pasted]).with_code(0);
    let pull = said(&bench, &["hub", "verify", "tiny.toml", "--set", &pasted]);
    assert!(pull.stderr.contains("hf://org/name/a/x.safetensors"), "{pull:#?}");
    for other in ["https://huggingface.co/org/name", "http://example.org/x.pth"] {
        let refused = said(&bench, &["check", "tiny.toml", "--set", &set(other)]).with_code(2);
        assert!(refused.stderr.contains(&format!("`{other}` is a web address")), "{refused:#?}");
    }
}

#[test]
fn names_that_one_file_would_have_are_refused() {
    let bench = Bench::empty();
    bench.write("r.toml", ALONE);
    let same = "evaluate.Drawn={ kind = \"verification\", data = \"train\", drawn_pairs = 8, folds = 2 }";
    let twins = said(&bench, &["check", "r.toml", "--set", same]).with_code(2);
    assert!(twins.stderr.contains("`drawn` and `Drawn` differ in capitals alone"), "{twins:#?}");
    for name in ["NUL", "com1.x", "end.", "a\u{301}", "line\\nend"] {
        let set = format!("evaluate.\"{name}\"={{ kind = \"verification\", data = \"train\" }}");
        let device = said(&bench, &["check", "r.toml", "--set", &set]).with_code(2);
        assert!(device.stderr.contains("cannot be a part of a file's name"), "{name}: {device:#?}");
    }
}

#[test]
fn kept_scores_that_are_damaged_are_measured_again() {
    let bench = Bench::with_teachers();
    said(&bench, &["train", "tiny.toml", "--run-dir", "runs/whole"]).with_code(0);
    let results = |run: &str| json(&bench.file(&format!("runs/{run}/evaluation/verification.json")));
    let kept = files_below(&bench.file("runs/.features"), ".outcome");
    assert_eq!(kept.len(), 2, "a teacher as it is and behind the degradation: {kept:?}");
    for path in &kept {
        // Another number where JSON still reads it.
        let bytes = std::fs::read(path).expect("a file");
        let at = bytes
            .windows(9)
            .position(|part| part == b"\"value\":5")
            .or_else(|| bytes.iter().position(u8::is_ascii_digit).map(|at| at.saturating_sub(8)));
        let mut changed = bytes;
        let at = at.expect("a number") + 8;
        changed[at] = if changed[at] == b'9' { b'8' } else { b'9' };
        std::fs::write(path, changed).expect("changed");
    }
    let again = said(&bench, &["train", "tiny.toml", "--run-dir", "runs/again"]).with_code(0);
    assert_eq!(again.stderr.matches("its bytes do not fit its checksum").count(), 2, "{again:#?}");
    assert!(again.stderr.contains("it is measured again"), "{again:#?}");
    assert_eq!(results("again"), results("whole"));
}

#[test]
fn names_in_lists_may_have_spaces_and_accents_in_either_form() {
    let bench = Bench::empty();
    // The folder as macOS writes it, the list as a keyboard does.
    faces(&bench, &[("Ann Lee", 4), ("Zoe\u{308}", 4)]);
    let protocol = "[evaluate.lfw]\nkind = \"verification\"\ndata = \"train\"\npairs = \"pairs.txt\"\n";
    bench.write("r.toml", recipe(FOLDERS) + protocol);
    bench.write("pairs.txt", "1\t2\nAnn Lee\t1\t2\nZo\u{eb}\t1\t3\nAnn Lee\t1\tZo\u{eb}\t1\nZo\u{eb}\t2\tAnn Lee\t1\n");
    said(&bench, &["train", "r.toml", "--run-dir", "runs/a"]).with_code(0);
    // What was sought is said.
    std::fs::rename(bench.file("faces/Ann Lee/Ann Lee_0002.jpg"), bench.file("faces/Ann Lee/second.jpg"))
        .expect("renamed");
    let text = refused(&bench, "r.toml", &[], 1);
    assert!(text.contains("Ann Lee 2 (line 2)") && text.contains("sought as `Ann Lee/Ann Lee_0002`"), "{text}");
}
