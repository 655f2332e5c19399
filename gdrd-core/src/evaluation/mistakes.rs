//! Which faces an embedder was most wrong about.

use std::sync::Arc;

use super::pairs::Pair;
use crate::data::Dataset;

/// A face of a dataset.
#[derive(Clone)]
pub struct MistakenFace {
    /// The dataset.
    pub dataset: Arc<dyn Dataset>,
    /// The face's index in it.
    pub index: usize,
}

/// A pair of faces that was judged wrongly.
#[derive(Clone)]
pub struct Mistake {
    /// The faces: of a search the probe (of a template its first face), then one of the gallery.
    pub faces: [MistakenFace; 2],
    /// Whether they are of the same person.
    pub same: bool,
    /// The cosine similarity of their embeddings; of a template its own.
    pub similarity: f64,
}

/// What was judged wrongly.
#[derive(Clone)]
pub struct Mistakes {
    /// What `count` counts: `pairs` or `probes`.
    pub what: String,
    /// Pairs of the same person, the worst first, then those of different people.
    pub worst: Vec<Mistake>,
    /// How many mistakes there are in all.
    pub count: usize,
}

impl Mistakes {
    /// Mistakes of each sort that are kept.
    pub(super) const MOST: usize = 6;

    /// The worst of each sort among pairs that were all judged wrongly.
    pub(super) fn of_pairs(dataset: &Arc<dyn Dataset>, pairs: &[Pair], similarities: &[f64]) -> Self {
        let of = |same: bool| {
            let all = pairs.iter().zip(similarities).filter(|(pair, _)| pair.same == same);
            let mut found: Vec<(&Pair, &f64)> = all.collect();
            // Stable, so that ties stay in the order of the protocol.
            found.sort_by(|a, b| a.1.total_cmp(b.1));
            if !same {
                found.reverse();
            }
            found.truncate(Self::MOST);
            found
        };
        let face = |index: usize| MistakenFace { dataset: dataset.clone(), index };
        let mistake = |(pair, similarity): (&Pair, &f64)| Mistake {
            faces: [face(pair.left), face(pair.right)],
            same: pair.same,
            similarity: *similarity,
        };
        let worst = of(true).into_iter().chain(of(false)).map(mistake).collect();
        Self { what: "pairs".into(), worst, count: pairs.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Coloured;
    use super::*;

    #[test]
    fn the_worst_come_first_and_are_few() {
        let pair = |right: usize, same| Pair { left: 0, right, same, fold: 0 };
        let pairs: Vec<Pair> = (1..=9).map(|right| pair(right, right <= 8)).chain([pair(10, false)]).collect();
        let similarities: Vec<f64> = (1..=10).map(|at| 0.9 - 0.1 * f64::from(at)).collect();
        let dataset: Arc<dyn Dataset> = Arc::new(Coloured::of(&[]));
        let found = Mistakes::of_pairs(&dataset, &pairs, &similarities);
        let shown: Vec<(usize, bool)> =
            found.worst.iter().map(|mistake| (mistake.faces[1].index, mistake.same)).collect();
        let expected = [(8, true), (7, true), (6, true), (5, true), (4, true), (3, true), (9, false), (10, false)];
        assert_eq!(shown, expected);
        assert_eq!(found.count, 10);
    }
}
