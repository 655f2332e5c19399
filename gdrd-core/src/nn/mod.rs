//! Layers that students and teachers share, and the weights they are made from.
//!
//! Every convolution, normalisation and linear map of the project goes through here, so that a
//! faster kernel drops in at one place.

mod activation;
mod chain;
mod conv;
pub mod diffusion;
mod dropout;
mod entrance;
mod inference;
pub mod iresnet;
pub mod kernels;
mod linear;
mod misfits;
pub mod mobilefacenet;
mod norm;
mod pass;
mod preprocessing;
pub mod recogniser;
mod resize;
pub mod unet;
pub(crate) mod weight_file;
pub mod weights;

pub use activation::{Activation, PRelu, add_relu, l2_normalise, relu, silu};
pub use chain::train_residual_block;
pub use conv::{Conv2d, ConvConfig, ConvNorm};
pub use dropout::Dropout;
pub use entrance::Entrance;
pub use inference::{Inference, Map, Plan};
#[cfg(feature = "train")]
pub use inference::{OPSET, OnnxInput};
pub use linear::Linear;
pub use norm::{BatchNorm, GroupNorm, standardise};
pub use pass::{Pass, PassGuard};
pub use preprocessing::{Alignment, Colour, Preprocessing};
pub use resize::resize_bicubic;
pub use weights::{Init, Weights};

/// Whether a network is being trained or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics are used and running statistics move.
    Train,
    /// Running statistics are used and nothing changes.
    Evaluate,
}
