//! What a student's weights are held in.

use clap::Args;
use gdrd_core::error::Result;
use gdrd_student::{FaceEncoder, WeightPrecision};

#[derive(Args, Clone, Copy)]
pub(crate) struct HeldArguments {
    /// Hold the student's weights in these numbers while it embeds on the CPU: bfloat16 takes half of the memory
    #[arg(long, value_enum, default_value_t, value_name = "NUMBERS")]
    weights: Numbers,
}

#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum Numbers {
    /// All 24 bits of precision
    #[default]
    Float32,
    /// 8 bits of precision; sums are float32 all the same
    Bfloat16,
}

impl HeldArguments {
    /// The student with its weights held so.
    pub(crate) fn hold(self, encoder: FaceEncoder) -> Result<FaceEncoder> {
        encoder.with_weights(match self.weights {
            Numbers::Float32 => WeightPrecision::Float32,
            Numbers::Bfloat16 => WeightPrecision::Bfloat16,
        })
    }
}
