//! Convolution on the tile unit of newer x86 processors (AMX), which multiplies matrices of bfloat16 values about thirty times
//! as fast as vectors multiply float32 values.
//!
//! A float32 value is the sum of two bfloat16 values to about 2^-17, and a product of two such sums is three products of
//! bfloat16 values, exact to about the same and summed in float32: as close to the definition as Winograd's method in
//! float32, at a tenth of the time. Any kernel, stride and padding, and fully connected layers as kernels of one pixel.

mod gradient;
mod maps;
mod rows;
mod tile;
mod vector;
mod weights;

use rayon::prelude::*;

pub(super) use self::gradient::weight_gradient;
use self::maps::Target;
use self::rows::Windows;
use self::tile::{BLOCK, Product, Run, STEP, TILE};
use self::weights::{Layout, Matrices};
use super::buffer::{Filling, Shared};
use super::conv::Kernels;
use super::scratch::{self, Values};
use super::shape::ConvShape;
use super::tail::Tail;

/// Blocks of rows, and panels of columns, that a task makes.
const SIDE: usize = 4;

/// Whether the method applies and pays.
pub(super) fn applies(shape: &ConvShape) -> bool {
    let most = shape.input_len().max(shape.output_len()).max(shape.inputs * shape.outputs * shape.taps());
    shape.groups == 1 && shape.outputs >= 8 && most < i32::MAX as usize && tile::available() && gradient::applies(shape)
}

/// The kernels in the form of the products, for [`Kernels::Packed`].
pub(super) fn pack(shape: &ConvShape, weight: &[f32]) -> Values {
    weights::packed(&Layout::new(shape.taps(), shape.inputs, shape.outputs), Matrices::forward(shape, weight))
}

/// `y [b, o, oh, ow]`.
pub(super) fn forward(shape: &ConvShape, x: &[f32], kernels: Kernels<'_>, tail: Tail<'_>) -> Vec<f32> {
    let layout = Layout::new(shape.taps(), shape.inputs, shape.outputs);
    let windows = Windows::forward(shape);
    match kernels {
        Kernels::Packed(packed) => convolve(&windows, x, &layout, packed, tail),
        Kernels::Plain(weight) => {
            let mut packed = scratch::take(layout.len());
            weights::pack(&layout, Matrices::forward(shape, weight), &mut packed);
            convolve(&windows, x, &layout, &packed, tail)
        }
    }
}

/// The gradient of the input, `[b, c, h, w]`.
pub(super) fn input_gradient(shape: &ConvShape, weight: &[f32], grad: &[f32]) -> Vec<f32> {
    let layout = Layout::new(shape.taps(), shape.outputs, shape.inputs);
    let mut packed = scratch::take(layout.len());
    weights::pack(&layout, Matrices::backward(shape, weight), &mut packed);
    convolve(&Windows::backward(shape), grad, &layout, &packed, Tail::default())
}

fn convolve(windows: &Windows, x: &[f32], layout: &Layout, packed: &[f32], tail: Tail<'_>) -> Vec<f32> {
    let mut cells = scratch::take(rows::len(windows.batch * windows.source_plane, layout.depth));
    rows::split_maps(x, (windows.batch, layout.depth, windows.source_plane), &mut cells);
    let mut out = Filling::new(windows.rows() * layout.columns);
    let task = Task { windows, layout, cells: &cells, packed, target: out.shared(), tail };
    let (down, across) = (windows.rows().div_ceil(SIDE * BLOCK), layout.panels.div_ceil(SIDE));
    (0..down * across).into_par_iter().for_each(|at| task.run(at % down * SIDE * BLOCK, at / down * SIDE));
    // SAFETY: the tasks write every row of every panel.
    unsafe { out.finish() }
}

struct Task<'a> {
    windows: &'a Windows,
    layout: &'a Layout,
    cells: &'a [f32],
    packed: &'a [f32],
    target: Shared,
    tail: Tail<'a>,
}

impl Task<'_> {
    /// The rows from `row` on, and the panels from `panel` on.
    fn run(&self, row: usize, panel: usize) {
        let Self { windows, layout, .. } = *self;
        let rows: Vec<_> =
            (row..windows.rows().min(row + SIDE * BLOCK)).map(|row| windows.row(row)).collect();
        let (pairs, panels) = (rows.len().div_ceil(BLOCK), SIDE.min(layout.panels - panel));
        let (width, window) = (panels * BLOCK, layout.taps * layout.chunk * STEP);
        let mut left = scratch::take(pairs * window / 4);
        let mut sums = scratch::take(pairs * BLOCK * width);
        let (left, sums) = (left.as_mut_ptr().cast::<u8>(), sums.as_mut_ptr());
        let mut runs = Vec::with_capacity(layout.taps);
        let mut taps = vec![Vec::with_capacity(layout.taps); pairs];
        for chunk in layout.chunks() {
            for (pair, (rows, taps)) in rows.chunks(BLOCK).zip(&mut taps).enumerate() {
                let cells = (self.cells.as_ptr().cast(), layout.blocks);
                // SAFETY: `cells` has the rows, and `left` a window for each pair.
                unsafe { windows.copy(rows, cells, chunk, left.add(pair * window), taps) };
            }
            for at in 0..panels {
                let kernels = &self.packed[layout.at(chunk, panel + at) / 4..];
                for (pair, taps) in taps.iter().enumerate() {
                    runs.clear();
                    for tap in taps {
                        let from = kernels[tap * chunk.1 * STEP / 4..].as_ptr().cast();
                        runs.push(Run { from, steps: chunk.1 });
                    }
                    // SAFETY: the block lies within `sums`.
                    let c = unsafe { sums.add(pair * BLOCK * width + at * BLOCK) };
                    // SAFETY: as above; the unit is available, and the factors have the steps of the runs.
                    unsafe { multiply(left.add(pair * window), &runs, c, width, chunk.0 > 0) };
                }
            }
        }
        for (at, rows) in rows.chunks(16).enumerate() {
            let places: Vec<_> = rows
                .iter()
                .map(|(image, at)| image * layout.columns * windows.plane + windows.targets[*at])
                .collect();
            for side in (0..width).step_by(16) {
                let column = panel * BLOCK + side;
                if column >= layout.columns {
                    break;
                }
                let target = Target {
                    to: self.target,
                    places: &places,
                    plane: windows.plane,
                    column,
                    columns: layout.columns,
                    tail: self.tail,
                };
                // SAFETY: these rows of these columns belong to this task.
                unsafe { target.write(sums.add(at * 16 * width + side), width) };
            }
        }
    }
}

/// A block of a product whose left factor lies step by step: two tiles of rows, each as upper and lower parts.
///
/// # Safety
/// As for [`Product::run`]; without a step the block becomes zero, or stays as it is where it is added to.
unsafe fn multiply(left: *const u8, runs: &[Run], c: *mut f32, width: usize, add: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        if runs.is_empty() {
            for row in 0..if add { 0 } else { BLOCK } {
                c.add(row * width).write_bytes(0, BLOCK);
            }
            return;
        }
        let product = Product {
            a: [0, 1, 2, 3].map(|tile| left.add(tile * TILE)),
            a_row: 64,
            a_step: STEP,
            c: [c, c.add(16 * width)],
            c_row: 4 * width,
            add: usize::from(add),
            runs,
        };
        product.run();
    }
}
