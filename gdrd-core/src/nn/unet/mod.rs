//! The U-Net of guided-diffusion: a denoiser, and the encoder that serves as a generative teacher.
//!
//! Names of weights are those of the public checkpoints (`time_embed.0.weight`,
//! `input_blocks.1.0.in_layers.0.weight`, ...), so that OpenAI's, DifFace's and PGDiff's files fit as
//! they are. Images are `[batch, 3, h, w]` in `[-1, 1]`, timesteps are 0 to 999.

mod attention;
mod block;
mod config;
mod encoder;
mod model;
mod patch;
mod per_level;
mod tap;
mod time;

pub use config::UnetConfig;
pub use encoder::UnetEncoder;
pub use model::Unet;
pub use per_level::PerLevel;
pub use tap::Tap;
