//! What MobileFaceNet is made of, and how public repositories call it.

use candle_core::Tensor;

use super::super::chain::train_chain;
use super::super::recogniser::{Block, Trunk};
use super::super::{Activation, BatchNorm, Conv2d, ConvConfig, ConvNorm, Map, Mode, PRelu, Plan, Weights};
use crate::error::Result;

/// Layers in a row, the first of which has the stride.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) layers: Vec<ConvNorm>,
    pub(super) outputs: usize,
    pub(super) stride: usize,
}

impl Block for Row {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        if mode == Mode::Train
            && let Some(y) = train_chain(x, &self.layers, false)?
        {
            return Ok(y);
        }
        self.layers.iter().try_fold(x.clone(), |x, layer| layer.forward(&x, None, mode))
    }

    fn plan(&self, plan: &mut Plan, x: Map) -> Result<Option<Map>> {
        self.layers.iter().try_fold(x, |x, layer| layer.plan(plan, x, None)).map(Some)
    }

    fn output(&self, [_, height, width]: [usize; 3]) -> [usize; 3] {
        [self.outputs, height.div_ceil(self.stride), width.div_ceil(self.stride)]
    }
}

/// Widen, filter each channel, narrow; the input is added to the last layer, which has no activation, where `residual`.
#[derive(Debug)]
pub(super) struct Bottleneck {
    pub(super) layers: [ConvNorm; 3],
    pub(super) outputs: usize,
    pub(super) stride: usize,
    pub(super) residual: bool,
}

impl Block for Bottleneck {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        if mode == Mode::Train
            && let Some(y) = train_chain(x, &self.layers, self.residual)?
        {
            return Ok(y);
        }
        let [widen, filter, narrow] = &self.layers;
        let y = filter.forward(&widen.forward(x, None, mode)?, None, mode)?;
        narrow.forward(&y, self.residual.then_some(x), mode)
    }

    fn plan(&self, plan: &mut Plan, x: Map) -> Result<Option<Map>> {
        let [widen, filter, narrow] = &self.layers;
        let y = widen.plan(plan, x, None)?;
        let y = filter.plan(plan, y, None)?;
        narrow.plan(plan, y, self.residual.then_some(x)).map(Some)
    }

    fn output(&self, [_, height, width]: [usize; 3]) -> [usize; 3] {
        [self.outputs, height.div_ceil(self.stride), width.div_ceil(self.stride)]
    }
}

/// Shape of a convolution without bias.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) kernel: usize,
    pub(super) padding: usize,
    pub(super) stride: usize,
    pub(super) groups: usize,
}

impl Shape {
    pub(super) fn dense(inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Self {
        Self { inputs, outputs, kernel, padding: kernel / 2, stride, groups: 1 }
    }

    pub(super) fn depthwise(channels: usize, stride: usize) -> Self {
        Self { inputs: channels, outputs: channels, kernel: 3, padding: 1, stride, groups: channels }
    }

    /// One weight for each pixel of a map of `size` pixels, for each channel.
    pub(super) fn global(channels: usize, size: usize) -> Self {
        Self { inputs: channels, outputs: channels, kernel: size, padding: 0, stride: 1, groups: channels }
    }

    pub(super) fn layer(self, conv: &Weights, norm: &Weights, activation: Activation) -> Result<ConvNorm> {
        let Self { inputs, outputs, kernel, padding, stride, groups } = self;
        let config = ConvConfig { stride, padding, groups, bias: false };
        let conv = Conv2d::new(inputs, outputs, kernel, config, conv)?;
        Ok(ConvNorm::new(conv, BatchNorm::new(outputs, norm)?, activation))
    }
}

/// How the parts of one network are called.
#[derive(Clone, Copy, Debug)]
pub(super) enum Names {
    Insightface,
    FacexZoo,
}

impl Names {
    pub(super) fn stage(self, weights: &Weights, index: usize) -> Weights {
        let names = ["conv1", "conv2_dw", "conv_23", "conv_3", "conv_34", "conv_4", "conv_45", "conv_5"];
        match self {
            Self::Insightface => weights.pp("layers").pp(index),
            Self::FacexZoo => weights.pp(names[index]),
        }
    }

    /// The last convolutions, the linear map and its normalisation.
    pub(super) fn last(self, weights: &Weights) -> [Weights; 4] {
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
    pub(super) fn with_prelu(self, shape: Shape, weights: &Weights) -> Result<ConvNorm> {
        let [conv, norm, prelu] = self.layers().map(|name| weights.pp(name));
        shape.layer(&conv, &norm, Activation::PRelu(PRelu::new(shape.outputs, &prelu)?))
    }

    /// `LinearBlock`.
    pub(super) fn without_activation(self, shape: Shape, weights: &Weights) -> Result<ConvNorm> {
        let [conv, norm, _] = self.layers().map(|name| weights.pp(name));
        shape.layer(&conv, &norm, Activation::Identity)
    }

    /// `DepthWise`: widen, filter each channel, narrow.
    pub(super) fn bottleneck(
        self,
        (inputs, hidden, outputs): (usize, usize, usize),
        stride: usize,
        residual: bool,
        weights: &Weights,
    ) -> Result<Bottleneck> {
        let [widen, filter, narrow] = match self {
            Self::Insightface => ["layers.0", "layers.1", "layers.2"],
            Self::FacexZoo => ["conv", "conv_dw", "project"],
        }
        .map(|name| weights.pp(name));
        let layers = [
            self.with_prelu(Shape::dense(inputs, hidden, 1, 1), &widen)?,
            self.with_prelu(Shape::depthwise(hidden, stride), &filter)?,
            self.without_activation(Shape::dense(hidden, outputs, 1, 1), &narrow)?,
        ];
        Ok(Bottleneck { layers, outputs, stride, residual })
    }

    /// `Residual`.
    pub(super) fn residuals(
        self,
        trunk: &mut Trunk,
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
            let place = weights.pp(inner).pp(index);
            let block = self.bottleneck((channels, hidden, channels), 1, true, &place)?;
            trunk.push([place.path().to_string()], block);
        }
        Ok(())
    }
}
