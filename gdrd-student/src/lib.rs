//! Students of gdrd: the networks, and an API to embed faces with a trained one.
//!
//! A program that only embeds uses [`FaceEncoder`] and none of the features. The feature `train` registers the kinds of
//! students for recipes, `image` makes faces of that crate's images, `hub` opens students of the Hugging Face Hub, `cuda` runs
//! networks on a GPU.
#![forbid(unsafe_code)]

mod decision;
mod embedding;
mod encoder;
pub mod front_end;
mod gallery;
#[cfg(feature = "hub")]
pub mod hub;
pub mod networks;
#[cfg(feature = "train")]
mod training;

pub use candle_core::Device;
pub use decision::Decision;
pub use embedding::Embedding;
pub use encoder::{BuiltIn, FaceEncoder};
pub use gallery::{Gallery, Match};
pub use gdrd_core::embedder::{Embedder, Embeddings};
pub use gdrd_core::error::{Error, ErrorKind, Result};
pub use gdrd_core::face::{Face, Kernel, Layout};
pub use gdrd_core::files::Mapped;
#[cfg(feature = "train")]
pub use gdrd_core::nn::OnnxInput;
pub use gdrd_core::nn::kernels::WeightPrecision;
pub use gdrd_core::student::{Calibration, QualityModel, StudentFacts, StudentHeader, StudentKinds, Threshold};
#[cfg(feature = "train")]
pub use training::{StudentTeacher, register};
