//! A diffusion U-Net as a student: trained by a denoising stage, it becomes a generative teacher.

use candle_core::Tensor;
use gdrd_core::context::BuildContext;
use gdrd_core::error::{Error, Problem, Result};
use gdrd_core::face::FaceBatch;
use gdrd_core::nn::diffusion::conditioned;
use gdrd_core::nn::unet::{Tap, Unet, UnetConfig};
use gdrd_core::nn::{Alignment, Mode, Preprocessing};
use gdrd_core::student::{Part, Student, StudentCard, StudentConfig};
use serde::{Deserialize, Serialize};

/// The U-Net of guided-diffusion. Its file has the names of the public checkpoints, so that a teacher of kind
/// `diffusion-encoder` reads it as it reads theirs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DiffusionUnet {
    /// The network.
    pub network: UnetConfig,
}

/// What is wrong with the channels of a network that sees a face, and perhaps its condition.
pub(crate) fn channels_of(network: &UnetConfig) -> Option<Problem> {
    let channels = network.in_channels;
    Problem::unless([3, 6].contains(&channels), "network.in_channels", || {
        format!("expected 3, or 6 for a network with a condition, found {channels}")
    })
}

impl StudentConfig for DiffusionUnet {
    fn check(&self) -> Vec<Problem> {
        let error = self.network.check().err().map(|error| Problem::new("network", error.to_string()));
        error.into_iter().chain(channels_of(&self.network)).collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Student>> {
        let input_size = cx.input_size()?;
        let unet = Unet::new(&self.network, cx.weights()?)?;
        let (channels, height, width) = unet.encoder().tap_shape(Tap::Middle, input_size)?;
        let card = StudentCard { input_size, map: [channels, height, width], embedding: None };
        Ok(Box::new(Network { card, unet }))
    }
}

struct Network {
    card: StudentCard,
    unet: Unet,
}

impl Student for Network {
    fn card(&self) -> &StudentCard {
        &self.card
    }

    fn input(&self) -> Option<Preprocessing> {
        Some(Preprocessing { alignment: Alignment::Data, ..Preprocessing::default() })
    }

    fn backbone(&self, faces: &FaceBatch, _: Mode) -> Result<Tensor> {
        // Where there is a condition, the face is its own.
        let condition = (self.unet.config().in_channels == 6).then_some(faces);
        let x = conditioned(&faces.tensor().affine(2.0, -1.0)?, condition)?;
        let mut taps = self.unet.encoder().taps(&x, &vec![0.0; faces.len()], &[Tap::Middle])?;
        taps.pop().ok_or_else(|| Error::component("the encoder returned no map"))
    }

    fn head(&self, _: &Tensor, _: Mode) -> Result<Tensor> {
        Err(Error::component("a diffusion network has no embedding"))
    }

    fn part(&self, parameter: &str) -> Part {
        let decoder = parameter.starts_with("output_blocks.") || parameter.starts_with("out.");
        if decoder { Part::Head } else { Part::Backbone }
    }

    fn denoise(&self, noisy: &Tensor, timesteps: &[f32]) -> Result<Tensor> {
        // A network that predicts its variance too has the noise in the first half of its channels.
        Ok(self.unet.forward(noisy, timesteps)?.narrow(1, 0, 3)?)
    }
}
