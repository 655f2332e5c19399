//! Products of whole matrices, as fully connected layers have them, with gradients.
//!
//! The left factor is read where it lies, the right one is packed into the panels that [`Product`] reads.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::backward::hand_over;
use super::buffer::{Filling, floats, tensor, with_floats};
use super::product::{Multiply, Product, panel_here};
use super::scratch::{self, ScratchBuffer};
use super::simd::{self, Simd, SimdKernel};
use super::team::{each, each_chunk};
use super::transpose::{ImageMaps, read_rows, write_span};

/// Rows that are multiplied at once; whole blocks on every level.
pub(super) const STRIP: usize = 48;
/// Depth that is multiplied at once: so much of a strip and of a panel stays in a core's cache.
const DEPTH: usize = 1024;
/// Rows and outputs from which on a panel is not mostly empty.
const LEAST: usize = 16;

/// Values of a packed factor of so many columns and so much depth.
pub(super) fn packed_len(columns: usize, depth: usize) -> usize {
    columns.next_multiple_of(panel_here()) * depth
}

/// Rows of `width` values as panels of columns, filled up with zeros: the transposed matrix.
pub(super) fn pack_rows(rows: &[f32], width: usize, packed: &mut [f32]) {
    let (panel, lanes) = (panel_here(), simd::lanes());
    each_chunk(packed, panel * width, 1, |at, to| {
        let rows = &rows[at * panel * width..];
        let there = panel.min(rows.len() / width);
        for side in (0..panel).step_by(lanes) {
            let channels = there.saturating_sub(side).min(lanes);
            let from = if channels > 0 { rows[side * width..].as_ptr() } else { rows.as_ptr() };
            let rows = ImageMaps { at: from, channels, height: 1, width };
            simd::run(PackRows { rows, to: to[side..].as_mut_ptr(), panel });
        }
    });
}

/// Writes rows as columns that lie side by side, one row of the result every `panel` values.
struct PackRows {
    rows: ImageMaps,
    to: *mut f32,
    panel: usize,
}

impl SimdKernel for PackRows {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // SAFETY: whoever made the kernel vouches for rows and result.
        unsafe { read_rows(simd, &self.rows, (0, 1), (0, self.rows.width), self.to, self.panel) };
    }
}

/// Writes `count` rows of products, `stride` apart, as columns of a matrix of `rows` columns.
struct Turn {
    from: *const f32,
    stride: usize,
    to: *mut f32,
    rows: usize,
    columns: usize,
    count: usize,
}

impl SimdKernel for Turn {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { from, stride, to, rows, columns, count } = self;
        for column in (0..columns).step_by(S::LANES) {
            let there = S::LANES.min(columns - column);
            // SAFETY: whoever made the kernel vouches for both matrices.
            unsafe { write_span(simd, (from.add(column), stride), to.add(column * rows), rows, there, count) };
        }
    }
}

/// A matrix of `columns` as panels of them, likewise.
fn pack_columns(matrix: &[f32], columns: usize, packed: &mut [f32]) {
    let (depth, panel) = (matrix.len() / columns, panel_here());
    each_chunk(packed, panel * depth, 1, |at, to| {
        let first = at * panel;
        let there = panel.min(columns - first);
        for (row, to) in matrix.chunks_exact(columns).zip(to.chunks_exact_mut(panel)) {
            to[..there].copy_from_slice(&row[first..first + there]);
            to[there..].fill(0.0);
        }
    });
}

/// A packed factor that one product needs.
fn packed(columns: usize, depth: usize, pack: impl FnOnce(&mut [f32])) -> ScratchBuffer {
    let mut values = scratch::take(packed_len(columns, depth));
    pack(&mut values);
    values
}

/// The left factor `[rows, depth]`, or with `transposed` its transpose `[depth, rows]`.
pub(super) struct Left<'a> {
    pub(super) values: &'a [f32],
    pub(super) transposed: bool,
}

/// The product of [`STRIP`] rows of `left`, or those that there are, from `first` on with a packed `right [depth, columns]`, into
/// `products`, whose rows are whole panels.
pub(super) fn multiply_strip(
    left: &Left<'_>,
    first: usize,
    right: &[f32],
    [rows, columns, depth]: [usize; 3],
    products: &mut [f32],
) {
    let (count, stride) = (STRIP.min(rows - first), columns.next_multiple_of(panel_here()));
    // The pointers below go as far.
    assert!(left.values.len() >= rows * depth && right.len() >= stride * depth && products.len() >= count * stride);
    // SAFETY: just asserted.
    unsafe { write_strip(left, first, right, [rows, columns, depth], products.as_mut_ptr()) };
}

/// As [`multiply_strip`].
///
/// # Safety
/// The factors are as long as their sizes say, and the rows of the result may be written.
unsafe fn write_strip(
    left: &Left<'_>,
    first: usize,
    right: &[f32],
    [rows, columns, depth]: [usize; 3],
    products: *mut f32,
) {
    let (panel, stride) = (panel_here(), columns.next_multiple_of(panel_here()));
    let (step, down, a_stride) = if left.transposed { (1, rows, rows) } else { (depth, 1, depth) };
    for start in (0..depth).step_by(DEPTH) {
        let product = Product {
            rows: STRIP.min(rows - first),
            panels: stride / panel,
            depth: DEPTH.min(depth - start),
            a: left.values[first * step + start * down..].as_ptr(),
            a_stride,
            b: right[start * panel..].as_ptr(),
            b_panel: panel * depth,
            b_stride: panel,
            c: products,
            c_stride: stride,
            add: start > 0,
        };
        simd::run(Multiply { product, transposed: left.transposed });
    }
}

/// `left [rows, depth]` times a packed `right [depth, columns]`: `[rows, columns]`, or with `turned` its transpose.
fn product(left: &Left<'_>, right: &[f32], sizes: [usize; 3], turned: bool) -> Vec<f32> {
    let [rows, columns, depth] = sizes;
    let stride = columns.next_multiple_of(panel_here());
    assert!(left.values.len() >= rows * depth && right.len() >= stride * depth, "factors of {sizes:?}");
    let mut out = Filling::new(rows * columns);
    let target = out.shared();
    each(rows.div_ceil(STRIP), 1, |strip| {
        let first = strip * STRIP;
        let count = STRIP.min(rows - first);
        // SAFETY: each strip has rows of the output, or with `turned` columns, of its own; the factors are long enough.
        unsafe {
            if !turned && stride == columns {
                return write_strip(left, first, right, sizes, target.at(first * columns));
            }
            let mut products = scratch::take(STRIP * stride);
            write_strip(left, first, right, sizes, products.as_mut_ptr());
            if turned {
                let (from, to) = (products.as_ptr(), target.at(first));
                return simd::run(Turn { from, stride, to, rows, columns, count });
            }
            for (row, from) in (first..first + count).zip(products.chunks_exact(stride)) {
                for (slot, value) in target.slots(row * columns, columns).iter_mut().zip(from) {
                    slot.write(*value);
                }
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
            true => {
                let right = packed(batch, inputs, |to| pack_rows(x, inputs, to));
                product(&plain(w), &right, [outputs, batch, inputs], true)
            }
            false => {
                let right = packed(outputs, inputs, |to| pack_rows(w, inputs, to));
                product(&plain(x), &right, [batch, outputs, inputs], false)
            }
        };
        Ok((CpuStorage::F32(out), Shape::from((batch, outputs))))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let ((batch, inputs), outputs) = (x.dims2()?, weight.dims2()?.0);
        let (for_x, for_weight) = (x.track_op(), weight.track_op());
        with_floats([x, weight, grad], |[xs, ws, gs]| {
            let turned = |values| Left { values, transposed: true };
            let dx = for_x.then(|| {
                let right = packed(batch, outputs, |to| pack_rows(gs, outputs, to));
                product(&turned(ws), &right, [inputs, batch, outputs], true)
            });
            let dw = for_weight.then(|| {
                let right = packed(inputs, batch, |to| pack_columns(xs, inputs, to));
                product(&turned(gs), &right, [outputs, inputs, batch], false)
            });
            let dx = dx.map(|values| tensor(values, x.shape())).transpose()?;
            let dw = dw.map(|values| tensor(values, weight.shape())).transpose()?;
            Ok((dx, dw.and_then(|gradient| hand_over(weight, gradient))))
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
