//! Tests across the crates.

mod golden;
mod golden_losses;
mod golden_networks;
