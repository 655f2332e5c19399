//! A few rounds of faults; `gdrd-rounds` runs as many as one has time for.
#![cfg(target_os = "linux")]

use gdrd_tests::rounds::Rounds;

#[test]
fn disturbed_runs_end_as_undisturbed_ones() {
    let place = Rounds::new(env!("CARGO_BIN_EXE_gdrd-under-test"));
    for seed in 1..=20 {
        let (story, end) = place.round(seed, None);
        assert!(end.is_ok(), "round {seed} (`gdrd-rounds 1 {seed}` repeats it)\n{}\n{end:?}", story.join("\n"));
    }
}
