//! Search in a gallery that need not fit into memory: where the mates of each probe stand among all others.
//!
//! Nothing is sorted. The scores of a probe's mates are known first; the rest of the gallery comes in blocks, each is multiplied
//! with the probes, and what is kept of it is how many faces score as high as each mate. Ranks and average precision follow from
//! those counts alone.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::rates::TIE;
use crate::embedder::Embeddings;
use crate::error::{Error, Result};
use crate::nn::kernels::PackedRows;

/// Gallery faces that are packed at once, and the probes that a thread multiplies with them: a thread's scores stay in its cache.
const BLOCK: usize = 1024;
const PROBES: usize = 192;
/// Mates up to which each is compared with every score: vectors do that faster than a search among the mates.
const FEW: usize = 16;

/// A mate of a probe in the ranking.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    /// Mates that score as high as this one, itself among them.
    pub(super) mates: usize,
    /// Faces of others that score as high: they come first.
    pub(super) others: usize,
}

/// A search that goes on.
pub(super) struct Search<'a> {
    probes: &'a Embeddings,
    people: &'a [usize],
    /// The scores of each probe's mates, rising.
    mates: Vec<Vec<f32>>,
    /// `above[i][k]`: faces of others that score as high as mate `k` of probe `i`.
    above: Vec<Vec<usize>>,
}

impl<'a> Search<'a> {
    /// A search for `probes`, whose people are `people`, among the faces `known` of the people `of`.
    ///
    /// # Errors
    /// If widths or lengths differ, or a probe has no mate.
    pub(super) fn new(
        (probes, people): (&'a Embeddings, &'a [usize]),
        (known, of): (&Embeddings, &[usize]),
    ) -> Result<Self> {
        if probes.len() != people.len() || known.len() != of.len() || probes.width() != known.width() {
            return Err(Error::component(format!(
                "expected rows of one width and a person for each, found {} rows of {} for {} people and {} rows of {} for {}",
                probes.len(),
                probes.width(),
                people.len(),
                known.len(),
                known.width(),
                of.len()
            )));
        }
        let mut rows: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (row, person) in of.iter().enumerate() {
            rows.entry(*person).or_default().push(row);
        }
        let scores = |(at, person): (usize, &usize)| {
            let rows = rows.get(person).ok_or_else(|| Error::data(format!("probe {at} has no mate in the gallery")))?;
            let mut scores: Vec<f32> = rows.iter().map(|row| dot(probes.known(at), known.known(*row))).collect();
            scores.sort_by(f32::total_cmp);
            Ok(scores)
        };
        let mates: Vec<Vec<f32>> = people.par_iter().enumerate().map(scores).collect::<Result<_>>()?;
        let above = mates.iter().map(|mates| vec![0; mates.len()]).collect();
        let mut search = Self { probes, people, mates, above };
        search.count(known, Some(of))?;
        Ok(search)
    }

    /// Counts faces of people who are no mate of any probe.
    ///
    /// # Errors
    /// If the device fails, or the width is another.
    pub(super) fn among(&mut self, strangers: &Embeddings) -> Result<()> {
        self.count(strangers, None)
    }

    fn count(&mut self, gallery: &Embeddings, of: Option<&[usize]>) -> Result<()> {
        let width = self.probes.width();
        for (block, rows) in gallery.values().chunks(BLOCK * width).enumerate() {
            let of = of.map(|of| &of[block * BLOCK..][..rows.len() / width]);
            let rows = PackedRows::new(rows, width)?;
            let known = self.mates.par_chunks(PROBES).zip(self.people.par_chunks(PROBES));
            let probes = self.probes.values().par_chunks(PROBES * width).zip(known);
            probes.zip(self.above.par_chunks_mut(PROBES)).try_for_each(|((probes, (mates, people)), above)| {
                rows.products(probes, |at, scores| match of {
                    None if mates[at].len() <= FEW => count_each(scores, &mates[at], &mut above[at]),
                    _ => {
                        let others = |column: usize| of.is_none_or(|of| of[column] != people[at]);
                        count_among(scores, others, &mates[at], &mut above[at]);
                    }
                })
            })?;
        }
        Ok(())
    }

    /// For each probe the places of its mates, the best first.
    pub(super) fn places(&self) -> Vec<Vec<Place>> {
        let of_probe = |(mates, above): (&Vec<f32>, &Vec<usize>)| {
            let place = |at: usize| Place {
                mates: mates.iter().filter(|mate| **mate + TIE >= mates[at]).count(),
                others: above[at],
            };
            (0..mates.len()).rev().map(place).collect()
        };
        self.mates.iter().zip(&self.above).map(of_probe).collect()
    }
}

/// Adds to `above` how many of the scores are as high as each of few mates.
fn count_each(scores: &[f32], mates: &[f32], above: &mut [usize]) {
    for (above, mate) in above.iter_mut().zip(mates) {
        let least = mate - TIE;
        *above += scores.iter().map(|score| u32::from(*score >= least)).sum::<u32>() as usize;
    }
}

/// The same of those scores whose faces are `others`, however many mates there are.
fn count_among(scores: &[f32], others: impl Fn(usize) -> bool, mates: &[f32], above: &mut [usize]) {
    let (lowest, mut reached) = (mates[0] - TIE, vec![0; mates.len()]);
    for (column, score) in scores.iter().enumerate().filter(|(_, score)| **score >= lowest) {
        if others(column) {
            reached[mates.partition_point(|mate| *mate - TIE <= *score) - 1] += 1;
        }
    }
    let mut higher = 0;
    for (above, reached) in above.iter_mut().zip(reached).rev() {
        higher += reached;
        *above += higher;
    }
}

/// In double precision, so that the order of the sum does not matter.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32
}

/// Average precision of one probe: the mean over its mates of the share of mates among the faces that score as high. It is
/// scikit-learn's `average_precision_score`, ties included.
pub(super) fn average_precision(places: &[Place]) -> f64 {
    let precision = |place: &Place| place.mates as f64 / (place.mates + place.others) as f64;
    places.iter().map(precision).sum::<f64>() / places.len() as f64
}

/// Average precision by the trapezoid rule, as TinyFace's own script has it (and the Oxford buildings' before): between two mates
/// precision is the mean of what it is at the mate and just before it, and before the first face it is 1.
pub(super) fn trapezoid_precision(places: &[Place]) -> f64 {
    let precision = |(at, place): (usize, &Place)| {
        let rank = at + 1 + place.others;
        let before = if rank == 1 { 1.0 } else { at as f64 / (rank - 1) as f64 };
        (before + (at + 1) as f64 / rank as f64) / 2.0
    };
    places.iter().enumerate().map(precision).sum::<f64>() / places.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(angles: &[f64]) -> Embeddings {
        let values = angles.iter().flat_map(|angle| [angle.cos() as f32, angle.sin() as f32]).collect();
        Embeddings::from_rows(2, values).expect("rows")
    }

    fn places(probe: f64, known: &[(f64, usize)], strangers: &[f64]) -> Vec<Place> {
        let (angles, of): (Vec<f64>, Vec<usize>) = known.iter().copied().unzip();
        let (probe, known) = (rows(&[probe]), rows(&angles));
        let mut search = Search::new((&probe, &[1]), (&known, &of)).expect("a search");
        search.among(&rows(strangers)).expect("counted");
        search.places().remove(0)
    }

    #[test]
    fn places_by_hand() {
        // By rising angle: mate, stranger, other, mate, other.
        let found = places(0.0, &[(0.1, 1), (0.3, 2), (0.4, 1), (0.5, 2)], &[0.2]);
        assert_eq!(found, [Place { mates: 1, others: 0 }, Place { mates: 2, others: 2 }]);
        assert!((average_precision(&found) - (1.0 + 0.5) / 2.0).abs() < 1e-12);
        // (1 + 1) / 2 at rank 1; (1/3 + 2/4) / 2 at rank 4.
        assert!((trapezoid_precision(&found) - (1.0 + (1.0 / 3.0 + 0.5) / 2.0) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn a_tie_counts_against_the_mate() {
        // A constant embedder finds nobody.
        let found = places(0.0, &[(0.3, 1), (0.3, 2), (0.3, 1)], &[0.3, 0.3]);
        assert_eq!(found, [Place { mates: 2, others: 3 }; 2]);
        assert!((average_precision(&found) - 0.4).abs() < 1e-12);
    }

    /// Signs that follow from a number: scores of such rows are whole eighths, so that they tie exactly or not at all.
    fn signs(at: usize) -> Vec<i32> {
        let bits = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        (0..16).map(|bit| if bits >> bit & 1 == 1 { 1 } else { -1 }).collect()
    }

    fn signed(numbers: impl Iterator<Item = usize>) -> Embeddings {
        Embeddings::from_rows(16, numbers.flat_map(signs).map(|sign| sign as f32).collect()).expect("rows")
    }

    #[test]
    fn counting_in_blocks_is_counting_one_by_one() {
        // More than one block, and no whole number of them.
        let (people, strangers) = (2 * PROBES + 50, 3 * BLOCK + BLOCK / 2 + 11);
        let of: Vec<usize> = (0..2 * people).map(|at| at % people).collect();
        let wanted: Vec<usize> = (0..people).collect();
        let (probes, gallery) = (signed(70_000..70_000 + people), signed(0..2 * people));
        let mut search = Search::new((&probes, &wanted), (&gallery, &of)).expect("a search");
        search.among(&signed(30_000..30_000 + strangers)).expect("counted");
        let numbers: Vec<usize> = (0..2 * people).chain(30_000..30_000 + strangers).collect();
        let rows: Vec<Vec<i32>> = numbers.into_iter().map(signs).collect();
        for (person, places) in search.places().into_iter().enumerate().step_by(7) {
            let probe = signs(70_000 + person);
            let score = |row: &Vec<i32>| row.iter().zip(&probe).map(|(a, b)| a * b).sum::<i32>();
            let scores: Vec<i32> = rows.iter().map(score).collect();
            let mut mates = [scores[person], scores[person + people]];
            mates.sort_by(|a, b| b.cmp(a));
            for (mate, place) in mates.iter().zip(places) {
                let as_high = scores.iter().filter(|score| *score >= mate).count();
                let of_mates = mates.iter().filter(|score| *score >= mate).count();
                assert_eq!(place, Place { mates: of_mates, others: as_high - of_mates });
            }
        }
    }

    /// Made-up embeddings of 512 values with a weak centre for each person.
    fn made(people: impl Iterator<Item = usize>, stream: u64) -> Embeddings {
        use rand::Rng;
        let seed = crate::seed::Seed(7);
        let row = |(at, person): (usize, usize)| {
            let (mut own, mut centre) =
                (seed.stream("row", &[stream, at as u64]), seed.stream("person", &[person as u64]));
            (0..512).map(|_| own.random::<f32>() - 0.5 + 0.3 * (centre.random::<f32>() - 0.5)).collect::<Vec<_>>()
        };
        let people: Vec<(usize, usize)> = people.enumerate().collect();
        let rows: Vec<Vec<f32>> = people.into_par_iter().map(row).collect();
        Embeddings::from_rows(512, rows.concat()).expect("rows")
    }

    /// `cargo test --release -p gdrd-core tinyface_size -- --ignored --nocapture`: 3,728 probes, 4,443 mates and 153,428
    /// distractors, against the bare products, and against counting one by one.
    #[test]
    #[ignore = "minutes of products, and its times mean something in a release build alone"]
    fn tinyface_size() {
        use std::io::Write;
        use std::time::{Duration, Instant};

        use candle_core::{Device, Tensor};
        const PEOPLE: usize = 2570;
        let wanted: Vec<usize> = (0..3728).map(|at| at % PEOPLE).collect();
        let of: Vec<usize> = (0..4443).map(|at| at % PEOPLE).collect();
        let (probes, known) = (made(wanted.iter().copied(), 1), made(of.iter().copied(), 2));
        let checked = [0, 1, 1000, 3727];
        let mut counted: Vec<usize> = Vec::new();
        let best = |at: usize| {
            let mates = (0..of.len()).filter(|row| of[*row] == wanted[at]);
            mates.map(|row| dot(probes.known(at), known.known(row))).fold(f32::MIN, f32::max)
        };
        let as_high = |at: usize, rows: &Embeddings, of: Option<&[usize]>| {
            let others = (0..rows.len()).filter(|row| of.is_none_or(|of| of[*row] != wanted[at]));
            others.filter(|row| dot(probes.known(at), rows.known(*row)) >= best(at) - TIE).count()
        };
        counted.extend(checked.map(|at| as_high(at, &known, Some(&of))));
        let (mut searched, mut bare) = (Duration::ZERO, Duration::ZERO);
        let all = Tensor::from_slice(probes.values(), (probes.len(), 512), &Device::Cpu).expect("a matrix");
        let mut product = |rows: &Embeddings| {
            let rows = Tensor::from_slice(rows.values(), (rows.len(), 512), &Device::Cpu).expect("a matrix");
            let start = Instant::now();
            std::hint::black_box(all.matmul(&rows.t().expect("turned")).expect("a product"));
            bare += start.elapsed();
        };
        product(&known);
        let start = Instant::now();
        let mut search = Search::new((&probes, &wanted), (&known, &of)).expect("a search");
        searched += start.elapsed();
        for (block, first) in (0..153_428).step_by(8192).enumerate() {
            let strangers = made((first..(first + 8192).min(153_428)).map(|at| 10_000 + at), 3 + block as u64);
            product(&strangers);
            let start = Instant::now();
            search.among(&strangers).expect("counted");
            searched += start.elapsed();
            counted.iter_mut().zip(checked).for_each(|(count, at)| *count += as_high(at, &strangers, None));
        }
        let start = Instant::now();
        let places = search.places();
        searched += start.elapsed();
        let found: Vec<usize> = checked.iter().map(|at| places[*at][0].others).collect();
        let first = places.iter().filter(|places| places[0].others == 0).count();
        writeln!(
            std::io::stderr(),
            "search {searched:.1?}, bare product {bare:.1?}; rank-1 {first} of {}; found {found:?}, counted {counted:?}",
            places.len()
        )
        .expect("written");
        assert!(found.iter().zip(&counted).all(|(found, counted)| found.abs_diff(*counted) <= 1 + counted / 1000));
        assert!(searched < bare.mul_f64(1.5), "{searched:?} of {bare:?}");
    }
}
