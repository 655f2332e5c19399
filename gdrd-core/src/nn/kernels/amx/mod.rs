//! Convolution on the tile unit of newer x86 processors (AMX), which multiplies matrices of bfloat16 values about thirty times
//! as fast as vectors multiply float32 values.
//!
//! A float32 value is the sum of two bfloat16 values to about 2^-17, and a product of two such sums is three products of
//! bfloat16 values, exact to about the same and summed in float32: as close to the definition as Winograd's method in
//! float32, at a tenth of the time. Any kernel, stride and padding, and fully connected layers as kernels of one pixel.

mod gradient;
mod images;
mod maps;
mod pixels;
mod split;
mod strips;
mod taps;
mod tile;
mod vector;
mod weights;

use std::mem::MaybeUninit;

pub(super) use self::gradient::weight_gradient;
use self::maps::Target;
use self::split::Maps;
use self::taps::Geometry;
use self::weights::{Layout, Matrices};
use super::buffer::{Filling, Shared};
use super::conv::Kernels;
use super::scratch::{self, Values};
use super::shape::ConvShape;
use super::tail::Tail;

/// Products of two values below which vectors are as fast, and exact to float32's own rounding.
const LEAST: usize = 1 << 20;

/// Whether the method applies and pays.
pub(super) fn applies(shape: &ConvShape) -> bool {
    if shape.output_len() * shape.inputs * shape.taps() < LEAST {
        return false;
    }
    let most = shape.input_len().max(shape.output_len()).max(shape.inputs * shape.outputs * shape.taps());
    shape.groups == 1 && shape.outputs >= 8 && most < i32::MAX as usize && tile::available()
}

/// Whether it does for the gradient of the weight, whose sums run over groups of 32 images.
pub(super) fn weight_gradient_applies(shape: &ConvShape) -> bool {
    applies(shape) && shape.inputs >= 16 && 2 * shape.batch.next_multiple_of(32) <= 3 * shape.batch
}

/// Whether the unit is there at all.
pub(super) fn available() -> bool {
    tile::available()
}

/// The kernels in the form of the products, for [`Kernels::Packed`].
pub(super) fn pack(shape: &ConvShape, weight: &[f32]) -> Values {
    weights::packed(&Layout::new(shape.taps(), shape.inputs, shape.outputs), Matrices::forward(shape, weight))
}

/// Writes all of `y [b, o, oh, ow]`.
pub(super) fn forward(
    shape: &ConvShape,
    x: &[f32],
    kernels: Kernels<'_>,
    tail: Tail<'_>,
    out: &mut [MaybeUninit<f32>],
) {
    let layout = Layout::new(shape.taps(), shape.inputs, shape.outputs);
    let geometry = Geometry::forward(shape);
    match kernels {
        Kernels::Packed(packed) => convolve(&geometry, x, (&layout, packed), tail, out),
        Kernels::Plain(weight) => {
            let mut packed = scratch::take(layout.len());
            weights::pack(&layout, Matrices::forward(shape, weight), &mut packed);
            convolve(&geometry, x, (&layout, &packed), tail, out);
        }
    }
}

/// The gradient of the input, `[b, c, h, w]`.
pub(super) fn input_gradient(shape: &ConvShape, weight: &[f32], grad: &[f32]) -> Vec<f32> {
    let layout = Layout::new(shape.taps(), shape.outputs, shape.inputs);
    let mut packed = scratch::take(layout.len());
    weights::pack(&layout, Matrices::backward(shape, weight), &mut packed);
    let (geometry, kernels) = (Geometry::backward(shape), (&layout, &*packed));
    // SAFETY: all values are written.
    unsafe { Filling::by(shape.input_len(), |out| convolve(&geometry, grad, kernels, Tail::default(), out)) }
}

/// What a convolution takes, but for the maps.
struct Convolution<'a> {
    geometry: &'a Geometry,
    layout: &'a Layout,
    /// The kernels in the form of the products.
    packed: &'a [f32],
    target: Target<'a>,
}

/// Writes all of the output.
fn convolve(
    geometry: &Geometry,
    x: &[f32],
    (layout, packed): (&Layout, &[f32]),
    tail: Tail<'_>,
    out: &mut [MaybeUninit<f32>],
) {
    let (batch, plane) = (geometry.batch, geometry.plane());
    let maps = Maps { values: x, batch, channels: layout.depth, plane: geometry.source_plane() };
    assert_eq!(out.len(), batch * plane * layout.columns);
    let target = Target { to: Shared::unwritten(out), plane, columns: layout.columns, tail };
    let convolution = Convolution { geometry, layout, packed, target };
    if images::fits(batch) {
        images::convolve(&convolution, maps);
    } else {
        pixels::convolve(&convolution, maps);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;

    use super::super::im2col;
    use super::super::testing::{CONVOLUTIONS, assert_close, convolution, random};
    use super::*;

    fn flat(t: &Tensor) -> Vec<f32> {
        t.flatten_all().and_then(|t| t.to_vec1()).expect("values")
    }

    fn output(shape: &ConvShape, x: &[f32], kernels: Kernels<'_>) -> Vec<f32> {
        // SAFETY: all values are written.
        unsafe { Filling::by(shape.output_len(), |out| forward(shape, x, kernels, Tail::default(), out)) }
    }

    /// All shapes, also those that are left to vectors because they are small; nothing is checked where the unit is not.
    #[test]
    fn all_three_passes_follow_the_definition_on_any_number_of_threads() {
        for (x_dims, w_dims, stride, padding, groups) in CONVOLUTIONS {
            if groups > 1 || !available() {
                continue;
            }
            // Also a batch that fills tiles.
            for batch in [x_dims.0, 16] {
                let x_dims = (batch, x_dims.1, x_dims.2, x_dims.3);
                let shape = ConvShape::new(x_dims, w_dims, stride, padding, groups).expect("fits");
                let out = (batch, shape.outputs, shape.out_height(), shape.out_width());
                let [x, w, grad] = [
                    flat(&random(x_dims, 1).expect("x")),
                    flat(&random(w_dims, 2).expect("weight")),
                    flat(&random(out, 3).expect("gradient")),
                ];
                let run = |threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
                    pool.install(|| {
                        let packed = pack(&shape, &w);
                        let output = output(&shape, &x, Kernels::Plain(&w));
                        assert_eq!(output, self::output(&shape, &x, Kernels::Packed(&packed)));
                        [output, input_gradient(&shape, &w, &grad), weight_gradient(&shape, &x, &grad)]
                    })
                };
                let found = run(1);
                assert!(found == run(2) && found == run(3), "{shape:?}");
                let expected = [
                    convolution(&x, &w, &shape),
                    im2col::input_gradient(&shape, &w, &grad),
                    im2col::weight_gradient(&shape, &x, &grad),
                ];
                assert_close(&found, &expected, 2e-5);
            }
        }
    }

    /// What ARCHITECTURE.md says of the error: it does not grow with the number of summands.
    #[test]
    fn the_error_is_that_of_two_parts() {
        for inputs in [64, 1024] {
            let shape = ConvShape::linear((64, inputs), (64, inputs)).expect("fits");
            if !available() {
                return;
            }
            let (x, w) = (random((64, inputs), 1).expect("x"), random((64, inputs), 2).expect("weight"));
            let found = output(&shape, &flat(&x), Kernels::Plain(&flat(&w)));
            let (mut errors, mut squares) = (0.0, 0.0);
            for (at, found) in found.into_iter().enumerate() {
                let row = |t: &Tensor, row: usize| flat(&t.narrow(0, row, 1).expect("a row"));
                let pairs = row(&x, at / 64).into_iter().zip(row(&w, at % 64));
                let exact: f64 = pairs.map(|(a, b)| f64::from(a) * f64::from(b)).sum();
                errors += (f64::from(found) - exact).powi(2);
                squares += exact.powi(2);
            }
            let error = (errors / squares).sqrt();
            assert!((1e-6..6e-6).contains(&error), "{inputs} summands: {error:.1e}");
        }
    }
}
