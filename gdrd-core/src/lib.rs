//! The contracts, layers, losses, trainer and evaluation of gdrd.
//!
//! Without its one feature `train` (on by default) this crate is the runtime that an embedded student needs.

pub mod degrade;
pub mod embedder;
pub mod error;
pub mod face;
pub mod nn;
pub mod student;

#[cfg(feature = "train")]
pub mod data;
#[cfg(feature = "train")]
pub mod seed;
#[cfg(feature = "train")]
pub mod teacher;
