//! MobileFaceNet (Chen et al. 2018), as public repositories lay it out.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::chain::train_chain;
use super::recogniser::{EmbeddingHead, Trunk};
use super::{
    Activation, BatchNorm, Colour, Conv2d, ConvConfig, ConvNorm, Dropout, Linear, Map, Mode, Plan, Preprocessing,
    Weights,
};
use crate::error::{Error, Result};

mod layers;
mod layout;

use layers::{Bottleneck, Names, Row, Shape};
pub use layout::Layout;

/// Side of the input that the published weights are for, in pixels.
pub const INPUT_SIZE: usize = 112;

/// Channels of the last map.
const LAST: usize = 512;

/// A MobileFaceNet.
#[derive(Debug)]
pub struct MobileFaceNet {
    layout: Layout,
    trunk: Trunk,
    head: Head,
}

impl MobileFaceNet {
    /// Takes the weights of `layout`, for faces of 112 pixels.
    pub fn new(layout: Layout, weights: &Weights) -> Result<Self> {
        let trunk = layout.trunk(weights)?;
        let [_, size, _] = trunk.output(trunk.len(), INPUT_SIZE);
        Ok(Self { layout, trunk, head: Head::new(layout, size, 0.0, weights)? })
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
        let map = self.trunk.forward(0..self.trunk.len(), x, Mode::Evaluate)?;
        self.head.forward(&map, Mode::Evaluate)
    }

    /// Its layers up to the last map, which take faces normalised as the weights ask, `[batch, 3, 112, 112]`.
    pub fn trunk(&self) -> &Trunk {
        &self.trunk
    }

    /// The embedding `[batch, width]` (not normalised) of the last map `[batch, 512, 7, 7]`.
    ///
    /// # Errors
    /// If the map has another shape.
    pub fn head(&self, map: &Tensor) -> Result<Tensor> {
        self.head.forward(map, Mode::Evaluate)
    }

    /// The same as part of the network's inference form.
    ///
    /// # Errors
    /// If the map has another shape.
    pub fn plan_head(&self, plan: &mut Plan, map: Map) -> Result<Map> {
        self.head.plan(plan, map)
    }
}

impl Layout {
    /// Number of blocks up to the last map.
    pub fn block_count(self) -> usize {
        match self {
            Self::Foamliu => 17,
            Self::Insightface { blocks, .. } => blocks.iter().sum::<usize>() + 5,
            Self::FacexZoo { .. } => 18,
        }
    }

    /// What the published weights expect of their input.
    pub fn preprocessing(self) -> Preprocessing {
        match self {
            Self::Foamliu => Preprocessing::imagenet(),
            Self::Insightface { .. } => Preprocessing::default(),
            Self::FacexZoo { .. } => {
                Preprocessing { colour: Colour::Bgr, std: [128.0 / 255.0; 3], ..Preprocessing::default() }
            }
        }
    }

    /// The layers up to the last map, of 512 channels and a sixteenth of the input's size.
    pub fn trunk(self, weights: &Weights) -> Result<Trunk> {
        match self {
            Self::Foamliu => foamliu(weights),
            Self::Insightface { blocks, scale, .. } => insightface(Names::Insightface, blocks, scale, weights),
            Self::FacexZoo { .. } => insightface(Names::FacexZoo, [1, 4, 6, 2], 1, weights),
        }
    }
}

fn foamliu(weights: &Weights) -> Result<Trunk> {
    // Where convolution and normalisation lie, and what follows them.
    let layer = |conv: &str, norm: &str, shape: Shape, activation: Activation| -> Result<ConvNorm> {
        shape.layer(&weights.pp(conv), &weights.pp(norm), activation)
    };
    let path = |name: &str| weights.pp(name).path().to_string();
    let mut trunk = Trunk::default();
    let stem = vec![
        layer("conv1.0", "conv1.1", Shape::dense(3, 64, 3, 2), Activation::Relu6)?,
        layer("dw_conv.depthwise", "dw_conv.bn1", Shape::depthwise(64, 1), Activation::Relu)?,
        layer("dw_conv.pointwise", "dw_conv.bn2", Shape::dense(64, 64, 1, 1), Activation::Relu)?,
    ];
    trunk.push([path("conv1"), path("dw_conv")], Row { layers: stem, outputs: 64, stride: 2 });
    let mut inputs = 64;
    for (expansion, outputs, count, first_stride) in
        [(2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1)]
    {
        for index in 0..count {
            let stride = if index == 0 { first_stride } else { 1 };
            let (block, hidden) = (format!("features.{}", trunk.len() - 1), expansion * inputs);
            let at = |name: &str| format!("{block}.conv.{name}");
            let layers = [
                layer(&at("0.0"), &at("0.1"), Shape::dense(inputs, hidden, 1, 1), Activation::Relu6)?,
                layer(&at("1.0"), &at("1.1"), Shape::depthwise(hidden, stride), Activation::Relu6)?,
                layer(&at("2"), &at("3"), Shape::dense(hidden, outputs, 1, 1), Activation::Identity)?,
            ];
            let residual = stride == 1 && inputs == outputs;
            trunk.push([path(&block)], Bottleneck { layers, outputs, stride, residual });
            inputs = outputs;
        }
    }
    let last = vec![layer("conv2.0", "conv2.1", Shape::dense(inputs, LAST, 1, 1), Activation::Relu6)?];
    trunk.push([path("conv2")], Row { layers: last, outputs: LAST, stride: 1 });
    Ok(trunk)
}

fn insightface(names: Names, counts: [usize; 4], scale: usize, weights: &Weights) -> Result<Trunk> {
    let (narrow, wide) = (64 * scale, 128 * scale);
    let stage = |index: usize| names.stage(weights, index);
    let path = |index: usize| [stage(index).path().to_string()];
    let mut trunk = Trunk::default();
    let stem = vec![names.with_prelu(Shape::dense(3, narrow, 3, 2), &stage(0))?];
    trunk.push(path(0), Row { layers: stem, outputs: narrow, stride: 2 });
    if counts[0] == 1 {
        // Groups of `scale` channels: not depthwise, whatever the paper says.
        let shape = Shape { inputs: narrow, outputs: narrow, kernel: 3, padding: 1, stride: 1, groups: 64 };
        let layers = vec![names.with_prelu(shape, &stage(1))?];
        trunk.push(path(1), Row { layers, outputs: narrow, stride: 1 });
    } else {
        names.residuals(&mut trunk, counts[0], narrow, 128, &stage(1))?;
    }
    for (index, inputs, hidden, outputs, inner) in
        [(2, narrow, 128, narrow, 128), (4, narrow, 256, wide, 256), (6, wide, 512, wide, 256)]
    {
        trunk.push(path(index), names.bottleneck((inputs, hidden, outputs), 2, false, &stage(index))?);
        names.residuals(&mut trunk, counts[index / 2], outputs, inner, &stage(index + 1))?;
    }
    let [separate, ..] = names.last(weights);
    let layers = vec![names.with_prelu(Shape::dense(wide, LAST, 1, 1), &separate)?];
    trunk.push([separate.path().to_string()], Row { layers, outputs: LAST, stride: 1 });
    Ok(trunk)
}

/// The map from 512 numbers to the embedding.
#[derive(Debug)]
enum Last {
    Conv(Conv2d, BatchNorm),
    Linear(Linear, BatchNorm),
}

/// What makes a MobileFaceNet's embedding: a depthwise convolution of the whole map, a linear map, normalisation.
#[derive(Debug)]
pub struct Head {
    global: ConvNorm,
    dropout: Dropout,
    last: Last,
}

impl Head {
    /// Takes the weights of `layout`, for a last map of `size` pixels; `dropout` is the share of the last layer's inputs that is
    /// left out in training.
    pub fn new(layout: Layout, size: usize, dropout: f64, weights: &Weights) -> Result<Self> {
        let dropout = Dropout::new(dropout, "head");
        let shape = Shape::global(LAST, size);
        if layout == Layout::Foamliu {
            let (conv, norm) = (weights.pp("gdconv.depthwise"), weights.pp("gdconv.bn"));
            let config = ConvConfig { bias: true, ..ConvConfig::default() };
            let last = Conv2d::new(LAST, layout.embedding(), 1, config, &weights.pp("conv3"))?;
            return Ok(Self {
                global: shape.layer(&conv, &norm, Activation::Identity)?,
                dropout,
                last: Last::Conv(last, BatchNorm::new(layout.embedding(), &weights.pp("bn"))?),
            });
        }
        let names = if matches!(layout, Layout::Insightface { .. }) { Names::Insightface } else { Names::FacexZoo };
        let [_, global, linear, norm] = names.last(weights);
        Ok(Self {
            global: names.without_activation(shape, &global)?,
            dropout,
            last: Last::Linear(
                Linear::new(LAST, layout.embedding(), false, &linear)?,
                BatchNorm::new(layout.embedding(), &norm)?,
            ),
        })
    }
}

impl EmbeddingHead for Head {
    fn forward(&self, map: &Tensor, mode: Mode) -> Result<Tensor> {
        let fused = match mode {
            Mode::Train => train_chain(map, std::slice::from_ref(&self.global), false)?,
            Mode::Evaluate => None,
        };
        let x = fused.map_or_else(|| self.global.forward(map, None, mode), Ok)?;
        let x = self.dropout.forward(&x, mode)?;
        match &self.last {
            Last::Conv(conv, norm) => norm.forward(&conv.forward(&x)?.flatten_from(1)?, mode),
            Last::Linear(linear, norm) => norm.forward(&linear.forward(&x.flatten_from(1)?)?, mode),
        }
    }

    fn plan(&self, plan: &mut Plan, map: Map) -> Result<Map> {
        let x = self.global.plan(plan, map, None)?;
        match &self.last {
            Last::Conv(conv, norm) => conv.plan(plan, x, Some(norm), &Activation::Identity),
            Last::Linear(linear, norm) => linear.plan(plan, x, Some(norm), &Activation::Identity),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::super::weights::Draw;
    use candle_core::DType;

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
