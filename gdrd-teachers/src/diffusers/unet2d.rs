//! `UNet2DModel`: the denoiser of google/ddpm-celebahq-256 and its relatives.

use gdrd_core::context::BuildContext;
use gdrd_core::error::{Problem, Result};
use gdrd_core::plugin::Kind;
use gdrd_core::recipe::RecipePath;
use gdrd_core::teacher::{Teacher, TeacherConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::blocks::{Norms, time_embedding};
use super::encoder::{Encoder, Layout};
use super::{Class, Source};

/// The encoder of an unconditional denoiser of the diffusers library (`UNet2DModel`), shown the small face.
///
/// The face is brought to `input_size` by the bicubic filter and its values to `[-1, 1]`; no noise is added. Feature maps
/// have diffusers' names: `conv_in`, `down_blocks.N` (its last step), `down_blocks.N.resnets.M`,
/// `down_blocks.N.attentions.M`, `down_blocks.N.downsamplers.0`, `mid_block` and its steps. google/ddpm-celebahq-256 has
/// 512 channels at a sixteenth of the size in `down_blocks.4.attentions.1`, at a 32nd in `mid_block`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiffusersUnet2d {
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
    pub network: Option<Unet2dNetwork>,
    /// Height and width that faces are brought to, in pixels; the network's own `sample_size` when left out.
    #[serde(default)]
    #[schemars(range(min = 4, max = 4096))]
    pub input_size: Option<usize>,
    /// The feature map that is meant when a loss names none.
    #[serde(default = "mid_block")]
    pub tap: String,
    /// The diffusion step that the network is told, 0 to 999.
    #[serde(default)]
    #[schemars(range(max = 999))]
    pub timestep: usize,
}

pub(super) fn mid_block() -> String {
    "mid_block".into()
}

/// The options of a `UNet2DModel` that its encoder depends on, with diffusers' names and defaults.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unet2dNetwork {
    /// Side of the images that the network was made for, in pixels.
    #[serde(default)]
    #[schemars(range(min = 1, max = 8192))]
    pub sample_size: Option<usize>,
    /// Channels of each level; each level halves the size.
    #[schemars(inner(range(min = 1, max = 16384)))]
    pub block_out_channels: Vec<usize>,
    /// Whether the residual blocks of each level are followed by attention.
    pub down_block_types: Vec<DownBlock>,
    /// Residual blocks of each level.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 1024))]
    pub layers_per_block: usize,
    /// Border of the convolutions that halve the size: 1 on all sides, or 0, which stands for 1 on the right and below.
    #[serde(default = "one")]
    #[schemars(range(max = 1))]
    pub downsample_padding: usize,
    /// Whether the time embedding begins with its cosines.
    #[serde(default = "yes")]
    pub flip_sin_to_cos: bool,
    /// Subtracted from the number of frequencies in their exponent's divisor.
    #[serde(default)]
    #[schemars(range(max = 16384))]
    pub freq_shift: u32,
    /// Channels of an attention head; one head when left out (in `config.json`, one for `null`, 8 channels when left out).
    #[serde(default)]
    #[schemars(range(min = 1, max = 16384))]
    pub attention_head_dim: Option<usize>,
    /// Whether the middle has attention.
    #[serde(default = "yes")]
    pub add_attention: bool,
    /// Groups of every group normalisation; must divide the channels of every level.
    #[serde(default = "thirty_two")]
    #[schemars(range(min = 1, max = 16384))]
    pub norm_num_groups: usize,
    /// Added to the variances of group normalisation.
    #[serde(default = "norm_eps")]
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub norm_eps: f64,
}

/// A level of a [`Unet2dNetwork`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DownBlock {
    /// Residual blocks.
    DownBlock2D,
    /// Residual blocks, each followed by attention.
    AttnDownBlock2D,
}

pub(super) fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

pub(super) fn thirty_two() -> usize {
    32
}

pub(super) fn yes() -> bool {
    true
}

fn norm_eps() -> f64 {
    1e-5
}

const CLASS: Class = Class {
    name: "UNet2DModel",
    fixed: &[
        ("in_channels", "3"),
        ("center_input_sample", "false"),
        ("time_embedding_type", "\"positional\""),
        ("time_embedding_dim", "null"),
        ("mid_block_type", "\"UNetMidBlock2D\""),
        ("mid_block_scale_factor", "1"),
        ("downsample_type", "\"conv\""),
        ("act_fn", "\"silu\""),
        ("attn_norm_num_groups", "null"),
        ("resnet_time_scale_shift", "\"default\""),
        ("class_embed_type", "null"),
        ("num_class_embeds", "null"),
    ],
    absent: &[("attention_head_dim", "8")],
    idle: &["out_channels", "up_block_types", "upsample_type", "dropout", "num_train_timesteps"],
};

impl Unet2dNetwork {
    /// What does not fit; empty if everything does.
    fn faults(&self) -> Vec<String> {
        let mut faults = super::faults(&self.block_out_channels, self.norm_num_groups, self.attention_head_dim);
        let (levels, types) = (self.block_out_channels.len(), self.down_block_types.len());
        if levels != types {
            faults.push(format!("`down_block_types` has {types} values for {levels} levels"));
        }
        let first = self.block_out_channels.first().copied().unwrap_or(4);
        if first % 2 == 1 || first as u64 / 2 <= u64::from(self.freq_shift) {
            faults.push(format!("{first} channels and `freq_shift` {} make no time embedding", self.freq_shift));
        }
        faults
    }

    fn layout(&self) -> Layout<'_> {
        Layout {
            in_channels: 3,
            channels: &self.block_out_channels,
            attention: self.down_block_types.iter().map(|kind| *kind == DownBlock::AttnDownBlock2D).collect(),
            middle_attention: self.add_attention,
            layers: self.layers_per_block,
            head_channels: self.attention_head_dim,
            norms: Norms { groups: self.norm_num_groups, eps: self.norm_eps },
            padding: self.downsample_padding,
            time: Some(4 * self.block_out_channels[0]),
        }
    }
}

impl Kind for DiffusersUnet2d {
    const NAME: &'static str = "diffusers-unet2d";
    const PURPOSE: &'static str = "feature maps of a diffusers denoiser's encoder, such as google/ddpm-celebahq-256";
}

impl TeacherConfig for DiffusersUnet2d {
    fn check(&self) -> Vec<Problem> {
        let faults = self.network.iter().flat_map(Unet2dNetwork::faults);
        let once = Source::described_once(self.config.is_some() && self.network.is_some());
        faults.map(|fault| Problem::new("network", fault)).chain(once).collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Teacher>> {
        let weights = cx.file(&self.weights)?.path;
        let network = match &self.network {
            Some(network) => network.clone(),
            None => CLASS.read(&self.weights, self.config.as_ref(), cx, Unet2dNetwork::faults)?,
        };
        let source = Source {
            weights: (&self.weights, weights),
            key: self.key.as_deref(),
            input_size: self.input_size,
            sample_size: network.sample_size,
            tap: &self.tap,
        };
        let decoder = ["up_blocks.", "conv_norm_out.", "conv_out."];
        source.build(
            cx,
            &[],
            |name| !decoder.iter().any(|start| name.starts_with(start)),
            |weights| {
                let (channels, shift) = (network.block_out_channels[0], f64::from(network.freq_shift));
                let place = weights.pp("time_embedding");
                let time = time_embedding(self.timestep, channels, network.flip_sin_to_cos, shift, &place)?;
                Ok((Encoder::new(&network.layout(), weights)?, Some(time)))
            },
        )
    }
}
