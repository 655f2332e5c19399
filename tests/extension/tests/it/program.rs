//! A changed program is another program: its code decides numbers.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::bench::{Bench, Said};
use crate::keys::{ABLATE, ALL, NOTHING, made};

/// Runs a program that was just written. Another test's process may hold its file open for a moment, having been started
/// in between; then it starts a little later.
fn started(bench: &Bench, program: &Path, arguments: &[&str]) -> Said {
    for _ in 0..50 {
        match Command::new(program).arg("--version").output() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => sleep(Duration::from_millis(100)),
            _ => break,
        }
    }
    bench.run_program(program, arguments)
}

/// A byte behind the end of a program changes nothing that it does.
#[test]
fn another_program_makes_everything_new() {
    let bench = Bench::new();
    bench.good(&ABLATE);
    let other = bench.path("other");
    std::fs::copy(env!("CARGO_BIN_EXE_gdrd-extension-example"), &other).expect("a copy");
    let same = made(&bench, || assert_eq!(started(&bench, &other, &ABLATE).code, Some(0)));
    assert_eq!(same, NOTHING, "the same bytes at another path");
    let mut file = std::fs::File::options().append(true).open(&other).expect("the copy");
    file.write_all(b"x").expect("a byte");
    drop(file);
    let changed = made(&bench, || assert_eq!(started(&bench, &other, &ABLATE).code, Some(0)));
    assert_eq!(changed, ALL);
    let again = made(&bench, || assert_eq!(started(&bench, &other, &ABLATE).code, Some(0)));
    assert_eq!(again, NOTHING);
}
