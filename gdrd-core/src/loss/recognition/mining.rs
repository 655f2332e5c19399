//! Which triplets of a batch a loss is made of.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which triplets (anchor, positive, negative) of a batch count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mining {
    /// For each anchor the farthest face of its person and the nearest of another (Hermans et al., 2017).
    #[default]
    BatchHard,
    /// For each anchor and each positive the nearest negative that is farther away than the positive; where there is
    /// none, the farthest (FaceNet).
    SemiHard,
    /// Every triplet that costs something.
    All,
}

/// A triplet: row of the anchor, column of the positive, column of the negative.
pub(super) type Triplet = [usize; 3];

impl Mining {
    /// The triplets of `distances`, at `[i][j]` of face j from the anchor i, where the faces are of these people; strangers
    /// are in none. A face is not its own positive, in whatever resolution.
    pub(super) fn triplets(self, distances: &[Vec<f32>], people: &[Option<usize>], margin: f64) -> Vec<Triplet> {
        let mut found = Vec::new();
        for (anchor, row) in distances.iter().enumerate() {
            let Some(person) = people[anchor] else { continue };
            let of = |same: bool| {
                let fits = move |other: &usize| {
                    *other != anchor && people[*other].is_some_and(|known| (known == person) == same)
                };
                (0..people.len()).filter(fits)
            };
            let positives: Vec<usize> = of(true).collect();
            let negatives: Vec<usize> = of(false).collect();
            let by_distance = |a: &&usize, b: &&usize| row[**a].total_cmp(&row[**b]);
            let (nearest, farthest) = (negatives.iter().min_by(by_distance), negatives.iter().max_by(by_distance));
            let (Some(nearest), Some(farthest)) = (nearest, farthest) else { continue };
            match self {
                Self::BatchHard => {
                    found.extend(positives.iter().max_by(by_distance).map(|positive| [anchor, *positive, *nearest]));
                }
                Self::SemiHard => found.extend(positives.iter().map(|positive| {
                    let farther = |negative: &&usize| row[**negative] > row[*positive];
                    [anchor, *positive, *negatives.iter().filter(farther).min_by(by_distance).unwrap_or(farthest)]
                })),
                Self::All => found.extend(positives.iter().flat_map(|positive| {
                    let costs =
                        move |negative: &&usize| f64::from(row[*positive]) - f64::from(row[**negative]) + margin > 0.0;
                    negatives.iter().filter(costs).map(move |negative| [anchor, *positive, *negative])
                })),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_by_hand() {
        // Anchor 0 with positives 1 (at 2) and 2 (at 5), negatives 3 (at 1), 4 (at 3) and 5 (at 4); 6 is a stranger.
        let people = [Some(0), Some(0), Some(0), Some(1), Some(1), Some(2), None];
        let mut distances = vec![vec![9.0; 7]; 7];
        distances[0] = vec![0.0, 2.0, 5.0, 1.0, 3.0, 4.0, 0.5];
        let of = |mining: Mining| {
            let mut all = mining.triplets(&distances, &people, 0.5);
            all.retain(|triplet| triplet[0] == 0);
            all
        };
        assert_eq!(of(Mining::BatchHard), [[0, 2, 3]]);
        assert_eq!(
            of(Mining::SemiHard),
            [[0, 1, 4], [0, 2, 5]],
            "the farthest where none is farther than the positive"
        );
        assert_eq!(of(Mining::All), [[0, 1, 3], [0, 2, 3], [0, 2, 4], [0, 2, 5]]);
        assert!(Mining::All.triplets(&distances, &people, 0.5).iter().all(|triplet| triplet[0] != 6));
        assert!(Mining::BatchHard.triplets(&[vec![0.0]], &[Some(0)], 0.5).is_empty());
    }
}
