//! What convolutions and fully connected layers may round to on a GPU.
//!
//! It belongs to the thread that computes a step. A layer does not know which run it works for, and candle computes gradients
//! with nothing but the graph; what the two have in common is their thread, from which all work for a GPU is launched. So runs
//! beside each other in one process, each on a thread of its own, do not see each other's.

use std::cell::Cell;
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

/// The numbers in the products of convolutions and fully connected layers. Sums, weights and everything else are float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Factors keep their 24 bits. The CPU computes in float32 whatever its vectors are; but with tiles (AMX, Xeons since 2023)
    /// large layers take each factor as two bfloat16 parts, which keep 17 bits. `GDRD_NO_AMX=1` leaves the tiles alone.
    #[default]
    Float32,
    /// Factors are rounded to 11 bits of precision inside the tensor cores; on a GPU of NVIDIA's Ampere generation or later.
    Tf32,
    /// Factors and results are rounded to 8 bits of precision; on the same GPUs.
    Bfloat16,
}

thread_local! {
    static NOW: Cell<Precision> = const { Cell::new(Precision::Float32) };
}

impl Precision {
    /// What layers use on this thread.
    pub fn now() -> Self {
        NOW.get()
    }

    /// Makes layers use it on this thread until the guard is dropped; then they use what they used before.
    pub fn set(self) -> Restore {
        Restore { before: NOW.replace(self), on_this_thread: PhantomData }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Float32 => "float32",
            Self::Tf32 => "tf32",
            Self::Bfloat16 => "bfloat16",
        })
    }
}

/// Brings back the precision that was there before.
#[must_use = "the precision lasts as long as this value"]
#[derive(Debug)]
pub struct Restore {
    before: Precision,
    on_this_thread: PhantomData<*const ()>,
}

impl Drop for Restore {
    fn drop(&mut self) {
        NOW.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::Precision;

    #[test]
    fn runs_beside_each_other_have_precisions_of_their_own() {
        let outer = Precision::Tf32.set();
        let inner = Precision::Bfloat16.set();
        assert_eq!(Precision::now(), Precision::Bfloat16);
        let other = std::thread::spawn(|| {
            let before = Precision::now();
            let _own = Precision::Tf32.set();
            (before, Precision::now())
        });
        assert_eq!(other.join().expect("a thread"), (Precision::Float32, Precision::Tf32));
        assert_eq!(Precision::now(), Precision::Bfloat16);
        drop(inner);
        assert_eq!(Precision::now(), Precision::Tf32);
        drop(outer);
        assert_eq!(Precision::now(), Precision::Float32);
    }
}
