//! Every reader of bytes that gdrd did not write, as a function of bytes.
//!
//! `fuzz/` calls these with libFuzzer, and a test of this crate replays the committed corpus on the stable toolchain. A reader may
//! refuse its input, by an error with words. It must not panic, hang, or take more memory than its [`Bound`] allows.

use peak_alloc::PeakAlloc;

mod checkpoint;
mod features;
mod folder;
mod hub;
mod image;
mod npy;
mod pairs;
mod readers;
mod recipe;
mod records;
mod student;
mod weights;

/// The most memory that a reader may hold at once, beside its input: `base + per_byte * bytes`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Whatever the input is.
    pub base: usize,
    /// For each byte of the input.
    pub per_byte: usize,
}

/// A reader.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name: that of its corpus.
    pub name: &'static str,
    /// The memory that it may hold.
    pub bound: Bound,
    /// Reads.
    pub read: fn(&[u8]),
}

const MIB: usize = 1 << 20;

const fn target(name: &'static str, base_mib: usize, per_byte: usize, read: fn(&[u8])) -> Target {
    Target { name, bound: Bound { base: base_mib * MIB, per_byte }, read }
}

/// All readers. Each bound is about twice what the reader was seen to need at most.
pub const TARGETS: [Target; 21] = [
    target("archive", 2, 400, weights::archive),
    target("bin", 40, 800, readers::bin),
    target("checkpoint", 2, 100, checkpoint::read),
    target("features", 9, 100, features::read),
    target("hub", 4, 100, hub::read),
    target("image", 40, 100, image::read),
    target("index", 40, 400, readers::index),
    target("listed", 4, 2000, readers::listed),
    target("mat", 140, 2000, readers::mat),
    target("mat-pairs", 140, 2000, readers::mat_pairs),
    target("npy", 2, 40, npy::read),
    target("packed", 40, 200, readers::packed),
    target("pairs", 2, 200, pairs::read),
    target("parquet", 40, 4000, readers::parquet),
    target("pickle", 2, 800, weights::pickle),
    target("recipe", 8, 2000, recipe::read),
    target("record", 40, 400, readers::record),
    target("records", 2, 200, records::read),
    target("safetensors", 2, 200, weights::safetensors),
    target("student", 40, 200, student::read),
    target("tar", 40, 400, readers::tar),
];

/// The reader called `name`.
///
/// # Panics
/// If there is none.
pub fn named(name: &str) -> Target {
    let found = TARGETS.into_iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("no target is called `{name}`"))
}

impl Target {
    /// Reads, and holds the reader to its bound; the bytes that it held at most. `meter` is the allocator of this process, in which
    /// nothing else may be going on.
    ///
    /// # Panics
    /// If the reader does, or takes more memory than it may.
    pub fn run(&self, bytes: &[u8], meter: &PeakAlloc) -> usize {
        let before = meter.current_usage();
        meter.reset_peak_usage();
        (self.read)(bytes);
        let held = meter.peak_usage().saturating_sub(before);
        let most = self.bound.base + self.bound.per_byte * bytes.len();
        assert!(held <= most, "`{}` held {held} bytes for an input of {}; it may hold {most}", self.name, bytes.len());
        held
    }
}

/// What a reader says when it refuses.
fn refused<T>(read: Result<T, gdrd_core::error::Error>) -> Option<T> {
    match read {
        Ok(read) => Some(read),
        Err(error) => {
            assert!(!error.to_string().trim().is_empty(), "an error without words");
            None
        }
    }
}
