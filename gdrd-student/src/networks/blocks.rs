//! The blocks that a trunk and a head are made of.

use candle_core::Tensor;
use gdrd_core::error::{Error, Result};
use gdrd_core::nn::{
    Activation, BatchNorm, Conv2d, ConvConfig, ConvNorm, Map, Mode, Plan, Weights, train_residual_block,
};
use serde::{Deserialize, Serialize};

/// How a stage halves its map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Downsample {
    /// Its first convolution takes every second pixel.
    #[default]
    Stride,
    /// Its first convolution takes every pixel, and the low band of Haar's transform goes on (Li et al., CVPR 2020: "Wavelet
    /// Integrated CNNs"). The map needs an even height and width.
    Wavelet,
}

impl Downsample {
    /// Refuses a map `[height, width]` that cannot be halved so.
    pub(crate) fn check(self, [height, width]: [usize; 2]) -> Result<()> {
        match self {
            Self::Wavelet if height % 2 != 0 || width % 2 != 0 => Err(Error::component(format!(
                "`downsample = \"wavelet\"` needs maps of even height and width, found {height}x{width}"
            ))),
            _ => Ok(()),
        }
    }
}

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
    /// Halves what the first convolution gives, and what the shortcut is given.
    low: Option<(Conv2d, Conv2d)>,
}

impl BasicBlock {
    fn new(inputs: usize, outputs: usize, reduce: (usize, Downsample), weights: &Weights) -> Result<Self> {
        let reshaped = reduce.0 != 1 || inputs != outputs;
        let (stride, low) = match reduce {
            (2, Downsample::Wavelet) => (1, true),
            (stride, _) => (stride, false),
        };
        let low = |channels| low.then(|| Conv2d::haar_low(channels, weights.device())).transpose();
        let shortcut = || conv_norm(inputs, outputs, 1, stride, Activation::Identity, &weights.pp("shortcut"));
        Ok(Self {
            first: conv_norm(inputs, outputs, 3, stride, Activation::Relu, &weights.pp("first"))?,
            second: conv_norm(outputs, outputs, 3, 1, Activation::Relu, &weights.pp("second"))?,
            shortcut: reshaped.then(shortcut).transpose()?,
            low: low(outputs)?.zip(low(inputs)?),
        })
    }

    /// `count` blocks, the first of which has the stride, 2 where it is to be made in another way.
    pub(crate) fn stage(
        inputs: usize,
        outputs: usize,
        reduce: (usize, Downsample),
        count: usize,
        weights: &Weights,
    ) -> Result<Vec<Self>> {
        let block = |at| match at {
            0 => Self::new(inputs, outputs, reduce, &weights.pp(0)),
            at => Self::new(outputs, outputs, (1, reduce.1), &weights.pp(at)),
        };
        (0..count).map(block).collect()
    }

    pub(crate) fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        if mode == Mode::Train
            && self.low.is_none()
            && let Some(y) = train_residual_block(x, [&self.first, &self.second], self.shortcut.as_ref())?
        {
            return Ok(y);
        }
        let mut y = self.first.forward(x, None, mode)?;
        let mut x = x.clone();
        if let Some((low, low_of_input)) = &self.low {
            (y, x) = (low.forward(&y)?, low_of_input.forward(&x)?);
        }
        let shortcut = self.shortcut.as_ref().map(|shortcut| shortcut.forward(&x, None, mode)).transpose()?;
        self.second.forward(&y, Some(shortcut.as_ref().unwrap_or(&x)), mode)
    }

    pub(crate) fn plan(&self, plan: &mut Plan, x: Map) -> Result<Map> {
        let (mut x, mut y) = (x, self.first.plan(plan, x, None)?);
        if let Some((low, low_of_input)) = &self.low {
            y = low.plan(plan, y, None, &Activation::Identity)?;
            x = low_of_input.plan(plan, x, None, &Activation::Identity)?;
        }
        let shortcut = self.shortcut.as_ref().map(|shortcut| shortcut.plan(plan, x, None)).transpose()?;
        self.second.plan(plan, y, Some(shortcut.unwrap_or(x)))
    }
}
