//! What a network expects of its input, beside its size.

use candle_core::{Device, Tensor};
use gdrd_core::error::{Problem, Result};
use gdrd_core::face::FaceBatch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How faces become the input of a network: `(x - mean) / std` of values in `[0, 1]`, channel by channel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Order of the channels: `rgb` (insightface, AuraFace) or `bgr` (what was trained on images as OpenCV reads them).
    pub colour: Colour,
    /// Subtracted from values in `[0, 1]`; one number for each channel, in the network's order.
    pub mean: [f32; 3],
    /// What the difference is divided by; one number for each channel, in the network's order.
    pub std: [f32; 3],
}

/// The order of an image's channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Colour {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
}

impl Preprocessing {
    /// What is wrong with these options.
    pub fn check(&self) -> Vec<Problem> {
        let mean = self.mean.iter().all(|v| v.is_finite());
        let std = self.std.iter().all(|v| v.is_finite() && *v > 0.0);
        let mean = Problem::unless(mean, "mean", || format!("expected finite numbers, found {:?}", self.mean));
        let std = Problem::unless(std, "std", || format!("expected positive numbers, found {:?}", self.std));
        mean.into_iter().chain(std).collect()
    }

    /// The network's input, `[batch, 3, size, size]`.
    pub fn apply(&self, faces: &FaceBatch) -> Result<Tensor> {
        let x = faces.tensor();
        let device = x.device();
        let x = match self.colour {
            Colour::Rgb => x.clone(),
            Colour::Bgr => x.index_select(&Tensor::new(&[2u32, 1, 0], device)?, 1)?,
        };
        Ok(x.broadcast_sub(&channels(self.mean, device)?)?.broadcast_div(&channels(self.std, device)?)?)
    }
}

fn channels(values: [f32; 3], device: &Device) -> Result<Tensor> {
    Ok(Tensor::new(&values, device)?.reshape((1, 3, 1, 1))?)
}
