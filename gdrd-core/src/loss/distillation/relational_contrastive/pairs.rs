//! Which relations are positives and negatives of each other.

use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::seed::Stream;

/// Which relations v^{t,s} may be the negative of v^t_ij.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Negatives {
    /// v^{t,s}_ik, of the same anchor i, with a face k of another person than j.
    #[default]
    SameAnchor,
    /// v^{t,s}_lk of any pair that is not of the same two people.
    AnyPair,
}

/// Whether two faces are of two people; faces of strangers are taken for that.
fn differ(one: Option<usize>, other: Option<usize>) -> bool {
    one.is_none() || one != other
}

/// The pair (i, j) of each positive, and the pair (l, k) of its negative. Anchors i and l are faces of the batch and
/// of the queue after it, j and k of the batch.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Pairs {
    pub(super) anchors: Vec<u32>,
    pub(super) partners: Vec<u32>,
    pub(super) negative_anchors: Vec<u32>,
    pub(super) negatives: Vec<u32>,
}

impl Pairs {
    /// Every anchor of `people` with its partners among the first `batch`, all or as many as `partners`, each with
    /// one negative; a pair for which there is none is left out.
    pub(super) fn draw(
        batch: usize,
        people: &[Option<usize>],
        partners: Option<usize>,
        negatives: Negatives,
        stream: &mut Stream,
    ) -> Self {
        let mut pairs = Self::default();
        for i in 0..people.len() {
            for j in others(i, batch, partners, stream) {
                let found = match negatives {
                    Negatives::SameAnchor => {
                        let start = stream.random_range(0..batch);
                        let fits = |k: &usize| *k != i && *k != j && differ(people[*k], people[j]);
                        let k = (0..batch).map(|step| (start + step) % batch).find(fits);
                        k.map(|k| (i, k))
                    }
                    Negatives::AnyPair => any_pair(i, j, batch, people, stream),
                };
                if let Some((l, k)) = found {
                    pairs.anchors.push(i as u32);
                    pairs.partners.push(j as u32);
                    pairs.negative_anchors.push(l as u32);
                    pairs.negatives.push(k as u32);
                }
            }
        }
        pairs
    }
}

/// The partners of the anchor i: faces of the batch but itself.
fn others(i: usize, batch: usize, partners: Option<usize>, stream: &mut Stream) -> Vec<usize> {
    // The faces from the one after i on; an anchor from the queue is none of them.
    let (first, count) = if i < batch { (i + 1, batch - 1) } else { (0, batch) };
    match partners {
        Some(wanted) if wanted < count => {
            let start = stream.random_range(0..count);
            (0..wanted).map(|step| (first + (start + step) % count) % batch).collect()
        }
        _ => (0..batch).filter(|&j| j != i).collect(),
    }
}

fn any_pair(i: usize, j: usize, batch: usize, people: &[Option<usize>], stream: &mut Stream) -> Option<(usize, usize)> {
    let all = people.len() * batch;
    let start = stream.random_range(0..all);
    let pair = |step: usize| ((start + step) % all / batch, (start + step) % all % batch);
    let fits = |&(l, k): &(usize, usize)| {
        l != k
            && (l, k) != (i, j)
            && ((l != i && differ(people[l], people[i])) || (k != j && differ(people[k], people[j])))
    };
    (0..all).map(pair).find(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    fn draw(batch: usize, people: &[Option<usize>], partners: Option<usize>, negatives: Negatives) -> Pairs {
        Pairs::draw(batch, people, partners, negatives, &mut Seed(7).stream("test", &[]))
    }

    fn quadruples(pairs: &Pairs) -> Vec<[usize; 4]> {
        let of =
            |at| [&pairs.anchors, &pairs.partners, &pairs.negative_anchors, &pairs.negatives].map(|v| v[at] as usize);
        (0..pairs.anchors.len()).map(of).collect()
    }

    #[test]
    fn negatives_are_of_other_identities() {
        let people = [0, 0, 1, 2, 2, 2].map(Some);
        for partners in [None, Some(2)] {
            let pairs = draw(6, &people, partners, Negatives::SameAnchor);
            assert_eq!(pairs.anchors.len(), 6 * partners.unwrap_or(5));
            for [i, j, l, k] in quadruples(&pairs) {
                assert!(i != j && k != i && l == i && k != j && people[k] != people[j]);
            }
        }
    }

    #[test]
    fn any_other_pair_is_not_of_the_same_two_people() {
        let people = [0, 0, 1, 2, 2, 2].map(Some);
        let pairs = quadruples(&draw(6, &people, None, Negatives::AnyPair));
        assert_eq!(pairs.len(), 30);
        for [i, j, l, k] in &pairs {
            assert!(l != k && (people[*l] != people[*i] || people[*k] != people[*j]), "{i} {j} {l} {k}");
        }
        assert!(pairs.iter().any(|[i, _, l, _]| i != l), "other anchors are among them");
    }

    #[test]
    fn anchors_of_the_queue_have_partners_in_the_batch() {
        let people = [Some(0), Some(1), Some(2), Some(1), None];
        for negatives in [Negatives::SameAnchor, Negatives::AnyPair] {
            let pairs = quadruples(&draw(3, &people, None, negatives));
            assert_eq!(pairs.iter().filter(|[i, ..]| *i >= 3).count(), 6);
            assert!(pairs.iter().all(|[_, j, _, k]| *j < 3 && *k < 3));
            let some = quadruples(&draw(3, &people, Some(2), negatives));
            assert_eq!(some.len(), 10, "two for each anchor");
        }
    }

    #[test]
    fn a_batch_of_one_identity_gives_no_pair() {
        for negatives in [Negatives::SameAnchor, Negatives::AnyPair] {
            assert!(draw(3, &[Some(3); 3], None, negatives).anchors.is_empty());
        }
    }
}
