//! The contracts, layers, losses, trainer and evaluation of gdrd.

#[cfg(feature = "train")]
pub mod data;
pub mod error;
pub mod face;
pub mod nn;
