//! Tests across the crates.

mod golden_networks;
