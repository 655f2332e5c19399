//! A recipe's tables as typed parts: the experiment that a run carries out. Nothing is built here, no dataset is opened.

mod check;
mod read;
mod run_options;
mod schema;
mod spec;

pub use run_options::RunOptions;
pub use schema::schema;
pub(crate) use spec::digest_of;
pub use spec::{Experiment, StageSpec, StudentSpec, TermSpec};
