//! Recipes: TOML text, merged with its parents and with `--set`, read into typed configs.
//!
//! The way of a recipe: [`overlay::load`] reads the files and gives one merged [`Table`], in which
//! every key and value knows its [`Span`]; [`read::read`] makes a typed config of a table and finds
//! all its problems; a [`Diagnostic`] says one of them with file, line and column.

mod check;
mod deserializer;
pub mod diagnostic;
mod fault;
mod hub;
pub mod node;
pub mod overlay;
pub mod path;
pub mod read;
mod run_options;
mod schema;
mod set;
pub mod source;
mod stand_in;
mod typed;

pub use diagnostic::{Diagnostic, Failure};
pub use hub::{DEFAULT_REVISION, HUB_SCHEME, HubAddress, HubFile, HubFiles, LockedFile, RepositoryType};
pub use node::{Node, Table, Value};
pub use path::RecipePath;
pub use run_options::RunOptions;
pub use schema::schema;
pub use source::{Sources, Span};
pub use typed::{Recipe, StageRecipe, TermRecipe};
