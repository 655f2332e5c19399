//! What a pretrained network expects of its input, beside its size.

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::kernels::put;
use crate::error::Result;
use crate::face::FaceBatch;

/// How a batch of faces becomes the input of a network: `(x - mean) / std` of values in `[0, 1]`, channel by channel.
///
/// A wrong contract is no error anywhere, it only costs accuracy: `gdrd doctor teacher` looks for one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Preprocessing {
    /// Order of the channels: `rgb` (insightface, CVLface) or `bgr` (AdaFace's own checkpoints).
    pub colour: Colour,
    /// Subtracted from values in `[0, 1]`; one number for each channel, in the network's order.
    #[schemars(inner(range(min = -1e6, max = 1e6)))]
    pub mean: [f32; 3],
    /// What the difference is divided by; one number for each channel, in the network's order.
    #[schemars(inner(range(min = 1e-6, max = 1e6)))]
    pub std: [f32; 3],
    /// Where the network expects eyes, nose and mouth. It is stated, not applied: faces come aligned from the dataset.
    pub alignment: Alignment,
}

/// The order of an image's channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Colour {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red, as OpenCV reads images.
    Bgr,
}

/// A template that faces are brought to before a network sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Alignment {
    /// insightface's five points in 112x112 pixels: eyes at (38.3, 51.7) and (73.5, 51.5), nose at (56.0, 71.7), corners of
    /// the mouth at (41.5, 92.4) and (70.7, 92.2).
    #[default]
    Arcface,
    /// As the faces that it was trained on: FFHQ's whole heads for PGDiff and DifFace, the recipe's for what gdrd trained.
    Data,
}

/// The contract of insightface and CVLface: RGB, inputs in `[-1, 1]`, the ArcFace template.
impl Default for Preprocessing {
    fn default() -> Self {
        Self { colour: Colour::Rgb, mean: [0.5; 3], std: [0.5; 3], alignment: Alignment::Arcface }
    }
}

impl Preprocessing {
    /// RGB values in `[0, 1]` as they are.
    pub fn none() -> Self {
        Self { mean: [0.0; 3], std: [1.0; 3], alignment: Alignment::Data, ..Self::default() }
    }

    /// RGB with the mean and standard deviation of ImageNet, as torchvision's models.
    pub fn imagenet() -> Self {
        Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], ..Self::default() }
    }

    /// The network's input, `[batch, 3, size, size]`.
    pub fn apply(&self, faces: &FaceBatch) -> Result<Tensor> {
        let x = self.ordered(faces.tensor())?;
        let device = x.device();
        Ok(x.broadcast_sub(&channels(self.mean, device)?)?.broadcast_div(&channels(self.std, device)?)?)
    }

    /// The faces that [`apply`](Self::apply) turns into `input`; their values may leave `[0, 1]`.
    ///
    /// # Errors
    /// If `input` is not `[batch, 3, size, size]`.
    pub fn undo(&self, input: &Tensor) -> Result<FaceBatch> {
        let device = input.device();
        let x = input.broadcast_mul(&channels(self.std, device)?)?.broadcast_add(&channels(self.mean, device)?)?;
        FaceBatch::from_tensor(self.ordered(&x)?)
    }

    /// The channel of a face that each of the network's is; the two orders mirror each other.
    pub(super) fn order(&self) -> [usize; 3] {
        match self.colour {
            Colour::Rgb => [0, 1, 2],
            Colour::Bgr => [2, 1, 0],
        }
    }

    /// RGB in the network's order, and back.
    fn ordered(&self, x: &Tensor) -> Result<Tensor> {
        match self.colour {
            Colour::Rgb => Ok(x.clone()),
            Colour::Bgr => {
                let order = Tensor::new(&self.order().map(|channel| channel as u32), &Device::Cpu)?;
                Ok(x.index_select(&put(&order, x.device())?, 1)?)
            }
        }
    }
}

fn channels(values: [f32; 3], device: &Device) -> Result<Tensor> {
    Ok(put(&Tensor::new(&values, &Device::Cpu)?, device)?.reshape((1, 3, 1, 1))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().and_then(|x| x.to_vec1()).expect("values")
    }

    #[test]
    fn mean_and_std_are_in_the_networks_order_and_undo_undoes() {
        let faces = Tensor::new(&[0.5f32, 0.25, 1.0], &Device::Cpu).and_then(|x| x.reshape((1, 3, 1, 1)));
        let faces = FaceBatch::from_tensor(faces.expect("a pixel")).expect("a face");
        let bgr = Preprocessing {
            colour: Colour::Bgr,
            mean: [0.0, 0.25, 0.5],
            std: [1.0, 0.5, 0.25],
            ..Preprocessing::default()
        };
        let input = bgr.apply(&faces).expect("an input");
        assert_eq!(values(&input), [1.0, 0.0, 0.0]);
        assert_eq!(values(bgr.undo(&input).expect("a face").tensor()), [0.5, 0.25, 1.0]);
        let usual = Preprocessing::default().apply(&faces).expect("an input");
        assert_eq!(values(&usual), [0.0, -0.5, 1.0]);
        assert_eq!(values(&Preprocessing::none().apply(&faces).expect("an input")), [0.5, 0.25, 1.0]);
    }
}
