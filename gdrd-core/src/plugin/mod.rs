//! Plug-ins by name: families of kinds, each filled in `main` and resolved from a recipe's tables.

pub mod bounds;
pub mod family;
pub mod kind;
pub mod names;
pub mod paths;
mod walk;
pub(crate) mod workbench;

pub use family::{Boxed, Component, Family};
pub use kind::Kind;
pub use names::{DatasetName, TeacherName, ViewName};
pub use paths::Marked;
pub use workbench::Workbench;
