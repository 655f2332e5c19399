//! What the loader hands to a step.

use super::augment::Variant;
use super::mixup::{Mixed, Targets};
use crate::face::Face;

/// The faces of one step.
pub struct Batch {
    /// The step that it is for.
    pub step: u64,
    /// The samples' indices.
    pub indices: Vec<usize>,
    /// Which change each of them shows, in all views.
    pub variants: Vec<Variant>,
    /// How they are mixed, if they are.
    pub mixed: Option<Mixed>,
    /// The student's view.
    pub faces: Vec<Face>,
    /// Views for teachers that run live, in the order asked for; mixed where teachers are asked for mixtures.
    pub views: Vec<Vec<Face>>,
}

impl Batch {
    /// Whether the face at `at` is mixed with another, in any view.
    pub fn mixes(&self, at: usize) -> bool {
        self.mixed.as_ref().is_some_and(|mixed| mixed.shares[at] < 1.0)
    }

    /// Whether live teachers see it mixed.
    pub fn mixes_for_teachers(&self, at: usize) -> bool {
        self.mixes(at) && self.mixed.as_ref().is_some_and(|mixed| mixed.targets == Targets::Teacher)
    }
}

/// A view that a live teacher needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The view's name in the recipe.
    pub view: String,
    /// Height and width that it is brought to; its own when none.
    pub size: Option<usize>,
}
