//! Several faces of a person in the place of the second face of a pair.

use std::collections::BTreeMap;

use super::Pairs;
use crate::context::BuildContext;
use crate::data::Dataset;
use crate::embedder::Embedder;
use crate::error::{Problem, Result};
use crate::evaluation::outcome::{Figure, Outcome};
use crate::evaluation::pairs::Pair;
use crate::evaluation::resolution::{add_curve, with_gallery};
use crate::evaluation::similarity::cosines;

/// The most faces that are fused into one.
const MOST: usize = 100;

/// What is wrong with the option `frames` beyond bounds.
pub(super) fn check(frames: &[usize]) -> Option<Problem> {
    let good = frames.windows(2).all(|two| two[0] < two[1]) && frames.iter().all(|count| (1..=MOST).contains(count));
    Problem::unless(good, "frames", || format!("expected numbers from 1 to {MOST} that rise, found {frames:?}"))
}

/// For each pair its second face, and after it up to `most - 1` other faces of that person: the next ones in the dataset, from the
/// first again after the last, without the pair's own two.
fn tracks(dataset: &dyn Dataset, pairs: &[Pair], most: usize) -> Vec<Vec<usize>> {
    let mut of_person: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in 0..dataset.len() {
        if let Some(person) = dataset.person(index) {
            of_person.entry(person).or_default().push(index);
        }
    }
    let track = |pair: &Pair| {
        let faces = dataset.person(pair.right).and_then(|person| of_person.get(&person));
        let faces = faces.map_or(&[][..], Vec::as_slice);
        let next = faces.partition_point(|&index| index <= pair.right);
        let others = faces[next..].iter().chain(&faces[..next]).copied();
        let others = others.filter(|&index| index != pair.left && index != pair.right);
        std::iter::once(pair.right).chain(others).take(most).collect()
    };
    pairs.iter().map(track).collect()
}

impl Pairs {
    /// Adds the headline with each of the option's numbers of faces, as figures that are kept aside, as a table and as a curve.
    pub(super) fn over_frames(&self, embedder: &dyn Embedder, outcome: &mut Outcome, cx: &BuildContext) -> Result<()> {
        let Some(&most) = self.config.frames.last() else { return Ok(()) };
        let tracks = tracks(&*self.dataset, &self.pairs, most);
        let left = super::distinct(self.pairs.iter().map(|pair| pair.left));
        let used = super::distinct(tracks.iter().flatten().copied());
        let row =
            |used: &[usize], index: usize| used.binary_search(&index).expect("every face of a pair was collected");
        let (of_left, of_right) = with_gallery(embedder, None, self.config.gallery_size, |of_left, of_right| {
            let of_left = crate::evaluation::embed(of_left, &self.dataset, &left, cx)?;
            Ok((of_left, crate::evaluation::embed(of_right, &self.dataset, &used, cx)?))
        })?;
        let mut found = Vec::new();
        for &count in &self.config.frames {
            let mut values = Vec::with_capacity(2 * self.pairs.len() * of_left.width());
            let mut places = Vec::with_capacity(self.pairs.len());
            for (pair, track) in self.pairs.iter().zip(&tracks) {
                let rows: Vec<usize> = track.iter().take(count).map(|&index| row(&used, index)).collect();
                let at = 2 * places.len();
                values.extend_from_slice(of_left.known(row(&left, pair.left)));
                values.extend(of_right.fused(&rows)?);
                places.push(Pair { left: at, right: at + 1, ..*pair });
            }
            let similarities = cosines(&values, of_left.width(), &places)?;
            let (mut figure, _) = self.accuracy(&similarities)?;
            let short = tracks.iter().filter(|track| track.len() < count).count();
            if short > 0 {
                let said = figure.note.iter().cloned().chain([format!("{short} pairs have fewer faces of the person")]);
                figure.note = Some(said.collect::<Vec<_>>().join("; "));
            }
            let name = format!("{} of {count} fused", figure.name);
            found.push((count as f64, count.to_string(), Figure { name, ..figure }));
        }
        add_curve(outcome, "Fused faces", ("faces of the second side", ""), found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DatasetConfig, SyntheticFaces};
    use crate::plugin::Workbench;

    #[test]
    fn a_track_is_the_next_faces_of_the_person_without_the_pair() {
        let bench = Workbench::new(candle_core::Device::Cpu);
        let faces = SyntheticFaces { identities: 2, images_per_identity: 4, size: 16, ..SyntheticFaces::default() };
        let faces = faces.build(&BuildContext::new(&bench)).expect("faces");
        let pair = |left, right| Pair { left, right, same: left / 4 == right / 4, fold: 0 };
        let found = tracks(&*faces, &[pair(0, 2), pair(0, 7), pair(3, 1)], 3);
        assert_eq!(found, [vec![2, 3, 1], vec![7, 4, 5], vec![1, 2, 0]]);
        assert_eq!(tracks(&*faces, &[pair(0, 2)], 9), [vec![2, 3, 1]], "no more than there are");
    }

    #[test]
    fn numbers_that_do_not_rise_are_refused() {
        assert!(check(&[1, 2, 8]).is_none() && check(&[]).is_none());
        for wrong in [&[0, 1][..], &[2, 2], &[4, 2], &[101]] {
            assert!(check(wrong).is_some(), "{wrong:?}");
        }
    }
}
