//! The contracts, layers, losses, trainer and evaluation of gdrd.

pub mod error;
pub mod face;
pub mod nn;
