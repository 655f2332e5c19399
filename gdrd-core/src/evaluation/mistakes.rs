//! Which pairs of faces an embedder was most wrong about.

use std::sync::Arc;

use super::pairs::Pair;
use crate::data::Dataset;

/// Mistakes of each sort that are kept.
const MOST: usize = 6;

/// A pair of faces that was judged wrongly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mistake {
    /// One face, by its index in the dataset.
    pub left: usize,
    /// The other face.
    pub right: usize,
    /// Whether they are of the same person.
    pub same: bool,
    /// The cosine similarity of their embeddings.
    pub similarity: f64,
}

/// Pairs that were judged wrongly, and the faces that they are of.
#[derive(Clone)]
pub struct Mistakes {
    /// The faces.
    pub dataset: Arc<dyn Dataset>,
    /// The pairs of the same person, the least similar first, then those of different people, the most similar first.
    pub worst: Vec<Mistake>,
    /// How many there are in all.
    pub count: usize,
}

impl Mistakes {
    /// The worst six of each sort among pairs that were all judged wrongly.
    pub(super) fn worst(dataset: Arc<dyn Dataset>, pairs: &[Pair], similarities: &[f64]) -> Self {
        let mistake = |(pair, similarity): (&Pair, &f64)| Mistake {
            left: pair.left,
            right: pair.right,
            same: pair.same,
            similarity: *similarity,
        };
        let all: Vec<Mistake> = pairs.iter().zip(similarities).map(mistake).collect();
        let of = |same: bool| {
            let mut found: Vec<Mistake> = all.iter().filter(|mistake| mistake.same == same).copied().collect();
            // Stable, so that ties stay in the order of the protocol.
            found.sort_by(|a, b| a.similarity.total_cmp(&b.similarity));
            if !same {
                found.reverse();
            }
            found.truncate(MOST);
            found
        };
        let worst = of(true).into_iter().chain(of(false)).collect();
        Self { dataset, worst, count: all.len() }
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
        let found = Mistakes::worst(Arc::new(Coloured::of(&[])), &pairs, &similarities);
        let shown: Vec<(usize, bool)> = found.worst.iter().map(|mistake| (mistake.right, mistake.same)).collect();
        let expected = [(8, true), (7, true), (6, true), (5, true), (4, true), (3, true), (9, false), (10, false)];
        assert_eq!(shown, expected);
        assert_eq!(found.count, 10);
    }
}
