//! What a reader gets to see: tables and charts.
//!
//! A [`chart`] lays out a [`picture`], which is written as SVG and PNG; a [`table`] is written as
//! Markdown, CSV and LaTeX. Equal input gives equal bytes: the font is part of the program, and
//! nothing depends on the system.

pub mod chart;
mod frame;
mod page;
pub mod picture;
mod ruler;
pub mod table;

pub use page::{SolvedLayer, StageCurves, chart_name, notes, picture_file, results_table, run_page};
