//! What the loader hands to a step.

use super::augment::{Drawn, Variant};
use super::loader::Order;
use super::mixup::{Mixed, Targets};
use super::views::Views;
use crate::error::{Error, Result};
use crate::face::{Face, Kernel};
use crate::seed::Stream;

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
    /// The batch of a step of an epoch, from the samples that it has; `is_over` says that nobody waits for it any longer.
    ///
    /// # Errors
    /// If a face cannot be had, or nobody waits.
    pub(super) fn make(
        (step, epoch): (u64, u64),
        indices: Vec<usize>,
        order: &Order,
        views: &Views,
        wanted: &[Wanted],
        is_over: &dyn Fn() -> bool,
    ) -> Result<Self> {
        let (augment, view) = order.shown(step);
        let drawn: Vec<(Drawn, Stream)> =
            indices.iter().map(|index| augment.draw(order.seed, &order.stage, epoch, *index)).collect();
        let mixed = augment.mixup.as_ref().map(|mixup| {
            let shares = drawn.iter().map(|(drawn, _)| drawn.share).collect();
            Mixed { shares, targets: mixup.targets }
        });
        let asks_for_mixtures = mixed.as_ref().filter(|mixed| mixed.targets == Targets::Teacher);
        let size = indices.len();
        let mut batch = Self {
            step,
            variants: drawn.iter().map(|(drawn, _)| drawn.variant).collect(),
            faces: Vec::with_capacity(size),
            views: wanted.iter().map(|_| Vec::with_capacity(size)).collect(),
            mixed: mixed.clone(),
            indices,
        };
        for at in 0..size {
            if is_over() {
                return Err(Error::data("nobody waits for this batch any longer"));
            }
            // Each view takes its own copy of the stream, so that views behind one degradation show one and the same small face;
            // and what a face is mixed with is degraded as it is.
            let one = |from: usize, view: &str| {
                let variant = (augment, drawn[from].0.variant);
                views.face(batch.indices[from], view, variant, &mut drawn[at].1.clone())
            };
            let shown = |mixed: Option<&Mixed>, one: &dyn Fn(usize) -> Result<Face>| match mixed {
                Some(mixed) if mixed.shares[at] < 1.0 => one(at)?.mixed(&one(mixed.partner(at))?, mixed.shares[at]),
                _ => one(at),
            };
            batch.faces.push(shown(mixed.as_ref(), &|from| {
                let face = one(from, view)?;
                let (dx, dy) = drawn[from].0.shift;
                Ok(if (dx, dy) == (0, 0) { face } else { face.shifted(dx, dy) })
            })?);
            for (faces, Wanted { view, size }) in batch.views.iter_mut().zip(wanted) {
                faces.push(shown(asks_for_mixtures, &|from| {
                    let face = one(from, view)?;
                    size.map_or_else(|| Ok(face.clone()), |size| face.resized(size, Kernel::Bicubic, true))
                })?);
            }
        }
        Ok(batch)
    }

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
