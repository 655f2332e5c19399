//! MobileFaceNet (Chen et al. 2018), as public repositories lay it out.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use gdrd_core::error::{Error, Result};
use gdrd_core::nn::{Activation, BatchNorm, Conv2d, ConvConfig, ConvNorm, Linear, Mode, PRelu, Weights};

use crate::weights::listed;

/// Side of the input in pixels.
pub(super) const INPUT_SIZE: usize = 112;

/// Whose network it is. They differ in names, widths, activations and the last layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// foamliu/MobileFaceNet: 128-d; RGB / 255, then ImageNet's mean and standard deviation.
    Foamliu,
    /// insightface's `arcface_torch` (`get_mbf` has blocks 1, 4, 6, 2 and scale 2); RGB / 127.5 - 1.
    Insightface {
        /// Blocks of each stage.
        blocks: [usize; 4],
        /// Channels of the first stage, in units of 64.
        scale: usize,
        /// Width of the embedding.
        embedding: usize,
    },
    /// FaceX-Zoo, face.evoLVe and InsightFace_Pytorch, from which both have it (`conv2_dw`, `conv_23`): insightface's blocks 1,
    /// 4, 6, 2 and scale 1 under other names. FaceX-Zoo's own weights want (BGR - 127.5) / 128.
    FacexZoo {
        /// Width of the embedding.
        embedding: usize,
    },
}

impl Layout {
    /// The layout of a checkpoint, by the names and shapes of its tensors.
    ///
    /// # Errors
    /// If the names are of no layout.
    pub fn of(tensors: &BTreeMap<String, Tensor>) -> Result<Self> {
        if tensors.contains_key("gdconv.depthwise.weight") {
            return Ok(Self::Foamliu);
        }
        let (stem, last, linear) = ("layers.0.layers.0.weight", "features.layers.2.weight", "linear.weight");
        let outputs = |name: &str| tensors.get(name)?.dims().first().copied().filter(|outputs| *outputs > 0);
        if let (true, Some(embedding)) = (tensors.contains_key("conv2_dw.conv.weight"), outputs(linear)) {
            return Ok(Self::FacexZoo { embedding });
        }
        let (Some(channels), Some(embedding)) = (outputs(stem), outputs(last)) else {
            return Err(Error::weights(format!(
                "no MobileFaceNet: expected `gdconv.depthwise.weight` (foamliu), `{stem}` and `{last}` (insightface), or \
                 `conv2_dw.conv.weight` and `{linear}` (FaceX-Zoo, face.evoLVe); {}",
                listed(tensors)
            )));
        };
        if channels % 64 != 0 {
            return Err(Error::weights(format!("`{stem}` has {channels} outputs, expected a multiple of 64")));
        }
        let count = |stage: usize| {
            let first = |block: &usize| format!("layers.{stage}.layers.{block}.layers.0.layers.0.weight");
            let is_there = |block: &usize| tensors.contains_key(&first(block));
            (0..).take_while(is_there).count()
        };
        // A first stage of a single block has no residual blocks at all.
        let blocks = [count(1).max(1), count(3), count(5), count(7)];
        Ok(Self::Insightface { blocks, scale: channels / 64, embedding })
    }

    /// Width of the embedding.
    pub fn embedding(&self) -> usize {
        match self {
            Self::Foamliu => 128,
            Self::Insightface { embedding, .. } | Self::FacexZoo { embedding } => *embedding,
        }
    }
}

/// Layers in a row, with the input added to the last one, which has no activation, where `residual`.
#[derive(Clone, Debug)]
struct Block {
    layers: Vec<ConvNorm>,
    residual: bool,
}

impl Block {
    fn plain(layers: Vec<ConvNorm>) -> Self {
        Self { layers, residual: false }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = x.clone();
        for (at, layer) in self.layers.iter().enumerate() {
            let add = self.residual && at + 1 == self.layers.len();
            y = layer.forward(&y, add.then_some(x), Mode::Evaluate)?;
        }
        Ok(y)
    }
}

/// The map from 512 numbers to the embedding.
#[derive(Clone, Debug)]
enum Last {
    Conv(Conv2d),
    Linear(Linear),
}

/// A frozen MobileFaceNet.
#[derive(Clone, Debug)]
pub struct MobileFaceNet {
    layout: Layout,
    blocks: Vec<Block>,
    last: Last,
    norm: BatchNorm,
}

impl MobileFaceNet {
    /// Takes the weights of `layout`.
    pub fn new(layout: Layout, weights: &Weights) -> Result<Self> {
        match layout {
            Layout::Foamliu => Self::foamliu(weights),
            Layout::Insightface { blocks, scale, embedding } => {
                Self::insightface(layout, Names::Insightface, blocks, scale, embedding, weights)
            }
            Layout::FacexZoo { embedding } => {
                Self::insightface(layout, Names::FacexZoo, [1, 4, 6, 2], 1, embedding, weights)
            }
        }
    }

    /// The network of a checkpoint, whose names tell the layout.
    ///
    /// # Errors
    /// If the names are of no known layout, or the tensors do not fit it.
    pub fn read(tensors: BTreeMap<String, Tensor>, device: &Device) -> Result<Self> {
        let layout = Layout::of(&tensors)?;
        Weights::read(tensors, device, |_| false, |weights| Self::new(layout, weights))
    }

    /// Whose network it is.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The embedding `[batch, width]` (not normalised) of `x` `[batch, 3, 112, 112]`, RGB, normalised as the layout asks.
    ///
    /// # Errors
    /// If `x` has another shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (_, channels, h, w) = x.dims4()?;
        if (channels, h, w) != (3, INPUT_SIZE, INPUT_SIZE) {
            return Err(Error::component(format!("expected faces [batch, 3, 112, 112], found {:?}", x.dims())));
        }
        let mut x = x.clone();
        for block in 0..self.blocks.len() {
            x = self.block(block, &x)?;
        }
        self.head(&x)
    }

    /// Number of blocks up to the last feature map.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The map after a block, of the map before it. The last one ends before the depthwise convolution of the whole map.
    pub(crate) fn block(&self, at: usize, x: &Tensor) -> Result<Tensor> {
        let block = &self.blocks[at];
        match at + 1 == self.blocks.len() {
            true => block.layers[0].forward(x, None, Mode::Evaluate),
            false => block.forward(x),
        }
    }

    /// The embedding of the last feature map.
    pub(crate) fn head(&self, map: &Tensor) -> Result<Tensor> {
        let mut x = map.clone();
        for layer in self.blocks.iter().rev().take(1).flat_map(|block| &block.layers[1..]) {
            x = layer.forward(&x, None, Mode::Evaluate)?;
        }
        let x = match &self.last {
            Last::Conv(conv) => conv.forward(&x)?.flatten_from(1)?,
            Last::Linear(linear) => linear.forward(&x.flatten_from(1)?)?,
        };
        self.norm.forward(&x, Mode::Evaluate)
    }

    fn foamliu(weights: &Weights) -> Result<Self> {
        // Where convolution and normalisation lie, and what follows them.
        let layer = |conv: &str, norm: &str, shape: Shape, activation: Activation| -> Result<ConvNorm> {
            shape.layer(&weights.pp(conv), &weights.pp(norm), activation)
        };
        let mut blocks = vec![Block::plain(vec![
            layer("conv1.0", "conv1.1", Shape::dense(3, 64, 3, 2), Activation::Relu6)?,
            layer("dw_conv.depthwise", "dw_conv.bn1", Shape::depthwise(64, 1), Activation::Relu)?,
            layer("dw_conv.pointwise", "dw_conv.bn2", Shape::dense(64, 64, 1, 1), Activation::Relu)?,
        ])];
        let mut inputs = 64;
        for (expansion, outputs, count, first_stride) in
            [(2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1)]
        {
            for index in 0..count {
                let stride = if index == 0 { first_stride } else { 1 };
                let (place, hidden) = (format!("features.{}.conv", blocks.len() - 1), expansion * inputs);
                let at = |name: &str| format!("{place}.{name}");
                let layers = vec![
                    layer(&at("0.0"), &at("0.1"), Shape::dense(inputs, hidden, 1, 1), Activation::Relu6)?,
                    layer(&at("1.0"), &at("1.1"), Shape::depthwise(hidden, stride), Activation::Relu6)?,
                    layer(&at("2"), &at("3"), Shape::dense(hidden, outputs, 1, 1), Activation::Identity)?,
                ];
                blocks.push(Block { layers, residual: stride == 1 && inputs == outputs });
                inputs = outputs;
            }
        }
        blocks.push(Block::plain(vec![
            layer("conv2.0", "conv2.1", Shape::dense(inputs, 512, 1, 1), Activation::Relu6)?,
            layer("gdconv.depthwise", "gdconv.bn", Shape::global(512), Activation::Identity)?,
        ]));
        let config = ConvConfig { bias: true, ..ConvConfig::default() };
        let last = Last::Conv(Conv2d::new(512, 128, 1, config, &weights.pp("conv3"))?);
        Ok(Self { layout: Layout::Foamliu, blocks, last, norm: BatchNorm::new(128, &weights.pp("bn"))? })
    }

    fn insightface(
        layout: Layout,
        names: Names,
        counts: [usize; 4],
        scale: usize,
        embedding: usize,
        weights: &Weights,
    ) -> Result<Self> {
        let (narrow, wide) = (64 * scale, 128 * scale);
        let stage = |index: usize| names.stage(weights, index);
        let mut blocks = vec![Block::plain(vec![names.with_prelu(Shape::dense(3, narrow, 3, 2), &stage(0))?])];
        if counts[0] == 1 {
            // Groups of `scale` channels: not depthwise, whatever the paper says.
            let shape = Shape { inputs: narrow, outputs: narrow, kernel: 3, stride: 1, groups: 64 };
            blocks.push(Block::plain(vec![names.with_prelu(shape, &stage(1))?]));
        } else {
            names.residuals(&mut blocks, counts[0], narrow, 128, &stage(1))?;
        }
        blocks.push(names.bottleneck(narrow, 128, narrow, 2, &stage(2))?);
        names.residuals(&mut blocks, counts[1], narrow, 128, &stage(3))?;
        blocks.push(names.bottleneck(narrow, 256, wide, 2, &stage(4))?);
        names.residuals(&mut blocks, counts[2], wide, 256, &stage(5))?;
        blocks.push(names.bottleneck(wide, 512, wide, 2, &stage(6))?);
        names.residuals(&mut blocks, counts[3], wide, 256, &stage(7))?;
        let [separate, global, linear, norm] = names.tail(weights);
        blocks.push(Block::plain(vec![
            names.with_prelu(Shape::dense(wide, 512, 1, 1), &separate)?,
            names.without_activation(Shape::global(512), &global)?,
        ]));
        let last = Last::Linear(Linear::new(512, embedding, false, &linear)?);
        Ok(Self { layout, blocks, last, norm: BatchNorm::new(embedding, &norm)? })
    }
}

/// Shape of a convolution without bias.
#[derive(Clone, Copy, Debug)]
struct Shape {
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    groups: usize,
}

impl Shape {
    fn dense(inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Self {
        Self { inputs, outputs, kernel, stride, groups: 1 }
    }

    fn depthwise(channels: usize, stride: usize) -> Self {
        Self { inputs: channels, outputs: channels, kernel: 3, stride, groups: channels }
    }

    /// One weight for each pixel of a 7x7 map, for each channel.
    fn global(channels: usize) -> Self {
        Self { inputs: channels, outputs: channels, kernel: 7, stride: 1, groups: channels }
    }

    fn layer(self, conv: &Weights, norm: &Weights, activation: Activation) -> Result<ConvNorm> {
        let Self { inputs, outputs, kernel, stride, groups } = self;
        let padding = if kernel == 3 { 1 } else { 0 };
        let config = ConvConfig { stride, padding, groups, bias: false };
        let conv = Conv2d::new(inputs, outputs, kernel, config, conv)?;
        Ok(ConvNorm::new(conv, BatchNorm::new(outputs, norm)?, activation))
    }
}

/// How the parts of one network are called.
#[derive(Clone, Copy, Debug)]
enum Names {
    Insightface,
    FacexZoo,
}

impl Names {
    fn stage(self, weights: &Weights, index: usize) -> Weights {
        let names = ["conv1", "conv2_dw", "conv_23", "conv_3", "conv_34", "conv_4", "conv_45", "conv_5"];
        match self {
            Self::Insightface => weights.pp("layers").pp(index),
            Self::FacexZoo => weights.pp(names[index]),
        }
    }

    /// The last convolutions, the linear map and its normalisation.
    fn tail(self, weights: &Weights) -> [Weights; 4] {
        match self {
            Self::Insightface => ["conv_sep", "features.layers.0", "features.layers.2", "features.layers.3"],
            Self::FacexZoo => ["conv_6_sep", "conv_6_dw", "linear", "bn"],
        }
        .map(|name| weights.pp(name))
    }

    /// Convolution, normalisation, slope.
    fn layers(self) -> [&'static str; 3] {
        match self {
            Self::Insightface => ["layers.0", "layers.1", "layers.2"],
            Self::FacexZoo => ["conv", "bn", "prelu"],
        }
    }

    /// `ConvBlock`.
    fn with_prelu(self, shape: Shape, weights: &Weights) -> Result<ConvNorm> {
        let [conv, norm, prelu] = self.layers().map(|name| weights.pp(name));
        shape.layer(&conv, &norm, Activation::PRelu(PRelu::new(shape.outputs, &prelu)?))
    }

    /// `LinearBlock`.
    fn without_activation(self, shape: Shape, weights: &Weights) -> Result<ConvNorm> {
        let [conv, norm, _] = self.layers().map(|name| weights.pp(name));
        shape.layer(&conv, &norm, Activation::Identity)
    }

    /// `DepthWise`: widen, filter each channel, narrow.
    fn bottleneck(
        self,
        inputs: usize,
        hidden: usize,
        outputs: usize,
        stride: usize,
        weights: &Weights,
    ) -> Result<Block> {
        let [widen, filter, narrow] = match self {
            Self::Insightface => ["layers.0", "layers.1", "layers.2"],
            Self::FacexZoo => ["conv", "conv_dw", "project"],
        }
        .map(|name| weights.pp(name));
        Ok(Block::plain(vec![
            self.with_prelu(Shape::dense(inputs, hidden, 1, 1), &widen)?,
            self.with_prelu(Shape::depthwise(hidden, stride), &filter)?,
            self.without_activation(Shape::dense(hidden, outputs, 1, 1), &narrow)?,
        ]))
    }

    /// `Residual`.
    fn residuals(
        self,
        blocks: &mut Vec<Block>,
        count: usize,
        channels: usize,
        hidden: usize,
        weights: &Weights,
    ) -> Result<()> {
        let inner = match self {
            Self::Insightface => "layers",
            Self::FacexZoo => "model",
        };
        for index in 0..count {
            let block = self.bottleneck(channels, hidden, channels, 1, &weights.pp(inner).pp(index))?;
            blocks.push(Block { residual: true, ..block });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use candle_core::DType;
    use gdrd_core::nn::weights::Draw;

    use super::*;

    fn tensors(layout: Layout) -> BTreeMap<String, Tensor> {
        let draw: Rc<Draw> = Rc::new(|_, count, _| vec![0.5; count]);
        let made = Weights::create(&Device::Cpu, draw, |weights| MobileFaceNet::new(layout, weights));
        made.expect("a network").1.tensors()
    }

    #[test]
    fn the_layout_is_known_by_its_names() {
        let usual = Layout::Insightface { blocks: [1, 4, 6, 2], scale: 2, embedding: 512 };
        let large = Layout::Insightface { blocks: [2, 8, 12, 4], scale: 4, embedding: 256 };
        for layout in [Layout::Foamliu, usual, large, Layout::FacexZoo { embedding: 512 }] {
            let tensors = tensors(layout);
            assert_eq!(Layout::of(&tensors).expect("a layout"), layout);
            assert_eq!(MobileFaceNet::read(tensors, &Device::Cpu).expect("fits").layout(), layout);
        }
        let zeros = Tensor::zeros((3, 1), DType::F32, &Device::Cpu).expect("zeros");
        let other = BTreeMap::from([("conv1.weight".to_string(), zeros)]);
        let error = Layout::of(&other).expect_err("no MobileFaceNet").to_string();
        assert!(error.contains("gdconv.depthwise.weight") && error.contains("features.layers.2.weight"), "{error}");
        assert!(error.ends_with("the file has 1 tensors: `conv1.weight` [3, 1]"), "{error}");
    }

    #[test]
    fn faces_of_another_size_are_refused() {
        let net = MobileFaceNet::read(tensors(Layout::Foamliu), &Device::Cpu).expect("a network");
        let x = Tensor::zeros((1, 3, 96, 112), DType::F32, &Device::Cpu).expect("a face");
        let error = net.forward(&x).expect_err("another size").to_string();
        assert!(error.contains("found [1, 3, 96, 112]"), "{error}");
    }
}
