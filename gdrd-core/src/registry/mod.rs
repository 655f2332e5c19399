//! Plug-ins by name: families of kinds, each filled in `main` and resolved from a recipe's tables.

mod all;
pub mod family;
pub mod kind;
mod revision;

pub use all::{Listed, Registry};
pub use family::{Boxed, Component, Family};
pub use kind::Kind;
