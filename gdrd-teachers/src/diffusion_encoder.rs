//! The generative teacher: the encoder of a face diffusion model.

use candle_core::{Device, Tensor};
use gdrd_core::context::BuildContext;
use gdrd_core::data::LOW;
use gdrd_core::error::{Context, Error, Problem, Result};
use gdrd_core::face::FaceBatch;
use gdrd_core::nn::diffusion::{Diffusion, NoiseSchedule, STEPS, conditioned};
use gdrd_core::nn::kernels::put;
use gdrd_core::nn::resize_bicubic;
use gdrd_core::nn::unet::{Tap, Unet, UnetConfig, UnetEncoder};
use gdrd_core::plugin::{Kind, ViewName};
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
///
/// A network that was trained to restore faces (`condition` of the loss `denoising`) needs the small face as its `condition` here
/// too. What it is shown beside it is a choice: another view of the face, such as a larger one that the student never sees, or with
/// `restore` what the network itself makes of the small face.
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
    /// How noise grows with the timestep: as in the network's training.
    #[serde(default)]
    pub schedule: NoiseSchedule,
    /// The view of the face that it is shown; `low` when left out.
    #[serde(default)]
    pub view: Option<ViewName>,
    /// The view that is the condition of a network with `in_channels = 6`; none when left out.
    #[serde(default)]
    pub condition: Option<ViewName>,
    /// Steps of DDIM from noise, the same for every face, in which the face is restored by its condition; the encoder is shown what
    /// comes of it, in the place of a view. The file needs the decoder then. None when left out.
    #[serde(default)]
    #[schemars(range(min = 1, max = STEPS))]
    pub restore: Option<usize>,
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
        let network = self.network.check().err().map(|error| Problem::new("network", error.to_string()));
        let channels = if self.condition.is_some() { 6 } else { 3 };
        let found = self.network.in_channels;
        let fits = Problem::unless(found == channels, "network.in_channels", || {
            let with = if channels == 6 { "a" } else { "no" };
            format!("expected {channels} with {with} `condition`, found {found}")
        });
        let restores = self.restore.is_some();
        let condition = Problem::unless(!restores || self.condition.is_some(), "restore", || {
            "expected a `condition` to restore the face by, found none".into()
        });
        let view = Problem::unless(!restores || self.view.is_none(), "view", || {
            "expected none where the encoder is shown what it restored (`restore`)".into()
        });
        [network, fits, condition, view].into_iter().flatten().collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Teacher>> {
        let needs_decoder = self.restore.is_some();
        let tensors = weights::read(&cx.file(&self.weights)?.path, self.key.as_deref(), &[], |name| {
            needs_decoder || !UnetEncoder::leaves_out(name)
        })?;
        let place = || format!("`{}`", self.weights);
        let network = match self.restore {
            None => Network::Encoder(Box::new(UnetEncoder::read(&self.network, tensors, cx.device()).at(place)?)),
            Some(steps) => Network::Whole(Box::new(Unet::read(&self.network, tensors, cx.device()).at(place)?), steps),
        };
        let input_size = self.input_size.unwrap_or(self.network.image_size);
        network.encoder().tap_shape(self.tap, input_size).at(|| "`tap`".into())?;
        let shown = if needs_decoder { None } else { Some(self.view.as_ref().map_or(LOW, |view| &**view)) };
        let mut views: Vec<String> = shown.map(str::to_string).into_iter().collect();
        let condition = self.condition.as_ref().map(|view| {
            let known = views.iter().position(|other| **other == **view);
            known.unwrap_or_else(|| {
                views.push(view.to_string());
                views.len() - 1
            })
        });
        let card = TeacherCard {
            input_size: None,
            preprocessing: Preprocessing { alignment: Alignment::Data, ..Preprocessing::default() },
            views,
            default_map: Some(self.tap.to_string()),
        };
        let diffusion = Diffusion::new(self.schedule, STEPS)?;
        let (timestep, add_noise) = (self.timestep, self.add_noise);
        Ok(Box::new(FrozenEncoder { network, card, condition, input_size, timestep, add_noise, diffusion }))
    }
}

/// What of the network there is.
enum Network {
    Encoder(Box<UnetEncoder>),
    /// All of it, and the steps in which it restores a face.
    Whole(Box<Unet>, usize),
}

impl Network {
    fn encoder(&self) -> &UnetEncoder {
        match self {
            Self::Encoder(encoder) => encoder,
            Self::Whole(unet, _) => unet.encoder(),
        }
    }
}

struct FrozenEncoder {
    network: Network,
    card: TeacherCard,
    /// Which of the views is the condition.
    condition: Option<usize>,
    input_size: usize,
    timestep: usize,
    add_noise: bool,
    diffusion: Diffusion,
}

impl FrozenEncoder {
    /// Noise for faces `[count, 3, n, n]`, the same for every face: a teacher is a function.
    fn noise(&self, count: usize, device: &Device) -> Result<Tensor> {
        let size = self.input_size;
        let noise = normal(&mut Seed(0).stream("teacher noise", &[]), 3 * size * size, 1.0);
        let noise = put(&Tensor::from_vec(noise, (1, 3, size, size), &Device::Cpu)?, device)?;
        Ok(noise.broadcast_as((count, 3, size, size))?.contiguous()?)
    }

    /// What the encoder is shown, `[batch, 3, n, n]` in `[-1, 1]`, noise and condition apart.
    fn face(&self, shown: &Shown, condition: Option<&FaceBatch>) -> Result<Tensor> {
        match &self.network {
            Network::Encoder(_) => {
                let faces = FaceBatch::from_tensor(resize_bicubic(shown.faces().tensor(), self.input_size)?)?;
                self.card.preprocessing.apply(&faces)
            }
            Network::Whole(unet, steps) => {
                let noise = self.noise(shown.faces().len(), shown.faces().tensor().device())?;
                self.diffusion.ddim_sample(&noise, *steps, |x, t| unet.forward(&conditioned(x, condition)?, t))
            }
        }
    }
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
        let (channels, height, width) = self.network.encoder().tap_shape(tap(output)?, self.input_size)?;
        Ok(vec![channels, height, width])
    }

    fn features(&self, shown: &Shown, outputs: &[Output]) -> Result<Vec<Tensor>> {
        let taps = outputs.iter().map(tap).collect::<Result<Vec<_>>>()?;
        let condition = match self.condition {
            Some(at) => Some(shown.views().get(at).ok_or_else(|| Error::component("the condition was not shown"))?),
            None => None,
        };
        let mut x = self.face(shown, condition)?;
        let count = x.dim(0)?;
        if self.add_noise {
            let noise = self.noise(count, x.device())?;
            x = self.diffusion.q_sample(&x, &vec![self.timestep; count], &noise)?;
        }
        let timesteps = vec![self.timestep as f32; count];
        let maps = self.network.encoder().taps(&conditioned(&x, condition)?, &timesteps, &taps)?;
        Ok(maps.into_iter().map(|map| map.detach()).collect())
    }

    fn maps(&self) -> Vec<String> {
        let has = |tap: &Tap| self.network.encoder().tap_shape(*tap, self.input_size).is_ok();
        let blocks = (0..).map(Tap::Input).take_while(has);
        blocks.chain([Tap::Middle].into_iter().filter(has)).map(|tap| tap.to_string()).collect()
    }
}
