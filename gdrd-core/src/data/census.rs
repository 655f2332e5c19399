//! What a dataset holds, face by face: how many of whom, how large, which are broken, which are there twice.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::Serialize;

use super::Dataset;
use crate::digest;
use crate::error::Result;

/// Faces that are read at once.
const CHUNK: usize = 512;

/// What is known of a face without looking at who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Sha256 of its pixels.
    pub digest: [u8; 32],
    /// Width and height, in pixels.
    pub size: (usize, usize),
}

/// Reads every face of a dataset; for each what it is, or why it cannot be read. `report` is told how many of how many are done.
///
/// # Errors
/// If `report` says stop.
pub fn seen(
    dataset: &dyn Dataset,
    report: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Vec<std::result::Result<Seen, String>>> {
    let mut all = Vec::with_capacity(dataset.len());
    for start in (0..dataset.len()).step_by(CHUNK) {
        report(start, dataset.len())?;
        let look = |index: usize| match dataset.face(index) {
            Ok(face) => Ok(Seen { digest: digest::of_bytes(face.pixels()), size: (face.width(), face.height()) }),
            Err(error) => Err(error.at(dataset.place(index)).to_string()),
        };
        let range = start..(start + CHUNK).min(dataset.len());
        all.extend(range.into_par_iter().map(look).collect::<Vec<_>>());
    }
    report(dataset.len(), dataset.len())?;
    Ok(all)
}

/// The people of a dataset by how many faces they have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bin {
    /// Fewest faces.
    pub from: usize,
    /// Most faces; none for the last bin.
    pub to: Option<usize>,
    /// People with so many faces.
    pub people: usize,
    /// Their faces.
    pub faces: usize,
}

/// Faces that are one image, by their places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Duplicates {
    /// Whether all are of one person.
    pub one_person: bool,
    /// Where they are.
    pub places: Vec<String>,
}

/// What a dataset holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Census {
    /// Faces, with those of them that cannot be read.
    pub faces: usize,
    /// People.
    pub people: usize,
    /// Faces of whom nobody knows who they are.
    pub unknown: usize,
    /// People by the number of their faces.
    pub histogram: Vec<Bin>,
    /// Faces by width and height, the most frequent first.
    pub sizes: Vec<((usize, usize), usize)>,
    /// Images that cannot be read, those that the dataset left out and that are no `faces` first: where, and why.
    pub broken: Vec<String>,
    /// How many of the broken images the dataset left out.
    pub left_out: usize,
    /// Images that are there more than once, by their pixels.
    pub duplicates: Vec<Duplicates>,
    /// Values of attributes, with the number of faces, up to 50 of each.
    pub attributes: BTreeMap<String, BTreeMap<String, usize>>,
    /// Pairs that the dataset brings.
    pub pairs: usize,
    /// What the dataset itself says.
    pub notes: Vec<String>,
}

/// Where bins of people begin.
const BINS: [usize; 9] = [1, 2, 3, 5, 10, 20, 50, 100, 500];

/// The most values of an attribute that are counted.
const VALUES: usize = 50;

/// Counts what was [`seen`].
pub fn census(dataset: &dyn Dataset, seen: &[std::result::Result<Seen, String>]) -> Census {
    let mut count = vec![0usize; dataset.people().len()];
    let (mut unknown, mut sizes) = (0, BTreeMap::new());
    let mut same: BTreeMap<[u8; 32], Vec<usize>> = BTreeMap::new();
    let mut attributes: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for (index, face) in seen.iter().enumerate() {
        match dataset.person(index) {
            Some(person) => count[person] += 1,
            None => unknown += 1,
        }
        if let Ok(face) = face {
            *sizes.entry(face.size).or_insert(0) += 1;
            same.entry(face.digest).or_default().push(index);
        }
        for (name, value) in dataset.attributes(index) {
            let values = attributes.entry(name).or_default();
            if values.len() < VALUES || values.contains_key(&value) {
                *values.entry(value).or_default() += 1;
            }
        }
    }
    let bin = |at: usize| {
        let (from, to) = (BINS[at], BINS.get(at + 1).map(|next| next - 1));
        let inside = |many: &&usize| **many >= from && to.is_none_or(|to| **many <= to);
        let people = count.iter().filter(inside).count();
        Bin { from, to, people, faces: count.iter().filter(inside).sum() }
    };
    let mut sizes: Vec<_> = sizes.into_iter().collect();
    sizes.sort_by_key(|(size, count)| (std::cmp::Reverse(*count), *size));
    let mut several: Vec<Vec<usize>> = same.into_values().filter(|faces| faces.len() > 1).collect();
    several.sort();
    let duplicates = several.into_iter().map(|faces| Duplicates {
        one_person: faces.iter().all(|face| dataset.person(*face) == dataset.person(faces[0])),
        places: faces.iter().map(|face| dataset.place(*face)).collect(),
    });
    Census {
        faces: dataset.len(),
        people: count.len(),
        unknown,
        histogram: (0..BINS.len()).map(bin).filter(|bin| bin.people > 0).collect(),
        sizes,
        broken: dataset.left_out().iter().chain(seen.iter().filter_map(|face| face.as_ref().err())).cloned().collect(),
        left_out: dataset.left_out().len(),
        duplicates: duplicates.collect(),
        attributes,
        pairs: dataset.pairs().len(),
        notes: dataset.notes().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::face::Face;

    /// Faces of one colour each; 200 cannot be read.
    struct Grey(Vec<(u8, Option<usize>)>, Vec<String>, Vec<String>);

    impl Dataset for Grey {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn people(&self) -> &[String] {
            &self.1
        }

        fn person(&self, index: usize) -> Option<usize> {
            self.0[index].1
        }

        fn key(&self, index: usize) -> String {
            format!("face {index}")
        }

        fn left_out(&self) -> &[String] {
            &self.2
        }

        fn face(&self, index: usize) -> Result<Face> {
            match self.0[index].0 {
                200 => Err(Error::data("it is dark")),
                grey => Face::new(4, 4, vec![grey; 48]),
            }
        }
    }

    #[test]
    fn a_census_by_hand() {
        let faces = vec![(1, Some(0)), (2, Some(0)), (1, Some(0)), (200, Some(1)), (2, Some(1)), (5, None)];
        let grey = Grey(faces, vec!["Ann".into(), "Bob".into()], vec!["`x.png`: it is empty".into()]);
        let found = census(&grey, &seen(&grey, &mut |_, _| Ok(())).expect("seen"));
        assert_eq!((found.faces, found.people, found.unknown), (6, 2, 1));
        let bins: Vec<_> = found.histogram.iter().map(|bin| (bin.from, bin.to, bin.people, bin.faces)).collect();
        assert_eq!(bins, [(2, Some(2), 1, 2), (3, Some(4), 1, 3)]);
        assert_eq!(found.sizes, [((4, 4), 5)]);
        assert_eq!(found.broken, ["`x.png`: it is empty", "face 3: it is dark"]);
        assert_eq!(found.left_out, 1);
        let twice: Vec<_> = found.duplicates.iter().map(|d| (d.one_person, d.places.join(" "))).collect();
        assert_eq!(twice, [(true, "face 0 face 2".to_string()), (false, "face 1 face 4".to_string())]);
    }
}
