//! Lists that are drawn from a dataset with identities: pairs to verify, and who is in a gallery.

use super::pairs::{Pair, generated};
use crate::data::Dataset;
use crate::error::{Context, Error, Result};
use crate::seed::{Seed, shuffled};

/// A list in the format of LFW's `pairs.txt`: `folds` folds, in each `each` pairs of one person and as many of two. Nobody is in two
/// folds. Images are named by their numbers where they are called as LFW's are (`Ann/Ann_0003`), and otherwise by what they are
/// called.
///
/// # Errors
/// If the people of a fold do not give that many pairs, or a name does not fit in a line.
pub fn pair_list(dataset: &dyn Dataset, folds: usize, each: usize, seed: Seed) -> Result<String> {
    let mut faces: Vec<Vec<usize>> = vec![Vec::new(); dataset.people().len()];
    for index in 0..dataset.len() {
        if let Some(person) = dataset.person(index) {
            faces[person].push(index);
        }
    }
    if folds == 0 || each == 0 || faces.len() < 2 * folds {
        return Err(Error::data(format!(
            "expected at least one fold and one pair, and two people for each fold, found {folds} folds of {each} pairs and {} people",
            faces.len()
        )));
    }
    let mut stream = seed.stream("people of folds", &[]);
    let mut order = shuffled(&mut stream, faces.len());
    // Dealt by the number of their faces, so that every fold has its share of people with several.
    order.sort_by_key(|person| std::cmp::Reverse(faces[*person].len()));
    let mut text = format!("{folds}\t{each}\n");
    for fold in 0..folds {
        let of_fold: Vec<usize> =
            order.iter().skip(fold).step_by(folds).flat_map(|person| faces[*person].clone()).collect();
        let people: Vec<usize> = of_fold.iter().filter_map(|index| dataset.person(*index)).collect();
        let mut stream = seed.stream("pairs of a fold", &[fold as u64]);
        let pairs = generated(&people, 2 * each, 1, &mut stream).at(|| format!("fold {}", fold + 1))?;
        for Pair { left, right, same, .. } in pairs {
            let faces = [left, right].map(|at| of_fold[at]);
            let [(left, a), (right, b)] = faces.map(|index| named(dataset, index));
            if same != (left == right) {
                return Err(Error::data(format!(
                    "`{}` and `{}` show {}, and a list of pairs knows people by the folders of keys; expected keys `person/image`",
                    dataset.key(faces[0]),
                    dataset.key(faces[1]),
                    if same { "one person" } else { "two people" }
                )));
            }
            let line = if same { format!("{left}\t{a}\t{b}") } else { format!("{left}\t{a}\t{right}\t{b}") };
            if line.chars().any(|c| c.is_control() && c != '\t') {
                return Err(Error::data(format!(
                    "`{}`: a name with a character that ends a line",
                    line.escape_debug()
                )));
            }
            if line.split('\t').any(|word| word.trim().is_empty()) {
                return Err(Error::data(format!("`{}`: an empty name", line.escape_debug())));
            }
            text += &line;
            text.push('\n');
        }
    }
    Ok(text)
}

/// Person and image of a face, as a line of a list has them.
fn named(dataset: &dyn Dataset, index: usize) -> (String, String) {
    let key = dataset.key(index);
    let (person, image) = key.rsplit_once('/').unwrap_or(("", &key));
    let number = image.strip_prefix(person).and_then(|rest| rest.strip_prefix('_')).filter(|digits| digits.len() == 4);
    let number = number.and_then(|digits| digits.parse::<usize>().ok()).filter(|number| *number > 0);
    (person.to_string(), number.map_or_else(|| image.to_string(), |number| number.to_string()))
}

/// Which faces are in the gallery (or the training set) of an identification: of each person with at least `least` faces the share
/// `share` of them, drawn by `seed`, at least one and not all. Faces of others are on no side.
///
/// # Errors
/// If nobody has that many faces.
pub fn gallery(dataset: &dyn Dataset, share: f64, least: usize, seed: Seed) -> Result<Vec<Option<bool>>> {
    let mut faces: Vec<Vec<usize>> = vec![Vec::new(); dataset.people().len()];
    for index in 0..dataset.len() {
        if let Some(person) = dataset.person(index) {
            faces[person].push(index);
        }
    }
    let mut sides = vec![None; dataset.len()];
    for (person, faces) in faces.iter().enumerate().filter(|(_, faces)| faces.len() >= least.max(2)) {
        let kept = ((share * faces.len() as f64).round() as usize).clamp(1, faces.len() - 1);
        let mut stream = seed.stream(&format!("gallery of {}", dataset.people()[person]), &[]);
        for (turn, place) in shuffled(&mut stream, faces.len()).into_iter().enumerate() {
            sides[faces[place]] = Some(turn < kept);
        }
    }
    match sides.iter().all(Option::is_none) {
        true => Err(Error::data(format!("nobody has {} faces, which both sides need", least.max(2)))),
        false => Ok(sides),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::evaluation::pair_list::PairList;
    use crate::face::Face;

    /// Ten people of 2 to 5 faces; the first is named as LFW's are.
    struct Ten(Vec<String>);

    impl Ten {
        fn new() -> Self {
            Self((0..10).map(|person| format!("P{person}")).collect())
        }
    }

    impl Dataset for Ten {
        fn len(&self) -> usize {
            35
        }

        fn people(&self) -> &[String] {
            &self.0
        }

        fn person(&self, index: usize) -> Option<usize> {
            Some(index % 10)
        }

        fn key(&self, index: usize) -> String {
            match index % 10 {
                0 => format!("P0/P0_{:04}", index / 10 + 1),
                person => format!("P{person}/img {index}"),
            }
        }

        fn face(&self, _: usize) -> Result<Face> {
            Face::new(1, 1, vec![0; 3])
        }
    }

    #[test]
    fn a_drawn_list_is_read_again_and_nobody_is_in_two_folds() {
        let text = pair_list(&Ten::new(), 3, 4, Seed(1)).expect("a list");
        assert_eq!(text, pair_list(&Ten::new(), 3, 4, Seed(1)).expect("again"));
        assert_ne!(text, pair_list(&Ten::new(), 3, 4, Seed(2)).expect("another"));
        let list = PairList::parse(&text, "drawn").expect("a good list");
        assert_eq!(list.lines.len(), 24);
        let mut folds: Vec<BTreeSet<String>> = vec![BTreeSet::new(); 3];
        list.lines.iter().for_each(|line| folds[line.fold].extend([line.left.name.clone(), line.right.name.clone()]));
        assert!(folds[0].is_disjoint(&folds[1]) && folds[1].is_disjoint(&folds[2]) && folds[0].is_disjoint(&folds[2]));
        let keys: BTreeSet<String> = (0..35).map(|index| Ten::new().key(index)).collect();
        let all = list.lines.iter().flat_map(|line| [&line.left, &line.right]);
        assert!(all.into_iter().all(|image| image.keys().iter().any(|key| keys.contains(key))));
        let error = pair_list(&Ten::new(), 5, 40, Seed(1)).expect_err("too many").to_string();
        assert!(error.starts_with("fold 1: 40 same and 40 different pairs were asked for"), "{error}");
        assert!(pair_list(&Ten::new(), 6, 1, Seed(1)).is_err());
    }

    /// Faces whose keys say where they were taken, and not whose they are.
    struct Cameras(Ten);

    impl Dataset for Cameras {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn people(&self) -> &[String] {
            self.0.people()
        }

        fn person(&self, index: usize) -> Option<usize> {
            self.0.person(index)
        }

        fn key(&self, index: usize) -> String {
            format!("camera{}/{index:04}", index % 2)
        }

        fn face(&self, index: usize) -> Result<Face> {
            self.0.face(index)
        }
    }

    #[test]
    fn keys_that_do_not_say_who_it_is_are_refused() {
        let error = pair_list(&Cameras(Ten::new()), 3, 4, Seed(1)).expect_err("no people in keys").to_string();
        assert!(error.contains("expected keys `person/image`"), "{error}");
    }

    #[test]
    fn both_sides_have_everybody_who_has_enough() {
        let sides = gallery(&Ten::new(), 0.5, 4, Seed(1)).expect("sides");
        let of =
            |person: usize, side: Option<bool>| (0..35).filter(|at| at % 10 == person && sides[*at] == side).count();
        assert_eq!((of(0, Some(true)), of(0, Some(false)), of(9, None)), (2, 2, 3));
        assert!(gallery(&Ten::new(), 0.5, 9, Seed(1)).is_err());
    }
}
