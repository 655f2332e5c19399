//! What convolutions and fully connected layers may round to on a GPU.

use std::sync::atomic::{AtomicU8, Ordering};

use candle_core::{Device, Result, bail};
use serde::{Deserialize, Serialize};

/// The numbers in the products of convolutions and fully connected layers. Sums, weights and everything else are float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 24 bits of precision.
    #[default]
    Float32,
    /// Factors are rounded to 11 bits of precision inside the tensor cores; on a GPU of NVIDIA's Ampere generation or later.
    Tf32,
    /// Factors and results are rounded to 8 bits of precision; on the same GPUs.
    Bfloat16,
}

/// The precision of the process. Candle's mode of float32 products is one of the process too.
static NOW: AtomicU8 = AtomicU8::new(0);

impl Precision {
    /// What layers use now.
    pub fn now() -> Self {
        match NOW.load(Ordering::Relaxed) {
            1 => Self::Tf32,
            2 => Self::Bfloat16,
            _ => Self::Float32,
        }
    }

    /// Makes layers use it until the guard is dropped; then they use what they used before.
    pub fn set(self) -> Restore {
        let before = Self::now();
        self.store();
        Restore(before)
    }

    fn store(self) {
        NOW.store(self as u8, Ordering::Relaxed);
        candle_core::cuda::set_gemm_reduced_precision_f32(self == Self::Tf32);
    }

    /// Whether `device` has it.
    ///
    /// # Errors
    /// If it has not, saying what has.
    pub fn check(self, device: &Device) -> Result<()> {
        if self == Self::Float32 {
            return Ok(());
        }
        #[cfg(feature = "cuda")]
        if let Device::Cuda(cuda) = device {
            use candle_core::cuda_backend::WrapErr;
            let (major, minor) = cuda.cuda_stream().context().compute_capability().w()?;
            if major < 8 {
                bail!(
                    "expected `float32` on a GPU of compute capability {major}.{minor}, found `{self}`, which needs 8.0"
                );
            }
            return Ok(());
        }
        bail!(
            "expected `float32` on {:?}, found `{self}`, which needs an NVIDIA GPU (--device cuda:0)",
            device.location()
        )
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
pub struct Restore(Precision);

impl Drop for Restore {
    fn drop(&mut self) {
        self.0.store();
    }
}
