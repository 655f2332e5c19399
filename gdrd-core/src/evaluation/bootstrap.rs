//! How sure an accuracy is, and whether two systems differ: the bootstrap over pairs.
//!
//! Pairs are drawn with replacement, thresholds stay as they were chosen. The intervals say what
//! another list of pairs of the same kind would give; they do not say what another training run
//! would give, which is what several seeds are for.

use rand::{Rng, RngCore};

use crate::error::{Error, Result};

/// Number of resamples that is enough for a 95 % interval.
pub const RESAMPLES: usize = 1000;

/// A 95 % percentile interval, in the unit of the estimate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// 2.5th percentile of the resamples.
    pub low: f64,
    /// 97.5th percentile of the resamples.
    pub high: f64,
}

/// Accuracy of one system minus that of another on the same pairs, as a fraction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Mean difference; positive if the first system is better.
    pub mean: f64,
    /// 95 % interval of the mean.
    pub interval: Interval,
    /// Two-sided p of "no difference": twice the smaller share of resamples at or beyond zero,
    /// `(1 + count) / (1 + resamples)`, so it is never zero, and 1 for systems that are alike.
    pub p: f64,
}

/// The 95 % interval of the accuracy of pairs that were called rightly or not.
///
/// # Errors
/// If there is no pair or no resample.
pub fn accuracy_interval(correct: &[bool], resamples: usize, rng: &mut impl RngCore) -> Result<Interval> {
    let values: Vec<f64> = correct.iter().map(|&right| f64::from(u8::from(right))).collect();
    Ok(percentiles(&resampled_means(&values, resamples, rng)?))
}

/// The difference of two systems that were judged on the same pairs in the same order.
///
/// `first` and `second` hold one list for each seed (their numbers of seeds may differ): whether
/// each pair was called rightly. A pair counts with the mean over a system's seeds, and both
/// systems are resampled together, so that what is common to a pair cancels.
///
/// # Errors
/// If a system has no seed, lists differ in length, or there is no pair or no resample.
pub fn paired_difference(
    first: &[Vec<bool>],
    second: &[Vec<bool>],
    resamples: usize,
    rng: &mut impl RngCore,
) -> Result<Difference> {
    let (Some(pairs), false) = (first.first().map(Vec::len), second.is_empty()) else {
        return Err(Error::data(format!(
            "expected at least one seed of each system, found {} and {}",
            first.len(),
            second.len()
        )));
    };
    if let Some(other) = first.iter().chain(second).find(|seed| seed.len() != pairs) {
        return Err(Error::data(format!(
            "expected the same pairs for every system and seed, found {pairs} pairs and {} pairs",
            other.len()
        )));
    }
    let rate =
        |seeds: &[Vec<bool>], pair: usize| seeds.iter().filter(|seed| seed[pair]).count() as f64 / seeds.len() as f64;
    let values: Vec<f64> = (0..pairs).map(|pair| rate(first, pair) - rate(second, pair)).collect();
    let means = resampled_means(&values, resamples, rng)?;
    let p_beyond = |count: usize| (1 + count) as f64 / (1 + resamples) as f64;
    // A resample whose terms cancel must count as zero in spite of rounding.
    let hair = 1e-12;
    let below = p_beyond(means.iter().filter(|&&mean| mean <= hair).count());
    let above = p_beyond(means.iter().filter(|&&mean| mean >= -hair).count());
    Ok(Difference {
        mean: values.iter().sum::<f64>() / pairs as f64,
        interval: percentiles(&means),
        p: (2.0 * below.min(above)).min(1.0),
    })
}

/// Means of `resamples` samples of `values` with replacement, sorted.
fn resampled_means(values: &[f64], resamples: usize, rng: &mut impl RngCore) -> Result<Vec<f64>> {
    if values.is_empty() || resamples == 0 {
        return Err(Error::data(format!(
            "a bootstrap needs pairs and resamples, found {} pairs and {resamples} resamples",
            values.len()
        )));
    }
    let count = values.len() as u64;
    let mut means: Vec<f64> = (0..resamples)
        .map(|_| (0..count).map(|_| values[rng.random_range(0..count) as usize]).sum::<f64>() / count as f64)
        .collect();
    means.sort_by(f64::total_cmp);
    Ok(means)
}

/// The 2.5th and 97.5th percentile of sorted values, linear between neighbours.
fn percentiles(sorted: &[f64]) -> Interval {
    let at = |part: f64| {
        let place = part * (sorted.len() - 1) as f64;
        let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
        low + (high - low) * place.fract()
    };
    Interval { low: at(0.025), high: at(0.975) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn rng() -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(11)
    }

    fn first_are_right(right: usize, pairs: usize) -> Vec<bool> {
        (0..pairs).map(|i| i < right).collect()
    }

    #[test]
    fn the_interval_is_the_binomial_one() {
        // 900 of 1000: standard error sqrt(.9 * .1 / 1000) = .00949, so .9 -+ .0186.
        let interval = accuracy_interval(&first_are_right(900, 1000), RESAMPLES, &mut rng()).expect("pairs");
        assert!((interval.low - 0.8814).abs() < 0.003, "{interval:?}");
        assert!((interval.high - 0.9186).abs() < 0.003, "{interval:?}");
        assert_eq!(interval, accuracy_interval(&first_are_right(900, 1000), RESAMPLES, &mut rng()).expect("again"));
    }

    #[test]
    fn certainty_has_no_width() {
        let interval = accuracy_interval(&[true; 50], 100, &mut rng()).expect("pairs");
        assert_eq!(interval, Interval { low: 1.0, high: 1.0 });
    }

    #[test]
    fn percentiles_by_hand() {
        let sorted: Vec<f64> = (0..=40).map(f64::from).collect();
        assert_eq!(percentiles(&sorted), Interval { low: 1.0, high: 39.0 });
        assert_eq!(percentiles(&[2.0]), Interval { low: 2.0, high: 2.0 });
    }

    #[test]
    fn a_system_does_not_differ_from_itself() {
        let a = vec![first_are_right(70, 100)];
        let same = paired_difference(&a, &a, 200, &mut rng()).expect("pairs");
        assert_eq!(same, Difference { mean: 0.0, interval: Interval { low: 0.0, high: 0.0 }, p: 1.0 });
    }

    #[test]
    fn pairing_sees_a_small_steady_gain() {
        // 20 pairs of 1000 are won and none lost: the unpaired intervals overlap, the paired one excludes zero.
        let (a, b) = (vec![first_are_right(870, 1000)], vec![first_are_right(850, 1000)]);
        let gain = paired_difference(&a, &b, RESAMPLES, &mut rng()).expect("pairs");
        assert!((gain.mean - 0.02).abs() < 1e-12);
        assert!(gain.interval.low > 0.005 && gain.interval.high < 0.035, "{gain:?}");
        assert!((gain.p - 2.0 / 1001.0).abs() < 1e-12, "{gain:?}");
        let loss = paired_difference(&b, &a, RESAMPLES, &mut rng()).expect("pairs");
        assert_eq!((loss.mean, loss.p), (-gain.mean, gain.p));
    }

    #[test]
    fn seeds_are_averaged() {
        let a = vec![vec![true, true], vec![true, false]];
        let b = vec![vec![false, true]];
        // Pair 0: 1 - 0; pair 1: 1/2 - 1.
        let result = paired_difference(&a, &b, 500, &mut rng()).expect("pairs");
        assert!((result.mean - 0.25).abs() < 1e-12);
        // Of two draws, both are pair 1 a quarter of the time.
        assert!((result.p - 0.5).abs() < 0.1, "{result:?}");
    }

    #[test]
    fn bad_input_is_refused() {
        assert!(accuracy_interval(&[], 10, &mut rng()).is_err());
        assert!(accuracy_interval(&[true], 0, &mut rng()).is_err());
        assert!(paired_difference(&[], &[vec![true]], 10, &mut rng()).is_err());
        let error = paired_difference(&[vec![true]], &[vec![true; 2]], 10, &mut rng()).expect_err("lengths");
        assert!(error.to_string().contains("found 1 pairs and 2 pairs"), "{error}");
    }
}
