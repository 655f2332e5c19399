//! What a reader gets to see: tables and charts.

pub mod table;
