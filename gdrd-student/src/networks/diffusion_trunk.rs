//! The student of the ablation SR: a diffusion encoder in the backbone's place, with a head of its own.

use candle_core::Tensor;
use gdrd_core::context::BuildContext;
use gdrd_core::error::{Error, Problem, Result};
use gdrd_core::face::FaceBatch;
use gdrd_core::nn::diffusion::{STEPS, conditioned};
use gdrd_core::nn::unet::{Tap, UnetConfig, UnetEncoder};
use gdrd_core::nn::weights::read_safetensors;
use gdrd_core::nn::{Alignment, Mode, Preprocessing, resize_bicubic};
use gdrd_core::student::{Student, StudentCard, StudentConfig};
use serde::{Deserialize, Serialize};

use super::bounds::{LARGEST_INPUT, WIDEST};
use super::diffusion_unet::channels_of;
use super::head::{Head, HeadOptions};

/// A backbone that is the encoder of a face diffusion model. The student file holds the encoder too, so it needs no
/// other file. To a network with a condition (`in_channels = 6`) the face is its own condition.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DiffusionTrunk {
    /// The encoder's network.
    pub network: UnetConfig,
    /// The file that the encoder's weights come from when training begins.
    #[cfg_attr(feature = "train", schemars(with = "gdrd_core::recipe::RecipePath"))]
    pub weights: String,
    /// Height and width that faces are brought to before the encoder, in pixels.
    #[cfg_attr(feature = "train", schemars(range(min = 4, max = LARGEST_INPUT)))]
    pub encoder_size: usize,
    /// The feature map that the head sees.
    #[serde(default = "default_tap")]
    pub tap: Tap,
    /// The diffusion step that the encoder is told, 0 to 999; the face gets no noise.
    #[serde(default)]
    #[cfg_attr(feature = "train", schemars(range(max = STEPS - 1)))]
    pub timestep: usize,
    /// Values in an embedding.
    #[serde(default = "default_embedding")]
    #[cfg_attr(feature = "train", schemars(range(min = 1, max = WIDEST)))]
    pub embedding: usize,
    /// The head.
    #[serde(default)]
    pub head: HeadOptions,
}

fn default_tap() -> Tap {
    Tap::Middle
}

fn default_embedding() -> usize {
    512
}

impl StudentConfig for DiffusionTrunk {
    fn check(&self) -> Vec<Problem> {
        let network = self.network.check().err().map(|error| Problem::new("network", error.to_string()));
        let channels = channels_of(&self.network);
        let size = Problem::within("encoder_size", self.encoder_size, 4..=LARGEST_INPUT);
        let step = Problem::within("timestep", self.timestep, 0..=STEPS - 1);
        let embedding = Problem::within("embedding", self.embedding, 1..=WIDEST);
        [network, channels, size, step, embedding, self.head.check()].into_iter().flatten().collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Student>> {
        let (input_size, weights) = (cx.input_size()?, cx.weights()?);
        let backbone = weights.pp("backbone");
        if !weights.are_frozen() {
            let tensors = read_safetensors(&cx.file_at(&self.weights)?.path)?;
            backbone.begin_with(tensors.into_iter().filter(|(name, _)| !UnetEncoder::leaves_out(name)).collect());
        }
        let encoder = UnetEncoder::new(&self.network, &backbone)?;
        let (channels, height, width) = encoder.tap_shape(self.tap, self.encoder_size)?;
        let map = [channels, height, width];
        let head = Head::new(&self.head, map, self.embedding, &weights.pp("head"))?;
        let card = StudentCard { input_size, map, embedding: Some(self.embedding) };
        Ok(Box::new(Network { card, config: self.clone(), encoder, head }))
    }
}

struct Network {
    card: StudentCard,
    config: DiffusionTrunk,
    encoder: UnetEncoder,
    head: Head,
}

impl Student for Network {
    fn card(&self) -> &StudentCard {
        &self.card
    }

    fn input(&self) -> Option<Preprocessing> {
        Some(Preprocessing { alignment: Alignment::Data, ..Preprocessing::default() })
    }

    fn backbone(&self, faces: &FaceBatch, _: Mode) -> Result<Tensor> {
        let x = resize_bicubic(faces.tensor(), self.config.encoder_size)?.affine(2.0, -1.0)?;
        let condition = (self.config.network.in_channels == 6).then_some(faces);
        let x = conditioned(&x, condition)?;
        let mut taps = self.encoder.taps(&x, &[self.config.timestep as f32], &[self.config.tap])?;
        taps.pop().ok_or_else(|| Error::component("the encoder returned no map"))
    }

    fn head(&self, map: &Tensor, mode: Mode) -> Result<Tensor> {
        self.head.forward(map, mode)
    }
}
