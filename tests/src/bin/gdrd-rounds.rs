//! `gdrd-rounds [ROUNDS] [FIRST-SEED] [KIND]`: rounds of faults in a row; a seed alone repeats its round.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::collections::BTreeMap;
use std::process::ExitCode;

use gdrd_tests::rounds::Rounds;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, other| arguments.get(at).map_or(other, |text: &String| text.parse().expect("a number"));
    let (rounds, first, only) = (number(0, 20), number(1, 1), arguments.get(2).map(String::as_str));
    let program = std::env::current_exe().expect("this program").with_file_name("gdrd-under-test");
    let place = Rounds::new(program);
    let (mut ends, mut wrong) = (BTreeMap::new(), 0);
    for seed in first..first + rounds {
        let (story, end) = place.round(seed, only);
        match end {
            Ok(end) => {
                println!("{seed}: {end:?}: {}", story.join("; "));
                *ends.entry(end).or_insert(0) += 1;
            }
            Err(why) => {
                println!("{seed}: WRONG: {}\n{why}", story.join("\n"));
                wrong += 1;
            }
        }
    }
    println!("{rounds} rounds: {ends:?}, {wrong} wrong");
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
