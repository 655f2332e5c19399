//! The blocks that a trunk and a head are made of.

use candle_core::Tensor;
use gdrd_core::error::Result;
use gdrd_core::nn::{BatchNorm, Conv2d, ConvConfig, Mode, Weights, add_relu, relu};

/// A convolution without bias and its batch normalisation.
pub(crate) struct ConvNorm {
    conv: Conv2d,
    norm: BatchNorm,
}

impl ConvNorm {
    pub(crate) fn new(inputs: usize, outputs: usize, kernel: usize, stride: usize, weights: &Weights) -> Result<Self> {
        let config = ConvConfig { stride, padding: kernel / 2, ..ConvConfig::default() };
        let conv = Conv2d::new(inputs, outputs, kernel, config, &weights.pp("conv"))?;
        Ok(Self { conv, norm: BatchNorm::new(outputs, &weights.pp("bn"))? })
    }

    pub(crate) fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.norm.forward(&self.conv.forward(x)?, mode)
    }
}

/// Two 3x3 convolutions around a shortcut (He et al., CVPR 2016).
pub(crate) struct BasicBlock {
    first: ConvNorm,
    second: ConvNorm,
    shortcut: Option<ConvNorm>,
    pub(crate) ends_in_relu: bool,
}

impl BasicBlock {
    fn new(inputs: usize, outputs: usize, stride: usize, weights: &Weights) -> Result<Self> {
        let reshaped = stride != 1 || inputs != outputs;
        let shortcut = || ConvNorm::new(inputs, outputs, 1, stride, &weights.pp("shortcut"));
        Ok(Self {
            first: ConvNorm::new(inputs, outputs, 3, stride, &weights.pp("first"))?,
            second: ConvNorm::new(outputs, outputs, 3, 1, &weights.pp("second"))?,
            shortcut: reshaped.then(shortcut).transpose()?,
            ends_in_relu: true,
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
        let y = relu(&self.first.forward(x, mode)?)?;
        let y = self.second.forward(&y, mode)?;
        let x = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x, mode)?,
            None => x.clone(),
        };
        if self.ends_in_relu { add_relu(&x, &y) } else { Ok((x + y)?) }
    }
}
