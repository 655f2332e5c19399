//! Recipes as text: TOML files, merged with their parents and with `--set`, and what is wrong with them.
//!
//! [`overlay::load`] reads the files and gives one merged [`Table`], in which every key and value knows its [`Span`];
//! [`read::read`] makes a typed config of a table and finds all its problems; a [`Diagnostic`] says one of them with file, line
//! and column. What the tables mean is the module `experiment`.

mod deserializer;
pub mod diagnostic;
mod fault;
pub(crate) mod licences;
pub mod node;
pub mod overlay;
pub mod path;
pub mod read;
mod set;
pub mod source;
mod stand_in;

pub use crate::hub::{DEFAULT_REVISION, Fetch, HUB_SCHEME, HubAddress, HubFile, LockedFile, RepositoryType};
pub use diagnostic::{Diagnostic, Failure};
pub use node::{Node, Table, Value};
pub use path::RecipePath;
pub use source::{Sources, Span};
