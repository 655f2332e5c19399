//! `gdrd-kills [ROUNDS] [FIRST-SEED]`: kills `gdrd serve` in the midst of changes, round after round on one database.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::process::ExitCode;
use std::time::Duration;

use gdrd_tests::kills::Kills;
use gdrd_tests::root;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, other| arguments.get(at).map_or(other, |text: &String| text.parse().expect("a number"));
    let (rounds, first) = (number(0, 100), number(1, 1));
    let program = std::env::current_exe().expect("this program").with_file_name("gdrd-under-test");
    let mut kills = Kills::new(program, root().join("tests/files/student-format-1.safetensors"));
    let (mut acknowledged, mut done, mut undone, mut slowest) = (0, 0, 0, 0);
    for seed in first..first + rounds {
        let round = match kills.round(seed, Duration::from_millis(700)) {
            Ok(round) => round,
            Err(why) => {
                println!("{seed}: WRONG: {why}");
                return ExitCode::FAILURE;
            }
        };
        println!("{seed}: {round:?}");
        acknowledged += round.acknowledged;
        done += round.done;
        undone += round.undone;
        slowest = slowest.max(round.restart);
    }
    if let Err(why) = kills.last() {
        println!("at the end: WRONG: {why}");
        return ExitCode::FAILURE;
    }
    println!(
        "{rounds} rounds: {acknowledged} changes acknowledged, none lost; of requests on their way {done} were done, {undone} not (or \
         there were none); the slowest start took {slowest} ms"
    );
    ExitCode::SUCCESS
}
