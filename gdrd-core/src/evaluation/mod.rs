//! Protocols: what an embedder achieves, as figures with intervals, and their file.
//!
//! Verification, in the order of use: [`pairs`] and [`pair_list`] say which images are compared, [`similarity`] compares their
//! embeddings, [`folds`] and [`roc`] turn the similarities into figures, [`bootstrap`] says how
//! sure the figures are, `rejection` what they are worth without the poorest faces, and [`outcome`] is what is written down. [`contract`] looks for a teacher that is fed wrongly. Everywhere a pair is called the
//! *same* person if its score is **at least** the threshold. Rates are fractions in `[0, 1]`;
//! only [`outcome`] knows per cent.
//!
//! Identification, retrieval and open-set identification share who is in a gallery and who is asked about (`split`, `faces`), what becomes
//! of ranks (`rates`), one embedding for a person or a template (`templates`) and the search in a large gallery (`search`). A tie never counts
//! for the embedder. Every protocol runs over resolutions (`resolution`).

pub mod bootstrap;
pub mod cleaning;
mod confusion;
pub mod contract;
pub mod drawn_lists;
mod faces;
pub mod folds;
mod identification;
mod made;
mod measured;
mod mistakes;
mod nearest;
mod open_set;
pub mod outcome;
pub mod pair_list;
pub mod pairs;
mod rates;
mod rejection;
pub(crate) mod resolution;
mod restoration;
mod retrieval;
pub mod roc;
mod search;
pub mod similarity;
mod softmax;
mod space;
mod split;
mod templates;
#[cfg(test)]
mod testing;
mod tsne;
mod verification;

pub use identification::{Classifier, Identification};
pub(crate) use made::made;
pub use measured::{Measured, Role};
pub use mistakes::{Mistake, MistakenFace, Mistakes};
pub use open_set::OpenSetIdentification;
pub use outcome::{Curve, Figure, Matrix, Outcome, Unit, digest_of_items};
pub use resolution::GallerySize;
pub use restoration::Restoration;
pub use retrieval::Retrieval;
pub use space::{alignment, uniformity};
pub use split::Split;
pub use tsne::tsne;
pub use verification::Verification;

use std::sync::Arc;

use crate::context::BuildContext;
use crate::data::Dataset;
use crate::embedder::{Embedder, Embeddings};
use crate::error::{Context, Error, Problem, Result};

/// A way to measure anything that embeds faces, ready to be used: it has its datasets and has found its faces in them.
///
/// Who is called when: the run builds every protocol before anything is trained, so that lists that do not fit are found then,
/// and calls [`evaluate`](Protocol::evaluate) after the training for the student and for each teacher that embeds.
///
/// ```
/// use gdrd_core::context::BuildContext;
/// use gdrd_core::embedder::Embedder;
/// use gdrd_core::error::Result;
/// use gdrd_core::evaluation::{Figure, Outcome, Protocol, Unit, digest_of_items};
///
/// /// How many values an embedding has.
/// struct Width;
///
/// impl Protocol for Width {
///     fn evaluate(&self, embedder: &dyn Embedder, _: &BuildContext) -> Result<Outcome> {
///         let width = embedder.width() as f64;
///         let figures = vec![Figure::plain("width", width, Unit::Plain, 1)];
///         Ok(Outcome {
///             what: "networks".into(),
///             headline: "width".into(),
///             figures,
///             curves: Vec::new(),
///             matrices: Vec::new(),
///             items: vec![width],
///             items_digest: digest_of_items([embedder.name()]),
///         })
///     }
/// }
/// # let _: Box<dyn Protocol> = Box::new(Width);
/// ```
pub trait Protocol: Send + Sync {
    /// What `embedder` achieves. `cx` has device, seed streams and progress; a protocol may train what it needs, and finishes
    /// soon after [`BuildContext::report`] fails.
    ///
    /// # Errors
    /// If a face cannot be read, an embedding has no direction, or the user stops.
    fn evaluate(&self, embedder: &dyn Embedder, cx: &BuildContext) -> Result<Outcome>;

    /// Whether it has anything to say of such an embedder: of all that have embeddings, unless the protocol says otherwise.
    fn measures(&self, embedder: &dyn Embedder) -> bool {
        embedder.width() > 0
    }

    /// A picture of what it has measured, for the report of a run, as PNG; none unless the protocol says otherwise.
    ///
    /// # Errors
    /// As [`evaluate`](Protocol::evaluate).
    fn picture(&self, embedder: &dyn Embedder, cx: &BuildContext) -> Result<Option<Vec<u8>>> {
        let _ = (embedder, cx);
        Ok(None)
    }

    /// The pairs of faces that `embedder` was most wrong about, by what `outcome` says of each item, for the report of a run; none
    /// unless the protocol says otherwise.
    ///
    /// # Errors
    /// As [`evaluate`](Protocol::evaluate).
    fn mistakes(&self, embedder: &dyn Embedder, outcome: &Outcome, cx: &BuildContext) -> Result<Option<Mistakes>> {
        let _ = (embedder, outcome, cx);
        Ok(None)
    }
}

/// What a recipe says of a protocol.
///
/// Who is called when: `gdrd check` and every command call [`check`](ProtocolConfig::check); the run calls
/// [`build`](ProtocolConfig::build) before the first step.
///
/// ```
/// use gdrd_core::context::BuildContext;
/// use gdrd_core::embedder::Embedder;
/// use gdrd_core::error::{Error, Problem, Result};
/// use gdrd_core::evaluation::{Figure, Outcome, Protocol, ProtocolConfig, Unit, digest_of_items, embed};
/// use gdrd_core::plugin::{DatasetName, Kind};
///
/// /// How alike the first two faces of a dataset are.
/// #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(deny_unknown_fields)]
/// struct FirstTwo {
///     /// The dataset.
///     data: DatasetName,
/// }
///
/// impl Kind for FirstTwo {
///     const NAME: &'static str = "first-two";
///     const PURPOSE: &'static str = "similarity of the first two faces";
/// }
///
/// impl ProtocolConfig for FirstTwo {
///     fn build(&self, cx: &BuildContext) -> Result<Box<dyn Protocol>> {
///         let dataset = cx.dataset(&self.data)?;
///         if dataset.len() < 2 {
///             return Err(Error::data(format!("`data`: expected at least 2 faces, found {}", dataset.len())));
///         }
///         Ok(Box::new(Ready(dataset)))
///     }
/// }
///
/// /// The protocol with its dataset.
/// struct Ready(std::sync::Arc<dyn gdrd_core::data::Dataset>);
///
/// impl Protocol for Ready {
///     fn evaluate(&self, embedder: &dyn Embedder, cx: &BuildContext) -> Result<Outcome> {
///         let found = embed(embedder, &self.0, &[0, 1], cx)?;
///         let alike = f64::from(found.similarity(0, 1)?);
///         let figures = vec![Figure::plain("similarity", alike, Unit::Cosine, 1)];
///         Ok(Outcome {
///             what: "pairs".into(),
///             headline: "similarity".into(),
///             figures,
///             curves: Vec::new(),
///             matrices: Vec::new(),
///             items: vec![alike],
///             items_digest: digest_of_items([self.0.key(0) + " " + &self.0.key(1)]),
///         })
///     }
/// }
/// ```
pub trait ProtocolConfig: Send + Sync {
    /// What is wrong with the options.
    fn check(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// The protocol with its datasets ([`cx.dataset`](BuildContext::dataset)) and lists ([`cx.file`](BuildContext::file)).
    ///
    /// # Errors
    /// If a dataset does not have what the protocol needs.
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Protocol>>;
}

/// Faces that are embedded at once.
const BATCH: usize = 96;

/// The embeddings of some faces of a dataset, row by row.
///
/// # Errors
/// If a face cannot be read or embedded, or the user stops.
pub fn embed(
    embedder: &dyn Embedder,
    dataset: &Arc<dyn Dataset>,
    indices: &[usize],
    cx: &BuildContext,
) -> Result<Embeddings> {
    use rayon::prelude::*;
    let mut all = Embeddings::none(embedder.width());
    for (at, batch) in indices.chunks(BATCH).enumerate() {
        cx.report(embedder.name(), at * BATCH, indices.len())?;
        let read = |&index: &usize| dataset.face(index).at(|| dataset.place(index));
        let faces = batch.par_iter().map(read).collect::<Result<Vec<_>>>()?;
        all.append(embedder.embed(&faces).at(|| format!("embedding by {}", embedder.name()))?)?;
    }
    cx.report(embedder.name(), indices.len(), indices.len())?;
    Ok(all)
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
