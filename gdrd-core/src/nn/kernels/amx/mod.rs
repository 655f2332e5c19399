//! Convolution on the tile unit of newer x86 processors (AMX), which multiplies matrices of bfloat16 values about thirty times
//! as fast as vectors multiply float32 values.
//!
//! A float32 value is the sum of two bfloat16 values to about 2^-17, and a product of two such sums is three products of
//! bfloat16 values, exact to about the same and summed in float32: as close to the definition as Winograd's method in
//! float32, at a tenth of the time. Any kernel, stride and padding, and fully connected layers as kernels of one pixel.

mod gradient;
mod images;
mod maps;
mod operands;
mod pixels;
mod split;
mod strips;
mod taps;
mod tile;
mod vector;
mod weights;

use std::mem::MaybeUninit;

use self::gradient::weight_gradient;
use self::maps::Target;
use self::operands::Operands;
use self::split::BatchMaps;
use self::taps::Geometry;
use self::weights::{Layout, Matrices};
use super::buffer::{Filling, Shared};
use super::convolution::{ConvWeights, Convolution};
use super::epilogue::Epilogue;
use super::instructions::Instructions;
use super::scratch::{self, Values};
use super::shape::ConvShape;

/// Products of two values below which vectors are as fast, and exact to float32's own rounding.
const LEAST: usize = 1 << 20;

/// Products on the tile unit.
pub(super) struct Amx;

impl Convolution for Amx {
    fn name(&self) -> &'static str {
        "amx"
    }

    fn applies(&self, shape: &ConvShape, instructions: Instructions) -> bool {
        if instructions < Instructions::Amx || shape.output_len() * shape.inputs * shape.taps() < LEAST {
            return false;
        }
        let most = shape.input_len().max(shape.output_len()).max(shape.inputs * shape.outputs * shape.taps());
        shape.groups == 1 && shape.outputs >= 8 && most < i32::MAX as usize
    }

    /// The sums run over groups of 32 images.
    fn applies_to_weight_gradient(&self, shape: &ConvShape, instructions: Instructions) -> bool {
        self.applies(shape, instructions)
            && shape.inputs >= 16
            && 2 * shape.batch.next_multiple_of(32) <= 3 * shape.batch
    }

    fn suits_linear(&self) -> bool {
        true
    }

    fn pack(&self, shape: &ConvShape, weight: &[f32]) -> Option<Values> {
        let layout = Layout::new(shape.taps(), shape.inputs, shape.outputs);
        Some(weights::packed(&layout, Matrices::forward(shape, weight)))
    }

    fn forward(
        &self,
        shape: &ConvShape,
        x: &[f32],
        weights: ConvWeights<'_>,
        epilogue: Epilogue<'_>,
        out: &mut [MaybeUninit<f32>],
    ) {
        let layout = Layout::new(shape.taps(), shape.inputs, shape.outputs);
        let geometry = Geometry::forward(shape);
        match weights {
            ConvWeights::Packed(packed) => convolve(&geometry, x, (&layout, packed), epilogue, out),
            ConvWeights::Plain(weight) => {
                let mut packed = scratch::take(layout.len());
                weights::pack(&layout, Matrices::forward(shape, weight), &mut packed);
                convolve(&geometry, x, (&layout, &packed), epilogue, out);
            }
        }
    }

    fn input_gradient(&self, shape: &ConvShape, weight: &[f32], grad: &[f32]) -> Vec<f32> {
        let layout = Layout::new(shape.taps(), shape.outputs, shape.inputs);
        let mut packed = scratch::take(layout.len());
        weights::pack(&layout, Matrices::backward(shape, weight), &mut packed);
        let (geometry, kernels) = (Geometry::backward(shape), (&layout, &*packed));
        // SAFETY: all values are written.
        unsafe { Filling::by(shape.input_len(), |out| convolve(&geometry, grad, kernels, Epilogue::default(), out)) }
    }

    fn weight_gradient(&self, shape: &ConvShape, x: &[f32], grad: &[f32]) -> Vec<f32> {
        weight_gradient(shape, x, grad)
    }
}

/// Writes all of the output.
fn convolve(
    geometry: &Geometry,
    x: &[f32],
    (layout, packed): (&Layout, &[f32]),
    epilogue: Epilogue<'_>,
    out: &mut [MaybeUninit<f32>],
) {
    let (batch, plane) = (geometry.batch, geometry.plane());
    let maps = BatchMaps { values: x, batch, channels: layout.depth, plane: geometry.source_plane() };
    assert_eq!(out.len(), batch * plane * layout.columns);
    let target = Target { to: Shared::unwritten(out), plane, columns: layout.columns, epilogue };
    let operands = Operands { geometry, layout, packed, target };
    if images::fits(batch) {
        images::convolve(&operands, maps);
    } else {
        pixels::convolve(&operands, maps);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;

    use super::super::im2col::Im2col;
    use super::super::testing::{CONVOLUTIONS, assert_close, convolution, flat, random, with_threads};
    use super::*;

    /// Runs `check` where the unit is; `kernel_paths_of_this_machine` says where it is not.
    fn on_tiles(check: impl FnOnce()) {
        if Instructions::detected() == Instructions::Amx {
            Instructions::Amx.scope(check).expect("the machine has it");
        }
    }

    fn output(shape: &ConvShape, x: &[f32], weights: ConvWeights<'_>) -> Vec<f32> {
        // SAFETY: all values are written.
        unsafe { Filling::by(shape.output_len(), |out| Amx.forward(shape, x, weights, Epilogue::default(), out)) }
    }

    /// All shapes, also those that are left to vectors because they are small.
    #[test]
    fn all_three_passes_follow_the_definition_on_any_number_of_threads() {
        on_tiles(|| {
            for (x_dims, w_dims, stride, padding, groups) in CONVOLUTIONS {
                // Also a batch that fills tiles.
                for batch in [x_dims.0, 16].into_iter().filter(|_| groups == 1) {
                    let x_dims = (batch, x_dims.1, x_dims.2, x_dims.3);
                    follows_the_definition(ConvShape::new(x_dims, w_dims, stride, padding, groups).expect("fits"));
                }
            }
        });
    }

    fn follows_the_definition(shape: ConvShape) {
        let value = |dims: (usize, usize, usize, usize), seed| flat(&random(dims, seed).expect("values"));
        let x = value((shape.batch, shape.inputs, shape.height, shape.width), 1);
        let w = value((shape.outputs, shape.inputs, shape.kernel_h, shape.kernel_w), 2);
        let grad = value((shape.batch, shape.outputs, shape.out_height(), shape.out_width()), 3);
        let run = |threads| {
            with_threads(threads, || {
                let packed = Amx.pack(&shape, &w).expect("a form of its own");
                let output = output(&shape, &x, ConvWeights::Plain(&w));
                assert_eq!(output, self::output(&shape, &x, ConvWeights::Packed(&packed)));
                [output, Amx.input_gradient(&shape, &w, &grad), Amx.weight_gradient(&shape, &x, &grad)]
            })
        };
        let found = run(1);
        assert!(found == run(2) && found == run(3), "{shape:?}");
        let expected = [
            convolution(&x, &w, &shape),
            Im2col.input_gradient(&shape, &w, &grad),
            Im2col.weight_gradient(&shape, &x, &grad),
        ];
        assert_close(&found, &expected, 2e-5);
    }

    /// What ARCHITECTURE.md says of the error: it does not grow with the number of summands.
    #[test]
    fn the_error_is_that_of_two_parts() {
        on_tiles(error_is_that_of_two_parts);
    }

    fn error_is_that_of_two_parts() {
        for inputs in [64, 1024] {
            let shape = ConvShape::linear((64, inputs), (64, inputs)).expect("fits");
            let (x, w) = (random((64, inputs), 1).expect("x"), random((64, inputs), 2).expect("weight"));
            let found = output(&shape, &flat(&x), ConvWeights::Plain(&flat(&w)));
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
