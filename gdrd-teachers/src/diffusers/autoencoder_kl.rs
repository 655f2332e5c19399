//! `AutoencoderKL`: the image autoencoder of Stable Diffusion.

use gdrd_core::context::BuildContext;
use gdrd_core::error::{Problem, Result};
use gdrd_core::plugin::Kind;
use gdrd_core::recipe::RecipePath;
use gdrd_core::teacher::{Teacher, TeacherConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::blocks::Norms;
use super::encoder::{Encoder, Layout};
use super::unet2d::{mid_block, one, thirty_two, yes};
use super::{Class, Source};

/// The encoder of Stable Diffusion's image autoencoder (`AutoencoderKL` of the diffusers library), shown the small face.
///
/// The face is brought to `input_size` by the bicubic filter and its values to `[-1, 1]`. Feature maps have diffusers'
/// names without `encoder.`: `conv_in`, `down_blocks.N` (its last step) and its steps, `mid_block` and its steps,
/// `conv_act`, `conv_out`, `quant_conv`; and `latent`, the mean of the latent distribution, not scaled.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderKl {
    /// The weights: safetensors, or a state dict that PyTorch has saved; only the encoder is read.
    pub weights: RecipePath,
    /// Which state dict of the file is meant, where it holds several: the key that it lies under.
    #[serde(default)]
    pub key: Option<String>,
    /// The file that describes the network; the `config.json` beside the weights when left out. Weights at an `hf://`
    /// address need it: only files that a recipe names are fetched.
    #[serde(default)]
    pub config: Option<RecipePath>,
    /// The network itself, in place of `config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<AutoencoderNetwork>,
    /// Height and width that faces are brought to, in pixels; the network's own `sample_size` when left out.
    #[serde(default)]
    #[schemars(range(min = 4, max = 4096))]
    pub input_size: Option<usize>,
    /// The feature map that is meant when a loss names none.
    #[serde(default = "mid_block")]
    pub tap: String,
}

/// The options of an `AutoencoderKL` that its encoder depends on, with diffusers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderNetwork {
    /// Side of the images that the network was made for, in pixels.
    #[serde(default)]
    #[schemars(range(min = 1, max = 8192))]
    pub sample_size: Option<usize>,
    /// Channels of each level; each level halves the size.
    #[schemars(inner(range(min = 1, max = 16384)))]
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of each level.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1024))]
    pub layers_per_block: usize,
    /// Channels of the latent image.
    #[serde(default = "four")]
    #[schemars(range(min = 1, max = 16384))]
    pub latent_channels: usize,
    /// Groups of every group normalisation; must divide the channels of every level.
    #[serde(default = "thirty_two")]
    #[schemars(range(min = 1, max = 16384))]
    pub norm_num_groups: usize,
    /// Whether the middle has attention.
    #[serde(default = "yes")]
    pub mid_block_add_attention: bool,
    /// Whether a 1x1 convolution stands before the latent distribution.
    #[serde(default = "yes")]
    pub use_quant_conv: bool,
}

fn four() -> usize {
    4
}

const CLASS: Class = Class {
    name: "AutoencoderKL",
    fixed: &[("in_channels", "3"), ("down_block_types", "\"DownEncoderBlock2D\""), ("act_fn", "\"silu\"")],
    absent: &[],
    idle: &[
        "out_channels",
        "up_block_types",
        "scaling_factor",
        "shift_factor",
        "latents_mean",
        "latents_std",
        "force_upcast",
        "use_post_quant_conv",
    ],
};

impl AutoencoderNetwork {
    fn faults(&self) -> Vec<String> {
        super::faults(&self.block_out_channels, self.norm_num_groups, None)
    }

    fn layout(&self) -> Layout<'_> {
        Layout {
            in_channels: 3,
            channels: &self.block_out_channels,
            attention: vec![false; self.block_out_channels.len()],
            middle_attention: self.mid_block_add_attention,
            layers: self.layers_per_block,
            head_channels: None,
            norms: Norms { groups: self.norm_num_groups, eps: 1e-6 },
            padding: 0,
            time: None,
        }
    }
}

impl Kind for AutoencoderKl {
    const NAME: &'static str = "autoencoder-kl";
    const PURPOSE: &'static str = "feature maps of the encoder of Stable Diffusion's autoencoder";
}

impl TeacherConfig for AutoencoderKl {
    fn check(&self) -> Vec<Problem> {
        let faults = self.network.iter().flat_map(AutoencoderNetwork::faults);
        let once = Source::described_once(self.config.is_some() && self.network.is_some());
        faults.map(|fault| Problem::new("network", fault)).chain(once).collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Teacher>> {
        let weights = cx.file(&self.weights)?.path;
        let network = match &self.network {
            Some(network) => network.clone(),
            None => CLASS.read(&self.weights, self.config.as_ref(), cx, AutoencoderNetwork::faults)?,
        };
        let source = Source {
            weights: (&self.weights, weights),
            key: self.key.as_deref(),
            input_size: self.input_size,
            sample_size: network.sample_size,
            tap: &self.tap,
        };
        source.build(
            cx,
            &["encoder"],
            |name| name.starts_with("encoder.") || name.starts_with("quant_conv."),
            |weights| {
                let (layout, places) = (network.layout(), weights.pp("encoder"));
                let quant = network.use_quant_conv.then(|| weights.pp("quant_conv"));
                let mut encoder = Encoder::new(&layout, &places)?;
                encoder.add_latent(network.latent_channels, layout.norms, &places, quant.as_ref())?;
                Ok((encoder, None))
            },
        )
    }
}
