//! The options of a U-Net, and the list of blocks that they ask for.

use serde::{Deserialize, Serialize};

use super::per_level::{MOST, PerLevel};
use super::tap::Tap;
use crate::error::{Error, Problem, Result};

/// Most channels of a level, or of a part of it.
const WIDEST: usize = 16_384;
/// Largest image that a network is made for, in pixels.
const LARGEST_SIZE: usize = 8_192;
/// Largest patch, in pixels.
const LARGEST_PATCH: usize = 16;

/// The options of a U-Net of guided-diffusion.
///
/// `image_size`, `model_channels` and `channel_mult` must be given; the other options have defaults.
///
/// `attention_resolutions` are sizes in pixels at an input of `image_size`, as in DifFace and PGDiff.
/// OpenAI's command line takes the same numbers; its `UNetModel` class takes downsampling rates,
/// which are `image_size / resolution`. Attention belongs to the blocks: it is there whatever the size
/// of the actual input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UnetConfig {
    /// Side of the images that the network was made for, in pixels.
    #[cfg_attr(feature = "train", schemars(range(min = 1, max = LARGEST_SIZE)))]
    pub image_size: usize,
    /// Channels of the input image.
    #[serde(default = "three")]
    #[cfg_attr(feature = "train", schemars(range(min = 1, max = WIDEST)))]
    pub in_channels: usize,
    /// Side of the squares of pixels that the first convolution sees as one position with as many times the channels, and the last one
    /// puts back (`pixel_unshuffle` and `pixel_shuffle` in PyTorch): the network costs what it costs at `image_size / patch` pixels.
    /// 1 in guided-diffusion.
    #[serde(default = "one")]
    #[cfg_attr(feature = "train", schemars(range(min = 1, max = LARGEST_PATCH)))]
    pub patch: usize,
    /// Channels that `channel_mult` multiplies; a quarter of the width of the time embedding.
    #[cfg_attr(feature = "train", schemars(range(min = 2, max = WIDEST)))]
    pub model_channels: usize,
    /// Channels of the output: 3 for the noise alone, 6 where the network also learnt the variance.
    #[serde(default = "three")]
    #[cfg_attr(feature = "train", schemars(range(min = 1, max = WIDEST)))]
    pub out_channels: usize,
    /// Channels of each level, as multiples of `model_channels`; each level halves the size.
    #[cfg_attr(feature = "train", schemars(inner(range(min = 1, max = MOST))))]
    pub channel_mult: Vec<usize>,
    /// Residual blocks of each level.
    #[serde(default = "two_blocks")]
    pub num_res_blocks: PerLevel,
    /// Sizes, in pixels, of the levels that have attention; the middle always has.
    #[serde(default)]
    #[cfg_attr(feature = "train", schemars(inner(range(min = 1, max = LARGEST_SIZE))))]
    pub attention_resolutions: Vec<usize>,
    /// Attention heads, unless `num_head_channels` is given.
    #[serde(default = "one")]
    #[cfg_attr(feature = "train", schemars(range(min = 1, max = MOST)))]
    pub num_heads: usize,
    /// Channels of an attention head; guided-diffusion's -1 is left out here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "train", schemars(range(min = 1, max = WIDEST)))]
    pub num_head_channels: Option<usize>,
    /// Whether the time embedding scales and shifts the features, or is added to them.
    #[serde(default = "yes")]
    pub use_scale_shift_norm: bool,
    /// Whether residual blocks change the size, or strided convolutions do.
    #[serde(default)]
    pub resblock_updown: bool,
    /// Whether channels are split into query, key and value first and into heads second
    /// (guided-diffusion's `use_new_attention_order`).
    #[serde(default)]
    pub new_attn_order: bool,
    /// Groups of every group normalisation; must divide the channels of every level.
    #[serde(default = "thirty_two")]
    #[cfg_attr(feature = "train", schemars(range(min = 1, max = WIDEST)))]
    pub norm_groups: usize,
    /// Dropout that the network was trained with. It is recorded, never applied.
    #[serde(default)]
    #[cfg_attr(feature = "train", schemars(range(min = 0), extend("exclusiveMaximum" = 1)))]
    pub dropout: f64,
}

/// What an input block does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InputBlock {
    /// The first convolution.
    Stem { channels: usize },
    /// A residual block, perhaps with attention after it.
    Residual { inputs: usize, outputs: usize, attention: bool },
    /// The step to half the size.
    Down { channels: usize },
}

impl InputBlock {
    /// Channels of the block's output.
    pub(super) fn channels(self) -> usize {
        match self {
            Self::Stem { channels } | Self::Down { channels } => channels,
            Self::Residual { outputs, .. } => outputs,
        }
    }
}

impl UnetConfig {
    /// PGDiff's and DifFace's model of 512x512 faces (`iddpm_ffhq512_ema500000.pth`, 159.8 M parameters).
    pub fn pgdiff_512() -> Self {
        Self {
            num_res_blocks: vec![1, 2, 2, 2, 2, 3, 4].into(),
            attention_resolutions: vec![32, 16, 8],
            resblock_updown: false,
            ..Self::openai(512, 32, &[1, 2, 4, 8, 8, 16, 16])
        }
    }

    /// DifFace's model of 256x256 faces (`iddpm_ffhq256_ema750000.pth`, 124.1 M parameters).
    pub fn difface_256() -> Self {
        Self {
            attention_resolutions: vec![16, 8],
            resblock_updown: false,
            ..Self::openai(256, 128, &[1, 1, 2, 2, 4, 4])
        }
    }

    /// OpenAI's class-conditional model of 64x64 images (`64x64_diffusion.pt`), run without a class.
    pub fn openai_64() -> Self {
        let config = Self::openai(64, 192, &[1, 2, 3, 4]);
        Self { num_res_blocks: 3.into(), new_attn_order: true, dropout: 0.1, ..config }
    }

    /// OpenAI's class-conditional model of 128x128 images (`128x128_diffusion.pt`), run without a class.
    pub fn openai_128() -> Self {
        Self { num_heads: 4, num_head_channels: None, ..Self::openai(128, 256, &[1, 1, 2, 3, 4]) }
    }

    /// OpenAI's unconditional model of 256x256 images (`256x256_diffusion_uncond.pt`, 552.8 M parameters).
    pub fn openai_256() -> Self {
        Self::openai(256, 256, &[1, 1, 2, 2, 4, 4])
    }

    fn openai(image_size: usize, model_channels: usize, channel_mult: &[usize]) -> Self {
        Self {
            image_size,
            in_channels: 3,
            patch: 1,
            model_channels,
            out_channels: 6,
            channel_mult: channel_mult.to_vec(),
            num_res_blocks: 2.into(),
            attention_resolutions: vec![32, 16, 8],
            num_heads: 1,
            num_head_channels: Some(64),
            use_scale_shift_norm: true,
            resblock_updown: true,
            new_attn_order: false,
            norm_groups: 32,
            dropout: 0.0,
        }
    }

    /// Whether the options fit each other.
    ///
    /// # Errors
    /// Names every option that does not fit.
    pub fn check(&self) -> Result<()> {
        let mut problems = Vec::new();
        let mut within = |name: &'static str, values: &[usize], range: std::ops::RangeInclusive<usize>| {
            let outside = Problem::all_within(name, values, range);
            problems.extend(outside.map(|problem| format!("`{name}`: {}", problem.message)));
        };
        within("image_size", &[self.image_size], 1..=LARGEST_SIZE);
        within("in_channels", &[self.in_channels], 1..=WIDEST);
        within("patch", &[self.patch], 1..=LARGEST_PATCH);
        within("model_channels", &[self.model_channels], 2..=WIDEST);
        within("out_channels", &[self.out_channels], 1..=WIDEST);
        within("channel_mult", &self.channel_mult, 1..=MOST);
        within("num_res_blocks", self.num_res_blocks.numbers(), 0..=MOST);
        within("attention_resolutions", &self.attention_resolutions, 1..=LARGEST_SIZE);
        within("num_heads", &[self.num_heads], 1..=MOST);
        within("num_head_channels", self.num_head_channels.as_slice(), 1..=WIDEST);
        within("norm_groups", &[self.norm_groups], 1..=WIDEST);
        if !self.model_channels.is_multiple_of(2) {
            problems.push(format!("`model_channels`: expected an even number, found {}", self.model_channels));
        }
        if self.patch > 0 && !self.image_size.is_multiple_of(self.patch) {
            problems.push(format!("`patch` {} does not divide `image_size` {}", self.patch, self.image_size));
        }
        if self.channel_mult.is_empty() {
            problems.push("`channel_mult`: expected at least one level, found none".into());
        }
        if let PerLevel::Each(numbers) = &self.num_res_blocks
            && numbers.len() != self.channel_mult.len()
        {
            let levels = self.channel_mult.len();
            problems.push(format!("`num_res_blocks` has {} numbers for {levels} levels", numbers.len()));
        }
        let sizes: Vec<usize> = (0..self.channel_mult.len()).map(|level| self.resolution(level)).collect();
        for wanted in &self.attention_resolutions {
            if !sizes.contains(wanted) {
                problems.push(format!("`attention_resolutions` has {wanted}, but the levels are {sizes:?}"));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            problems.push(format!("`dropout` must be in [0, 1), found {}", self.dropout));
        }
        if problems.is_empty() {
            self.check_channels(&mut problems);
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::recipe(problems.join("; ")).at("U-Net")) }
    }

    fn check_channels(&self, problems: &mut Vec<String>) {
        for level in 0..self.channel_mult.len() {
            let channels = self.channels(level);
            if !channels.is_multiple_of(self.norm_groups) {
                problems.push(format!("`norm_groups` {} does not divide {channels} channels", self.norm_groups));
            }
            let middle = level + 1 == self.channel_mult.len();
            let (name, divisor) = match self.num_head_channels {
                Some(width) => ("num_head_channels", width),
                None => ("num_heads", self.num_heads),
            };
            if (middle || self.attends(level)) && !channels.is_multiple_of(divisor) {
                problems.push(format!("`{name}` {divisor} does not divide {channels} channels"));
            }
        }
    }

    /// Side of `level` in pixels, at an input of `image_size`.
    fn resolution(&self, level: usize) -> usize {
        (self.image_size / self.patch.max(1)).checked_shr(level as u32).unwrap_or(0)
    }

    /// Channels of `level`.
    pub(super) fn channels(&self, level: usize) -> usize {
        self.channel_mult[level] * self.model_channels
    }

    /// Residual blocks of `level`.
    pub(super) fn blocks(&self, level: usize) -> usize {
        self.num_res_blocks.at(level).unwrap_or(0)
    }

    /// Whether `level` has attention.
    pub(super) fn attends(&self, level: usize) -> bool {
        self.attention_resolutions.contains(&self.resolution(level))
    }

    /// Attention heads of a block with `channels`.
    pub(super) fn heads(&self, channels: usize) -> usize {
        self.num_head_channels.map_or(self.num_heads, |width| channels / width)
    }

    /// Width of the time embedding.
    pub(super) fn time_width(&self) -> usize {
        4 * self.model_channels
    }

    /// The input blocks in order; `input_blocks.N` is entry N.
    pub(super) fn input_blocks(&self) -> Vec<InputBlock> {
        let mut channels = self.channels(0);
        let mut blocks = vec![InputBlock::Stem { channels }];
        for level in 0..self.channel_mult.len() {
            for _ in 0..self.blocks(level) {
                let outputs = self.channels(level);
                blocks.push(InputBlock::Residual { inputs: channels, outputs, attention: self.attends(level) });
                channels = outputs;
            }
            if level + 1 < self.channel_mult.len() {
                blocks.push(InputBlock::Down { channels });
            }
        }
        blocks
    }

    /// Channels of the middle block.
    pub(super) fn middle_channels(&self) -> usize {
        self.input_blocks().last().map_or(0, |block| block.channels())
    }

    /// `(channels, height, width)` of a tap for a square input of `input_size` pixels; nothing is run.
    ///
    /// A strided convolution halves and rounds up (1 stays 1), a residual block that halves rounds down.
    ///
    /// # Errors
    /// If there is no such block, or the input is too small to be halved so often.
    pub fn tap_shape(&self, tap: Tap, input_size: usize) -> Result<(usize, usize, usize)> {
        let blocks = self.input_blocks();
        tap.check(blocks.len())?;
        let last = match tap {
            Tap::Input(index) => index,
            Tap::Middle => blocks.len() - 1,
        };
        if !input_size.is_multiple_of(self.patch) {
            return Err(Error::component(format!(
                "expected an input of a multiple of {} pixels (`patch`), found {input_size}",
                self.patch
            )));
        }
        let mut size = input_size / self.patch;
        for block in &blocks[..=last] {
            if let InputBlock::Down { .. } = block {
                size = if self.resblock_updown { size / 2 } else { size.div_ceil(2) };
            }
        }
        if size == 0 {
            return Err(Error::component(format!("an input of {input_size} pixels vanishes before `{tap}`")));
        }
        Ok((blocks[last].channels(), size, size))
    }
}

fn one() -> usize {
    1
}

fn three() -> usize {
    3
}

fn thirty_two() -> usize {
    32
}

fn two_blocks() -> PerLevel {
    PerLevel::All(2)
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_of_the_public_face_models() {
        let large = UnetConfig::pgdiff_512();
        large.check().expect("PGDiff's options");
        let shape = |tap, size| large.tap_shape(tap, size).expect("a tap");
        assert_eq!(shape(Tap::Input(0), 512), (32, 512, 512));
        assert_eq!(shape(Tap::Input(10), 512), (256, 64, 64));
        assert_eq!(shape(Tap::Input(22), 512), (512, 8, 8));
        assert_eq!(shape(Tap::Input(15), 128), (512, 4, 4));
        assert_eq!(shape(Tap::Middle, 16), (512, 1, 1));
        let small = UnetConfig::difface_256();
        small.check().expect("DifFace's options");
        assert_eq!(small.tap_shape(Tap::Input(17), 256).expect("a tap"), (512, 8, 8));
        assert_eq!(small.tap_shape(Tap::Middle, 17).expect("a tap"), (512, 1, 1));
    }

    #[test]
    fn openais_models_fit_and_halve_downwards() {
        for config in [UnetConfig::openai_64(), UnetConfig::openai_128(), UnetConfig::openai_256()] {
            config.check().expect("OpenAI's options");
        }
        let shape = |size| UnetConfig::openai_64().tap_shape(Tap::Middle, size);
        assert_eq!(shape(31).expect("a tap"), (768, 3, 3));
        assert!(shape(7).expect_err("too small").to_string().contains("vanishes before `middle_block`"));
    }

    #[test]
    fn every_unfitting_option_is_named() {
        let mut config = UnetConfig::openai_64();
        config.num_res_blocks = vec![1, 2].into();
        config.attention_resolutions = vec![8, 4];
        let text = config.check().expect_err("two problems").to_string();
        assert!(text.contains("`num_res_blocks` has 2 numbers for 4 levels"), "{text}");
        assert!(text.contains("`attention_resolutions` has 4, but the levels are [64, 32, 16, 8]"), "{text}");
        let text = UnetConfig { norm_groups: 7, ..UnetConfig::openai_64() }.check().expect_err("groups").to_string();
        assert!(text.contains("`norm_groups` 7 does not divide 192 channels"), "{text}");
    }
}
