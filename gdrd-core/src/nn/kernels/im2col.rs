//! Convolution as one product: every window becomes a column.
//!
//! Images are taken in chunks that keep the columns in cache. For a chunk, `columns` is the matrix
//! `[inputs * taps, images * out_plane]` of one group.

use std::mem::MaybeUninit;

use gemm::Parallelism;

use super::buffer::Shared;
use super::convolution::{ConvWeights, Convolution};
use super::epilogue::Epilogue;
use super::instructions::Instructions;
use super::product::{Multiply, Product, panel_here};
use super::scratch;
use super::shape::ConvShape;
use super::simd;
use super::team::{each, each_chunk};

/// Values of the column matrix that a chunk may have.
const CHUNK: usize = 1 << 20;

/// Panels of columns of a task of a product.
const PANELS: usize = 4;

/// One product whose columns are windows; it applies to every convolution.
pub(super) struct Im2col;

impl Convolution for Im2col {
    fn name(&self) -> &'static str {
        "im2col"
    }

    fn applies(&self, _: &ConvShape, _: Instructions) -> bool {
        true
    }

    fn forward(
        &self,
        shape: &ConvShape,
        x: &[f32],
        weights: ConvWeights<'_>,
        epilogue: Epilogue<'_>,
        out: &mut [MaybeUninit<f32>],
    ) {
        let (ConvWeights::Plain(weight) | ConvWeights::Packed(weight)) = weights;
        let target = Shared::unwritten(out);
        let (depth, plane) = (shape.group_inputs() * shape.taps(), shape.out_plane());
        let (outputs, images) = (shape.group_outputs(), chunk_images(shape));
        let panel = panel_here();
        // Whole panels; what the last one has beyond the last window is not used.
        let most = (images * plane).next_multiple_of(panel);
        let mut columns = scratch::take(depth * most);
        let mut product = scratch::take(outputs * most);
        for group in 0..shape.groups {
            let kernel = &weight[group * outputs * depth..][..outputs * depth];
            for first in (0..shape.batch).step_by(images) {
                let images = images.min(shape.batch - first);
                let width = (images * plane).next_multiple_of(panel);
                unfold(shape, x, group, (first, images), &mut columns, width);
                let sums = Shared::new(&mut product);
                each((width / panel).div_ceil(PANELS), 1, |at| {
                    let from = at * PANELS * panel;
                    let product = Product {
                        rows: outputs,
                        panels: PANELS.min((width - from) / panel),
                        depth,
                        a: kernel.as_ptr(),
                        a_stride: depth,
                        b: columns[from..].as_ptr(),
                        b_panel: panel,
                        b_stride: width,
                        // SAFETY: each task has panels of its own.
                        c: unsafe { sums.at(from) },
                        c_stride: width,
                        add: false,
                    };
                    simd::run(Multiply { product, transposed: false });
                });
                each(images * outputs, 16, |at| {
                    let (image, output) = (at / outputs, at % outputs);
                    let start = ((first + image) * shape.outputs + group * outputs + output) * plane;
                    // SAFETY: each (image, output) has a map of its own within the output.
                    let map = unsafe { target.slots(start, plane) };
                    for (slot, value) in map.iter_mut().zip(&product[output * width + image * plane..]) {
                        slot.write(*value);
                    }
                    // SAFETY: as above, and every value was written.
                    let map = unsafe { std::slice::from_raw_parts_mut(target.at(start), plane) };
                    epilogue.apply_to(map, start, group * outputs + output);
                });
            }
        }
    }

    fn input_gradient(&self, shape: &ConvShape, weight: &[f32], grad: &[f32]) -> Vec<f32> {
        let mut out = vec![0f32; shape.input_len()];
        let target = Shared::new(&mut out);
        let (depth, plane) = (shape.group_inputs() * shape.taps(), shape.out_plane());
        let (outputs, images) = (shape.group_outputs(), chunk_images(shape));
        let mut columns = vec![0f32; depth * images * plane];
        let mut gathered = vec![0f32; outputs * images * plane];
        for group in 0..shape.groups {
            let kernel = &weight[group * outputs * depth..][..outputs * depth];
            for first in (0..shape.batch).step_by(images) {
                let images = images.min(shape.batch - first);
                let width = images * plane;
                gather(shape, grad, group, first, images, &mut gathered);
                multiply(
                    (depth, width, outputs),
                    &mut columns,
                    false,
                    Matrix::columns(kernel, depth),
                    Matrix::rows(&gathered, width),
                );
                fold(shape, &columns, group, first, images, target);
            }
        }
        out
    }

    fn weight_gradient(&self, shape: &ConvShape, x: &[f32], grad: &[f32]) -> Vec<f32> {
        let (depth, plane) = (shape.group_inputs() * shape.taps(), shape.out_plane());
        let (outputs, images) = (shape.group_outputs(), chunk_images(shape));
        let mut out = vec![0f32; shape.outputs * depth];
        let mut columns = vec![0f32; depth * images * plane];
        let mut gathered = vec![0f32; outputs * images * plane];
        for group in 0..shape.groups {
            let kernel = &mut out[group * outputs * depth..][..outputs * depth];
            for first in (0..shape.batch).step_by(images) {
                let images = images.min(shape.batch - first);
                let width = images * plane;
                unfold(shape, x, group, (first, images), &mut columns, width);
                gather(shape, grad, group, first, images, &mut gathered);
                multiply(
                    (outputs, depth, width),
                    kernel,
                    first > 0,
                    Matrix::rows(&gathered, width),
                    Matrix::columns(&columns, width),
                );
            }
        }
        out
    }
}

/// Images whose columns are made at a time; it depends on the shape alone.
fn chunk_images(shape: &ConvShape) -> usize {
    (CHUNK / (shape.group_inputs() * shape.taps() * shape.out_plane())).clamp(1, shape.batch.max(1))
}

/// Writes the windows of `images` images from `first` on as columns, in rows that lie `pitch` values apart.
fn unfold(
    shape: &ConvShape,
    x: &[f32],
    group: usize,
    (first, images): (usize, usize),
    columns: &mut [f32],
    pitch: usize,
) {
    let (oh, ow, stride) = (shape.out_height(), shape.out_width(), shape.stride);
    let (plane, taps, inputs) = (oh * ow, shape.taps(), shape.group_inputs());
    each_chunk(&mut columns[..inputs * taps * pitch], pitch, 4, |row, out| {
        let out = &mut out[..images * plane];
        let (channel, tap) = (row / taps, row % taps);
        let (ky, kx) = (tap / shape.kernel_w, tap % shape.kernel_w);
        let (top, bottom) = shape.inside(ky, shape.height, oh);
        let (left, right) = shape.inside(kx, shape.width, ow);
        for (image, out) in out.chunks_exact_mut(plane).enumerate() {
            let start = ((first + image) * shape.inputs + group * inputs + channel) * shape.plane();
            let map = &x[start..start + shape.plane()];
            out[..top * ow].fill(0.0);
            out[bottom * ow..].fill(0.0);
            for y in top..bottom {
                let line = &mut out[y * ow..(y + 1) * ow];
                line[..left].fill(0.0);
                line[right..].fill(0.0);
                if left == right {
                    continue;
                }
                let from = (y * stride + ky - shape.padding) * shape.width + left * stride + kx - shape.padding;
                if stride == 1 {
                    line[left..right].copy_from_slice(&map[from..from + right - left]);
                } else {
                    for (value, source) in line[left..right].iter_mut().zip(map[from..].iter().step_by(stride)) {
                        *value = *source;
                    }
                }
            }
        }
    });
}

/// Adds columns to the windows they came from; the opposite of [`unfold`].
fn fold(shape: &ConvShape, columns: &[f32], group: usize, first: usize, images: usize, target: Shared) {
    let (oh, ow, stride) = (shape.out_height(), shape.out_width(), shape.stride);
    let (plane, taps, inputs) = (oh * ow, shape.taps(), shape.group_inputs());
    let width = images * plane;
    each(images * inputs, 4, |at| {
        let (image, channel) = (at / inputs, at % inputs);
        let start = ((first + image) * shape.inputs + group * inputs + channel) * shape.plane();
        // SAFETY: each (image, channel) has a map of its own within the gradient, which is initialised.
        let map = unsafe { std::slice::from_raw_parts_mut(target.at(start), shape.plane()) };
        for tap in 0..taps {
            let (ky, kx) = (tap / shape.kernel_w, tap % shape.kernel_w);
            let (top, bottom) = shape.inside(ky, shape.height, oh);
            let (left, right) = shape.inside(kx, shape.width, ow);
            if left == right {
                continue;
            }
            let column = &columns[(channel * taps + tap) * width + image * plane..][..plane];
            for y in top..bottom {
                let line = &column[y * ow + left..y * ow + right];
                let to = (y * stride + ky - shape.padding) * shape.width + left * stride + kx - shape.padding;
                if stride == 1 {
                    for (value, add) in map[to..].iter_mut().zip(line) {
                        *value += add;
                    }
                } else {
                    for (value, add) in map[to..].iter_mut().step_by(stride).zip(line) {
                        *value += add;
                    }
                }
            }
        }
    });
}

/// Brings the output gradients of some images into the layout `[outputs, images * out_plane]`.
fn gather(shape: &ConvShape, grad: &[f32], group: usize, first: usize, images: usize, out: &mut [f32]) {
    let (plane, outputs) = (shape.out_plane(), shape.group_outputs());
    let width = images * plane;
    each_chunk(&mut out[..outputs * width], width, 4, |output, out| {
        for (image, out) in out.chunks_exact_mut(plane).enumerate() {
            let start = ((first + image) * shape.outputs + group * outputs + output) * plane;
            out.copy_from_slice(&grad[start..start + plane]);
        }
    });
}

/// A matrix as a factor of a product.
struct Matrix<'a> {
    values: &'a [f32],
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Stored row by row, with `width` columns.
    fn rows(values: &'a [f32], width: usize) -> Self {
        Self { values, row_stride: width, column_stride: 1 }
    }

    /// Stored column by column, with `height` rows.
    fn columns(values: &'a [f32], height: usize) -> Self {
        Self { values, row_stride: 1, column_stride: height }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        self.values.len() > (rows - 1) * self.row_stride + (columns - 1) * self.column_stride
    }
}

/// `out [m, n] = left [m, k] right [k, n]`, or `+=` with `add`; `out` is stored row by row.
fn multiply((m, n, k): (usize, usize, usize), out: &mut [f32], add: bool, left: Matrix<'_>, right: Matrix<'_>) {
    if m * n * k == 0 {
        return;
    }
    assert!(out.len() >= m * n && left.holds(m, k) && right.holds(k, n), "a matrix is too short");
    // SAFETY: the assertion above keeps every access within the three slices, and `out` is borrowed mutably.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            add,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
}
