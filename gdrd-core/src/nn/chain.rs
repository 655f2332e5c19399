//! Several layers that are trained as one operation.

use candle_core::Tensor;

use super::ConvNorm;
use super::kernels::{conv_chain, residual_block};
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
    layers.iter().zip(&statistics).try_for_each(|(layer, found)| layer.count(found))?;
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
    let layers = || [first, second].into_iter().chain(shortcut);
    let links: Option<Vec<_>> = layers().map(ConvNorm::link).collect();
    let Some(links) = links else { return Ok(None) };
    let Some((y, statistics)) = residual_block(x, [&links[0], &links[1]], links.get(2))? else { return Ok(None) };
    layers().zip(&statistics).try_for_each(|(layer, found)| layer.count(found))?;
    Ok(Some(y))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use candle_core::Device;

    use super::super::weights::Draw;
    use super::super::{Activation, BatchNorm, Conv2d, ConvConfig, Init, Mode, Pass, Weights};
    use super::*;

    /// The output and all running statistics of a block of stride two, as one operation or layer by layer.
    fn block(as_one: bool) -> Vec<Vec<f32>> {
        let draw: Rc<Draw> = Rc::new(|name, count, init| match init {
            Init::Constant(value) => vec![value; count],
            _ => (0..count).map(|at| ((at * 7919 + name.len()) % 31) as f32 / 31.0 - 0.5).collect(),
        });
        let layer = |inputs, kernel, stride, activation, weights: &Weights| -> Result<ConvNorm> {
            let config = ConvConfig { stride, padding: kernel / 2, ..ConvConfig::default() };
            let conv = Conv2d::new(inputs, 6, kernel, config, &weights.pp("conv"))?;
            Ok(ConvNorm::new(conv, BatchNorm::new(6, &weights.pp("bn"))?, activation))
        };
        let build = |weights: &Weights| -> Result<[ConvNorm; 3]> {
            Ok([
                layer(4, 3, 2, Activation::Relu, &weights.pp("first"))?,
                layer(6, 3, 1, Activation::Relu, &weights.pp("second"))?,
                layer(4, 1, 2, Activation::Identity, &weights.pp("shortcut"))?,
            ])
        };
        let ([first, second, shortcut], made) = Weights::create(&Device::Cpu, draw, build).expect("a block");
        let values = (0..2 * 4 * 6 * 4).map(|at| (at * 31 % 17) as f32 / 17.0).collect();
        let x = Tensor::from_vec(values, (2, 4, 6, 4), &Device::Cpu).expect("x");
        let _pass = Pass::step(1).set();
        let y = if as_one {
            train_residual_block(&x, [&first, &second], Some(&shortcut)).expect("fits").expect("a kernel")
        } else {
            let hidden = first.forward(&x, None, Mode::Train).expect("a map");
            let beside = shortcut.forward(&x, None, Mode::Train).expect("a map");
            second.forward(&hidden, Some(&beside), Mode::Train).expect("a map")
        };
        let statistics = made.buffers.values().map(|buffer| buffer.as_detached_tensor());
        let flat = |tensor: Tensor| tensor.flatten_all().and_then(|t| t.to_vec1()).expect("values");
        std::iter::once(y).chain(statistics).map(flat).collect()
    }

    #[test]
    fn a_block_as_one_moves_running_statistics_as_its_layers_do() {
        let found = block(true);
        assert_eq!(found.len(), 7);
        assert_eq!(found, block(false));
    }
}
