//! Measures how many images a second a dataset gives: read, decoded, brought to 16x16, in shuffled batches, by two workers.
//!
//!     cargo run --release -p gdrd-core --example loading -- KIND OPTIONS [KIND OPTIONS ...]
//!
//! `OPTIONS` are those of a recipe as JSON: `identity-folders '{"folders": ["faces"]}'`. `tests/bench/loading.py` runs it beside
//! PyTorch's `DataLoader`.

#![allow(clippy::print_stdout, reason = "an example reports on the terminal")]

use std::sync::Arc;
use std::time::Instant;

use candle_core::Device;
use gdrd_core::context::BuildContext;
use gdrd_core::data::{Augment, LOW, Loader, Order, Views};
use gdrd_core::degrade::Downscale;
use gdrd_core::plugin::Workbench;
use gdrd_core::registry::Registry;
use gdrd_core::seed::Seed;

const BATCH: usize = 96;
const WORKERS: usize = 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = Registry::with_core()?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    for pair in words.chunks(2) {
        let [kind, options] = pair else { return Err("expected KIND OPTIONS, KIND OPTIONS ...".into()) };
        let bench = Workbench::new(Device::Cpu);
        let started = Instant::now();
        let config = registry.datasets.from_json(kind, &serde_json::from_str(options)?)?;
        let dataset = config.build(&BuildContext::new(&bench))?;
        let opened = started.elapsed().as_secs_f64();
        let samples = dataset.len();
        let small = Arc::new(Downscale { size: 16, ..Downscale::default() });
        let views = Views::new(dataset.into(), kind.as_str()).with(LOW, small, "16");
        let order = Order {
            seed: Seed(7),
            stage: "loading".into(),
            batch_size: BATCH,
            samples,
            groups: None,
            augment: Augment { flip: true, ..Augment::none() },
            view: LOW.into(),
            last: None,
        };
        let steps = order.steps_per_epoch();
        let mut loader = Loader::start(views, order, Vec::new(), 0..steps, WORKERS)?;
        let (started, mut images) = (Instant::now(), 0);
        while let Some(batch) = loader.next_batch(&mut || false) {
            images += batch?.faces.len();
        }
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{kind}: {:.0} images/s ({images} images, opened and checked in {opened:.2} s)",
            images as f64 / seconds
        );
    }
    Ok(())
}
