//! Products of whole matrices, as fully connected layers have them, with gradients.
//!
//! The left factor is read where it lies. The right one, the smaller of the two, is packed into the panels that [`Product`] reads.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::buffer::{Filling, Shared, floats, tensor, with_floats};
use super::product::{Multiply, Product, panel_here};
use super::scratch::{self, Values};
use super::simd;
use super::team::{each, each_chunk};

/// Rows of a task; whole blocks on every level.
const STRIP: usize = 48;
/// Rows and outputs from which on a panel is not mostly empty.
const LEAST: usize = 16;

/// Rows of `width` values as panels of columns: the transposed matrix.
pub(super) fn pack_rows(rows: &[f32], width: usize) -> Values {
    let (count, panel) = (rows.len() / width, panel_here());
    let mut values = Values::zeros(count.next_multiple_of(panel) * width);
    each_chunk(&mut values, panel * width, 1, |at, to| {
        let rows = &rows[at * panel * width..];
        let there = panel.min(rows.len() / width);
        for (k, to) in to.chunks_exact_mut(panel).enumerate() {
            let column = rows[k..].iter().step_by(width);
            to[..there].iter_mut().zip(column).for_each(|(to, value)| *to = *value);
        }
    });
    values
}

/// A matrix of `columns` as panels of them.
fn pack_columns(matrix: &[f32], columns: usize) -> Values {
    let (depth, panel) = (matrix.len() / columns, panel_here());
    let mut values = Values::zeros(columns.next_multiple_of(panel) * depth);
    each_chunk(&mut values, panel * depth, 1, |at, to| {
        let first = at * panel;
        let there = panel.min(columns - first);
        for (row, to) in matrix.chunks_exact(columns).zip(to.chunks_exact_mut(panel)) {
            to[..there].copy_from_slice(&row[first..first + there]);
        }
    });
    values
}

/// The left factor `[rows, depth]`, or with `transposed` its transpose `[depth, rows]`.
struct Left<'a> {
    values: &'a [f32],
    transposed: bool,
}

/// `left [rows, depth]` times packed `right [depth, columns]`: `[rows, columns]`, or with `turned` its transpose.
fn product(left: &Left<'_>, right: &Values, [rows, columns, depth]: [usize; 3], turned: bool) -> Vec<f32> {
    let panel = panel_here();
    let stride = columns.next_multiple_of(panel);
    let (step, a_stride) = if left.transposed { (1, rows) } else { (depth, depth) };
    let mut out = Filling::new(rows * columns);
    let target: Shared = out.shared();
    each(rows.div_ceil(STRIP), 1, |strip| {
        let first = strip * STRIP;
        let count = STRIP.min(rows - first);
        let mut products = scratch::take(STRIP * stride);
        let product = Product {
            rows: count,
            panels: stride / panel,
            depth,
            a: left.values[first * step..].as_ptr(),
            a_stride,
            b: right.as_ptr(),
            b_panel: panel * depth,
            b_stride: panel,
            c: products.as_mut_ptr(),
            c_stride: stride,
            add: false,
        };
        simd::run(Multiply { product, transposed: left.transposed });
        for (row, from) in products.chunks_exact(stride).take(count).enumerate() {
            let row = first + row;
            for (column, value) in from[..columns].iter().enumerate() {
                let at = if turned { column * rows + row } else { row * columns + column };
                // SAFETY: it is a place of the output, and of this row alone.
                unsafe { *target.at(at) = *value };
            }
        }
    });
    // SAFETY: every row wrote all its values.
    unsafe { out.finish() }
}

/// Whether this form is worth its packing for `x [batch, c]` and a weight `[outputs, c]`.
pub(super) fn applies(batch: usize, outputs: usize, inputs: usize) -> bool {
    batch >= LEAST && outputs >= LEAST && inputs > 0
}

/// `x W^T` for `x [b, c]` and `W [o, c]`.
pub(super) struct LinearOp;

impl CustomOp2 for LinearOp {
    fn name(&self) -> &'static str {
        "gdrd-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, w: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((batch, inputs), (outputs, _)) = (xl.shape().dims2()?, wl.shape().dims2()?);
        let (x, w) = (floats(x, xl)?, floats(w, wl)?);
        let plain = |values| Left { values, transposed: false };
        let out = match batch <= outputs {
            true => product(&plain(w), &pack_rows(x, inputs), [outputs, batch, inputs], true),
            false => product(&plain(x), &pack_rows(w, inputs), [batch, outputs, inputs], false),
        };
        Ok((CpuStorage::F32(out), Shape::from((batch, outputs))))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let ((batch, inputs), outputs) = (x.dims2()?, weight.dims2()?.0);
        let (for_x, for_weight) = (x.track_op(), weight.track_op());
        with_floats([x, weight, grad], |[xs, ws, gs]| {
            let turned = |values| Left { values, transposed: true };
            let dx = for_x.then(|| product(&turned(ws), &pack_rows(gs, outputs), [inputs, batch, outputs], true));
            let dw =
                for_weight.then(|| product(&turned(gs), &pack_columns(xs, inputs), [outputs, inputs, batch], false));
            let dx = dx.map(|values| tensor(values, x.shape())).transpose()?;
            let dw = dw.map(|values| tensor(values, weight.shape())).transpose()?;
            Ok((dx, dw))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::conv::linear;
    use super::super::testing::{assert_close, gradients, on_each_level, random, with_threads};

    /// Whole strips and panels and parts of them, both ways round, on any number of threads.
    #[test]
    fn values_and_gradients_equal_candles() {
        for (batch, inputs, outputs) in [(96, 256, 64), (96, 130, 512), (17, 5, 16), (200, 33, 49), (16, 1, 100)] {
            let (x, w) = (random((batch, inputs), 1).expect("x"), random((outputs, inputs), 2).expect("w"));
            let theirs = gradients(&[&x, &w], |v| v[0].matmul(&v[1].t()?));
            on_each_level(|| {
                let on = |threads| with_threads(threads, || gradients(&[&x, &w], |v| linear(&v[0], &v[1])));
                let ours = on(1);
                assert_close(&ours, &theirs, 2e-5);
                assert!(ours == on(3), "{batch} x {inputs} x {outputs}");
            });
        }
    }
}
