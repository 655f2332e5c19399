//! Error versus reject: how wrong the pairs are that are left when those with the poorest faces are turned away.

use super::bootstrap::{Interval, RESAMPLES, figure_intervals};
use super::outcome::{Curve, Matrix};
use crate::embedder::Embeddings;
use crate::error::Result;
use crate::seed::Seed;

const NAME: &str = "Error versus reject";
const READING: &str = "How to read it: each point is the error of the pairs that are left when the pairs with the poorest faces are rejected. A \
                       pair is as good as the poorer of its two faces, by the student's quality model, or without one by the length of \
                       the embedding. Where the line falls to the right, mistakes are among poor faces. Where it is level or rises, this \
                       quality does not know which pairs go wrong, and nothing is won by rejecting.";

/// Shares of pairs that are rejected, in per cent.
const MOST: usize = 90;
const STEP: usize = 5;
/// A share is shown if so many pairs are left.
const LEAST: usize = 20;
/// Qualities that differ by less than this part of the largest do not differ.
const ALIKE: f64 = 1e-4;

/// How good each of some embedded faces is, and by what that was judged.
pub(super) struct Quality {
    /// One for each embedding; only their order counts.
    of_faces: Vec<f64>,
    by: &'static str,
}

impl Quality {
    /// The ratings of the student's quality model, or where there is none the lengths of the embeddings.
    pub(super) fn of(embeddings: &Embeddings) -> Self {
        match embeddings.ratings() {
            Some(ratings) => Self { of_faces: ratings.to_vec(), by: "the student's quality model" },
            None => Self {
                of_faces: embeddings.lengths().iter().map(|length| f64::from(*length)).collect(),
                by: "the length of the embedding",
            },
        }
    }

    /// The curve and the same as a table with 95 % intervals over pairs. `faces` are the rows of each pair's faces, of which the
    /// poorer one is the pair's quality; `same` says whether they are of one person, `right` is 1 where the pair was judged rightly
    /// and 0 where not. Thresholds stay as they were chosen; who is rejected is decided anew in each resample.
    ///
    /// None if there are too few pairs, or all are equally good.
    ///
    /// # Errors
    /// If an error is no number.
    pub(super) fn error_versus_reject(
        &self,
        faces: impl Iterator<Item = (usize, usize)>,
        same: &[bool],
        right: &[f64],
    ) -> Result<Option<(Curve, Matrix)>> {
        let pairs = faces.zip(same).zip(right);
        let mut pairs: Vec<Judged> = pairs
            .map(|(((one, other), same), right)| {
                let quality = self.of_faces[one].min(self.of_faces[other]);
                Judged { quality, same: *same, wrong: 1.0 - right }
            })
            .collect();
        pairs.sort_by(|a, b| a.quality.total_cmp(&b.quality));
        let (Some(poorest), Some(best)) = (pairs.first(), pairs.last()) else { return Ok(None) };
        let alike = best.quality - poorest.quality <= ALIKE * best.quality.abs();
        let percents: Vec<usize> =
            (0..=MOST).step_by(STEP).filter(|percent| pairs.len() * (100 - percent) >= 100 * LEAST).collect();
        if alike || percents.len() < 2 {
            return Ok(None);
        }
        let found = errors_left(&pairs, &vec![1; pairs.len()], &percents);
        let kinds: Vec<bool> = pairs.iter().map(|pair| pair.same).collect();
        // Not the run's seed: the interval is a part of the measure, not of the experiment.
        let mut stream = Seed(7).stream("error versus reject", &[]);
        let intervals =
            figure_intervals(&kinds, RESAMPLES, &mut stream, |drawn| errors_left(&pairs, drawn, &percents))?;
        let points = percents.iter().zip(&found).map(|(percent, error)| (*percent as f64, 100.0 * error)).collect();
        let row = |((percent, error), interval): ((&usize, &f64), &Interval)| {
            (format!("{percent} %"), [*error, interval.low, interval.high].map(|rate| 100.0 * rate).to_vec())
        };
        let rows = percents.iter().zip(&found).zip(&intervals).map(row).collect();
        let curve = Curve {
            name: NAME.into(),
            x: "pairs rejected for the lowest quality, %".into(),
            y: "error of the pairs that are left, %".into(),
            log_x: false,
            points,
            reading: READING.into(),
        };
        let columns = ["rejected", "error of the pairs that are left, %", "95 % from", "to"];
        let name = format!("{NAME}, quality by {}", self.by);
        Ok(Some((curve, Matrix { name, columns: columns.map(String::from).to_vec(), rows })))
    }
}

struct Judged {
    quality: f64,
    same: bool,
    /// 1 where it was judged wrongly.
    wrong: f64,
}

/// The error of the pairs that are left, in `[0, 1]`, at each of `percents`, which rise and are below 100. `pairs` rise in quality,
/// and `drawn` says how often each one counts. Where pairs are equally good, chance decides who is rejected: what is given is the mean.
fn errors_left(pairs: &[Judged], drawn: &[u32], percents: &[usize]) -> Vec<f64> {
    // How many pairs of each quality, and how many of them are wrong.
    let mut groups: Vec<(f64, f64, f64)> = Vec::with_capacity(pairs.len());
    let (mut count, mut wrong) = (0.0, 0.0);
    for (pair, times) in pairs.iter().zip(drawn).filter(|(_, times)| **times > 0) {
        let times = f64::from(*times);
        count += times;
        wrong += times * pair.wrong;
        match groups.last_mut() {
            Some((quality, all, bad)) if *quality == pair.quality => {
                *all += times;
                *bad += times * pair.wrong;
            }
            _ => groups.push((pair.quality, times, times * pair.wrong)),
        }
    }
    let (mut groups, mut gone, mut gone_wrong) = (groups.into_iter().peekable(), 0.0, 0.0);
    let at = |percent: &usize| {
        let rejected = count * *percent as f64 / 100.0;
        while let Some((_, all, bad)) = groups.next_if(|(_, all, _)| gone + all <= rejected) {
            gone += all;
            gone_wrong += bad;
        }
        let part = groups.peek().map_or(0.0, |(_, all, bad)| (rejected - gone) / all * bad);
        ((wrong - gone_wrong - part) / (count - rejected)).clamp(0.0, 1.0)
    };
    percents.iter().map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(pairs: &[(f64, f64)]) -> Vec<Judged> {
        pairs.iter().map(|(quality, wrong)| Judged { quality: *quality, same: true, wrong: *wrong }).collect()
    }

    #[test]
    fn errors_by_hand() {
        // Wrong, wrong, right, right: half, a third of the best three, none of the best two.
        let pairs = judged(&[(0.1, 1.0), (0.2, 1.0), (0.3, 0.0), (0.4, 0.0)]);
        assert_eq!(errors_left(&pairs, &[1; 4], &[0, 25, 50, 75]), [0.5, 1.0 / 3.0, 0.0, 0.0]);
        // The first twice and the last not at all: three of four, two of three, one of two, none of one.
        assert_eq!(errors_left(&pairs, &[2, 1, 1, 0], &[0, 25, 50, 75]), [0.75, 2.0 / 3.0, 0.5, 0.0]);
    }

    #[test]
    fn equally_good_pairs_are_rejected_by_chance() {
        // One of the first two goes: on the mean half a mistake of three pairs, whatever their order.
        for (first, second) in [(1.0, 0.0), (0.0, 1.0)] {
            let pairs = judged(&[(0.1, first), (0.1, second), (0.3, 0.0), (0.4, 0.0)]);
            assert_eq!(errors_left(&pairs, &[1; 4], &[25]), [0.5 / 3.0]);
        }
    }

    #[test]
    fn the_poorer_face_is_the_pairs_quality() {
        // Forty pairs of face 0 with each other one; the faces after it are better and better, and the poorest ten are wrong.
        let rows = (1..=41).map(|length| length as f32).collect();
        let embeddings = Embeddings::from_rows(1, rows).expect("rows");
        let same: Vec<bool> = (0..40).map(|at| at % 2 == 0).collect();
        let right: Vec<f64> = (0..40).map(|at| f64::from(u8::from(at >= 10))).collect();
        let quality = Quality::of(&embeddings);
        let pairs = || (0..40).map(|at| (at, at + 1));
        let (curve, table) = quality.error_versus_reject(pairs(), &same, &right).expect("lists").expect("a curve");
        // Half of the pairs must be left at least. 10 of 40, 8 of 38, ..., 0 of 30 and on.
        assert_eq!(curve.points.len(), 11);
        assert_eq!((curve.points[0], curve.points[5], curve.points[10]), ((0.0, 25.0), (25.0, 0.0), (50.0, 0.0)));
        assert!((curve.points[1].1 - 100.0 * 8.0 / 38.0).abs() < 1e-9, "{curve:?}");
        assert_eq!(table.name, "Error versus reject, quality by the length of the embedding");
        let first = &table.rows[0];
        assert_eq!((first.0.as_str(), first.1[0]), ("0 %", 25.0));
        assert!(first.1[1] < 25.0 && first.1[2] > 25.0, "{first:?}");
        // The same face in every pair says nothing of which one is wrong.
        let alike = quality.error_versus_reject((0..40).map(|at| (0, at)), &same, &right).expect("lists");
        assert!(alike.is_none());
        assert!(quality.error_versus_reject(pairs().take(20), &same[..20], &right[..20]).expect("lists").is_none());
    }

    #[test]
    fn a_quality_model_comes_before_the_length() {
        let embeddings = Embeddings::from_rows(1, vec![9.0, 1.0]).expect("rows").rated(vec![0.25, 0.5]).expect("rated");
        let quality = Quality::of(&embeddings);
        assert_eq!((quality.of_faces, quality.by), (vec![0.25, 0.5], "the student's quality model"));
    }
}
