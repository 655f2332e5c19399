//! The contracts, layers, losses, trainer and evaluation of gdrd.
//!
//! Without its feature `train` (on by default) this crate is the runtime that an embedded student needs: faces,
//! layers, the [`Embedder`](embedder::Embedder) and the student file. The feature adds everything that a recipe does, one
//! module for each word of the flow: recipe, data, teacher, loss, trainer, student, evaluation, report. The feature `hub` adds the
//! client of the Hugging Face Hub.

pub mod context;
pub mod degrade;
pub mod digest;
pub mod embedder;
pub mod error;
pub mod face;
#[cfg_attr(not(feature = "train"), allow(dead_code, unused_imports, reason = "a run's files need more of it"))]
pub mod files;
pub mod nn;
pub mod student;

#[cfg(any(feature = "train", feature = "hub"))]
pub mod hub;
#[cfg(any(feature = "train", feature = "hub"))]
pub mod near;
#[cfg(any(feature = "train", feature = "hub"))]
pub mod observe;

#[cfg(feature = "train")]
pub mod closed_form;
#[cfg(feature = "train")]
pub mod data;
#[cfg(feature = "train")]
pub mod evaluation;
#[cfg(feature = "train")]
pub mod experiment;
#[cfg(feature = "train")]
pub mod loss;
#[cfg(feature = "train")]
pub mod pickle;
#[cfg(feature = "train")]
pub mod plugin;
#[cfg(feature = "train")]
pub mod recipe;
#[cfg(feature = "train")]
pub mod registry;
#[cfg(feature = "train")]
pub mod report;
#[cfg(feature = "train")]
pub mod run;
#[cfg(feature = "train")]
pub mod seed;
#[cfg(feature = "train")]
pub mod teacher;
#[cfg(feature = "train")]
pub mod trainer;
