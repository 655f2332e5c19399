//! Face verification: lists of pairs, similarities, accuracy, ROC, confidence, and their file.
//!
//! In the order of use: [`pairs`] and [`pair_list`] say which images are compared, [`similarity`] compares their
//! embeddings, [`folds`] and [`roc`] turn the similarities into figures, [`bootstrap`] says how
//! sure the figures are, and [`scores`] is what is written down. Everywhere a pair is called the
//! *same* person if its score is **at least** the threshold. Rates are fractions in `[0, 1]`;
//! only [`scores`] knows per cent.

pub mod bootstrap;
pub mod folds;
pub mod pair_list;
pub mod pairs;
pub mod roc;
pub mod scores;
pub mod similarity;

use crate::error::{Error, Result};

/// Refuses scores that are not finite, are none, or are not as many as `labels`.
fn check_scores(scores: &[f64], labels: usize) -> Result<()> {
    if scores.is_empty() || scores.len() != labels {
        return Err(Error::data(format!(
            "expected as many scores as pairs and at least one, found {} scores and {labels} pairs",
            scores.len()
        )));
    }
    match scores.iter().position(|score| !score.is_finite()) {
        Some(at) => Err(Error::data(format!("score of pair {at}: expected a finite number, found {}", scores[at]))),
        None => Ok(()),
    }
}
