//! The blocks of iresnets.

use candle_core::Tensor;

use super::super::recogniser::Block;
use super::super::{Activation, BatchNorm, Conv2d, ConvConfig, ConvNorm, Map, Mode, PRelu, Plan, Weights, relu};
use super::Naming;
use super::layout::CHANNELS;
use crate::error::Result;

/// Channels of a squeezed block's inner layer, as a part of the block's.
const SQUEEZE: usize = 16;

/// What is added to a block's branch.
#[derive(Debug)]
enum Shortcut {
    Identity,
    /// Every second pixel, as a convolution that has one weight of 1 for each channel.
    Subsample(Conv2d),
    Projection(ConvNorm),
}

/// A block's first convolution, and what follows it.
#[derive(Debug)]
enum First {
    Normalised(ConvNorm),
    Plain(Conv2d, PRelu),
}

/// Weighs channels by their means: squeeze-and-excitation.
#[derive(Debug)]
struct Squeeze {
    down: Conv2d,
    up: Conv2d,
}

impl Squeeze {
    fn new(channels: usize, weights: &Weights) -> Result<Self> {
        let inner = channels / SQUEEZE;
        let conv = |inputs, outputs, name| Conv2d::new(inputs, outputs, 1, ConvConfig::default(), &weights.pp(name));
        Ok(Self { down: conv(channels, inner, "fc1")?, up: conv(inner, channels, "fc2")? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let means = x.mean_keepdim((2, 3))?;
        let weights = self.up.forward(&relu(&self.down.forward(&means)?)?)?;
        Ok(x.broadcast_mul(&candle_nn::ops::sigmoid(&weights)?)?)
    }
}

/// The first layer, at the input's size.
#[derive(Debug)]
pub(super) struct Stem(pub(super) ConvNorm);

impl Block for Stem {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.0.forward(x, None, mode)
    }

    fn plan(&self, plan: &mut Plan, x: Map) -> Result<Option<Map>> {
        self.0.plan(plan, x, None).map(Some)
    }

    fn output(&self, [_, height, width]: [usize; 3]) -> [usize; 3] {
        [CHANNELS[0], height, width]
    }
}

/// Normalisation, convolution, perhaps normalisation, slope, convolution, normalisation, perhaps a weight for each channel; then
/// the shortcut, and nothing after it.
#[derive(Debug)]
pub(super) struct Residual {
    norm: BatchNorm,
    first: First,
    second: ConvNorm,
    squeeze: Option<Squeeze>,
    shortcut: Shortcut,
    channels: usize,
    stride: usize,
}

impl Block for Residual {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let y = self.norm.forward(x, mode)?;
        let y = match &self.first {
            First::Normalised(layer) => layer.forward(&y, None, mode)?,
            First::Plain(conv, slope) => slope.forward(&conv.forward(&y)?)?,
        };
        let made;
        let shortcut = match &self.shortcut {
            Shortcut::Identity => x,
            Shortcut::Subsample(conv) => {
                made = conv.forward(x)?;
                &made
            }
            Shortcut::Projection(layer) => {
                made = layer.forward(x, None, mode)?;
                &made
            }
        };
        match &self.squeeze {
            None => self.second.forward(&y, Some(shortcut), mode),
            Some(squeeze) => Ok((squeeze.forward(&self.second.forward(&y, None, mode)?)? + shortcut)?),
        }
    }

    fn plan(&self, plan: &mut Plan, x: Map) -> Result<Option<Map>> {
        if self.squeeze.is_some() {
            return Ok(None);
        }
        let y = self.norm.plan(plan, x)?;
        let y = match &self.first {
            First::Normalised(layer) => layer.plan(plan, y, None)?,
            First::Plain(conv, slope) => conv.plan(plan, y, None, &Activation::PRelu(slope.clone()))?,
        };
        let shortcut = match &self.shortcut {
            Shortcut::Identity => x,
            Shortcut::Subsample(conv) => conv.plan(plan, x, None, &Activation::Identity)?,
            Shortcut::Projection(layer) => layer.plan(plan, x, None)?,
        };
        self.second.plan(plan, y, Some(shortcut)).map(Some)
    }

    fn output(&self, [_, height, width]: [usize; 3]) -> [usize; 3] {
        [self.channels, height.div_ceil(self.stride), width.div_ceil(self.stride)]
    }
}

/// insightface's `IBasicBlock`; the first of each stage projects its shortcut.
pub(super) fn insightface(inputs: usize, channels: usize, stride: usize, weights: &Weights) -> Result<Residual> {
    let shortcut = match stride {
        1 => Shortcut::Identity,
        _ => {
            let place = weights.pp("downsample");
            projection(inputs, channels, stride, &place.pp(0), &place.pp(1))?
        }
    };
    block(["bn1", "conv1", "bn2", "prelu", "conv2", "bn3"], inputs, channels, stride, shortcut, weights)
}

/// CVLface's `BasicBlockIR` and face.evoLVe's `bottleneck_IR`; only a change of channels projects the shortcut.
pub(super) fn flat(
    naming: Naming,
    inputs: usize,
    channels: usize,
    stride: usize,
    weights: &Weights,
) -> Result<Residual> {
    let shortcut = match (inputs == channels, stride) {
        (true, 1) => Shortcut::Identity,
        (true, _) => Shortcut::Subsample(Conv2d::subsample(channels, stride, weights.device())?),
        (false, _) => {
            let place = weights.pp("shortcut_layer");
            projection(inputs, channels, stride, &place.pp(0), &place.pp(1))?
        }
    };
    let weights = weights.pp("res_layer");
    match naming {
        Naming::Evolve { squeeze } => {
            let block = block(["0", "1", "", "2", "3", "4"], inputs, channels, stride, shortcut, &weights)?;
            let squeeze = squeeze.then(|| Squeeze::new(channels, &weights.pp(5))).transpose()?;
            Ok(Residual { squeeze, ..block })
        }
        _ => block(["0", "1", "2", "3", "4", "5"], inputs, channels, stride, shortcut, &weights),
    }
}

fn projection(inputs: usize, channels: usize, stride: usize, conv: &Weights, norm: &Weights) -> Result<Shortcut> {
    let config = ConvConfig { stride, ..ConvConfig::default() };
    let (conv, norm) = (Conv2d::new(inputs, channels, 1, config, conv)?, BatchNorm::new(channels, norm)?);
    Ok(Shortcut::Projection(ConvNorm::new(conv, norm, Activation::Identity)))
}

/// The block whose layers have these names, in order, the normalisation between the convolutions left out where it has none; the
/// second convolution has the stride.
fn block(
    names: [&str; 6],
    inputs: usize,
    channels: usize,
    stride: usize,
    shortcut: Shortcut,
    weights: &Weights,
) -> Result<Residual> {
    let [norm_0, conv_0, norm_1, prelu, conv_1, norm_2] = names.map(|name| weights.pp(name));
    let conv = Conv2d::same3(inputs, channels, 1, false, &conv_0)?;
    let slope = PRelu::new(channels, &prelu)?;
    Ok(Residual {
        norm: BatchNorm::new(inputs, &norm_0)?,
        first: match names[2] {
            "" => First::Plain(conv, slope),
            _ => {
                let norm = BatchNorm::new(channels, &norm_1)?;
                First::Normalised(ConvNorm::new(conv, norm, Activation::PRelu(slope)))
            }
        },
        second: ConvNorm::new(
            Conv2d::same3(channels, channels, stride, false, &conv_1)?,
            BatchNorm::new(channels, &norm_2)?,
            Activation::Identity,
        ),
        squeeze: None,
        shortcut,
        channels,
        stride,
    })
}
