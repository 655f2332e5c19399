//! The improved residual network of ArcFace (Duta et al. 2020), as public repositories lay it out.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use gdrd_core::error::{Error, Result};
use gdrd_core::nn::{Activation, BatchNorm, Conv2d, ConvConfig, ConvNorm, Linear, Mode, PRelu, Weights, relu};

use crate::weights::listed;

/// Side of the input in pixels.
pub(super) const INPUT_SIZE: usize = 112;

/// Channels of the four stages; each halves the size.
const CHANNELS: [usize; 4] = [64, 128, 256, 512];

/// The depths that are published, and the blocks of their stages.
const DEPTHS: [(usize, [usize; 4]); 6] = [
    (18, [2, 2, 2, 2]),
    (34, [3, 4, 6, 3]),
    (50, [3, 4, 14, 3]),
    (100, [3, 13, 30, 3]),
    (152, [3, 8, 36, 3]),
    (200, [6, 26, 60, 6]),
];

/// Channels of a squeezed block's inner layer, as a part of the block's.
const SQUEEZE: usize = 16;

/// Who names the tensors. They differ in names, in the shortcut of the first stage, in the normalisation between a block's
/// convolutions, and in the last normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// insightface's `arcface_torch` (`layer1.0.conv1.weight`), and CVLface's copy of it.
    Insightface,
    /// AdaFace and CVLface (`body.0.res_layer.1.weight`): blocks are numbered through, a shortcut between equal channels
    /// takes every second pixel, and the last normalisation has neither weight nor bias.
    Flat,
    /// face.evoLVe, FaceX-Zoo and InsightFace_Pytorch (`body.0.res_layer.3.weight` is a convolution): as `Flat`, but nothing is
    /// normalised between a block's convolutions, and the last normalisation has weight and bias.
    Evolve {
        /// Whether each block weighs its channels by their means (the names with `SE`).
        squeeze: bool,
    },
}

/// Which network a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Who names the tensors.
    pub naming: Naming,
    /// 18, 34, 50, 100 (which CVLface and face.evoLVe call 101), 152 or 200.
    pub depth: usize,
    /// Width of the embedding.
    pub embedding: usize,
}

impl Layout {
    /// The layout of a checkpoint, by the names and shapes of its tensors.
    ///
    /// # Errors
    /// If the names are of neither naming, or there is no depth with this many blocks.
    pub fn of(tensors: &BTreeMap<String, Tensor>) -> Result<Self> {
        let outputs = |name: &str| tensors.get(name).and_then(|tensor| tensor.dims().first().copied());
        let (insightface, flat) = ("layer1.0.conv1.weight", "body.0.res_layer.1.weight");
        let (naming, last) = match (outputs(insightface), outputs(flat)) {
            (Some(_), _) => (Naming::Insightface, "fc.weight"),
            (None, Some(_)) => {
                let third = tensors.get("body.0.res_layer.3.weight").map(Tensor::rank);
                let squeeze = tensors.contains_key("body.0.res_layer.5.fc1.weight");
                let naming = if third == Some(4) { Naming::Evolve { squeeze } } else { Naming::Flat };
                (naming, "output_layer.3.weight")
            }
            (None, None) => {
                return Err(Error::weights(format!(
                    "no iresnet: expected `{insightface}` (insightface) or `{flat}` (AdaFace, CVLface, face.evoLVe); {}",
                    listed(tensors)
                )));
            }
        };
        let Some(embedding) = outputs(last).filter(|width| *width > 0) else {
            return Err(Error::weights(format!("an iresnet without `{last}`; {}", listed(tensors))));
        };
        let blocks: [usize; 4] = match naming {
            Naming::Insightface => [1, 2, 3, 4].map(|stage| {
                let is_there = |block: &usize| tensors.contains_key(&format!("layer{stage}.{block}.conv1.weight"));
                (0..).take_while(is_there).count()
            }),
            Naming::Flat | Naming::Evolve { .. } => {
                let widths = (0..).map_while(|block| outputs(&format!("body.{block}.res_layer.1.weight")));
                let widths: Vec<usize> = widths.collect();
                CHANNELS.map(|channels| widths.iter().filter(|width| **width == channels).count())
            }
        };
        match DEPTHS.iter().find(|(_, known)| *known == blocks) {
            Some((depth, _)) => Ok(Self { naming, depth: *depth, embedding }),
            None => Err(Error::weights(format!(
                "an iresnet with {blocks:?} blocks in its stages; expected {}",
                DEPTHS.map(|(depth, blocks)| format!("{blocks:?} (iresnet{depth})")).join(", ")
            ))),
        }
    }

    fn blocks(self) -> [usize; 4] {
        DEPTHS.iter().find(|(depth, _)| *depth == self.depth).map_or([0; 4], |(_, blocks)| *blocks)
    }
}

/// What is added to a block's branch.
#[derive(Clone, Debug)]
enum Shortcut {
    Identity,
    /// Every second pixel.
    Subsample,
    Projection(ConvNorm),
}

/// A block's first convolution, and what follows it.
#[derive(Clone, Debug)]
enum First {
    Normalised(ConvNorm),
    Plain(Conv2d, PRelu),
}

/// Weighs channels by their means: squeeze-and-excitation.
#[derive(Clone, Debug)]
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

/// Normalisation, convolution, perhaps normalisation, slope, convolution, normalisation, perhaps a weight for each channel; then
/// the shortcut, and nothing after it.
#[derive(Clone, Debug)]
struct Block {
    norm: BatchNorm,
    first: First,
    second: ConvNorm,
    squeeze: Option<Squeeze>,
    shortcut: Shortcut,
}

impl Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.norm.forward(x, Mode::Evaluate)?;
        let y = match &self.first {
            First::Normalised(layer) => layer.forward(&y, None, Mode::Evaluate)?,
            First::Plain(conv, slope) => slope.forward(&conv.forward(&y)?)?,
        };
        let shortcut = match &self.shortcut {
            Shortcut::Identity => x.clone(),
            Shortcut::Subsample => x.max_pool2d_with_stride(1, 2)?,
            Shortcut::Projection(layer) => layer.forward(x, None, Mode::Evaluate)?,
        };
        match &self.squeeze {
            None => self.second.forward(&y, Some(&shortcut), Mode::Evaluate),
            Some(squeeze) => Ok((squeeze.forward(&self.second.forward(&y, None, Mode::Evaluate)?)? + shortcut)?),
        }
    }
}

/// A frozen iresnet.
#[derive(Clone, Debug)]
pub struct Iresnet {
    layout: Layout,
    stem: ConvNorm,
    blocks: Vec<Block>,
    last_norm: BatchNorm,
    linear: Linear,
    embedding_norm: BatchNorm,
}

impl Iresnet {
    /// Takes the weights of `layout`.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn new(layout: Layout, weights: &Weights) -> Result<Self> {
        let at = |insightface: &str, flat: &str| match layout.naming {
            Naming::Insightface => weights.pp(insightface),
            Naming::Flat | Naming::Evolve { .. } => weights.pp(flat),
        };
        let mut blocks = Vec::new();
        let mut inputs = CHANNELS[0];
        for (stage, (channels, count)) in CHANNELS.into_iter().zip(layout.blocks()).enumerate() {
            for index in 0..count {
                let stride = if index == 0 { 2 } else { 1 };
                blocks.push(match layout.naming {
                    Naming::Insightface => {
                        insightface(inputs, channels, stride, &weights.pp(format!("layer{}.{index}", stage + 1)))?
                    }
                    naming => flat(naming, inputs, channels, stride, &weights.pp("body").pp(blocks.len()))?,
                });
                inputs = channels;
            }
        }
        let last_size = INPUT_SIZE >> CHANNELS.len();
        let (embedding_norm, embedding) = (at("features", "output_layer.4"), layout.embedding);
        Ok(Self {
            layout,
            stem: ConvNorm::new(
                Conv2d::same3(3, CHANNELS[0], 1, false, &at("conv1", "input_layer.0"))?,
                BatchNorm::new(CHANNELS[0], &at("bn1", "input_layer.1"))?,
                Activation::PRelu(PRelu::new(CHANNELS[0], &at("prelu", "input_layer.2"))?),
            ),
            blocks,
            last_norm: BatchNorm::new(inputs, &at("bn2", "output_layer.0"))?,
            linear: Linear::new(inputs * last_size * last_size, embedding, true, &at("fc", "output_layer.3"))?,
            embedding_norm: match layout.naming {
                Naming::Insightface | Naming::Evolve { .. } => BatchNorm::new(embedding, &embedding_norm)?,
                Naming::Flat => BatchNorm::without_affine(embedding, &embedding_norm)?,
            },
        })
    }

    /// The network of a checkpoint, whose names tell the layout.
    ///
    /// # Errors
    /// If the names are of no known layout, or the tensors do not fit it.
    pub fn read(tensors: BTreeMap<String, Tensor>, device: &Device) -> Result<Self> {
        let layout = Layout::of(&tensors)?;
        Weights::read(tensors, device, |_| false, |weights| Self::new(layout, weights))
    }

    /// Which network it is.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The embedding `[batch, width]` (not normalised) of `x` `[batch, 3, 112, 112]`, normalised as the weights ask.
    ///
    /// # Errors
    /// If `x` has another shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if !matches!(x.dims(), [_, 3, INPUT_SIZE, INPUT_SIZE]) {
            return Err(Error::component(format!("expected faces [batch, 3, 112, 112], found {:?}", x.dims())));
        }
        let mut x = x.clone();
        for block in 0..self.blocks() {
            x = self.block(block, &x)?;
        }
        self.head(&x)
    }

    /// Number of blocks up to the last feature map, the stem among them.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks.len() + 1
    }

    /// The map after a block, of the map before it.
    pub(crate) fn block(&self, at: usize, x: &Tensor) -> Result<Tensor> {
        match at {
            0 => self.stem.forward(x, None, Mode::Evaluate),
            at => self.blocks[at - 1].forward(x),
        }
    }

    /// The embedding of the last feature map.
    pub(crate) fn head(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.last_norm.forward(&x, Mode::Evaluate)?.flatten_from(1)?;
        self.embedding_norm.forward(&self.linear.forward(&x)?, Mode::Evaluate)
    }
}

/// insightface's `IBasicBlock`; the first of each stage projects its shortcut.
fn insightface(inputs: usize, channels: usize, stride: usize, weights: &Weights) -> Result<Block> {
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
fn flat(naming: Naming, inputs: usize, channels: usize, stride: usize, weights: &Weights) -> Result<Block> {
    let shortcut = match (inputs == channels, stride) {
        (true, 1) => Shortcut::Identity,
        (true, _) => Shortcut::Subsample,
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
            Ok(Block { squeeze, ..block })
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
) -> Result<Block> {
    let [norm_0, conv_0, norm_1, prelu, conv_1, norm_2] = names.map(|name| weights.pp(name));
    let conv = Conv2d::same3(inputs, channels, 1, false, &conv_0)?;
    let slope = PRelu::new(channels, &prelu)?;
    Ok(Block {
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
    })
}
