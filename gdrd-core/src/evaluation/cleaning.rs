//! What embeddings say of labels: who does not look like his folder, and which people are one.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use serde::Serialize;

use super::folds::best_threshold;
use crate::embedder::Embeddings;
use crate::error::{Error, Result};

/// The mean direction of each person's embeddings.
#[derive(Clone, Debug)]
pub struct Means {
    /// The numbers of the people, rising; the rows of `means` are theirs.
    pub people: Vec<usize>,
    /// One row for each person, of unit length.
    pub means: Embeddings,
    /// Faces of each.
    pub faces: Vec<usize>,
}

impl Means {
    /// The means of all people of whom there is a row.
    ///
    /// # Errors
    /// If lengths differ, or the embeddings of a person cancel.
    pub fn of(embeddings: &Embeddings, people: &[Option<usize>]) -> Result<Self> {
        if embeddings.len() != people.len() {
            return Err(Error::component(format!("{} embeddings for {} faces", embeddings.len(), people.len())));
        }
        let mut sums: BTreeMap<usize, (Vec<f32>, usize)> = BTreeMap::new();
        for (row, person) in people.iter().enumerate().filter_map(|(row, person)| Some((row, (*person)?))) {
            let (sum, count) = sums.entry(person).or_insert_with(|| (vec![0.0; embeddings.width()], 0));
            sum.iter_mut().zip(embeddings.known(row)).for_each(|(sum, value)| *sum += value);
            *count += 1;
        }
        let people = sums.keys().copied().collect();
        let faces = sums.values().map(|(_, count)| *count).collect();
        let values = sums.into_values().flat_map(|(sum, _)| sum).collect();
        Ok(Self { people, means: Embeddings::from_rows(embeddings.width(), values)?, faces })
    }
}

/// A pair of rows that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Alike {
    /// A row of the first table.
    pub left: usize,
    /// A row of the second table.
    pub right: usize,
    /// Their cosine.
    pub cosine: f32,
}

/// Rows that are multiplied at once.
const BLOCK: usize = 1024;

/// Calls `each` with every block of cosines of `left` with `right`: the first row of each, the columns of the block, its values.
fn blocks(
    left: &Embeddings,
    right: &Embeddings,
    device: &Device,
    mut each: impl FnMut(usize, usize, usize, &[f32]),
) -> Result<()> {
    let width = left.width();
    if right.width() != width {
        return Err(Error::component(format!("embeddings of {width} and of {} values", right.width())));
    }
    for (j, columns) in right.values().chunks(BLOCK * width).enumerate() {
        let count = columns.len() / width;
        let columns = Tensor::from_slice(columns, (count, width), device)?.t()?;
        for (i, rows) in left.values().chunks(BLOCK * width).enumerate() {
            let rows = Tensor::from_slice(rows, (rows.len() / width, width), device)?;
            let found = rows.matmul(&columns)?.flatten_all()?.to_vec1::<f32>()?;
            each(i * BLOCK, j * BLOCK, count, &found);
        }
    }
    Ok(())
}

/// Pairs of a row of `left` and one of `right` whose cosine is at least `threshold`, the most alike first, and at most `most` of them
/// with the number that there are. If `left` and `right` are one table, each pair comes once.
///
/// # Errors
/// If the widths differ or the device fails.
pub fn alike(
    left: &Embeddings,
    right: &Embeddings,
    one_table: bool,
    threshold: f32,
    most: usize,
    device: &Device,
) -> Result<(Vec<Alike>, usize)> {
    let (mut found, mut count): (Vec<Alike>, usize) = (Vec::new(), 0);
    let order = |a: &Alike, b: &Alike| b.cosine.total_cmp(&a.cosine).then((a.left, a.right).cmp(&(b.left, b.right)));
    blocks(left, right, device, |top, start, columns, cosines| {
        for (at, cosine) in cosines.iter().enumerate().filter(|(_, cosine)| **cosine >= threshold) {
            let (left, right) = (top + at / columns, start + at % columns);
            if !one_table || left < right {
                count += 1;
                found.push(Alike { left, right, cosine: *cosine });
            }
        }
        if found.len() > 4 * most {
            found.sort_by(order);
            found.truncate(most);
        }
    })?;
    found.sort_by(order);
    found.truncate(most);
    Ok((found, count))
}

/// A face that does not look like the other faces of its person.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Stray {
    /// The face.
    pub index: usize,
    /// Its cosine with the mean of the person's other faces.
    pub own: f32,
    /// The person whose mean it is nearest to.
    pub nearest: usize,
    /// Its cosine with that mean.
    pub cosine: f32,
}

/// What embeddings say of labels.
#[derive(Clone, Debug)]
pub struct Cleaning {
    /// Below this cosine with its own a face is a stray: the threshold that best tells a face's own people from others.
    pub stray_below: f32,
    /// Faces with others of their person, which were judged.
    pub judged: usize,
    /// Strays, the least alike first.
    pub strays: Vec<Stray>,
    /// From this cosine of means on, two people are taken for one.
    pub same_from: f32,
    /// People who are one, as rows of `means`, the most alike first; at most [`MOST`].
    pub same: Vec<Alike>,
    /// How many such pairs there are.
    pub same_count: usize,
    /// The means.
    pub means: Means,
}

/// The most pairs of people that are kept.
pub const MOST: usize = 10_000;

/// The cosines from which on decisions are made; where one is left out, the data decide.
#[derive(Clone, Copy, Debug, Default)]
pub struct Thresholds {
    /// See [`Cleaning::stray_below`].
    pub stray: Option<f32>,
    /// See [`Cleaning::same_from`].
    pub same: Option<f32>,
}

/// Compares every face with the mean of its person's other faces and with the means of all others, and all means with each other.
///
/// Without thresholds: strays are below the cosine that best tells faces with their own person from faces with the next one of the
/// list. Two people are one from the median cosine on that the means of two halves of one person have, over people with at least
/// four faces.
///
/// # Errors
/// If lengths differ, there are fewer than two people, nobody has two faces, or the device fails.
pub fn clean(
    embeddings: &Embeddings,
    people: &[Option<usize>],
    thresholds: Thresholds,
    device: &Device,
) -> Result<Cleaning> {
    let means = Means::of(embeddings, people)?;
    let count = means.people.len();
    let place: BTreeMap<usize, usize> = means.people.iter().enumerate().map(|(row, person)| (*person, row)).collect();
    if count < 2 || means.faces.iter().all(|faces| *faces < 2) {
        return Err(Error::data(format!(
            "expected two people at least, one of them with two faces, found {count} people"
        )));
    }
    // The mean that came to unit length was `length` times as long, as the sum of `faces` unit vectors.
    let own = |row: usize, person: usize| -> Option<f32> {
        let at = place[&person];
        let (length, mean) = (means.means.lengths()[at], means.means.known(at));
        if means.faces[at] < 2 {
            return None;
        }
        let others: Vec<f32> =
            mean.iter().zip(embeddings.known(row)).map(|(mean, value)| mean * length - value).collect();
        let size = others.iter().map(|value| value * value).sum::<f32>().sqrt();
        Some(dot(&others, embeddings.known(row)) / size.max(f32::MIN_POSITIVE))
    };
    let mut judged: Vec<(usize, usize, f32)> = Vec::new();
    for (row, person) in people.iter().enumerate().filter_map(|(row, person)| Some((row, (*person)?))) {
        if let Some(cosine) = own(row, person) {
            judged.push((row, person, cosine));
        }
    }
    let stray_below = match thresholds.stray {
        Some(stray) => stray,
        None => {
            let next = |(row, person, _): &(usize, usize, f32)| {
                dot(means.means.known((place[person] + 1) % count), embeddings.known(*row))
            };
            let others: Vec<f32> = judged.iter().map(next).collect();
            let scores: Vec<f64> = judged.iter().map(|(.., own)| *own).chain(others).map(f64::from).collect();
            let same: Vec<bool> = (0..scores.len()).map(|at| at < judged.len()).collect();
            best_threshold(&scores, &same)?.value as f32
        }
    };
    let suspects: Vec<&(usize, usize, f32)> = judged.iter().filter(|(.., own)| *own < stray_below).collect();
    let mut nearest: Vec<(usize, f32)> = vec![(0, f32::NEG_INFINITY); suspects.len()];
    if !suspects.is_empty() {
        let values = suspects.iter().flat_map(|(row, ..)| embeddings.known(*row).to_vec()).collect();
        let rows = Embeddings::from_rows(embeddings.width(), values)?;
        blocks(&rows, &means.means, device, |top, start, columns, cosines| {
            for (at, cosine) in cosines.iter().enumerate() {
                let (row, person) = (top + at / columns, means.people[start + at % columns]);
                if person != suspects[row].1 && *cosine > nearest[row].1 {
                    nearest[row] = (person, *cosine);
                }
            }
        })?;
    }
    let mut strays: Vec<Stray> = suspects
        .iter()
        .zip(nearest)
        .map(|((index, _, own), (nearest, cosine))| Stray { index: *index, own: *own, nearest, cosine })
        .collect();
    strays.sort_by(|a, b| a.own.total_cmp(&b.own).then(a.index.cmp(&b.index)));
    let same_from = match thresholds.same {
        Some(same) => same,
        None => halves(embeddings, people)?.unwrap_or(stray_below),
    };
    let (same, same_count) = alike(&means.means, &means.means, true, same_from, MOST, device)?;
    Ok(Cleaning { stray_below, judged: judged.len(), strays, same_from, same, same_count, means })
}

/// The median cosine of the means of each person's even and odd faces, over people with at least four.
fn halves(embeddings: &Embeddings, people: &[Option<usize>]) -> Result<Option<f32>> {
    let mut turn: BTreeMap<usize, usize> = BTreeMap::new();
    let half = |person: &Option<usize>| {
        let person = (*person)?;
        let turn = turn.entry(person).or_insert(0);
        *turn += 1;
        Some(2 * person + *turn % 2)
    };
    let labels: Vec<Option<usize>> = people.iter().map(half).collect();
    let means = Means::of(embeddings, &labels)?;
    let both = |at: usize| {
        let enough = means.faces[at] >= 2 && means.faces[at + 1] >= 2;
        (means.people[at] + 1 == means.people[at + 1] && means.people[at].is_multiple_of(2) && enough)
            .then(|| dot(means.means.known(at), means.means.known(at + 1)))
    };
    let mut cosines: Vec<f32> = (0..means.people.len().saturating_sub(1)).filter_map(both).collect();
    cosines.sort_by(f32::total_cmp);
    Ok(cosines.get(cosines.len() / 2).copied())
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Faces at angles on a circle.
    fn at(angles: &[f32]) -> Embeddings {
        Embeddings::from_rows(2, angles.iter().flat_map(|a| [a.cos(), a.sin()]).collect()).expect("rows")
    }

    #[test]
    fn a_stray_and_two_folders_of_one_person_are_found() {
        // Ann, four faces about 0 and one about 1.5, which is Bob's; Bob; Cy, who is Bob; Di, far away; somebody.
        let angles = [0.0, 0.1, -0.1, 0.05, 1.5, 1.5, 1.55, 1.45, 1.5, 1.52, 1.48, 3.0, 3.1, 1.0];
        let people = [0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3].map(Some);
        let people: Vec<Option<usize>> = people.into_iter().chain([None]).collect();
        let found = clean(&at(&angles), &people, Thresholds::default(), &Device::Cpu).expect("cleaned");
        assert_eq!(found.judged, 13);
        assert_eq!(found.strays.iter().map(|stray| stray.index).collect::<Vec<_>>(), [4]);
        assert!([1, 2].contains(&found.strays[0].nearest) && found.strays[0].cosine > 0.99);
        let same: Vec<_> = found.same.iter().map(|pair| (pair.left, pair.right)).collect();
        assert_eq!((same, found.same_count), (vec![(1, 2)], 1));
        let strict = Thresholds { stray: Some(-1.0), same: Some(1.1) };
        let found = clean(&at(&angles), &people, strict, &Device::Cpu).expect("cleaned");
        assert!(found.strays.is_empty() && found.same.is_empty());
        assert!(clean(&at(&[0.0, 1.0]), &[Some(0), Some(1)], Thresholds::default(), &Device::Cpu).is_err());
    }

    #[test]
    fn tables_are_compared_block_by_block() {
        let many: Vec<f32> = (0..BLOCK + 300).map(|at| at as f32 * 0.001).collect();
        let (found, count) = alike(&at(&many), &at(&[0.5, 9.0]), false, 0.999_999, 3, &Device::Cpu).expect("found");
        assert_eq!((found[0].left, found[0].right, count), (500, 0, 3));
        assert!(alike(&at(&[0.0]), &Embeddings::none(3), false, 0.0, 1, &Device::Cpu).is_err());
    }
}
