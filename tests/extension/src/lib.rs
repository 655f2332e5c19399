//! A stranger's plug-ins for gdrd, one of each family, one a file. CONTRIBUTING.md walks through them.

use gdrd_core::error::Result;
use gdrd_core::registry::Registry;

mod camera;
mod colour_histogram;
mod faces_pack;
mod huber;
mod identification;
mod mixer;

pub use camera::Camera;
pub use colour_histogram::ColourHistogram;
pub use faces_pack::{Entry, FacesPack, to_bytes};
pub use huber::Huber;
pub use identification::Identification;
pub use mixer::Mixer;

/// Registers every plug-in of this crate.
///
/// # Errors
/// If a name is taken.
pub fn register(registry: &mut Registry) -> Result<()> {
    registry.datasets.register::<FacesPack>()?;
    registry.degradations.register::<Camera>()?;
    registry.teachers.register::<ColourHistogram>()?;
    registry.students.register::<Mixer>()?;
    registry.losses.register::<Huber>()?;
    registry.protocols.register::<Identification>()
}
