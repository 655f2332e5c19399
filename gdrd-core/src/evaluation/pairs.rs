//! Which images are compared, and how such pairs are drawn from labels.

use std::collections::BTreeMap;

use rand::{Rng, RngCore};

use crate::error::{Error, Result};

/// Two images to compare, as places in a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The first image.
    pub left: usize,
    /// The second image.
    pub right: usize,
    /// Whether both show the same person.
    pub same: bool,
    /// The fold that the pair belongs to, from zero.
    pub fold: usize,
}

/// Draws `pairs` pairs without repetition, half of them of the same person, in `folds` equal folds.
///
/// `identity_of[i]` is the identity of image `i`. For a same pair an identity is drawn evenly (among
/// those with pairs left), then two of its images; for a different pair two identities are, then an
/// image of each: people with many images do not crowd out the others. Pairs come as in
/// `pairs.txt`: fold by fold, the same pairs first. One `rng` state gives one list.
///
/// # Errors
/// If `pairs` is zero or no multiple of twice `folds`, or if the images do not give that many.
pub fn generated(identity_of: &[usize], pairs: usize, folds: usize, rng: &mut impl RngCore) -> Result<Vec<Pair>> {
    if pairs == 0 || folds == 0 || !pairs.is_multiple_of(folds) || !(pairs / folds).is_multiple_of(2) {
        return Err(Error::data(format!(
            "expected a number of pairs that {folds} folds (at least one) share evenly, half of them of the same \
             person, found {pairs}"
        )));
    }
    let mut images: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (image, &identity) in identity_of.iter().enumerate() {
        images.entry(identity).or_default().push(image);
    }
    let images: Vec<Vec<usize>> = images.into_values().collect();
    let repeated: Vec<&Vec<usize>> = images.iter().filter(|of_one| of_one.len() > 1).collect();
    let couples = |n: usize| n as u64 * (n as u64).saturating_sub(1) / 2;
    let available_same: u64 = repeated.iter().map(|of_one| couples(of_one.len())).sum();
    let available_different =
        couples(identity_of.len()) - images.iter().map(|of_one| couples(of_one.len())).sum::<u64>();
    let half = pairs / 2;
    if available_same < half as u64 || available_different < half as u64 {
        return Err(Error::data(format!(
            "{half} same and {half} different pairs were asked for, but {} images of {} identities give only \
             {available_same} same and {available_different} different pairs ({} identities have one image, which \
             gives no same pair)",
            identity_of.len(),
            images.len(),
            images.len() - repeated.len()
        )));
    }
    let same = draw(
        half,
        repeated.len() as u64,
        rng,
        |group| couples(repeated[group as usize].len()),
        |group, pair| {
            let (left, right) = couple(pair);
            (repeated[group as usize][left], repeated[group as usize][right])
        },
    );
    let of_two = |group| {
        let (a, b) = couple(group);
        (&images[a], &images[b])
    };
    let size = |group| (of_two(group).0.len() * of_two(group).1.len()) as u64;
    let different = draw(half, couples(images.len()), rng, size, |group, pair| {
        let (a, b) = of_two(group);
        (a[pair as usize % a.len()], b[pair as usize / a.len()])
    });
    let each = half / folds;
    let labelled = |fold, same: bool, (left, right)| Pair { left, right, same, fold };
    Ok((0..folds)
        .flat_map(|fold| {
            let range = fold * each..(fold + 1) * each;
            let of_same = same[range.clone()].iter().map(move |&pair| labelled(fold, true, pair));
            of_same.chain(different[range].iter().map(move |&pair| labelled(fold, false, pair)))
        })
        .collect())
}

/// Draws `wanted` members without repetition: a group evenly among those with members left, then one of its members.
fn draw(
    wanted: usize,
    groups: u64,
    rng: &mut impl RngCore,
    size: impl Fn(u64) -> u64,
    member: impl Fn(u64, u64) -> (usize, usize),
) -> Vec<(usize, usize)> {
    let mut open = Deck::new(groups);
    let mut decks: BTreeMap<u64, Deck> = BTreeMap::new();
    (0..wanted)
        .map(|_| {
            let at = rng.random_range(0..open.left);
            let group = open.card(at);
            let deck = decks.entry(group).or_insert_with(|| Deck::new(size(group)));
            let card = deck.take(rng.random_range(0..deck.left));
            if deck.left == 0 {
                open.take(at);
            }
            member(group, card)
        })
        .collect()
}

/// The cards `0..n`, to be taken without repetition; only what has moved is stored.
struct Deck {
    left: u64,
    moved: BTreeMap<u64, u64>,
}

impl Deck {
    fn new(cards: u64) -> Self {
        Self { left: cards, moved: BTreeMap::new() }
    }

    fn card(&self, at: u64) -> u64 {
        self.moved.get(&at).copied().unwrap_or(at)
    }

    /// Takes the card at `at`; the last one moves to its place.
    fn take(&mut self, at: u64) -> u64 {
        let taken = self.card(at);
        self.left -= 1;
        let last = self.card(self.left);
        self.moved.remove(&self.left);
        if at != self.left {
            self.moved.insert(at, last);
        }
        taken
    }
}

/// The couple of rank `rank`, in the order (0, 1), (0, 2), (1, 2), (0, 3) ...
fn couple(rank: u64) -> (usize, usize) {
    // The root may be off by one where floats are coarse.
    let mut high = ((1.0 + (1.0 + 8.0 * rank as f64).sqrt()) / 2.0) as u64;
    while high * (high - 1) / 2 > rank {
        high -= 1;
    }
    while high * (high + 1) / 2 <= rank {
        high += 1;
    }
    ((rank - high * (high - 1) / 2) as usize, high as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use std::collections::BTreeSet;

    fn draw_from(identity_of: &[usize], pairs: usize, folds: usize, seed: u64) -> Result<Vec<Pair>> {
        generated(identity_of, pairs, folds, &mut ChaCha8Rng::seed_from_u64(seed))
    }

    #[test]
    fn drawn_pairs_are_balanced_true_and_distinct() {
        let identity_of: Vec<usize> = (0..60).map(|i| i / 4 * 7).collect();
        let pairs = draw_from(&identity_of, 80, 10, 1).expect("enough");
        assert_eq!(pairs, draw_from(&identity_of, 80, 10, 1).expect("again"));
        assert_ne!(pairs, draw_from(&identity_of, 80, 10, 2).expect("other seed"));
        for (at, pair) in pairs.iter().enumerate() {
            assert_eq!((pair.fold, pair.same), (at / 8, at % 8 < 4));
            assert_eq!(pair.same, identity_of[pair.left] == identity_of[pair.right]);
            assert_ne!(pair.left, pair.right);
        }
        let distinct: BTreeSet<_> = pairs.iter().map(|p| (p.left.min(p.right), p.left.max(p.right))).collect();
        assert_eq!(distinct.len(), 80);
    }

    #[test]
    fn all_pairs_that_exist_can_be_drawn() {
        // Images 0, 1, 2 of one person and 3 of another: three same and three different pairs.
        let pairs = draw_from(&[5, 5, 5, 9], 6, 1, 0).expect("exactly enough");
        let distinct: BTreeSet<_> = pairs.iter().map(|p| (p.left.min(p.right), p.left.max(p.right))).collect();
        assert_eq!(distinct.len(), 6);
    }

    #[test]
    fn too_few_images_are_counted() {
        let error = draw_from(&[0, 0, 1, 2], 4, 1, 0).expect_err("one same pair");
        let expected = "2 same and 2 different pairs were asked for, but 4 images of 3 identities give only 1 same and 5 \
                        different pairs (2 identities have one image, which gives no same pair)";
        assert_eq!(error.to_string(), expected);
        assert!(draw_from(&[], 2, 1, 0).is_err());
        assert!(draw_from(&[0, 0, 1], 3, 1, 0).is_err());
        assert!(draw_from(&[0, 0, 1], 2, 0, 0).is_err());
    }

    #[test]
    fn ranks_run_through_all_couples() {
        assert_eq!((0..6).map(couple).collect::<Vec<_>>(), [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]);
        let far = 4_000_000_000u64;
        assert_eq!(couple(far * (far - 1) / 2), (0, far as usize));
        assert_eq!(couple(far * (far - 1) / 2 - 1), (far as usize - 2, far as usize - 1));
    }
}
