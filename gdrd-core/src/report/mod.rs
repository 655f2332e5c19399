//! What a reader gets to see: tables and charts.
//!
//! A [`chart`] lays out a [`picture`], which is written as SVG and PNG; a [`table`] is written as
//! Markdown, CSV, HTML and LaTeX; [`html_page`] is a page of one run or of several. Equal input gives equal bytes: the font is part of the program, and
//! nothing depends on the system.

pub mod chart;
mod frame;
mod html;
mod page;
mod paper;
pub mod picture;
mod ruler;
pub mod table;
mod tables;
mod tensorboard;
mod view;

pub use html::page as html_page;
pub use page::{SolvedLayer, StageCurves, chart_name, curve_tables, notes, picture_file, results_table, run_page};
pub(crate) use paper::count;
pub use tables::{latex_tables, markdown as markdown_tables};
pub use tensorboard::EventFile;
pub use view::{Confused, Insight, Mistaken, ProtocolView, RunView, Seen, ShownFace};
