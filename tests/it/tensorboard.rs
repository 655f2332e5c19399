//! Event files of TensorBoard that a run writes as it goes.
#![cfg(unix)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gdrd_tests::{Bench, Said, files_below};

use crate::faults::ALONE;
use crate::gdrd;

/// Each record of an event file, whole ones alone: its step, and its bytes.
fn records(mut file: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some(length) = file.first_chunk::<8>() {
        let length = u64::from_le_bytes(*length) as usize;
        let Some(event) = file.get(12..12 + length) else { break };
        // Wall time is a field of nine bytes; the step comes next, if it is not zero.
        let mut step = 0;
        if event.get(9) == Some(&0x10) {
            for (at, byte) in event[10..].iter().enumerate() {
                step |= u64::from(byte & 0x7f) << (7 * at);
                if byte & 0x80 == 0 {
                    break;
                }
            }
        }
        found.push((step, event.to_vec()));
        file = file.get(16 + length..).unwrap_or_default();
    }
    found
}

/// The steps whose loss stands in a folder's event files.
fn steps(folder: &Path) -> Vec<u64> {
    let files = files_below(folder, ".gdrd");
    let all = files.iter().flat_map(|path| records(&std::fs::read(path).expect("events")));
    let has = |event: &[u8], tag: &str| event.windows(tag.len()).any(|part| part == tag.as_bytes());
    all.filter(|(_, event)| has(event, "one/loss")).map(|(step, _)| step).collect()
}

fn command(bench: &Bench, arguments: &[&str]) -> Command {
    let mut command = gdrd(bench);
    command.args(arguments).args(["--tensorboard", "board"]).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

#[test]
fn events_come_as_a_run_goes_and_no_step_twice_after_a_kill() {
    const STEPS: u64 = 150;
    let bench = Bench::empty();
    bench.write("r.toml", ALONE.replace("steps = 6", &format!("steps = {STEPS}")));
    let board = bench.file("board/a");
    for (goal, arguments) in [(25, &["train", "r.toml", "--run-dir", "runs/a"][..]), (70, &["resume", "runs/a"])] {
        let mut child = command(&bench, arguments).stderr(Stdio::null()).spawn().expect("started");
        let since = Instant::now();
        while steps(&board).last().is_none_or(|step| *step < goal) {
            assert!(since.elapsed() < Duration::from_secs(120) && child.try_wait().expect("a status").is_none());
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
        // Every step up to the kill, once.
        let found = steps(&board);
        assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
    }
    Said::by(&mut command(&bench, &["resume", "runs/a"])).with_code(0);
    assert_eq!(steps(&board), (1..=STEPS).collect::<Vec<_>>());
    let files = files_below(&board, "");
    assert_eq!(files.len(), 1, "the files of earlier sessions are gone: {files:?}");
    assert!(files[0].ends_with("events.out.tfevents.000003.gdrd"), "{files:?}");
    let bytes = std::fs::read(&files[0]).expect("events");
    let has = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(["recipe", "samples", "one/rate", "one/identity", "drawn/accuracy/"].into_iter().all(has));
    read_by_tensorboard(&board, STEPS);
    // What is made of the run afterwards takes its place.
    Said::by(gdrd(&bench).args(["report", "runs/a", "--tensorboard", "board"])).with_code(0);
    assert_eq!(steps(&board), (1..=STEPS).collect::<Vec<_>>());
}

/// With `GDRD_PYTHON`, a Python that has `tensorboard`, its own reader reads the folder.
fn read_by_tensorboard(board: &Path, steps: u64) {
    let Some(python) = std::env::var_os("GDRD_PYTHON") else { return };
    let script = gdrd_tests::root().join("tests/golden/tensorboard/read_back.py");
    let said =
        Said::by(Command::new(python).arg(script).arg(board).args(["one/loss", &steps.to_string()])).with_code(0);
    assert!(said.stdout.contains(&format!("one/loss: {steps} steps")), "{said:#?}");
}

#[test]
fn a_folder_that_cannot_be_written_is_a_warning() {
    let bench = Bench::empty();
    bench.write("r.toml", ALONE);
    bench.write("board", "a file");
    let said = Said::by(&mut command(&bench, &["train", "r.toml", "--run-dir", "runs/a"])).with_code(0);
    assert!(said.stderr.contains("no more events are written for TensorBoard"), "{said:#?}");
    assert_eq!(said.stderr.matches("no more events").count(), 1);
}
