//! Verification accuracy: threshold chosen on the other folds, and the best single threshold.
//!
//! A threshold splits the sorted scores at one place, so only one candidate between each two
//! neighbouring distinct scores matters (their midpoint), and one beyond each end (everything is
//! the same person, nothing is). All of them are tried, so the optimum is exact. Of equally good
//! thresholds the **highest** wins (the strictest one).
//!
//! insightface's `eval/verification.py` differs: it tries squared distances `2 - 2 cos` from 0 to
//! 4 in steps of 0.01, that is cosines 0.005 apart, and takes the first (smallest distance, so
//! also the strictest) of the best. Its thresholds can miss the optimum by a few pairs. It calls a
//! pair the same if the distance is below the threshold, here if the score is at least the
//! threshold, and its `std` divides by the number of folds, where [`FoldAccuracy::sd`] divides by
//! one less.

use super::check_scores;
use crate::error::{Error, Result};

/// A threshold, and how well it does on the pairs that it was chosen or judged on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// A pair is called the same person if its score is at least this.
    pub value: f64,
    /// Fraction of pairs that were called rightly, in `[0, 1]`.
    pub accuracy: f64,
}

/// Accuracy over folds, each judged with the threshold that is best on all the others.
#[derive(Clone, Debug, PartialEq)]
pub struct FoldAccuracy {
    /// Mean of the folds' accuracies, each fold with the same weight, in `[0, 1]`.
    pub mean: f64,
    /// Standard deviation over folds (divisor: folds - 1).
    pub sd: f64,
    /// Standard error of the mean as LFW's protocol defines it: `sd / sqrt(folds)`.
    pub standard_error: f64,
    /// For each fold, in rising order of its number: the threshold chosen on the others and the accuracy on it.
    pub folds: Vec<Threshold>,
    /// For each pair, in the order given: whether it was called rightly when its fold was judged.
    pub correct: Vec<bool>,
}

/// The threshold that is best on all pairs (and so, judged on the pairs that chose it, a little
/// too good): what "check with an optimal threshold" in the paper implies.
///
/// # Errors
/// If there is no pair, the lengths differ, or a score is not finite.
pub fn best_threshold(scores: &[f64], same: &[bool]) -> Result<Threshold> {
    check_scores(scores, same.len())?;
    let sorted = descending(scores, same);
    Ok(best_of(&sorted))
}

/// Accuracy with the threshold of each fold chosen on all the other folds: the LFW protocol.
///
/// `folds[i]` is the number of the fold of pair `i`; numbers need not be contiguous.
///
/// # Errors
/// If there are fewer than two folds, lengths differ, or a score is not finite.
pub fn fold_accuracy(scores: &[f64], same: &[bool], folds: &[usize]) -> Result<FoldAccuracy> {
    check_scores(scores, same.len())?;
    check_scores(scores, folds.len())?;
    let mut numbers = folds.to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.len() < 2 {
        return Err(Error::data(
            "expected pairs in at least two folds (the threshold comes from the others), found one",
        ));
    }
    let mut correct = vec![false; scores.len()];
    let mut results = Vec::with_capacity(numbers.len());
    for &fold in &numbers {
        let others = |i: &usize| folds[*i] != fold;
        let (other_scores, other_same): (Vec<f64>, Vec<bool>) =
            (0..scores.len()).filter(others).map(|i| (scores[i], same[i])).unzip();
        let threshold = best_of(&descending(&other_scores, &other_same));
        let (mut right, mut total) = (0, 0);
        for i in (0..scores.len()).filter(|i| !others(i)) {
            correct[i] = (scores[i] >= threshold.value) == same[i];
            right += usize::from(correct[i]);
            total += 1;
        }
        results.push(Threshold { value: threshold.value, accuracy: right as f64 / total as f64 });
    }
    let count = results.len() as f64;
    let mean = results.iter().map(|fold| fold.accuracy).sum::<f64>() / count;
    let squares: f64 = results.iter().map(|fold| (fold.accuracy - mean).powi(2)).sum();
    let sd = (squares / (count - 1.0)).sqrt();
    Ok(FoldAccuracy { mean, sd, standard_error: sd / count.sqrt(), folds: results, correct })
}

/// Scores with their labels, highest score first.
pub(super) fn descending(scores: &[f64], same: &[bool]) -> Vec<(f64, bool)> {
    let mut sorted: Vec<(f64, bool)> = scores.iter().copied().zip(same.iter().copied()).collect();
    // -0.0 and 0.0 are one score; `total_cmp` would keep them apart and cut between them.
    sorted.sort_by(|a, b| b.0.partial_cmp(&a.0).expect("scores are finite"));
    sorted
}

/// The best threshold of scores that are finite and sorted from the highest.
fn best_of(sorted: &[(f64, bool)]) -> Threshold {
    let highest = sorted[0].0;
    // Above the highest score nothing is the same person: the different pairs are right.
    let mut right = sorted.iter().filter(|(_, same)| !same).count();
    let (mut best_right, mut best) = (right, highest.next_up());
    for (i, &(score, same)) in sorted.iter().enumerate() {
        if same {
            right += 1;
        } else {
            right -= 1;
        }
        let next = sorted.get(i + 1).map(|&(next, _)| next);
        if next != Some(score) && right > best_right {
            best_right = right;
            best = match next {
                Some(next) => between(next, score),
                // Below the lowest score everything is the same person.
                None => score.next_down(),
            };
        }
    }
    Threshold { value: best, accuracy: best_right as f64 / sorted.len() as f64 }
}

/// The midpoint of two distinct scores, above `low` and at most `high` even where they are neighbours.
fn between(low: f64, high: f64) -> f64 {
    let middle = low + (high - low) / 2.0;
    if middle > low { middle } else { high }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn a_separable_list_is_cut_in_the_middle() {
        let best = best_threshold(&[0.9, 0.1, 0.7, 0.3], &[true, false, true, false]).expect("scores");
        assert_eq!(best, Threshold { value: 0.5, accuracy: 1.0 });
    }

    #[test]
    fn of_equally_good_thresholds_the_highest_wins() {
        // Right at 0.8: 1 + 1 of 3; at 0.5: 1 of 3; below all: 2 of 3.
        let best = best_threshold(&[0.9, 0.7, 0.3], &[true, false, true]).expect("scores");
        assert!((best.value - 0.8).abs() < 1e-12 && (best.accuracy - 2.0 / 3.0).abs() < 1e-12, "{best:?}");
    }

    #[test]
    fn the_ends_are_candidates() {
        let none = best_threshold(&[0.5, 0.5], &[false, false]).expect("scores");
        assert!(none.value > 0.5 && none.accuracy == 1.0);
        let all = best_threshold(&[0.5, 0.4], &[true, true]).expect("scores");
        assert!(all.value < 0.4 && all.accuracy == 1.0);
    }

    #[test]
    fn neighbouring_floats_are_cut_apart() {
        let (low, high) = (0.5f64, 0.5f64.next_up());
        let best = best_threshold(&[high, low], &[true, false]).expect("scores");
        assert_eq!(best, Threshold { value: high, accuracy: 1.0 });
    }

    #[test]
    fn folds_by_hand() {
        // Fold 0 alone is best cut at 0.5 (perfect); fold 1 alone at 0.75 (perfect).
        let scores = [0.6, 0.4, 0.8, 0.7];
        let same = [true, false, true, false];
        let result = fold_accuracy(&scores, &same, &[0, 0, 1, 1]).expect("two folds");
        // Fold 0 judged at 0.75: 0.6 is missed. Fold 1 judged at 0.5: 0.7 is wrongly accepted.
        assert_eq!(result.folds[0], Threshold { value: 0.75, accuracy: 0.5 });
        assert_eq!(result.folds[1], Threshold { value: 0.5, accuracy: 0.5 });
        assert_eq!(result.correct, [false, true, true, false]);
        assert_eq!((result.mean, result.sd), (0.5, 0.0));
    }

    #[test]
    fn spread_over_folds_by_hand() {
        // Every threshold is 0.5; accuracies are 1, 1, 1/2: mean 5/6, sd sqrt(1/12), error sd / sqrt(3).
        let scores = [0.9, 0.1, 0.9, 0.1, 0.9, 0.9];
        let same = [true, false, true, false, true, false];
        let result = fold_accuracy(&scores, &same, &[4, 4, 7, 7, 9, 9]).expect("three folds");
        assert!((result.mean - 5.0 / 6.0).abs() < 1e-12);
        assert!((result.sd - (1.0f64 / 12.0).sqrt()).abs() < 1e-12);
        assert!((result.standard_error - result.sd / 3f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn no_threshold_at_all_beats_the_chosen_one() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for _ in 0..50 {
            let same: Vec<bool> = (0..40).map(|_| rng.random_range(0..2u32) == 1).collect();
            // Coarse scores, so that ties happen.
            let scores: Vec<f64> =
                same.iter().map(|&s| f64::from(rng.random_range(0..20u32) + u32::from(s) * 6) / 20.0 - 0.5).collect();
            let folds: Vec<usize> = (0..40).map(|i| i % 4).collect();
            let result = fold_accuracy(&scores, &same, &folds).expect("four folds");
            for (fold, chosen) in result.folds.iter().enumerate() {
                let right = |threshold: f64| {
                    (0..40).filter(|&i| folds[i] != fold && (scores[i] >= threshold) == same[i]).count()
                };
                let brute = (-200..=200).map(|step| right(f64::from(step) * 0.005 + 0.001)).max();
                assert_eq!(Some(right(chosen.value)), brute);
            }
        }
    }

    #[test]
    fn bad_input_is_refused() {
        let error = fold_accuracy(&[0.1, f64::NAN], &[true, false], &[0, 1]).expect_err("NaN");
        assert_eq!(error.to_string(), "score of pair 1: expected a finite number, found NaN");
        assert!(fold_accuracy(&[0.1, 0.2], &[true, false], &[3, 3]).is_err());
        assert!(best_threshold(&[], &[]).is_err());
        assert!(best_threshold(&[0.1], &[]).is_err());
    }
}
