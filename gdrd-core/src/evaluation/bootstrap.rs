//! How sure a figure is, and whether two systems differ: the bootstrap over items and seeds.
//!
//! Items (pairs, probes) are drawn with replacement, and the thresholds of accuracies and identification rates stay as they were chosen. A figure that is no
//! mean of items, such as the true accept rate at a false accept rate, is computed anew of each resample, its threshold too
//! ([`figure_intervals`]). The interval of one system says what another list of items of the same kind would give; that of a difference between systems with several seeds says what other
//! seeds would give too, as far as so few can tell.

use rand::{Rng, RngCore};

use super::outcome::Outcome;
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

/// The 95 % interval of the mean of items: of an accuracy, if an item is 1 where it was right and 0 where not.
///
/// # Errors
/// If there is no pair or no resample.
pub fn mean_interval(items: &[f64], resamples: usize, rng: &mut impl RngCore) -> Result<Interval> {
    Ok(percentiles(&resampled_means(items, resamples, rng)?))
}

/// The 95 % interval of a rate where every item is 1, or every item is 0: Wilson's score interval (E. B. Wilson, Probable inference, the
/// law of succession, and statistical inference, JASA 22, 1927). All resamples of such items are alike, so that a bootstrap would call
/// the rate certain. None for other items, or for none.
pub fn alike_interval(items: &[f64]) -> Option<Interval> {
    /// The 97.5th percentile of the normal distribution.
    const Z: f64 = 1.959_963_984_540_054;
    let all = |value: f64| !items.is_empty() && items.iter().all(|item| *item == value);
    let count = items.len() as f64;
    let beyond = Z * Z / (count + Z * Z);
    match (all(1.0), all(0.0)) {
        (true, _) => Some(Interval { low: 1.0 - beyond, high: 1.0 }),
        (_, true) => Some(Interval { low: 0.0, high: beyond }),
        _ => None,
    }
}

/// The 95 % interval of a system's mean over its seeds, of which each has the outcomes of the same items in the same order. Items and
/// seeds are resampled. Where all items of all seeds are 1, or all are 0, it is [`alike_interval`] of the items of one seed: seeds are
/// no further items.
///
/// # Errors
/// If there is no seed, lists differ in length, or there is no item or no resample.
pub fn seeds_interval(seeds: &[Vec<f64>], resamples: usize, rng: &mut impl RngCore) -> Result<Interval> {
    let nothing = vec![0.0; seeds.first().map_or(0, Vec::len)];
    if let Some(first) = seeds.first()
        && let Some(interval) = alike_interval(first)
        && seeds.iter().all(|seed| seed == first)
    {
        return Ok(interval);
    }
    Ok(paired_difference(seeds, &[nothing], resamples, rng)?.interval)
}

/// The 95 % intervals of figures that are no means of items.
///
/// `kinds` has an entry for each item. Items of a kind are drawn among each other, so that each resample has as many same and
/// different pairs as there are. `figures` gives the figures of a resample, always as many and in the same order; it is given how
/// often each item was drawn, in the order of `kinds`. So whoever sorts the items first need not sort a resample.
///
/// # Errors
/// If there is no item or no resample, or a resample has other figures than the one before or one that is not finite.
pub fn figure_intervals(
    kinds: &[bool],
    resamples: usize,
    rng: &mut impl RngCore,
    mut figures: impl FnMut(&[u32]) -> Vec<f64>,
) -> Result<Vec<Interval>> {
    let (first, second): (Vec<usize>, Vec<usize>) = (0..kinds.len()).partition(|at| kinds[*at]);
    if kinds.is_empty() || resamples == 0 {
        let message = format!("a bootstrap needs items and resamples, found {} and {resamples}", kinds.len());
        return Err(Error::data(message));
    }
    let mut found: Vec<Vec<f64>> = Vec::new();
    let mut drawn = vec![0u32; kinds.len()];
    for resample in 0..resamples {
        drawn.fill(0);
        for of_kind in [&first, &second] {
            for _ in of_kind {
                drawn[of_kind[rng.random_range(0..of_kind.len() as u64) as usize]] += 1;
            }
        }
        let values = figures(&drawn);
        if resample == 0 {
            found = vec![Vec::with_capacity(resamples); values.len()];
        }
        if values.len() != found.len() || values.iter().any(|value| !value.is_finite()) {
            let expected = found.len();
            return Err(Error::data(format!(
                "resample {resample}: expected {expected} finite figures, found {values:?}"
            )));
        }
        found.iter_mut().zip(values).for_each(|(of_figure, value)| of_figure.push(value));
    }
    let interval = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        percentiles(&values)
    };
    Ok(found.into_iter().map(interval).collect())
}

/// The difference of two systems that were judged on the same items in the same order.
///
/// `first` and `second` hold one list for each seed (their numbers of seeds may differ): the outcome of each item. Items are
/// resampled for both systems together, so that what is common to an item cancels; where a system has several seeds, they are
/// resampled too, so that the interval says what other seeds would give as far as so few can.
///
/// # Errors
/// If a system has no seed, lists differ in length, or there is no item or no resample.
pub fn paired_difference(
    first: &[Vec<f64>],
    second: &[Vec<f64>],
    resamples: usize,
    rng: &mut impl RngCore,
) -> Result<Difference> {
    let (Some(count), false) = (first.first().map(Vec::len), second.is_empty()) else {
        return Err(Error::data(format!(
            "expected at least one seed of each system, found {} and {}",
            first.len(),
            second.len()
        )));
    };
    if let Some(other) = first.iter().chain(second).find(|seed| seed.len() != count) {
        return Err(Error::data(format!(
            "expected the same items for every system and seed, found {count} items and {} items",
            other.len()
        )));
    }
    if count == 0 || resamples == 0 {
        return Err(Error::data(format!("a bootstrap needs items and resamples, found {count} and {resamples}")));
    }
    let mean_of = |seeds: &[Vec<f64>]| seeds.iter().flatten().sum::<f64>() / (seeds.len() * count) as f64;
    let mut drawn = |of: usize| (0..of).map(|_| rng.random_range(0..of as u64) as usize).collect::<Vec<_>>();
    let mut means: Vec<f64> = (0..resamples)
        .map(|_| {
            let (seeds_a, seeds_b, items) = (drawn(first.len()), drawn(second.len()), drawn(count));
            let sum = |system: &[Vec<f64>], seeds: &[usize]| {
                let of_seed = |&seed: &usize| items.iter().map(|&item| system[seed][item]).sum::<f64>();
                seeds.iter().map(of_seed).sum::<f64>() / (seeds.len() * count) as f64
            };
            sum(first, &seeds_a) - sum(second, &seeds_b)
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let p_beyond = |count: usize| (1 + count) as f64 / (1 + resamples) as f64;
    // A resample whose terms cancel must count as zero in spite of rounding.
    let hair = 1e-12;
    let below = p_beyond(means.iter().filter(|&&mean| mean <= hair).count());
    let above = p_beyond(means.iter().filter(|&&mean| mean >= -hair).count());
    Ok(Difference {
        mean: mean_of(first) - mean_of(second),
        interval: percentiles(&means),
        p: (2.0 * below.min(above)).min(1.0),
    })
}

/// The difference of the headlines of two systems that one protocol judged, as [`paired_difference`] says it; an outcome for each
/// seed.
///
/// # Errors
/// If the outcomes are not of the same items in the same order, or as `paired_difference`.
pub fn difference(first: &[&Outcome], second: &[&Outcome], rng: &mut impl RngCore) -> Result<Difference> {
    let mut all = first.iter().chain(second);
    if let Some(one) = all.next()
        && let Some(other) = all.find(|other| other.items_digest != one.items_digest)
    {
        let said = |of: &Outcome| match of.items_digest.as_str() {
            "" => format!("{} {} without a digest", of.items.len(), of.what),
            digest => format!("{} {} of digest {digest}", of.items.len(), of.what),
        };
        return Err(Error::data(format!(
            "expected the same {} in the same order for every system and seed, found {} and {}",
            one.what,
            said(one),
            said(other)
        )));
    }
    let items = |outcomes: &[&Outcome]| outcomes.iter().map(|outcome| outcome.items.clone()).collect::<Vec<_>>();
    paired_difference(&items(first), &items(second), RESAMPLES, rng)
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

    fn first_are_right(right: usize, pairs: usize) -> Vec<f64> {
        (0..pairs).map(|i| f64::from(u8::from(i < right))).collect()
    }

    #[test]
    fn the_interval_is_the_binomial_one() {
        // 900 of 1000: standard error sqrt(.9 * .1 / 1000) = .00949, so .9 -+ .0186.
        let interval = mean_interval(&first_are_right(900, 1000), RESAMPLES, &mut rng()).expect("pairs");
        assert!((interval.low - 0.8814).abs() < 0.003, "{interval:?}");
        assert!((interval.high - 0.9186).abs() < 0.003, "{interval:?}");
        assert_eq!(interval, mean_interval(&first_are_right(900, 1000), RESAMPLES, &mut rng()).expect("again"));
    }

    #[test]
    fn certainty_has_no_width() {
        let interval = mean_interval(&[1.0; 50], 100, &mut rng()).expect("pairs");
        assert_eq!(interval, Interval { low: 1.0, high: 1.0 });
    }

    #[test]
    fn a_rate_of_all_or_none_is_not_certain() {
        // statsmodels.stats.proportion.proportion_confint(k, n, method="wilson"): n / (n + z^2) to 1 where k = n.
        let golden = [(120, 0.968_980_833_2), (8, 0.675_592_4), (1, 0.206_549_3)];
        for (count, low) in golden {
            let interval = alike_interval(&vec![1.0; count]).expect("alike");
            assert!((interval.low - low).abs() < 1e-7 && interval.high == 1.0, "{count}: {interval:?}");
            let none = alike_interval(&vec![0.0; count]).expect("alike");
            assert!((none.high - (1.0 - low)).abs() < 1e-7 && none.low == 0.0, "{count}: {none:?}");
        }
        assert!([&[][..], &[1.0, 0.0], &[0.5, 0.5]].iter().all(|items| alike_interval(items).is_none()));
        let seeds = seeds_interval(&[vec![1.0; 8], vec![1.0; 8]], 10, &mut rng()).expect("items");
        assert_eq!(seeds, alike_interval(&[1.0; 8]).expect("alike"));
        assert!(seeds_interval(&[vec![1.0; 8], vec![1.0; 7]], 10, &mut rng()).is_err());
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
        let a = vec![vec![1.0, 1.0], vec![1.0, 0.0]];
        let b = vec![vec![0.0, 1.0]];
        // Pair 0: 1 - 0; pair 1: 1/2 - 1.
        let result = paired_difference(&a, &b, 500, &mut rng()).expect("pairs");
        assert!((result.mean - 0.25).abs() < 1e-12);
        assert!(result.interval.low < 0.0 && result.interval.high > 0.5, "{result:?}");
    }

    #[test]
    fn the_interval_of_a_difference_includes_the_seeds() {
        // Items say nothing against the second system, but one of its three seeds does.
        let a = vec![vec![1.0; 100]];
        let steady = paired_difference(&a, &vec![vec![0.9; 100]; 3], RESAMPLES, &mut rng()).expect("items");
        let b = vec![vec![0.9; 100], vec![1.0; 100], vec![0.8; 100]];
        let seeds = paired_difference(&a, &b, RESAMPLES, &mut rng()).expect("items");
        assert!((steady.mean - seeds.mean).abs() < 1e-9);
        assert!(steady.interval.high - steady.interval.low < 1e-9, "{steady:?}");
        assert!(seeds.interval.high - seeds.interval.low > 0.1, "{seeds:?}");
    }

    #[test]
    fn the_interval_of_a_mean_includes_the_seeds() {
        let seed = first_are_right(900, 1000);
        let one = seeds_interval(std::slice::from_ref(&seed), RESAMPLES, &mut rng()).expect("items");
        assert!((one.low - 0.8814).abs() < 0.003 && (one.high - 0.9186).abs() < 0.003, "{one:?}");
        let apart = [seed, first_are_right(800, 1000), first_are_right(1000, 1000)];
        let three = seeds_interval(&apart, RESAMPLES, &mut rng()).expect("items");
        assert!(three.low < 0.85 && three.high > 0.95, "{three:?}");
    }

    #[test]
    fn kinds_are_drawn_apart_and_a_mean_has_its_usual_interval() {
        let right = first_are_right(900, 1000);
        let kinds: Vec<bool> = (0..1000).map(|at| at < 300).collect();
        let mut figures = |drawn: &[u32]| {
            assert_eq!((drawn[..300].iter().sum::<u32>(), drawn[300..].iter().sum::<u32>()), (300, 700));
            vec![drawn.iter().zip(&right).map(|(times, right)| f64::from(*times) * right).sum::<f64>() / 1000.0, 7.0]
        };
        let found = figure_intervals(&kinds, RESAMPLES, &mut rng(), &mut figures).expect("items");
        // The first 300 are all right, 600 of the other 700: sqrt(700 * 6/7 * 1/7) = 9.26, so .9 -+ .01815.
        assert!((found[0].low - 0.88185).abs() < 0.003 && (found[0].high - 0.91815).abs() < 0.003, "{found:?}");
        assert_eq!(found[1], Interval { low: 7.0, high: 7.0 });
        assert_eq!(found, figure_intervals(&kinds, RESAMPLES, &mut rng(), figures).expect("again"));
    }

    #[test]
    fn bad_input_is_refused() {
        assert!(figure_intervals(&[], 10, &mut rng(), |_| vec![1.0]).is_err());
        assert!(figure_intervals(&[true], 0, &mut rng(), |_| vec![1.0]).is_err());
        let error = figure_intervals(&[true], 3, &mut rng(), |_| vec![f64::NAN]).expect_err("NaN").to_string();
        assert!(error.contains("resample 0: expected 1 finite figures, found [NaN]"), "{error}");
        assert!(mean_interval(&[], 10, &mut rng()).is_err());
        assert!(mean_interval(&[1.0], 0, &mut rng()).is_err());
        assert!(paired_difference(&[], &[vec![1.0]], 10, &mut rng()).is_err());
        assert!(seeds_interval(&[], 10, &mut rng()).is_err());
        let error = paired_difference(&[vec![1.0]], &[vec![1.0; 2]], 10, &mut rng()).expect_err("lengths");
        assert!(error.to_string().contains("found 1 items and 2 items"), "{error}");
    }
}
