//! Tests across the crates.

mod golden;
mod golden_data;
mod golden_layers;
mod golden_losses;
mod golden_networks;
mod golden_training;
