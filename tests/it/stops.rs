//! Signals at any time, and two processes in one folder.
#![cfg(unix)]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gdrd_tests::{Bench, Said};

use crate::faults::ALONE;
use crate::{gdrd, kill};

/// A stop takes two seconds at most, on a machine that has nothing else to do.
const SOON: Duration = Duration::from_secs(6);

fn bench() -> Bench {
    let bench = Bench::empty();
    bench.write("r.toml", ALONE);
    bench
}

fn said(bench: &Bench, arguments: &[&str]) -> Said {
    Said::by(gdrd(bench).args(arguments))
}

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("gdrd starts")
}

fn wait_for(child: &mut Child, what: &str, good: impl Fn() -> bool) {
    let since = Instant::now();
    while !good() {
        assert!(since.elapsed() < Duration::from_secs(60), "waited too long for {what}");
        assert!(child.try_wait().expect("a status").is_none(), "the process ended before {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How it ends after a signal, and after how long.
fn stopped(child: Child, signal: &str) -> (Said, Duration) {
    let since = Instant::now();
    kill(child.id(), signal);
    let said = Said::from(child.wait_with_output().expect("an end"));
    (said, since.elapsed())
}

#[test]
fn a_stop_is_obeyed_in_the_middle_of_a_step() {
    let bench = bench();
    for signal in ["TERM", "INT"] {
        let mut command = gdrd(&bench);
        command.args(["train", "r.toml", "--run-dir", signal, "--set", "stage.one.accumulate=1000000000"]);
        let mut child = start(&mut command);
        wait_for(&mut child, "the log", || bench.file(signal).join("metrics.jsonl").exists());
        std::thread::sleep(Duration::from_millis(300));
        let (said, took) = stopped(child, signal);
        let said = said.with_code(130);
        assert!(took < SOON, "{took:?}");
        assert!(said.stderr.contains(&format!("`gdrd resume {signal}` goes on from here")), "{said:#?}");
    }
}

#[test]
fn a_step_that_was_broken_off_leaves_no_trace() {
    let bench = bench();
    let train = |run: &str| {
        let mut command = gdrd(&bench);
        command.args(["train", "r.toml", "--run-dir", run, "--set", "stage.one.accumulate=400"]);
        command.args(["--set", "run.checkpoint_steps=1000"]);
        command
    };
    Said::by(&mut train("whole")).with_code(0);
    let mut child = start(&mut train("broken"));
    let log = bench.file("broken/metrics.jsonl");
    wait_for(&mut child, "the second step", || fs::read_to_string(&log).is_ok_and(|text| text.lines().count() > 1));
    let (said_then, took) = stopped(child, "INT");
    said_then.with_code(130);
    assert!(took < SOON, "{took:?}");
    let made = fs::read_to_string(&log).expect("a log").lines().count();
    assert!(made < 6 && bench.file(&format!("broken/checkpoints/step-{made}/position.json")).exists(), "{made}");
    said(&bench, &["resume", "broken"]).with_code(0);
    for name in ["student.safetensors", "evaluation/drawn.json"] {
        let read = |run: &str| fs::read(bench.file(run).join(name)).expect(name);
        assert!(read("broken") == read("whole"), "{name} differs from the run that was never stopped");
    }
}

#[test]
fn a_stop_is_obeyed_while_there_is_nobody_to_ask() {
    let bench = bench();
    // Images that take long to read.
    let image = image::RgbImage::from_fn(3000, 3000, |x, y| image::Rgb([(x * y) as u8, x as u8, y as u8]));
    image.save(bench.file("large.png")).expect("an image");
    for person in 0..40 {
        let folder = bench.file(&format!("faces/p{person}"));
        fs::create_dir_all(&folder).expect("a folder");
        for number in 0..4 {
            fs::hard_link(bench.file("large.png"), folder.join(format!("{number}.png"))).expect("a link");
        }
    }
    let mut command = gdrd(&bench);
    command.args(["train", "r.toml", "--run-dir", "a", "--set"]);
    command.arg("data.train={ kind = \"identity-folders\", folders = [\"faces\"], size = 16 }");
    let mut child = start(&mut command);
    wait_for(&mut child, "the mark", || bench.file("a/gdrd-run.json").exists());
    std::thread::sleep(Duration::from_millis(200));
    let (said, took) = stopped(child, "TERM");
    said.with_code(130);
    assert!(took < SOON, "{took:?}");
}

/// Whether this process, and so whatever it starts, ignores SIGHUP; the first bit of `SigIgn` of Linux.
fn hang_up_is_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
    u64::from_str_radix(ignored.trim(), 16).is_ok_and(|signals| signals & 1 == 1)
}

#[test]
fn who_ignores_a_hang_up_goes_on() {
    let bench = bench();
    // As `nohup` does it.
    let mut command = Command::new("sh");
    command.current_dir(bench.path()).args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]);
    command.arg(env!("CARGO_BIN_EXE_gdrd-under-test"));
    let mut child = start(command.args(["train", "r.toml", "--run-dir", "a", "--set", "stage.one.steps=1000000"]));
    let steps = || fs::read_to_string(bench.file("a/metrics.jsonl")).map_or(0, |text| text.lines().count());
    wait_for(&mut child, "a step", || steps() > 0);
    kill(child.id(), "HUP");
    std::thread::sleep(Duration::from_millis(300));
    let then = steps();
    wait_for(&mut child, "more steps", || steps() > then + 2);
    stopped(child, "TERM").0.with_code(130);
    // Without it, the end of the terminal is a wish to stop; not where these tests were started so that nobody hears of it.
    if hang_up_is_ignored() {
        return;
    }
    let mut command = gdrd(&bench);
    let mut child = start(command.args(["train", "r.toml", "--run-dir", "b", "--set", "stage.one.steps=1000000"]));
    wait_for(&mut child, "a step", || fs::metadata(bench.file("b/metrics.jsonl")).is_ok_and(|log| log.len() > 0));
    stopped(child, "HUP").0.with_code(130);
}

#[test]
fn a_second_signal_ends_at_once() {
    let bench = bench();
    let mut command = gdrd(&bench);
    let mut child = start(command.args(["train", "r.toml", "--run-dir", "a", "--set", "stage.one.steps=1000000"]));
    wait_for(&mut child, "a step", || fs::metadata(bench.file("a/metrics.jsonl")).is_ok_and(|log| log.len() > 0));
    kill(child.id(), "INT");
    let (said, took) = stopped(child, "INT");
    said.with_code(130);
    assert!(took < SOON, "{took:?}");
}

#[test]
fn a_run_that_is_alive_is_left_alone() {
    let bench = bench();
    let mut command = gdrd(&bench);
    let mut child = start(command.args(["train", "r.toml", "--run-dir", "a", "--set", "stage.one.steps=1000000"]));
    wait_for(&mut child, "a step", || fs::metadata(bench.file("a/metrics.jsonl")).is_ok_and(|log| log.len() > 0));
    for arguments in [
        &["resume", "a"][..],
        &["train", "r.toml", "--run-dir", "a"],
        &["train", "r.toml", "--run-dir", "a", "--fresh"],
        &["train", "r.toml", "--run-dir", "./a/../a", "--fresh"],
    ] {
        let said = said(&bench, arguments).with_code(1);
        assert!(said.stderr.contains(&format!("is being run by process {}", child.id())), "{said:#?}");
        assert!(said.stderr.contains(", since 20") && said.stderr.contains("gdrd resume"), "{said:#?}");
    }
    assert!(child.try_wait().expect("a status").is_none(), "it is still alive");
    // A process that was killed holds nothing.
    child.kill().expect("killed");
    child.wait().expect("an end");
    let said = said(&bench, &["train", "r.toml", "--run-dir", "a"]).with_code(2);
    assert!(said.stderr.contains("holds a run that was stopped"), "{said:#?}");
}
