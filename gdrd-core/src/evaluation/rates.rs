//! Figures from probes: rates with intervals, whole and by group, and the curve over ranks.

use std::collections::BTreeMap;

use super::bootstrap::{Interval, RESAMPLES, alike_interval, mean_interval};
use super::outcome::{CURVE_POINTS, Curve, Figure};
use crate::error::{Problem, Result};
use crate::seed::Seed;

/// Scores that differ by no more than this are tied: products of one embedding, computed in two blocks, may differ so much in
/// float32. A tie never counts for the embedder: whoever else has the score comes first.
pub(super) const TIE: f32 = 1e-6;

/// 1 for each probe that is right, 0 for the others.
pub(super) fn items(right: impl IntoIterator<Item = bool>) -> Vec<f64> {
    right.into_iter().map(|right| f64::from(u8::from(right))).collect()
}

/// The mean of `items` as per cent with its 95 % interval over the probes; without a value if there is none.
pub(super) fn rate(name: &str, items: &[f64]) -> Result<Figure> {
    if items.is_empty() {
        return Ok(Figure::missing(name, 0, "there is no such probe"));
    }
    let mean = items.iter().sum::<f64>() / items.len() as f64;
    with_interval(Figure::percent(name, mean, items.len()), items, "interval of a rate")
}

/// A percentage with the 95 % interval over its items: the bootstrap's, drawn from the stream of that name, or Wilson's where all items
/// are alike, and then a note says so.
pub(super) fn with_interval(figure: Figure, items: &[f64], stream: &str) -> Result<Figure> {
    let between = |figure: Figure, Interval { low, high }: Interval| figure.between(100.0 * low, 100.0 * high);
    if let Some(interval) = alike_interval(items) {
        let note = format!("its 95 % interval is Wilson's score interval, as all {} items are alike", items.len());
        return Ok(between(figure, interval).also_noted(note));
    }
    // Not the run's seed: the interval is a part of the measure, not of the experiment.
    Ok(between(figure, mean_interval(items, RESAMPLES, &mut Seed(7).stream(stream, &[]))?))
}

/// The rate called `name` for each group of probes: `rank-1, scarf`.
pub(super) fn by_group(name: &str, items: &[f64], groups: &BTreeMap<String, Vec<usize>>) -> Result<Vec<Figure>> {
    let of = |(group, places): (&String, &Vec<usize>)| {
        rate(&format!("{name}, {group}"), &places.iter().map(|&at| items[at]).collect::<Vec<_>>())
    };
    groups.iter().map(of).collect()
}

/// What is wrong with the option `ranks`.
pub(super) fn check_ranks(ranks: &[usize]) -> Option<Problem> {
    let good = ranks.len() <= 20 && ranks.windows(2).all(|two| two[0] < two[1]);
    Problem::unless(good, "ranks", || {
        format!("expected at most 20 numbers that rise (rank 1 is always there), found {ranks:?}")
    })
}

/// The rates at which a probe's person is among the first `k` of `candidates`, for each `k` of `ranks`, and the cumulative match
/// characteristic. `found[i]` is how many others come before the person of probe `i`.
pub(super) fn of_ranks(found: &[usize], ranks: &[usize], candidates: usize) -> Result<(Vec<Figure>, Curve)> {
    let figure = |&rank: &usize| {
        let name = format!("rank-{rank}");
        if rank >= candidates {
            let why = format!("every probe is right among the first {rank} of {candidates}");
            return Ok(Figure::missing(name, found.len(), why));
        }
        rate(&name, &items(found.iter().map(|before| *before < rank)))
    };
    let figures = ranks.iter().map(figure).collect::<Result<Vec<_>>>()?;
    let share = |rank: usize| found.iter().filter(|before| **before < rank).count() as f64 / found.len().max(1) as f64;
    let points = (1..=candidates.min(CURVE_POINTS)).map(|rank| (rank as f64, 100.0 * share(rank))).collect();
    let (x, y) = ("rank".into(), "identification rate, %".into());
    let curve = Curve { name: "CMC".into(), x, y, log_x: false, points, reading: String::new() };
    Ok((figures, curve))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_by_hand() {
        let (figures, curve) = of_ranks(&[0, 2, 1, 0], &[1, 2, 3], 3).expect("figures");
        let values: Vec<Option<f64>> = figures.iter().map(|figure| figure.value).collect();
        assert_eq!(values, [Some(50.0), Some(75.0), None]);
        assert_eq!(figures[2].note.as_deref(), Some("every probe is right among the first 3 of 3"));
        assert!(figures[0].low < Some(50.0) && figures[0].high > Some(50.0));
        assert_eq!(curve.points, [(1.0, 50.0), (2.0, 75.0), (3.0, 100.0)]);
    }

    #[test]
    fn groups_are_parts_of_the_whole() {
        let groups = [("scarf".to_string(), vec![0, 3]), ("none".to_string(), vec![])].into();
        let figures = by_group("rank-1", &[1.0, 0.0, 0.0, 1.0], &groups).expect("figures");
        assert_eq!((figures[0].name.as_str(), figures[0].value, figures[0].count), ("rank-1, none", None, 0));
        assert_eq!((figures[1].name.as_str(), figures[1].value, figures[1].count), ("rank-1, scarf", Some(100.0), 2));
        // All of two: nothing is certain, and the note says by what.
        assert!(figures[1].low.is_some_and(|low| (low - 34.2372).abs() < 1e-3) && figures[1].high == Some(100.0));
        let note = figures[1].note.as_deref().expect("a note");
        assert_eq!(note, "its 95 % interval is Wilson's score interval, as all 2 items are alike");
    }
}
