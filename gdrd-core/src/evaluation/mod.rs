//! Face verification: lists of pairs, similarities, accuracy, ROC, confidence, and their file.
//!
//! In the order of use: [`pairs`] and [`pair_list`] say which images are compared, [`similarity`] compares their
//! embeddings, [`folds`] and [`roc`] turn the similarities into figures, [`bootstrap`] says how
//! sure the figures are, and [`scores`] is what is written down. [`contract`] looks for a teacher that is fed wrongly. Everywhere a pair is called the
//! *same* person if its score is **at least** the threshold. Rates are fractions in `[0, 1]`;
//! only [`scores`] knows per cent.

pub mod bootstrap;
pub mod contract;
pub mod folds;
pub mod pair_list;
pub mod pairs;
pub mod roc;
pub mod scores;
pub mod similarity;
mod verification;

pub use verification::Verification;

use crate::data::Dataset;
use crate::embedder::Embedder;
use crate::error::{Error, Problem, Result};
use scores::Scores;

/// A way to measure anything that embeds faces, ready to be used.
pub trait Protocol {
    /// The scores of `embedder` on the dataset that the protocol was prepared for. `report` is told how many faces are
    /// done, and may stop the evaluation with an error.
    fn evaluate(
        &self,
        embedder: &dyn Embedder,
        dataset: &dyn Dataset,
        report: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<Scores>;
}

/// What a recipe says of a protocol.
pub trait ProtocolConfig {
    /// What is wrong with the options.
    fn check(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// The dataset's name in the recipe.
    fn data(&self) -> &str;

    /// Finds the faces that the protocol needs, before anything is trained.
    ///
    /// # Errors
    /// If the dataset does not have them.
    fn prepare(&self, dataset: &dyn Dataset) -> Result<Box<dyn Protocol>>;
}

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
