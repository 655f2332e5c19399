//! The blocks that a trunk and a head are made of.

use candle_core::Tensor;
use gdrd_core::error::Result;
use gdrd_core::nn::{Activation, BatchNorm, Conv2d, ConvConfig, ConvNorm, Map, Mode, Plan, Weights};

/// A convolution without bias that keeps the size at stride 1, its batch normalisation and its activation.
pub(crate) fn conv_norm(
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    activation: Activation,
    weights: &Weights,
) -> Result<ConvNorm> {
    let config = ConvConfig { stride, padding: kernel / 2, ..ConvConfig::default() };
    let conv = Conv2d::new(inputs, outputs, kernel, config, &weights.pp("conv"))?;
    Ok(ConvNorm::new(conv, BatchNorm::new(outputs, &weights.pp("bn"))?, activation))
}

/// Two 3x3 convolutions around a shortcut (He et al., CVPR 2016).
pub(crate) struct BasicBlock {
    first: ConvNorm,
    /// Its activation follows the addition of the shortcut.
    pub(crate) second: ConvNorm,
    shortcut: Option<ConvNorm>,
}

impl BasicBlock {
    fn new(inputs: usize, outputs: usize, stride: usize, weights: &Weights) -> Result<Self> {
        let reshaped = stride != 1 || inputs != outputs;
        let shortcut = || conv_norm(inputs, outputs, 1, stride, Activation::Identity, &weights.pp("shortcut"));
        Ok(Self {
            first: conv_norm(inputs, outputs, 3, stride, Activation::Relu, &weights.pp("first"))?,
            second: conv_norm(outputs, outputs, 3, 1, Activation::Relu, &weights.pp("second"))?,
            shortcut: reshaped.then(shortcut).transpose()?,
        })
    }

    /// `count` blocks, the first of which has the stride.
    pub(crate) fn stage(
        inputs: usize,
        outputs: usize,
        stride: usize,
        count: usize,
        weights: &Weights,
    ) -> Result<Vec<Self>> {
        let block = |at| match at {
            0 => Self::new(inputs, outputs, stride, &weights.pp(0)),
            at => Self::new(outputs, outputs, 1, &weights.pp(at)),
        };
        (0..count).map(block).collect()
    }

    pub(crate) fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let y = self.first.forward(x, None, mode)?;
        let shortcut = self.shortcut.as_ref().map(|shortcut| shortcut.forward(x, None, mode)).transpose()?;
        self.second.forward(&y, Some(shortcut.as_ref().unwrap_or(x)), mode)
    }

    pub(crate) fn plan(&self, plan: &mut Plan, x: Map) -> Result<Map> {
        let y = self.first.plan(plan, x, None)?;
        let shortcut = self.shortcut.as_ref().map(|shortcut| shortcut.plan(plan, x, None)).transpose()?;
        self.second.plan(plan, y, Some(shortcut.unwrap_or(x)))
    }
}
