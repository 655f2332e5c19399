//! The contracts, layers, losses, trainer and evaluation of gdrd.

pub mod error;
pub mod face;
pub mod nn;
#[cfg(feature = "train")]
pub mod recipe;
#[cfg(feature = "train")]
pub mod registry;
