//! What a student's weights are held in.

use clap::Args;
use gdrd_core::error::{Error, Result};
use gdrd_student::{FaceEncoder, WeightPrecision};

#[derive(Args, Clone, Copy)]
pub(crate) struct HeldArguments {
    /// Hold the student's weights in these numbers while it embeds on the CPU [default: float32]
    #[arg(long, value_enum, value_name = "NUMBERS")]
    weights: Option<Numbers>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Numbers {
    /// 24 bits of precision
    Float32,
    /// 8 bits of precision, half of the memory; sums are float32 all the same
    Bfloat16,
    /// Whole numbers of 8 bits with a factor for each channel, a quarter of the memory; what a layer reads is rounded to 8 bits too
    Int8,
}

impl HeldArguments {
    /// Refuses the choice where no student embeds.
    pub(crate) fn refuse(self) -> Result<()> {
        match self.weights {
            None => Ok(()),
            Some(_) => Err(Error::recipe("`--weights` is for a student; expected `--student FILE` beside it")),
        }
    }

    /// The student with its weights held so.
    pub(crate) fn hold(self, encoder: FaceEncoder) -> Result<FaceEncoder> {
        match self.weights {
            Some(Numbers::Bfloat16) => encoder.with_weights(WeightPrecision::Bfloat16),
            Some(Numbers::Int8) => encoder.with_weights(WeightPrecision::Int8),
            Some(Numbers::Float32) | None => Ok(encoder),
        }
    }
}
