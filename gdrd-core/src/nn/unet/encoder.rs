//! The encoder half of a U-Net, as a source of features.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::block::{Block, Resize, Step, attention, conv3, residual};
use super::config::{InputBlock, UnetConfig};
use super::patch::gathered;
use super::tap::Tap;
use super::time::TimeEmbedding;
use crate::error::{Error, Result};
use crate::nn::Weights;

/// `time_embed`, `input_blocks` and `middle_block` of a U-Net.
#[derive(Clone, Debug)]
pub struct UnetEncoder {
    config: UnetConfig,
    time: TimeEmbedding,
    pub(super) input_blocks: Vec<Block>,
    middle: Block,
}

impl UnetEncoder {
    /// Takes the encoder's weights; those of the decoder are not asked for.
    ///
    /// # Errors
    /// If the options do not fit each other.
    pub fn new(config: &UnetConfig, weights: &Weights) -> Result<Self> {
        config.check()?;
        let places = weights.pp("input_blocks");
        let mut input_blocks = Vec::new();
        for (index, block) in config.input_blocks().into_iter().enumerate() {
            input_blocks.push(input_block(block, config, &places.pp(index))?);
        }
        let channels = config.middle_channels();
        let middle = weights.pp("middle_block");
        let middle = Block(vec![
            residual(channels, channels, Resize::Keep, config, &middle.pp(0))?,
            attention(channels, config, &middle.pp(1))?,
            residual(channels, channels, Resize::Keep, config, &middle.pp(2))?,
        ]);
        let time = TimeEmbedding::new(config.model_channels, &weights.pp("time_embed"))?;
        Ok(Self { config: config.clone(), time, input_blocks, middle })
    }

    /// The encoder from the tensors of a checkpoint. Names may all start with `module.`; the decoder's tensors and the
    /// class embedding may be there and are dropped.
    ///
    /// # Errors
    /// If the options do not fit each other, or the tensors do not fit the options.
    pub fn read(config: &UnetConfig, tensors: BTreeMap<String, Tensor>, device: &Device) -> Result<Self> {
        let tensors = plain(tensors).filter(|(name, _)| !Self::leaves_out(name)).collect();
        Weights::read(tensors, device, |_| false, |weights| Self::new(config, weights))
    }

    /// Whether `name` is a tensor of the whole U-Net that the encoder has no use for.
    pub fn leaves_out(name: &str) -> bool {
        let name = name.strip_prefix("module.").unwrap_or(name);
        ["output_blocks.", "out.", "label_emb."].iter().any(|start| name.starts_with(start))
    }

    /// The options.
    pub fn config(&self) -> &UnetConfig {
        &self.config
    }

    /// The features at `wanted`, in its order, of `x` `[batch, in_channels, h, w]` in `[-1, 1]` at `timesteps` (0 to 999; one
    /// for all images, or one for each). Blocks after the last tap are not run.
    ///
    /// # Errors
    /// If the network lacks a tap, the input has another shape, or is too small to be halved so often.
    pub fn taps(&self, x: &Tensor, timesteps: &[f32], wanted: &[Tap]) -> Result<Vec<Tensor>> {
        for tap in wanted {
            self.config.tap_shape(*tap, x.dim(2)?.min(x.dim(3)?))?;
        }
        let Some(last) = wanted.iter().max() else { return Ok(Vec::new()) };
        let time = self.embed(x, timesteps)?;
        let mut found = BTreeMap::new();
        let mut h = gathered(x, self.config.patch)?;
        for (index, block) in self.input_blocks.iter().enumerate() {
            h = block.forward(&h, &time)?;
            let tap = Tap::Input(index);
            if wanted.contains(&tap) {
                found.insert(tap, h.clone());
            }
            if tap == *last {
                break;
            }
        }
        if *last == Tap::Middle {
            found.insert(Tap::Middle, self.middle.forward(&h, &time)?);
        }
        Ok(wanted.iter().map(|tap| found[tap].clone()).collect())
    }

    /// The shape of a tap; see [`UnetConfig::tap_shape`].
    ///
    /// # Errors
    /// If there is no such block, or the input is too small.
    pub fn tap_shape(&self, tap: Tap, input_size: usize) -> Result<(usize, usize, usize)> {
        self.config.tap_shape(tap, input_size)
    }

    /// The outputs of all input blocks, then that of the middle.
    pub(super) fn all(&self, x: &Tensor, time: &Tensor) -> Result<(Vec<Tensor>, Tensor)> {
        let x = gathered(x, self.config.patch)?;
        let mut outputs: Vec<Tensor> = Vec::with_capacity(self.input_blocks.len());
        for block in &self.input_blocks {
            outputs.push(block.forward(outputs.last().unwrap_or(&x), time)?);
        }
        let middle = self.middle.forward(outputs.last().unwrap_or(&x), time)?;
        Ok((outputs, middle))
    }

    /// The time embedding (after SiLU), once the shapes are known to be right.
    pub(super) fn embed(&self, x: &Tensor, timesteps: &[f32]) -> Result<Tensor> {
        let (batch, channels, h, w) = x.dims4()?;
        if channels != self.config.in_channels {
            return Err(Error::component(format!(
                "expected images [batch, {}, h, w], found {:?}",
                self.config.in_channels,
                [batch, channels, h, w]
            )));
        }
        if timesteps.len() != 1 && timesteps.len() != batch {
            let found = timesteps.len();
            return Err(Error::component(format!("expected 1 or {batch} timesteps, found {found}")));
        }
        self.time.forward(timesteps)
    }
}

/// Tensors by their names without `module.`.
pub(super) fn plain(tensors: BTreeMap<String, Tensor>) -> impl Iterator<Item = (String, Tensor)> {
    let plain = |name: String| name.strip_prefix("module.").map(str::to_string).unwrap_or(name);
    tensors.into_iter().map(move |(name, tensor)| (plain(name), tensor))
}

fn input_block(block: InputBlock, config: &UnetConfig, weights: &Weights) -> Result<Block> {
    let first = weights.pp(0);
    Ok(Block(match block {
        InputBlock::Stem { channels } => {
            vec![Step::Convolution(conv3(config.in_channels * config.patch.pow(2), channels, 1, &first)?)]
        }
        InputBlock::Residual { inputs, outputs, attention: attends } => {
            let mut steps = vec![residual(inputs, outputs, Resize::Keep, config, &first)?];
            if attends {
                steps.push(attention(outputs, config, &weights.pp(1))?);
            }
            steps
        }
        InputBlock::Down { channels } if config.resblock_updown => {
            vec![residual(channels, channels, Resize::Down, config, &first)?]
        }
        InputBlock::Down { channels } => vec![Step::Convolution(conv3(channels, channels, 2, &first.pp("op"))?)],
    }))
}
