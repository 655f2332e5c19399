//! Several layers that are trained as one operation.

use candle_core::Tensor;

use super::ConvNorm;
use super::kernels::{BatchStatistics, Link, conv_chain, residual_block};
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
    let (_, _, mut height, mut width) = x.dims4()?;
    for ((layer, link), found) in layers.iter().zip(&links).zip(&statistics) {
        [height, width] = count(layer, link, [x.dim(0)?, height, width], found)?;
    }
    Ok(Some(y))
}

/// `second` of what `first` gives, and `shortcut` of `x`, or `x` itself, added before `second`'s activation, in
/// [`Mode::Train`](super::Mode::Train); running statistics move. `x` is `[batch, channels, h, w]`. None where there is no kernel for it: then
/// layers run one by one.
///
/// # Errors
/// If the shapes do not fit.
pub fn train_residual_block(
    x: &Tensor,
    [first, second]: [&ConvNorm; 2],
    shortcut: Option<&ConvNorm>,
) -> Result<Option<Tensor>> {
    let (Some(a), Some(b), c) = (first.link(), second.link(), shortcut.map(ConvNorm::link)) else { return Ok(None) };
    if c.as_ref().is_some_and(Option::is_none) {
        return Ok(None);
    }
    let c = c.flatten();
    let Some((y, found)) = residual_block(x, [&a, &b], c.as_ref())? else { return Ok(None) };
    let (batch, _, height, width) = x.dims4()?;
    let [hidden_height, hidden_width] = count(first, &a, [batch, height, width], &found[0])?;
    count(second, &b, [batch, hidden_height, hidden_width], &found[1])?;
    if let (Some(layer), Some(link)) = (shortcut, &c) {
        count(layer, link, [batch, height, width], &found[2])?;
    }
    Ok(Some(y))
}

/// Moves a layer's running statistics by those of a batch, whose images are `[batch, height, width]` before the layer; returns height and width
/// after it.
fn count(
    layer: &ConvNorm,
    link: &Link,
    [batch, height, width]: [usize; 3],
    (mean, var): &BatchStatistics,
) -> Result<[usize; 2]> {
    let (_, _, kernel_h, kernel_w) = link.weight.dims4()?;
    let after = |size: usize, kernel: usize| (size + 2 * link.padding - kernel) / link.stride + 1;
    let [height, width] = [after(height, kernel_h), after(width, kernel_w)];
    layer.count(batch * height * width, mean, var)?;
    Ok([height, width])
}
