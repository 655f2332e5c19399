//! Receiver operating characteristic: what is accepted rightly against what is accepted wrongly.

use serde::{Deserialize, Serialize};

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
        let sorted = descending(scores, same);
        let mut points = vec![RocPoint { threshold: sorted[0].0.next_up(), far: 0.0, tar: 0.0 }];
        let (mut accepted_same, mut accepted_different) = (0, 0);
        for (i, &(score, same)) in sorted.iter().enumerate() {
            if same {
                accepted_same += 1;
            } else {
                accepted_different += 1;
            }
            if sorted.get(i + 1).is_none_or(|next| next.0 != score) {
                points.push(RocPoint {
                    threshold: score,
                    far: f64::from(accepted_different) / negatives as f64,
                    tar: f64::from(accepted_same) / positives as f64,
                });
            }
        }
        Ok(Self { points, positives, negatives })
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
    fn one_class_is_no_curve() {
        assert!(Roc::new(&[0.1, 0.2], &[true, true]).is_err());
    }
}
