//! Layers in a row that are trained as one operation.

use candle_core::Tensor;

use super::ConvNorm;
use super::kernels::conv_chain;
use crate::error::Result;

/// The layers' output for `x` in [`Mode::Train`](super::Mode::Train), with `x` added to it where `residual`; their running statistics
/// move. None where there is no kernel for it: then layers run one by one.
///
/// # Errors
/// If the shapes do not fit.
pub(super) fn train_chain(x: &Tensor, layers: &[ConvNorm], residual: bool) -> Result<Option<Tensor>> {
    let links: Option<Vec<_>> = layers.iter().map(ConvNorm::link).collect();
    let Some(links) = links else { return Ok(None) };
    let Some((y, statistics)) = conv_chain(x, &links, residual)? else { return Ok(None) };
    let (batch, _, mut height, mut width) = x.dims4()?;
    for ((layer, link), (mean, var)) in layers.iter().zip(&links).zip(&statistics) {
        let (_, _, kernel_h, kernel_w) = link.weight.dims4()?;
        height = (height + 2 * link.padding - kernel_h) / link.stride + 1;
        width = (width + 2 * link.padding - kernel_w) / link.stride + 1;
        layer.count(batch * height * width, mean, var)?;
    }
    Ok(Some(y))
}
