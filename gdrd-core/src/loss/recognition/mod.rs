//! Losses that learn who people are from labels.

mod adaface;
mod additive;
mod classes;
mod cross_entropy;
mod curricularface;
mod head;
mod magface;
mod mining;
mod octuplet;
mod rival_penalised;
mod siamese;
mod sphereface;
mod triplet;

pub use adaface::AdaFace;
pub use additive::{ArcFace, CosFace};
pub use classes::Classes;
pub(super) use cross_entropy::Classifier;
pub use cross_entropy::{CrossEntropy, cross_entropy};
pub use curricularface::CurricularFace;
pub use magface::MagFace;
pub use mining::Mining;
pub use octuplet::Octuplet;
pub use rival_penalised::RivalPenalised;
pub use siamese::Siamese;
pub use sphereface::SphereFace;
pub use triplet::Triplet;

/// Numbers for the log, by name.
type Details = Vec<(String, crate::loss::LoggedScalar)>;
