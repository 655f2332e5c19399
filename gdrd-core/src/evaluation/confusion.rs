//! Who is taken for whom.

use super::outcome::Matrix;
use super::rates::TIE;
use crate::error::{Error, Result};

/// What was said of a probe.
pub(super) struct Named {
    /// How many others score as high as the probe's person.
    pub(super) before: usize,
    /// The person with the highest score; of equals another than the right one.
    pub(super) person: usize,
}

/// What `scores`, one for each person, say of a probe of the person `wanted`.
///
/// # Errors
/// If a score is not finite.
pub(super) fn name(scores: &[f32], wanted: usize) -> Result<Named> {
    if let Some(person) = scores.iter().position(|score| !score.is_finite()) {
        return Err(Error::component(format!(
            "score of person {person}: expected a finite number, found {}",
            scores[person]
        )));
    }
    let others = || scores.iter().enumerate().filter(move |(person, _)| *person != wanted);
    let before = others().filter(|(_, score)| **score >= scores[wanted] - TIE).count();
    let highest = others().max_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(wanted, |(person, _)| person);
    Ok(Named { before, person: if before == 0 { wanted } else { highest } })
}

/// Of whom the people with most errors were taken for: a row for each, with a column for each and one for all others.
pub(super) fn confusion(names: &[String], wanted: &[u32], named: &[Named]) -> Option<Matrix> {
    const MOST: usize = 10;
    let mut errors = vec![0usize; names.len()];
    for (wanted, named) in wanted.iter().zip(named).filter(|(_, named)| named.before > 0) {
        errors[*wanted as usize] += 1;
        errors[named.person] += 1;
    }
    let mut people: Vec<usize> = (0..errors.len()).filter(|person| errors[*person] > 0).collect();
    people.sort_by_key(|person| (std::cmp::Reverse(errors[*person]), *person));
    people.truncate(MOST);
    if people.is_empty() {
        return None;
    }
    let row = |person: &usize| {
        let mut counts = vec![0.0; people.len() + 1];
        for (_, named) in wanted.iter().zip(named).filter(|(wanted, _)| **wanted as usize == *person) {
            let column = people.iter().position(|other| *other == named.person).unwrap_or(people.len());
            counts[column] += 1.0;
        }
        (names[*person].clone(), counts)
    };
    let columns = people.iter().map(|person| names[*person].clone());
    Some(Matrix {
        name: "Who was taken for whom, most errors first".into(),
        columns: std::iter::once("probe of".to_string()).chain(columns).chain(["others".to_string()]).collect(),
        rows: people.iter().map(row).collect(),
    })
}
