//! The layers of the published networks, and the tables that say which there are.

use candle_core::{D, Tensor};
use gdrd_core::error::Result;
use gdrd_core::nn::{Activation, BatchNorm, Conv2d, ConvConfig, ConvNorm, Mode, Weights, relu};

/// A row of the papers' tables.
#[derive(Clone, Copy)]
pub(super) struct Row {
    kernel: usize,
    /// Channels between the first and the last convolution; none where there is no first.
    pub(super) expanded: usize,
    pub(super) outputs: usize,
    squeezes: bool,
    /// Hard swish in the place of ReLU.
    swish: bool,
    pub(super) stride: usize,
}

const fn row(kernel: usize, expanded: usize, outputs: usize, squeezes: bool, swish: bool, stride: usize) -> Row {
    Row { kernel, expanded, outputs, squeezes, swish, stride }
}

/// Table 1 of the first paper: a depthwise 3x3 and a pointwise convolution each.
pub(super) const V1: [(usize, usize); 13] = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
];

/// Table 2 of the third paper.
pub(super) const V3_SMALL: [Row; 11] = [
    row(3, 16, 16, true, false, 2),
    row(3, 72, 24, false, false, 2),
    row(3, 88, 24, false, false, 1),
    row(5, 96, 40, true, true, 2),
    row(5, 240, 40, true, true, 1),
    row(5, 240, 40, true, true, 1),
    row(5, 120, 48, true, true, 1),
    row(5, 144, 48, true, true, 1),
    row(5, 288, 96, true, true, 2),
    row(5, 576, 96, true, true, 1),
    row(5, 576, 96, true, true, 1),
];

/// Table 1 of the third paper.
pub(super) const V3_LARGE: [Row; 15] = [
    row(3, 16, 16, false, false, 1),
    row(3, 64, 24, false, false, 2),
    row(3, 72, 24, false, false, 1),
    row(5, 72, 40, true, false, 2),
    row(5, 120, 40, true, false, 1),
    row(5, 120, 40, true, false, 1),
    row(3, 240, 80, false, true, 2),
    row(3, 200, 80, false, true, 1),
    row(3, 184, 80, false, true, 1),
    row(3, 184, 80, false, true, 1),
    row(3, 480, 112, true, true, 1),
    row(3, 672, 112, true, true, 1),
    row(5, 672, 160, true, true, 2),
    row(5, 960, 160, true, true, 1),
    row(5, 960, 160, true, true, 1),
];

/// The multiple of 8 next to a number of channels, and never less than nine tenths of it.
pub(super) fn divisible(channels: f64) -> usize {
    let near = (((channels + 4.0) / 8.0).floor() as usize * 8).max(8);
    if (near as f64) < 0.9 * channels { near + 8 } else { near }
}

/// A convolution that keeps the size at stride 1, its normalisation, and ReLU or hard swish.
pub(super) struct Layer {
    pub(super) conv: ConvNorm,
    swish: bool,
}

impl Layer {
    /// `swish` is whether its activation is hard swish and not ReLU; none where there is no activation.
    pub(super) fn new(
        (inputs, outputs): (usize, usize),
        kernel: usize,
        stride: usize,
        groups: usize,
        swish: Option<bool>,
        weights: &Weights,
    ) -> Result<Self> {
        let config = ConvConfig { stride, padding: kernel / 2, groups, bias: false };
        let conv = Conv2d::new(inputs, outputs, kernel, config, &weights.pp("conv"))?;
        let activation = if swish == Some(false) { Activation::Relu } else { Activation::Identity };
        let conv = ConvNorm::new(conv, BatchNorm::new(outputs, &weights.pp("bn"))?, activation);
        Ok(Self { conv, swish: swish == Some(true) })
    }

    pub(super) fn forward(&self, x: &Tensor, add: Option<&Tensor>, mode: Mode) -> Result<Tensor> {
        let x = self.conv.forward(x, add, mode)?;
        if self.swish { Ok((&x * hard_sigmoid(&x)?)?) } else { Ok(x) }
    }
}

/// `min(max(x + 3, 0), 6) / 6`.
fn hard_sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok(Activation::Relu6.forward(&x.affine(1.0, 3.0)?)?.affine(1.0 / 6.0, 0.0)?)
}

/// A factor for each channel, by two layers from the channels' means (squeeze and excitation, Hu et al., CVPR 2018).
struct Squeeze {
    down: Conv2d,
    up: Conv2d,
}

impl Squeeze {
    fn new(channels: usize, weights: &Weights) -> Result<Self> {
        let config = ConvConfig { bias: true, ..ConvConfig::default() };
        let between = divisible(channels as f64 / 4.0);
        Ok(Self {
            down: Conv2d::new(channels, between, 1, config, &weights.pp("down"))?,
            up: Conv2d::new(between, channels, 1, config, &weights.pp("up"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let means = x.flatten_from(2)?.mean_keepdim(D::Minus1)?.unsqueeze(D::Minus1)?;
        let scale = hard_sigmoid(&self.up.forward(&relu(&self.down.forward(&means)?)?)?)?;
        Ok(x.broadcast_mul(&scale)?)
    }
}

pub(super) struct Block {
    expand: Option<Layer>,
    pub(super) depthwise: Layer,
    squeeze: Option<Squeeze>,
    pub(super) project: Layer,
    is_residual: bool,
}

impl Block {
    /// A block of MobileNetV3.
    pub(super) fn inverted(
        row: Row,
        (inputs, expanded, outputs): (usize, usize, usize),
        stride: usize,
        weights: &Weights,
    ) -> Result<Self> {
        let expand = || Layer::new((inputs, expanded), 1, 1, 1, Some(row.swish), &weights.pp("expand"));
        let channels = (expanded, expanded);
        Ok(Self {
            expand: (expanded != inputs).then(expand).transpose()?,
            depthwise: Layer::new(channels, row.kernel, stride, expanded, Some(row.swish), &weights.pp("depthwise"))?,
            squeeze: row.squeezes.then(|| Squeeze::new(expanded, &weights.pp("squeeze"))).transpose()?,
            project: Layer::new((expanded, outputs), 1, 1, 1, None, &weights.pp("project"))?,
            // As published: a stride that was left out gives no shortcut.
            is_residual: row.stride == 1 && inputs == outputs,
        })
    }

    /// A block of MobileNetV1.
    pub(super) fn separable((inputs, outputs): (usize, usize), stride: usize, weights: &Weights) -> Result<Self> {
        Ok(Self {
            expand: None,
            depthwise: Layer::new((inputs, inputs), 3, stride, inputs, Some(false), &weights.pp("depthwise"))?,
            squeeze: None,
            project: Layer::new((inputs, outputs), 1, 1, 1, Some(false), &weights.pp("project"))?,
            is_residual: false,
        })
    }

    pub(super) fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let mut y = match &self.expand {
            Some(expand) => self.depthwise.forward(&expand.forward(x, None, mode)?, None, mode)?,
            None => self.depthwise.forward(x, None, mode)?,
        };
        if let Some(squeeze) = &self.squeeze {
            y = squeeze.forward(&y)?;
        }
        self.project.forward(&y, self.is_residual.then_some(x), mode)
    }
}
