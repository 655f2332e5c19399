//! The generative teacher: the encoder of a face diffusion model.

use candle_core::Tensor;
use gdrd_core::context::BuildContext;
use gdrd_core::data::LOW;
use gdrd_core::error::{Context, Error, Problem, Result};
use gdrd_core::face::FaceBatch;
use gdrd_core::nn::diffusion::{Diffusion, NoiseSchedule, STEPS};
use gdrd_core::nn::resize_bicubic;
use gdrd_core::nn::unet::{Tap, UnetConfig, UnetEncoder};
use gdrd_core::plugin::Kind;
use gdrd_core::recipe::RecipePath;
use gdrd_core::seed::{Seed, normal};
use gdrd_core::teacher::{Alignment, Output, Preprocessing, Shown, Teacher, TeacherCard, TeacherConfig, cannot_offer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::weights;

/// The encoder of a guided-diffusion U-Net, shown the small face.
///
/// The paper takes "the encoder of PGDiff" and says neither which layer, which timestep, nor how 16 pixels become the
/// network's input. Defaults: the middle block, timestep 0 and no noise (the face is clean), and the face brought to
/// `input_size` by the bicubic filter.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiffusionEncoder {
    /// The U-Net's weights with the names of guided-diffusion: safetensors, or a state dict that PyTorch has
    /// saved. PGDiff's, DifFace's and OpenAI's files fit as they are; only the encoder is read.
    pub weights: RecipePath,
    /// Which state dict of the file is meant, where it holds several: the key that it lies under.
    #[serde(default)]
    pub key: Option<String>,
    /// The network.
    pub network: UnetConfig,
    /// Height and width that faces are brought to, in pixels; the network's own `image_size` when left out.
    #[serde(default)]
    #[schemars(range(min = 4, max = 4096))]
    pub input_size: Option<usize>,
    /// The feature map that is meant when a loss names none.
    #[serde(default = "default_tap")]
    pub tap: Tap,
    /// The diffusion step that the network is told, 0 to 999.
    #[serde(default)]
    #[schemars(range(max = STEPS - 1))]
    pub timestep: usize,
    /// Whether the face gets the noise of that step.
    #[serde(default)]
    pub add_noise: bool,
}

fn default_tap() -> Tap {
    Tap::Middle
}

impl Kind for DiffusionEncoder {
    const NAME: &'static str = "diffusion-encoder";
    const PURPOSE: &'static str = "feature maps of a face diffusion model's encoder (the paper's T_g)";
}

impl TeacherConfig for DiffusionEncoder {
    fn check(&self) -> Vec<Problem> {
        let network = self.network.check().err();
        network.map(|error| Problem::new("network", error.to_string())).into_iter().collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Teacher>> {
        let tensors = weights::read(&cx.file(&self.weights)?.path, self.key.as_deref(), &[], |name| {
            !UnetEncoder::leaves_out(name)
        })?;
        let place = || format!("`{}`", self.weights);
        let encoder = UnetEncoder::read(&self.network, tensors, cx.device()).at(place)?;
        let input_size = self.input_size.unwrap_or(self.network.image_size);
        encoder.tap_shape(self.tap, input_size).at(|| "`tap`".into())?;
        let card = TeacherCard {
            input_size: None,
            preprocessing: Preprocessing { alignment: Alignment::Data, ..Preprocessing::default() },
            views: vec![LOW.into()],
            default_map: Some(self.tap.to_string()),
        };
        let noise = self.add_noise.then(|| Diffusion::new(NoiseSchedule::Linear, STEPS)).transpose()?;
        Ok(Box::new(FrozenEncoder { encoder, card, input_size, timestep: self.timestep, noise }))
    }
}

struct FrozenEncoder {
    encoder: UnetEncoder,
    card: TeacherCard,
    input_size: usize,
    timestep: usize,
    noise: Option<Diffusion>,
}

fn tap(output: &Output) -> Result<Tap> {
    match output {
        Output::Map(name) => name.parse(),
        other => Err(cannot_offer(other, "feature maps `input_blocks.N` and `middle_block`")),
    }
}

impl Teacher for FrozenEncoder {
    fn card(&self) -> &TeacherCard {
        &self.card
    }

    fn shape(&self, output: &Output, _: usize) -> Result<Vec<usize>> {
        let (channels, height, width) = self.encoder.tap_shape(tap(output)?, self.input_size)?;
        Ok(vec![channels, height, width])
    }

    fn features(&self, shown: &Shown, outputs: &[Output]) -> Result<Vec<Tensor>> {
        let taps = outputs.iter().map(tap).collect::<Result<Vec<_>>>()?;
        let faces = FaceBatch::from_tensor(resize_bicubic(shown.faces().tensor(), self.input_size)?)?;
        let x = self.card.preprocessing.apply(&faces)?;
        let x = match &self.noise {
            None => x,
            Some(diffusion) => {
                // The same noise for every face: a teacher is a function.
                let (_, channels, height, width) = x.dims4().map_err(Error::from)?;
                let mut stream = Seed(0).stream("teacher noise", &[]);
                let noise = normal(&mut stream, channels * height * width, 1.0);
                let noise =
                    Tensor::from_vec(noise, (1, channels, height, width), x.device())?.broadcast_as(x.shape())?;
                diffusion.q_sample(&x, &vec![self.timestep; faces.len()], &noise.contiguous()?)?
            }
        };
        let maps = self.encoder.taps(&x, &vec![self.timestep as f32; faces.len()], &taps)?;
        Ok(maps.into_iter().map(|map| map.detach()).collect())
    }

    fn maps(&self) -> Vec<String> {
        let has = |tap: &Tap| self.encoder.tap_shape(*tap, self.input_size).is_ok();
        let blocks = (0..).map(Tap::Input).take_while(has);
        blocks.chain([Tap::Middle].into_iter().filter(has)).map(|tap| tap.to_string()).collect()
    }
}
