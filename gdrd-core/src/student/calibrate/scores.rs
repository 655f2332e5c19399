//! How many comparisons of probes with references have each similarity.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::super::thresholds::{Comparisons, FALSE_MATCH_RATES, LEAST_FALSE_MATCHES, Threshold};
use crate::embedder::Embeddings;
use crate::error::Result;

/// Vectors of unit length, each of one face or fused of several of a person.
pub(super) struct Vectors {
    width: usize,
    values: Vec<f32>,
    pub(super) people: Vec<usize>,
    /// The photographs that each was made of.
    faces: Vec<Vec<usize>>,
}

/// Each face by itself.
pub(super) fn singles(embeddings: &Embeddings, people: &[usize]) -> Vectors {
    let faces = (0..people.len()).map(|face| vec![face]).collect();
    Vectors { width: embeddings.width(), values: embeddings.values().to_vec(), people: people.to_vec(), faces }
}

/// Each face of those who have `frames` of them, fused with the next ones of the person, from the first again after the last.
pub(super) fn fused(embeddings: &Embeddings, people: &[usize], frames: usize) -> Result<Vectors> {
    let mut of_person: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    people.iter().enumerate().for_each(|(face, person)| of_person.entry(*person).or_default().push(face));
    let mut made = Vectors { width: embeddings.width(), values: Vec::new(), people: Vec::new(), faces: Vec::new() };
    for (person, faces) in of_person.into_iter().filter(|(_, faces)| faces.len() >= frames) {
        // As many faces as there are frames give one vector, wherever one begins.
        let starts = if faces.len() == frames { 1 } else { faces.len() };
        for start in 0..starts {
            let track: Vec<usize> = faces.iter().cycle().skip(start).take(frames).copied().collect();
            made.values.extend(embeddings.fused(&track)?);
            made.people.push(person);
            made.faces.push(track);
        }
    }
    Ok(made)
}

/// Similarities are counted in so many steps of `[-1, 1]`.
const STEPS: usize = 1 << 16;
/// Rows that are compared at once.
const ROWS: usize = 256;

/// How many comparisons have each similarity.
pub(super) struct Scores {
    same: Vec<u64>,
    different: Vec<u64>,
}

impl Scores {
    /// Every probe with every reference that has no photograph in common with it.
    pub(super) fn of(references: &Vectors, probes: &Vectors) -> Result<Self> {
        let (width, count) = (references.width, references.people.len());
        let right = Tensor::from_slice(&references.values, (count, width), &Device::Cpu)?.t()?;
        let mut all = Self { same: vec![0; STEPS], different: vec![0; STEPS] };
        for start in (0..probes.people.len()).step_by(ROWS) {
            let rows = ROWS.min(probes.people.len() - start);
            let values = &probes.values[start * width..(start + rows) * width];
            let scores = Tensor::from_slice(values, (rows, width), &Device::Cpu)?.matmul(&right)?;
            let scores = scores.flatten_all()?.to_vec1::<f32>()?;
            for (row, scores) in scores.chunks_exact(count).enumerate() {
                let (person, own) = (probes.people[start + row], &probes.faces[start + row]);
                for (reference, score) in scores.iter().enumerate() {
                    let at = step(f64::from(*score));
                    if references.people[reference] != person {
                        all.different[at] += 1;
                    } else if !references.faces[reference].iter().any(|face| own.contains(face)) {
                        all.same[at] += 1;
                    }
                }
            }
        }
        Ok(all)
    }

    /// The thresholds, where the probes show `people` people.
    pub(super) fn comparisons(&self, people: usize) -> Comparisons {
        let (same_pairs, different_pairs) = (self.same.iter().sum(), self.different.iter().sum::<u64>());
        let different_people = (people as u64) * (people as u64 - 1) / 2;
        let supported = |rate: &&f64| *rate * different_people as f64 >= LEAST_FALSE_MATCHES;
        let point = |&rate: &f64| {
            let allowed = (rate * different_pairs as f64 + 1e-9).floor() as u64;
            // Down from the highest similarity, as long as no more strangers are let through than may be.
            let (mut through, mut at) = (0, STEPS);
            while at > 0 && through + self.different[at - 1] <= allowed {
                at -= 1;
                through += self.different[at];
            }
            let found: u64 = self.same[at..].iter().sum();
            let true_match_rate = (same_pairs > 0).then(|| found as f64 / same_pairs as f64);
            Threshold { false_match_rate: rate, similarity: similarity(at), true_match_rate }
        };
        let thresholds = FALSE_MATCH_RATES.iter().filter(supported).map(point).collect();
        Comparisons { different_pairs, different_people, same_pairs, thresholds }
    }
}

/// The step of a similarity, and the similarity at which a step begins.
fn step(similarity: f64) -> usize {
    (((similarity + 1.0) / 2.0 * STEPS as f64).floor().max(0.0) as usize).min(STEPS - 1)
}

fn similarity(step: usize) -> f64 {
    2.0 * step as f64 / STEPS as f64 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// People on a circle, two faces each, a little apart; every similarity is known.
    #[test]
    fn thresholds_let_no_more_strangers_through_than_they_say() {
        let people: Vec<usize> = (0..600).map(|at| at / 2).collect();
        let angle = |at: usize| (at / 2) as f32 / 300.0 * std::f32::consts::PI + (at % 2) as f32 * 0.003;
        let rows = (0..600).flat_map(|at| [angle(at).cos(), angle(at).sin()]).collect();
        let all = Embeddings::from_rows(2, rows).expect("rows");
        let single = singles(&all, &people);
        let found = Scores::of(&single, &single).expect("scores").comparisons(300);
        assert_eq!((found.same_pairs, found.different_pairs), (600, 600 * 598));
        // 44,850 pairs of people: one in ten thousand would be 4.5 of them.
        let rates: Vec<f64> = found.thresholds.iter().map(|point| point.false_match_rate).collect();
        assert_eq!(rates, [0.1, 0.01, 0.001]);
        for point in &found.thresholds {
            let through = (0..600)
                .flat_map(|a| (0..600).map(move |b| (a, b)))
                .filter(|(a, b)| people[*a] != people[*b])
                .filter(|(a, b)| f64::from(all.similarity(*a, *b).expect("rows")) >= point.similarity)
                .count() as f64;
            let rate = through / found.different_pairs as f64;
            assert!(rate <= point.false_match_rate, "{rate} for {point:?}");
            // Neighbours on the circle are one face in 600: the least rate is met by nobody, and costs everybody.
            if point.false_match_rate >= 0.01 {
                assert!(rate > 0.5 * point.false_match_rate, "{rate} for {point:?}");
                assert_eq!(point.true_match_rate, Some(1.0));
            }
        }
    }

    #[test]
    fn fused_faces_meet_only_photographs_that_they_are_not_made_of() {
        let embeddings =
            Embeddings::from_rows(2, vec![1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.6, 0.8, -1.0, 0.0]).expect("rows");
        let people = [0, 0, 0, 1, 1];
        let single = singles(&embeddings, &people);
        let two = fused(&embeddings, &people, 2).expect("vectors");
        assert_eq!(two.faces, [vec![0, 1], vec![1, 2], vec![2, 0], vec![3, 4]]);
        assert_eq!((two.people.clone(), two.values.len()), (vec![0, 0, 0, 1], 8));
        let half = 0.5f32.sqrt();
        assert!((two.values[0] - half).abs() < 1e-6 && (two.values[1] - half).abs() < 1e-6);
        let with_single = Scores::of(&single, &two).expect("scores").comparisons(2);
        // Each two of the first person meet his third face, the others their strangers.
        assert_eq!((with_single.same_pairs, with_single.different_pairs), (3, 3 * 2 + 3));
        let with_fused = Scores::of(&two, &two).expect("scores").comparisons(2);
        assert_eq!((with_fused.same_pairs, with_fused.different_pairs), (0, 6));
        assert_eq!(fused(&embeddings, &people, 4).expect("none").people.len(), 0);
    }
}
