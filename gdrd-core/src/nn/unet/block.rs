//! Residual blocks and changes of size.

use candle_core::Tensor;

use super::attention::Attention;
use super::config::UnetConfig;
use crate::error::Result;
use crate::nn::kernels::scale_shift;
use crate::nn::{Conv2d, ConvConfig, GroupNorm, Init, Linear, Weights};

/// What a residual block does to the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resize {
    /// Nothing.
    Keep,
    /// Halves it (mean of 2x2 pixels).
    Down,
    /// Doubles it (each pixel four times).
    Up,
}

impl Resize {
    fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Keep => Ok(x.clone()),
            Self::Down => halve(x),
            Self::Up => double(x),
        }
    }
}

/// Means of 2x2 pixels; an odd last row or column is left out.
fn halve(x: &Tensor) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    let even = x.narrow(2, 0, h - h % 2)?.narrow(3, 0, w - w % 2)?;
    Ok(even.contiguous()?.avg_pool2d(2)?)
}

/// Each pixel four times.
///
/// Not `upsample_nearest2d`: its gradient in candle replaces what other uses of the input have gathered.
pub(super) fn double(x: &Tensor) -> Result<Tensor> {
    let (batch, channels, h, w) = x.dims4()?;
    let spread = x.reshape((batch * channels, h, 1, w, 1))?.broadcast_as((batch * channels, h, 2, w, 2))?;
    Ok(spread.reshape((batch, channels, 2 * h, 2 * w))?)
}

/// A 3x3 convolution with bias, filled as PyTorch fills convolutions.
pub(super) fn conv3(inputs: usize, outputs: usize, stride: usize, weights: &Weights) -> Result<Conv2d> {
    let init = Init::Uniform { bound: 1.0 / ((9 * inputs) as f32).sqrt() };
    Conv2d::with_init(inputs, outputs, 3, ConvConfig { stride, padding: 1, groups: 1, bias: true }, init, weights)
}

/// A 3x3 convolution with bias that starts at zero.
pub(super) fn zero_conv3(inputs: usize, outputs: usize, weights: &Weights) -> Result<Conv2d> {
    let config = ConvConfig { stride: 1, padding: 1, groups: 1, bias: true };
    Conv2d::with_init(inputs, outputs, 3, config, Init::Constant(0.0), weights)
}

/// Normalisation, SiLU, convolution, twice, with the time embedding between and a skip connection around.
#[derive(Clone, Debug)]
pub(super) struct Residual {
    in_norm: GroupNorm,
    in_conv: Conv2d,
    time: Linear,
    out_norm: GroupNorm,
    out_conv: Conv2d,
    skip: Option<Conv2d>,
    resize: Resize,
    scale_shift: bool,
}

/// `x` `[batch, channels, h, w]` with a value of `shift` `[batch or 1, channels]` added to each channel of each sample.
fn shifted(x: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let shift = shift.broadcast_as((batch, channels))?.contiguous()?.flatten_all()?;
    // Every channel of every sample is a channel of one large sample.
    let flat = x.reshape((1, batch * channels, height, width))?;
    Ok(scale_shift(&flat, &shift.ones_like()?, &shift)?.reshape(x.shape())?)
}

impl Residual {
    /// Weights `in_layers.{0,2}`, `emb_layers.1`, `out_layers.{0,3}` and, where the channels change,
    /// `skip_connection`.
    pub(super) fn new(
        inputs: usize,
        outputs: usize,
        resize: Resize,
        config: &UnetConfig,
        weights: &Weights,
    ) -> Result<Self> {
        let groups = config.norm_groups;
        let time_outputs = if config.use_scale_shift_norm { 2 * outputs } else { outputs };
        let (first, last) = (weights.pp("in_layers"), weights.pp("out_layers"));
        let skip_config = ConvConfig { bias: true, ..ConvConfig::default() };
        let skip_init = Init::Uniform { bound: 1.0 / (inputs as f32).sqrt() };
        let skip_weights = weights.pp("skip_connection");
        let skip = (inputs != outputs)
            .then(|| Conv2d::with_init(inputs, outputs, 1, skip_config, skip_init, &skip_weights))
            .transpose()?;
        Ok(Self {
            in_norm: GroupNorm::new(groups, inputs, &first.pp(0))?,
            in_conv: conv3(inputs, outputs, 1, &first.pp(2))?,
            time: Linear::new(config.time_width(), time_outputs, true, &weights.pp("emb_layers").pp(1))?,
            out_norm: GroupNorm::new(groups, outputs, &last.pp(0))?,
            out_conv: zero_conv3(outputs, outputs, &last.pp(3))?,
            skip,
            resize,
            scale_shift: config.use_scale_shift_norm,
        })
    }

    /// The block's output for `x` `[batch, inputs, h, w]` and `time` `[batch or 1, 4 * model_channels]`, after SiLU.
    pub(super) fn forward(&self, x: &Tensor, time: &Tensor) -> Result<Tensor> {
        let h = self.resize.apply(&self.in_norm.forward_silu(x, None)?)?;
        let h = self.in_conv.forward(&h)?;
        let time = self.time.forward(time)?;
        let h = if self.scale_shift {
            let parts = time.chunk(2, 1)?;
            self.out_norm.forward_silu(&h, Some((&parts[0], &parts[1])))?
        } else {
            self.out_norm.forward_silu(&shifted(&h, &time)?, None)?
        };
        let x = self.resize.apply(x)?;
        let skip = self.skip.as_ref().map(|skip| skip.forward(&x)).transpose()?;
        self.out_conv.forward_add(&h, Some(skip.as_ref().unwrap_or(&x)))
    }
}

/// One step of a block.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Convolution(Conv2d),
    Residual(Box<Residual>),
    Attention(Attention),
    DoubleConvolution(Conv2d),
}

/// The steps of `input_blocks.N`, `middle_block` or `output_blocks.N`.
#[derive(Clone, Debug)]
pub(super) struct Block(pub(super) Vec<Step>);

impl Block {
    /// All steps in order.
    pub(super) fn forward(&self, x: &Tensor, time: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for step in &self.0 {
            x = match step {
                Step::Convolution(conv) => conv.forward(&x)?,
                Step::Residual(residual) => residual.forward(&x, time)?,
                Step::Attention(attention) => attention.forward(&x)?,
                Step::DoubleConvolution(conv) => conv.forward(&double(&x)?)?,
            };
        }
        Ok(x)
    }
}

/// Attention as `config` asks for it.
pub(super) fn attention(channels: usize, config: &UnetConfig, weights: &Weights) -> Result<Step> {
    let heads = config.heads(channels);
    Ok(Step::Attention(Attention::new(channels, heads, config.norm_groups, config.new_attn_order, weights)?))
}

/// A residual block as a step.
pub(super) fn residual(
    inputs: usize,
    outputs: usize,
    resize: Resize,
    config: &UnetConfig,
    weights: &Weights,
) -> Result<Step> {
    Ok(Step::Residual(Box::new(Residual::new(inputs, outputs, resize, config, weights)?)))
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn sizes_halve_downwards_and_double_with_a_full_gradient() {
        let x = Tensor::arange(0f32, 9.0, &Device::Cpu).and_then(|x| x.reshape((1, 1, 3, 3))).expect("x");
        assert_eq!(halve(&x).expect("half").flatten_all().and_then(|x| x.to_vec1::<f32>()).expect("values"), [2.0]);
        let x = Var::from_tensor(&x).expect("var");
        let doubled = double(&x).expect("double");
        let row = doubled.narrow(2, 2, 1).and_then(|r| r.flatten_all()).and_then(|r| r.to_vec1::<f32>()).expect("row");
        assert_eq!(row, [3.0, 3.0, 4.0, 4.0, 5.0, 5.0]);
        // x is used twice: 4 from the doubling, 1 from the sum.
        let loss = (doubled.sum_all().expect("sum") + x.sum_all().expect("sum")).expect("loss");
        let gradient = loss.backward().expect("backward").get(&x).expect("gradient").clone();
        assert_eq!(gradient.flatten_all().and_then(|g| g.to_vec1::<f32>()).expect("values"), [5.0; 9]);
    }
}
