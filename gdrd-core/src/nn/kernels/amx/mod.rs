//! Convolution on the tile unit of newer x86 processors (AMX), which multiplies matrices of bfloat16 values about thirty times
//! as fast as vectors multiply float32 values.
//!
//! A float32 value is the sum of two bfloat16 values to about 2^-17, and a product of two such sums is three products of
//! bfloat16 values, exact to about the same and summed in float32: as close to the definition as Winograd's method in
//! float32, at a tenth of the time. Any kernel, stride and padding, and fully connected layers as kernels of one pixel.

mod gradient;
mod images;
mod maps;
mod split;
mod taps;
mod tile;
mod vector;
mod weights;
mod windows;

pub(super) use self::gradient::weight_gradient;
use self::maps::Target;
use self::split::Maps;
use self::taps::Taps;
use self::weights::{Layout, Matrices};
use super::buffer::Filling;
use super::conv::Kernels;
use super::scratch::{self, Values};
use super::shape::ConvShape;
use super::tail::Tail;

/// Whether the method applies and pays.
pub(super) fn applies(shape: &ConvShape) -> bool {
    let most = shape.input_len().max(shape.output_len()).max(shape.inputs * shape.outputs * shape.taps());
    shape.groups == 1 && shape.outputs >= 8 && most < i32::MAX as usize && tile::available()
}

/// Whether it does for the gradient of the weight, whose sums run over groups of 32 images.
pub(super) fn weight_gradient_applies(shape: &ConvShape) -> bool {
    applies(shape) && 2 * shape.batch.next_multiple_of(32) <= 3 * shape.batch
}

/// Whether the unit is there at all.
pub(super) fn available() -> bool {
    tile::available()
}

/// The kernels in the form of the products, for [`Kernels::Packed`].
pub(super) fn pack(shape: &ConvShape, weight: &[f32]) -> Values {
    weights::packed(&Layout::new(shape.taps(), shape.inputs, shape.outputs), Matrices::forward(shape, weight))
}

/// `y [b, o, oh, ow]`.
pub(super) fn forward(shape: &ConvShape, x: &[f32], kernels: Kernels<'_>, tail: Tail<'_>) -> Vec<f32> {
    let layout = Layout::new(shape.taps(), shape.inputs, shape.outputs);
    let taps = Taps::forward(shape);
    match kernels {
        Kernels::Packed(packed) => convolve(&taps, x, &layout, packed, tail),
        Kernels::Plain(weight) => {
            let mut packed = scratch::take(layout.len());
            weights::pack(&layout, Matrices::forward(shape, weight), &mut packed);
            convolve(&taps, x, &layout, &packed, tail)
        }
    }
}

/// The gradient of the input, `[b, c, h, w]`.
pub(super) fn input_gradient(shape: &ConvShape, weight: &[f32], grad: &[f32]) -> Vec<f32> {
    let layout = Layout::new(shape.taps(), shape.outputs, shape.inputs);
    let mut packed = scratch::take(layout.len());
    weights::pack(&layout, Matrices::backward(shape, weight), &mut packed);
    convolve(&Taps::backward(shape), grad, &layout, &packed, Tail::default())
}

fn convolve(taps: &Taps, x: &[f32], layout: &Layout, packed: &[f32], tail: Tail<'_>) -> Vec<f32> {
    let maps = Maps { values: x, batch: taps.batch, channels: layout.depth, plane: taps.source_plane };
    let mut out = Filling::new(taps.batch * taps.plane * layout.columns);
    let target = Target { to: out.shared(), plane: taps.plane, columns: layout.columns, tail };
    if images::fits(taps.batch) {
        images::convolve(taps, maps, layout, packed, target);
    } else {
        windows::convolve(taps, maps, layout, packed, target);
    }
    // SAFETY: both write every pixel of every map.
    unsafe { out.finish() }
}
