//! The improved residual network of ArcFace (Duta et al. 2020), as public repositories lay it out.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::recogniser::{EmbeddingHead, Trunk};
use super::{Activation, BatchNorm, Conv2d, ConvNorm, Dropout, Linear, Map, Mode, PRelu, Plan, Weights};
use crate::error::{Error, Result};

mod block;
mod layout;

use layout::CHANNELS;
pub use layout::{Layout, Naming};

/// Side of the input that the published weights are for, in pixels.
pub const INPUT_SIZE: usize = 112;

/// An iresnet.
#[derive(Debug)]
pub struct Iresnet {
    layout: Layout,
    trunk: Trunk,
    head: Head,
}

impl Iresnet {
    /// Takes the weights of `layout`, for faces of 112 pixels.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn new(layout: Layout, weights: &Weights) -> Result<Self> {
        let trunk = layout.trunk(weights)?;
        let map = trunk.output(trunk.len(), INPUT_SIZE);
        Ok(Self { layout, trunk, head: Head::new(layout, map, 0.0, weights)? })
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
    /// The layers up to the last map, of 512 channels and a sixteenth of the input's size: the stem, and a block for each
    /// residual block.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn trunk(self, weights: &Weights) -> Result<Trunk> {
        let at = |insightface: &str, flat: &str| weights.pp(self.name(insightface, flat));
        let mut trunk = Trunk::default();
        let names = [at("conv1", "input_layer"), at("bn1", "input_layer"), at("prelu", "input_layer")];
        let stem = ConvNorm::new(
            Conv2d::same3(3, CHANNELS[0], 1, false, &at("conv1", "input_layer.0"))?,
            BatchNorm::new(CHANNELS[0], &at("bn1", "input_layer.1"))?,
            Activation::PRelu(PRelu::new(CHANNELS[0], &at("prelu", "input_layer.2"))?),
        );
        trunk.push(names.map(|place| place.path().to_string()), block::Stem(stem));
        let mut inputs = CHANNELS[0];
        for (stage, (channels, count)) in CHANNELS.into_iter().zip(self.blocks()).enumerate() {
            for index in 0..count {
                let stride = if index == 0 { 2 } else { 1 };
                let place = match self.naming {
                    Naming::Insightface => weights.pp(format!("layer{}.{index}", stage + 1)),
                    Naming::Flat | Naming::Evolve { .. } => weights.pp("body").pp(trunk.len() - 1),
                };
                let block = match self.naming {
                    Naming::Insightface => block::insightface(inputs, channels, stride, &place)?,
                    naming => block::flat(naming, inputs, channels, stride, &place)?,
                };
                trunk.push([place.path().to_string()], block);
                inputs = channels;
            }
        }
        Ok(trunk)
    }
}

/// What makes an iresnet's embedding: normalisation, a fully connected layer, normalisation.
#[derive(Debug)]
pub struct Head {
    norm: BatchNorm,
    dropout: Dropout,
    linear: Linear,
    embedding_norm: BatchNorm,
}

impl Head {
    /// Takes the weights of `layout`, for a last map of these channels, height and width; `dropout` is the share of the fully
    /// connected layer's inputs that is left out in training.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn new(layout: Layout, map: [usize; 3], dropout: f64, weights: &Weights) -> Result<Self> {
        let at = |insightface: &str, flat: &str| weights.pp(layout.name(insightface, flat));
        let (embedding, place) = (layout.embedding, at("features", "output_layer.4"));
        Ok(Self {
            norm: BatchNorm::new(map[0], &at("bn2", "output_layer.0"))?,
            dropout: Dropout::new(dropout, "head"),
            linear: Linear::new(map.iter().product(), embedding, true, &at("fc", "output_layer.3"))?,
            embedding_norm: match layout.naming {
                Naming::Insightface | Naming::Evolve { .. } => BatchNorm::new(embedding, &place)?,
                Naming::Flat => BatchNorm::without_affine(embedding, &place)?,
            },
        })
    }
}

impl EmbeddingHead for Head {
    fn forward(&self, map: &Tensor, mode: Mode) -> Result<Tensor> {
        let x = self.dropout.forward(&self.norm.forward(map, mode)?.flatten_from(1)?, mode)?;
        self.embedding_norm.forward(&self.linear.forward(&x)?, mode)
    }

    fn plan(&self, plan: &mut Plan, map: Map) -> Result<Map> {
        let x = self.norm.plan(plan, map)?;
        let x = plan.flatten(x);
        self.linear.plan(plan, x, Some(&self.embedding_norm), &Activation::Identity)
    }
}
