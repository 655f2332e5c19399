//! Receiver operating characteristic: what is accepted rightly against what is accepted wrongly.

use rand::RngCore;
use serde::{Deserialize, Serialize};

use super::bootstrap::{Interval, figure_intervals};
use super::check_scores;
use super::folds::descending;
use crate::error::{Error, Result};

/// One operating point.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RocPoint {
    /// Pairs with at least this score are accepted.
    pub threshold: f64,
    /// False accept rate: accepted fraction of the different pairs, in `[0, 1]`.
    pub far: f64,
    /// True accept rate: accepted fraction of the same pairs, in `[0, 1]`.
    pub tar: f64,
}

/// All operating points of a list of scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Roc {
    points: Vec<RocPoint>,
    positives: usize,
    negatives: usize,
}

impl Roc {
    /// The curve of `scores`, of which `same` says which ones belong to the same person.
    ///
    /// # Errors
    /// If lengths differ, a score is not finite, or one of the two classes is absent.
    pub fn new(scores: &[f64], same: &[bool]) -> Result<Self> {
        check_scores(scores, same.len())?;
        let positives = same.iter().filter(|&&same| same).count();
        let negatives = same.len() - positives;
        if positives == 0 || negatives == 0 {
            return Err(Error::data(format!(
                "a ROC curve needs same and different pairs, found {positives} same and {negatives} different"
            )));
        }
        let sorted = descending(scores, same).into_iter().map(|(score, same)| (score, same, 1));
        Ok(Self::of(sorted, positives, negatives))
    }

    /// The curve of scores from the highest, each with whether it is of the same person and how often it counts.
    fn of(sorted: impl Iterator<Item = (f64, bool, u32)>, positives: usize, negatives: usize) -> Self {
        let mut points: Vec<RocPoint> = Vec::with_capacity(positives + negatives + 1);
        let (mut accepted_same, mut accepted_different) = (0, 0);
        for (threshold, same, times) in sorted {
            if same {
                accepted_same += times;
            } else {
                accepted_different += times;
            }
            let far = f64::from(accepted_different) / negatives as f64;
            let point = RocPoint { threshold, far, tar: f64::from(accepted_same) / positives as f64 };
            match points.last_mut() {
                // A tie is one step.
                Some(last) if last.threshold == threshold => *last = point,
                Some(_) => points.push(point),
                None => points.extend([RocPoint { threshold: threshold.next_up(), far: 0.0, tar: 0.0 }, point]),
            }
        }
        Self { points, positives, negatives }
    }

    /// Every operating point: from the threshold that accepts nothing, `(0, 0)`, over one point for
    /// each distinct score, to the one that accepts everything, `(1, 1)`.
    pub fn points(&self) -> &[RocPoint] {
        &self.points
    }

    /// Number of pairs of the same person.
    pub fn positives(&self) -> usize {
        self.positives
    }

    /// Number of pairs of different people.
    pub fn negatives(&self) -> usize {
        self.negatives
    }

    /// The operating point with the highest true accept rate among those whose false accept rate is
    /// at most `far`; of several, the one with the highest threshold.
    ///
    /// Nothing is interpolated: the point exists, and its threshold can be used as it is.
    /// (insightface interpolates the threshold linearly in the false accept rate.)
    ///
    /// `None` if `far` is not a rate, or if there are too few different pairs to measure it: less
    /// than one wrong acceptance, `far * negatives < 1`.
    pub fn at_far(&self, far: f64) -> Option<RocPoint> {
        if !(0.0..=1.0).contains(&far) {
            return None;
        }
        // 0.29 * 100 is 28.999999999999996: a hair is added, so that it allows 29 and not 28.
        let allowed = (far * self.negatives as f64 + 1e-9).floor();
        if allowed < 1.0 {
            return None;
        }
        let limit = (allowed + 0.5) / self.negatives as f64;
        let within = &self.points[..self.points.partition_point(|point| point.far < limit)];
        let best = within.last()?.tar;
        within.iter().find(|point| point.tar == best).copied()
    }

    /// The rate at which as many different pairs are accepted as same pairs are rejected, in
    /// `[0, 1]`; linear between the two operating points around it.
    pub fn equal_error_rate(&self) -> f64 {
        let excess = |point: &RocPoint| point.far - (1.0 - point.tar);
        // The excess rises from -1 to 1 along the curve.
        let after = self.points.partition_point(|point| excess(point) < 0.0);
        let (a, b) = (&self.points[after - 1], &self.points[after]);
        let part = -excess(a) / (excess(b) - excess(a));
        a.far + part * (b.far - a.far)
    }

    /// Area under the curve, in `[0, 1]`: the chance that a same pair scores above a different pair,
    /// where a tie counts as half.
    pub fn area(&self) -> f64 {
        self.points.windows(2).map(|w| (w[1].far - w[0].far) * (w[0].tar + w[1].tar) / 2.0).sum()
    }

    /// At most `limit` (at least two) of the points, for drawing: both ends, and corners of the curve.
    ///
    /// If there are more corners than that, half of those kept are evenly spaced among the corners
    /// and half lie densest at low false accept rates, so that a logarithmic axis is served as well.
    pub fn thinned(&self, limit: usize) -> Vec<RocPoint> {
        let last = self.points.len() - 1;
        let corner = |i: &usize| {
            let (a, b, c) = match i {
                0 => return true,
                i if *i == last => return true,
                i => (self.points[i - 1], self.points[*i], self.points[i + 1]),
            };
            !((a.far == b.far && b.far == c.far) || (a.tar == b.tar && b.tar == c.tar))
        };
        let corners: Vec<usize> = (0..=last).filter(corner).collect();
        let limit = limit.max(2);
        if corners.len() <= limit {
            return corners.into_iter().map(|i| self.points[i]).collect();
        }
        let end = (corners.len() - 1) as f64;
        let even = limit.div_ceil(2).max(2);
        let mut kept: Vec<usize> = (0..even).map(|k| (k as f64 * end / (even - 1) as f64).round() as usize).collect();
        let low = limit - even;
        kept.extend((0..low).map(|k| end.powf(k as f64 / low as f64).round() as usize));
        kept.sort_unstable();
        kept.dedup();
        kept.into_iter().map(|k| self.points[corners[k]]).collect()
    }
}

/// How sure the figures of a ROC curve are: 95 % intervals over pairs, as fractions in `[0, 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RocIntervals {
    /// Of the true accept rate at each false accept rate that was asked for; none for those that the pairs cannot measure.
    pub at_far: Vec<Option<Interval>>,
    /// Of the equal error rate.
    pub equal_error_rate: Interval,
    /// Of the area under the curve.
    pub area: Interval,
}

impl RocIntervals {
    /// The intervals of the curve of `scores` and of its true accept rates at `far`. Same and different pairs are resampled apart,
    /// and every threshold is chosen anew in each resample, so that the interval has what the threshold costs.
    ///
    /// # Errors
    /// As [`Roc::new`], or if there is no resample.
    pub fn new(scores: &[f64], same: &[bool], far: &[f64], resamples: usize, rng: &mut impl RngCore) -> Result<Self> {
        let roc = Roc::new(scores, same)?;
        // Only the number of different pairs decides what can be measured, and it is the same in each resample.
        let measured: Vec<f64> = far.iter().copied().filter(|far| roc.at_far(*far).is_some()).collect();
        let sorted = descending(scores, same);
        let kinds: Vec<bool> = sorted.iter().map(|(_, same)| *same).collect();
        let mut found = figure_intervals(&kinds, resamples, rng, |drawn| {
            let drawn = sorted.iter().zip(drawn).filter(|(_, times)| **times > 0);
            let resample =
                Roc::of(drawn.map(|((score, same), times)| (*score, *same, *times)), roc.positives, roc.negatives);
            let rates = measured.iter().filter_map(|far| Some(resample.at_far(*far)?.tar));
            [resample.equal_error_rate(), resample.area()].into_iter().chain(rates).collect()
        })?
        .into_iter();
        let mut next = || found.next().ok_or_else(|| Error::data("a ROC curve without figures"));
        let (equal_error_rate, area) = (next()?, next()?);
        let mut of = |far: &f64| roc.at_far(*far).map(|_| next()).transpose();
        Ok(Self { at_far: far.iter().map(&mut of).collect::<Result<_>>()?, equal_error_rate, area })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn small() -> Roc {
        // Sorted: same .9, same .8, different .7, same .6, different .5, different .4.
        Roc::new(&[0.9, 0.5, 0.8, 0.7, 0.6, 0.4], &[true, false, true, false, true, false]).expect("both classes")
    }

    #[test]
    fn a_curve_by_hand() {
        let third = 1.0 / 3.0;
        let rates: Vec<(f64, f64)> = small().points().iter().map(|p| (p.far, p.tar)).collect();
        let expected = [
            (0.0, 0.0),
            (0.0, third),
            (0.0, 2.0 / 3.0),
            (third, 2.0 / 3.0),
            (third, 1.0),
            (2.0 / 3.0, 1.0),
            (1.0, 1.0),
        ];
        assert_eq!(rates, expected);
        // Of nine same-different couples only (.6, .7) is the wrong way round.
        assert!((small().area() - 8.0 / 9.0).abs() < 1e-12);
        assert!((small().equal_error_rate() - third).abs() < 1e-12);
    }

    #[test]
    fn tar_at_far_takes_the_best_point_that_exists() {
        let at = small().at_far(0.34).expect("one of three");
        assert_eq!((at.threshold, at.tar), (0.6, 1.0));
        assert_eq!(small().at_far(0.65).map(|p| p.threshold), Some(0.6));
        assert_eq!(small().at_far(1.0).map(|p| (p.threshold, p.tar)), Some((0.6, 1.0)));
        assert_eq!(small().at_far(0.33), None);
        assert_eq!(small().at_far(f64::NAN), None);
    }

    #[test]
    fn a_rate_that_floats_cannot_hold_still_counts() {
        // 0.29 of 100 is 28.999999999999996.
        let scores: Vec<f64> = (0..101).map(|i| 1.0 - f64::from(i) * 0.001).collect();
        let same: Vec<bool> = (0..101).map(|i| i == 29).collect();
        let roc = Roc::new(&scores, &same).expect("both classes");
        assert_eq!(roc.at_far(0.29).map(|p| p.tar), Some(1.0));
        assert_eq!(roc.at_far(0.28).map(|p| p.tar), Some(0.0));
    }

    #[test]
    fn ties_are_one_step() {
        let roc = Roc::new(&[0.5, 0.5, 0.5, 0.5], &[true, false, true, false]).expect("both classes");
        assert_eq!(roc.points().len(), 2);
        assert_eq!((roc.area(), roc.equal_error_rate()), (0.5, 0.5));
    }

    #[test]
    fn the_area_counts_couples() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let same: Vec<bool> = (0..60).map(|i| i % 3 == 0).collect();
        let scores: Vec<f64> = same.iter().map(|&s| f64::from(rng.random_range(0..15u32) + 4 * u32::from(s))).collect();
        let (mut won, mut couples) = (0.0, 0.0);
        for (i, _) in same.iter().enumerate().filter(|(_, s)| **s) {
            for (j, _) in same.iter().enumerate().filter(|(_, s)| !**s) {
                couples += 1.0;
                won += f64::from(u8::from(scores[i] > scores[j])) + 0.5 * f64::from(u8::from(scores[i] == scores[j]));
            }
        }
        let roc = Roc::new(&scores, &same).expect("both classes");
        assert!((roc.area() - won / couples).abs() < 1e-12);
    }

    #[test]
    fn thinning_keeps_the_ends_and_the_order() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let same: Vec<bool> = (0..5000).map(|i| i % 2 == 0).collect();
        let scores: Vec<f64> =
            same.iter().map(|&s| rng.random_range(0.0..1.0) + 0.2 * f64::from(u8::from(s))).collect();
        let roc = Roc::new(&scores, &same).expect("both classes");
        let thin = roc.thinned(200);
        assert!(thin.len() <= 200 && thin.len() > 150, "{}", thin.len());
        assert_eq!((thin[0], thin.last().copied()), (roc.points()[0], roc.points().last().copied()));
        assert!(thin.windows(2).all(|w| w[0].threshold > w[1].threshold));
        assert!(small().thinned(200).len() < small().points().len());
    }

    #[test]
    fn certainty_has_no_width_and_what_cannot_be_measured_has_no_interval() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        // Every same pair is above every different one, however they are drawn.
        let found = RocIntervals::new(&[0.9, 0.1, 0.8, 0.2], &[true, false, true, false], &[0.5, 0.1], 50, &mut rng);
        let (one, zero) = (Interval { low: 1.0, high: 1.0 }, Interval { low: 0.0, high: 0.0 });
        let expected = RocIntervals { at_far: vec![Some(one), None], equal_error_rate: zero, area: one };
        assert_eq!(found.expect("both classes"), expected);
        assert!(RocIntervals::new(&[0.9], &[true], &[], 50, &mut rng).is_err());
    }

    #[test]
    fn a_resample_is_the_curve_of_the_pairs_that_were_drawn() {
        // Of the items of `small` two are drawn twice and two not at all.
        let sorted = [(0.9, true, 1), (0.8, true, 2), (0.7, false, 2), (0.5, false, 1)];
        let drawn = Roc::of(sorted.into_iter(), 3, 3);
        let (scores, same) = ([0.9, 0.8, 0.8, 0.7, 0.7, 0.5], [true, true, true, false, false, false]);
        assert_eq!(drawn, Roc::new(&scores, &same).expect("both classes"));
    }

    #[test]
    fn the_intervals_are_those_of_theory_and_repeat() {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let same: Vec<bool> = (0..6000).map(|i| i % 2 == 0).collect();
        let scores: Vec<f64> =
            same.iter().map(|&s| rng.random_range(0.0..1.0) + 0.5 * f64::from(u8::from(s))).collect();
        let of = |seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            RocIntervals::new(&scores, &same, &[0.1], 1000, &mut rng).expect("both classes")
        };
        let (found, roc) = (of(1), Roc::new(&scores, &same).expect("both classes"));
        assert_eq!(found, of(1));
        let close = |interval: Interval, value: f64, half: f64| {
            assert!((interval.low - value + half).abs() < 0.2 * half, "{interval:?}, {value}");
            assert!((interval.high - value - half).abs() < 0.2 * half, "{interval:?}, {value}");
        };
        // Uniform scores, same pairs half a step above: the curve is tar = min(1, 1/2 + far), so the rates meet at 1/4, and a step
        // of the threshold moves both alike. Variance of the error rate: 1/4 * 3/4 * (1/3000 + 1/3000) / 2^2.
        close(found.equal_error_rate, roc.equal_error_rate(), 1.96 * (0.1875 / 6000f64).sqrt());
        // At 0.1 the threshold is 0.9 and tar 0.6: 0.6 * 0.4 / 3000 of the same pairs, and slope 1 times 0.1 * 0.9 / 3000.
        let at = roc.at_far(0.1).map_or(0.0, |point| point.tar);
        close(found.at_far[0].expect("measured"), at, 1.96 * (0.33 / 3000f64).sqrt());
        // DeLong: a same pair x above 1/2 beats min(1, x) of the others; variance of that is 5/192 for both classes.
        close(found.area, roc.area(), 1.96 * (2.0 * 5.0 / 192.0 / 3000f64).sqrt());
    }

    #[test]
    fn one_class_is_no_curve() {
        assert!(Roc::new(&[0.1, 0.2], &[true, true]).is_err());
    }
}
