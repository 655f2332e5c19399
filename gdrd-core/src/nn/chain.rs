//! Layers in a row that are trained as one operation.

use candle_core::Tensor;

use super::ConvNorm;
use super::kernels::{BatchStatistics, Link, ResidualBlock, conv_chain, residual_block};
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
    let mut dims = x.dims4()?;
    for ((layer, link), statistics) in layers.iter().zip(&links).zip(&statistics) {
        dims = count(layer, link, dims, statistics)?;
    }
    Ok(Some(y))
}

/// `relu(second(first(x)) + shortcut(x))` in [`Mode::Train`](super::Mode::Train), with `x` itself where there is no shortcut; the layers'
/// running statistics move. `first` and `second` have a ReLU, which in `second` follows the addition. None where there is no kernel for
/// it: then layers run one by one, with the same results.
///
/// # Errors
/// If the shapes do not fit.
pub fn train_residual(
    x: &Tensor,
    first: &ConvNorm,
    second: &ConvNorm,
    shortcut: Option<&ConvNorm>,
) -> Result<Option<Tensor>> {
    let (Some(one), Some(two)) = (first.link(), second.link()) else { return Ok(None) };
    let beside = match shortcut.map(ConvNorm::link) {
        Some(None) => return Ok(None),
        found => found.flatten(),
    };
    let block = ResidualBlock { first: one, second: two, shortcut: beside };
    let Some((y, statistics)) = residual_block(x, &block)? else { return Ok(None) };
    let dims = count(first, &one, x.dims4()?, &statistics[0])?;
    count(second, &two, dims, &statistics[1])?;
    if let (Some(layer), Some(link)) = (shortcut, &beside) {
        count(layer, link, x.dims4()?, &statistics[2])?;
    }
    Ok(Some(y))
}

/// Moves a layer's running statistics by those of its output for an input of these dimensions; returns the output's dimensions.
fn count(
    layer: &ConvNorm,
    link: &Link,
    (batch, _, height, width): (usize, usize, usize, usize),
    (mean, var): &BatchStatistics,
) -> Result<(usize, usize, usize, usize)> {
    let (outputs, _, kernel_h, kernel_w) = link.weight.dims4()?;
    let height = (height + 2 * link.padding - kernel_h) / link.stride + 1;
    let width = (width + 2 * link.padding - kernel_w) / link.stride + 1;
    layer.count(batch * height * width, mean, var)?;
    Ok((batch, outputs, height, width))
}
