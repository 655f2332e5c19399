//! What goes wrong in the middle of a run: numbers that are none, and a disk that is full.

use std::path::Path;

use gdrd_core::error::ErrorKind;
use gdrd_tests::{Bench, files_below};

use crate::assert_nothing_half_written;

#[test]
fn a_loss_that_is_no_number_names_the_step_and_the_term() {
    let bench = Bench::with_teachers();
    let recipe = bench.tiny(&["stage.discriminative.learning_rate=1e30", "run.checkpoint_steps=1"]);
    let (error, steps) = bench.fails(&recipe, "nan");
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Component);
    assert!(text.starts_with("stage `discriminative`, step "), "{text}");
    assert!(text.contains("the loss term `") || text.contains("the gradient of `"), "{text}");
    assert!(text.contains("no variable was changed"), "{text}");
    assert!((9..16).contains(&steps), "{steps} steps");
    let newest = bench.file("runs/nan/checkpoints").join(format!("step-{steps}"));
    assert!(newest.join("state.safetensors").exists(), "the last good step has its checkpoint");
    assert!(!bench.file("runs/nan/student.safetensors").exists());
    assert!(!bench.file("runs/nan/report.md").exists());
    assert_nothing_half_written(&bench);
}

#[cfg(unix)]
fn steps(run: &Path) -> usize {
    std::fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count())
}

/// A limit on the size of files makes the checkpoint's write fail in the middle, as a full disk does.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_older_checkpoint() {
    use std::process::Command;

    use gdrd_tests::Said;

    let bench = Bench::with_teachers();
    // A head whose optimiser has far more to save than everything else that the run writes.
    let head = ["--set", "student.embedding=256", "--set", "run.checkpoint_steps=4"];
    let whole = bench.file("runs/whole");
    Said::by(crate::gdrd(&bench).args(["train", "tiny.toml", "--run-dir", "runs/whole"]).args(head)).with_code(0);
    let size = |path: &Path| std::fs::metadata(path).expect("a file").len();
    let state = |step: usize| whole.join(format!("checkpoints/step-{step}/state.safetensors"));
    // Halfway between a checkpoint of the first stage, which fits, and one of the second.
    let (fits, fails) = (size(&state(4)), size(&state(12)));
    let limit = (fits + fails) / 2 / 512;
    assert!(fits < limit * 512 && limit * 512 < fails, "{fits} and {fails}");
    // Without the trap the signal of the limit would kill the process; with it the write fails.
    let limited = |arguments: &[&str]| {
        let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.current_dir(bench.path()).args(["-c", &script, env!("CARGO_BIN_EXE_gdrd-under-test")]).args(arguments);
        Said::by(&mut command)
    };
    let run = bench.file("runs/full");
    let train = ["train", "tiny.toml", "--run-dir", "runs/full"];
    let said = limited(&[&train[..], &head[..]].concat()).with_code(1);
    assert!(said.stderr.contains("writing a checkpoint: "), "{said:#?}");
    assert!(said.stderr.contains("state.safetensors"), "{said:#?}");
    assert!(!said.stderr.contains("panicked"), "{said:#?}");
    assert_eq!(steps(&run), 12);
    assert_nothing_half_written(&bench);
    let kept = files_below(&run.join("checkpoints"), "state.safetensors");
    let kept: Vec<_> = kept.iter().map(|path| path.strip_prefix(&run).expect("below").to_path_buf()).collect();
    assert_eq!(
        kept,
        [Path::new("checkpoints/step-4/state.safetensors"), Path::new("checkpoints/step-8/state.safetensors")]
    );
    // With room on the disk again the run ends as if nothing had happened.
    Said::by(crate::gdrd(&bench).args(["resume", "runs/full"])).with_code(0);
    let student = |run: &Path| std::fs::read(run.join("student.safetensors")).expect("a student");
    assert!(student(&run) == student(&whole), "the students differ");
}
