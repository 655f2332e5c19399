//! The protocol `retrieval` at TinyFace's full size, on made embeddings: 3,728 probes, 4,443 mates, 153,428 distractors, 512 values.
//!
//!     cargo run --release -p gdrd-core --example retrieval
//!
//! Says the seconds of the protocol without those of making embeddings, and the most memory. `tests/bench/retrieval.py` runs it beside a
//! bare product in NumPy.

#![allow(clippy::print_stdout, reason = "an example reports on the terminal")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use candle_core::Device;
use gdrd_core::context::BuildContext;
use gdrd_core::data::Dataset;
use gdrd_core::embedder::{Embedder, Embeddings};
use gdrd_core::error::{Error, Result};
use gdrd_core::evaluation::{ProtocolConfig, Retrieval};
use gdrd_core::face::Face;
use gdrd_core::plugin::Workbench;

const WIDTH: usize = 512;
const PEOPLE: usize = 2570;
const NOBODY: u32 = 1 << 24;

/// Faces of two pixels, which hold a number and, where somebody knows it, the person's.
struct Numbered {
    people: Vec<String>,
    count: usize,
    first: u32,
}

impl Numbered {
    fn part(people: usize, count: usize, first: u32) -> Arc<dyn Dataset> {
        Arc::new(Self { people: (0..people).map(|person| person.to_string()).collect(), count, first })
    }
}

impl Dataset for Numbered {
    fn len(&self) -> usize {
        self.count
    }

    fn people(&self) -> &[String] {
        &self.people
    }

    fn person(&self, index: usize) -> Option<usize> {
        (!self.people.is_empty()).then(|| index % self.people.len())
    }

    fn key(&self, index: usize) -> String {
        index.to_string()
    }

    fn face(&self, index: usize) -> Result<Face> {
        let person = self.person(index).map_or(NOBODY - 1, |person| person as u32);
        let bytes = |number: u32| number.to_le_bytes()[..3].to_vec();
        Face::new(2, 1, [bytes(self.first + index as u32), bytes(person)].concat())
    }
}

/// Makes embeddings from numbers, with a weak centre for each person.
struct Made {
    spent: Mutex<Duration>,
}

/// Numbers in `[-0.5, 0.5)` that follow from `seed` (splitmix64).
fn noise(seed: u64) -> impl Iterator<Item = f32> {
    (1..=WIDTH as u64).map(move |at| {
        let mut z = (seed << 16).wrapping_add(at).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32 - 0.5
    })
}

impl Embedder for Made {
    fn name(&self) -> &str {
        "made"
    }

    fn width(&self) -> usize {
        WIDTH
    }

    fn embed(&self, faces: &[Face]) -> Result<Embeddings> {
        let start = Instant::now();
        let row = |face: &Face| {
            let number = |at: usize| {
                u64::from(u32::from_le_bytes([face.pixels()[at], face.pixels()[at + 1], face.pixels()[at + 2], 0]))
            };
            let (own, person) = (number(0), number(3));
            let centre = if person == u64::from(NOBODY - 1) { own + (2 << 32) } else { person + (1 << 32) };
            noise(own).zip(noise(centre)).map(|(own, centre)| own + 0.3 * centre).collect::<Vec<f32>>()
        };
        let found = Embeddings::from_rows(WIDTH, faces.iter().flat_map(row).collect());
        *self.spent.lock().map_err(|_| Error::data("a thread failed"))? += start.elapsed();
        found
    }
}

fn main() -> Result<()> {
    let bench = Workbench::new(Device::Cpu)
        .with("dataset", "gallery", Numbered::part(PEOPLE, 4443, 0))
        .with("dataset", "probes", Numbered::part(PEOPLE, 3728, 10_000))
        .with("dataset", "others", Numbered::part(0, 153_428, 20_000));
    let options = serde_json::json!({ "gallery": "gallery", "probes": "probes", "distractors": "others" });
    let config: Retrieval = serde_json::from_value(options).map_err(|e| Error::data(e.to_string()))?;
    let cx = BuildContext::new(&bench);
    let made = Made { spent: Mutex::new(Duration::ZERO) };
    let start = Instant::now();
    let outcome = config.build(&cx)?.evaluate(&made, &cx)?;
    let spent = *made.spent.lock().map_err(|_| Error::data("a thread failed"))?;
    let seconds = start.elapsed().saturating_sub(spent).as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let most =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<f64>().ok());
    let headline = outcome.headline()?;
    let memory = most.unwrap_or_default() / 1024.0;
    println!(
        "seconds {seconds:.3} memory {memory:.0} making {:.1} {} {}",
        spent.as_secs_f64(),
        headline.name,
        headline.shown()
    );
    Ok(())
}
