//! Pretrained face networks as teachers of gdrd, and the Hub that their weights come from.

use gdrd_core::error::Result;
use gdrd_core::registry::Registry;

pub mod diffusers;
mod diffusion_encoder;
pub mod hub;
pub mod iresnet;
pub mod mobilefacenet;
pub mod onnx;
mod precomputed;
mod recogniser;
pub mod weights;

pub use diffusers::{AutoencoderKl, DiffusersUnet2d};
pub use diffusion_encoder::DiffusionEncoder;
pub use iresnet::IresnetTeacher;
pub use mobilefacenet::MobileFaceNetTeacher;
pub use onnx::OnnxTeacher;
pub use precomputed::Precomputed;

/// Registers every teacher of this crate.
///
/// # Errors
/// If a name is taken.
pub fn register(registry: &mut Registry) -> Result<()> {
    registry.teachers.register::<DiffusionEncoder>()?;
    registry.teachers.register::<IresnetTeacher>()?;
    registry.teachers.register::<MobileFaceNetTeacher>()?;
    registry.teachers.register::<DiffusersUnet2d>()?;
    registry.teachers.register::<AutoencoderKl>()?;
    registry.teachers.register::<OnnxTeacher>()?;
    registry.teachers.register::<Precomputed>()
}
