//! Convolution as one product with channels side by side: row `p` of the left factor has the window of output pixel
//! `p`, tap by tap and within a tap channel by channel. Any kernel and stride; one group.

mod strips;

use std::mem::MaybeUninit;

use self::strips::{Fold, ReadGradients, ReadWindows, WriteSpan};
use super::buffer::{Filling, Shared};
use super::conv::Kernels;
use super::product::{Multiply, Product, panel_here};
use super::scratch::{self, Lot, Values};
use super::shape::ConvShape;
use super::simd;
use super::tail::Tail;
use super::team::{each, each_chunk};
use super::turn::Maps;

/// Values of windows that are made before they are used: about what a last-level cache holds.
const CHUNK: usize = 2 << 20;

/// Pixels of a strip, about.
const STRIP: usize = 64;

/// Channels taken at a time on either side of a block of products.
const SIDE: usize = 64;

/// Whether the method applies and pays.
pub(super) fn applies(shape: &ConvShape) -> bool {
    shape.groups == 1 && shape.inputs >= 8 && shape.outputs >= 16
}

/// How the matrices are laid out.
#[derive(Clone, Copy)]
struct Plan {
    shape: ConvShape,
    /// Input channels, filled up to whole vectors.
    channels: usize,
    /// Values of a window.
    depth: usize,
    /// Distance of neighbouring windows, and of neighbouring pixels of gradients: whole panels and one cache line.
    window: usize,
    grad: usize,
    /// Output rows of a strip; they divide those of the output.
    rows: usize,
}

impl Plan {
    fn new(shape: &ConvShape) -> Self {
        let channels = shape.inputs.next_multiple_of(simd::lanes());
        let (depth, width) = (shape.taps() * channels, panel_here());
        let apart = |values: usize| values.next_multiple_of(width) + 16;
        let (height, limit) = (shape.out_height(), STRIP.div_ceil(shape.out_width()));
        let rows = (1..=height.min(limit)).rev().find(|rows| height % rows == 0).unwrap_or(1);
        Self { shape: *shape, channels, depth, window: apart(depth), grad: apart(shape.outputs), rows }
    }

    /// Pixels of a strip.
    fn pixels(&self) -> usize {
        self.rows * self.shape.out_width()
    }

    /// Strips of an image.
    fn strips(&self) -> usize {
        self.shape.out_height() / self.rows
    }

    /// Strips of a chunk.
    fn chunk(&self) -> usize {
        (CHUNK / (self.pixels() * self.window)).clamp(1, self.shape.batch * self.strips())
    }

    /// Writes the kernels of one panel of outputs as they stand in the products.
    fn pack(&self, weight: &[f32], panel: usize, to: &mut [f32]) {
        let (taps, width) = (self.shape.taps(), panel_here());
        to.fill(0.0);
        let first = panel * width;
        for (lane, kernels) in weight.chunks_exact(self.shape.inputs * taps).skip(first).take(width).enumerate() {
            for (at, value) in kernels.iter().enumerate() {
                to[(at % taps * self.channels + at / taps) * width + lane] = *value;
            }
        }
    }

    /// Writes the windows of `count` strips from `first` on.
    fn windows(&self, x: &[f32], first: usize, count: usize, to: &mut Lot) {
        let (lanes, to, shape) = (simd::lanes(), Shared::new(to), self.shape);
        let groups = self.channels / lanes;
        each(count * groups, 8.min(groups), |at| {
            let (strip, channel) = (at / groups, at % groups * lanes);
            let (image, row) = ((first + strip) / self.strips(), (first + strip) % self.strips() * self.rows);
            let maps = Maps {
                at: x[(image * shape.inputs + channel) * shape.plane()..].as_ptr(),
                channels: lanes.min(shape.inputs - channel),
                height: shape.height,
                width: shape.width,
            };
            // SAFETY: each strip and group of channels has places of its own in `to`.
            let to = unsafe { to.at(strip * self.pixels() * self.window + channel) };
            simd::run(ReadWindows { maps, plan: *self, row, to });
        });
    }

    /// Writes the output gradients of `count` strips from `first` on, channels side by side.
    fn gradients(&self, grad: &[f32], first: usize, count: usize, to: &mut Lot) {
        let (lanes, to, shape) = (simd::lanes(), Shared::new(to), self.shape);
        let groups = shape.outputs.div_ceil(lanes);
        each(count * groups, 8.min(groups), |at| {
            let (strip, channel) = (at / groups, at % groups * lanes);
            let (image, row) = ((first + strip) / self.strips(), (first + strip) % self.strips() * self.rows);
            let maps = Maps {
                at: grad[(image * shape.outputs + channel) * shape.out_plane()..].as_ptr(),
                channels: lanes.min(shape.outputs - channel),
                height: shape.out_height(),
                width: shape.out_width(),
            };
            // SAFETY: each strip and group of channels has places of its own in `to`.
            let to = unsafe { to.at(strip * self.pixels() * self.grad + channel) };
            simd::run(ReadGradients { maps, row, rows: self.rows, to, step: self.grad });
        });
    }
}

/// The kernels in the form of the products, for [`Kernels::Packed`].
pub(super) fn pack(shape: &ConvShape, weight: &[f32]) -> Values {
    let (plan, width) = (Plan::new(shape), panel_here());
    let mut packed = Values::zeros(shape.outputs.div_ceil(width) * plan.depth * width);
    packed.chunks_exact_mut(plan.depth * width).enumerate().for_each(|(panel, to)| plan.pack(weight, panel, to));
    packed
}

/// Writes all of `y [b, o, oh, ow]`.
pub(super) fn forward(
    shape: &ConvShape,
    x: &[f32],
    kernels: Kernels<'_>,
    tail: Tail<'_>,
    out: &mut [MaybeUninit<f32>],
) {
    let (plan, lanes, width) = (Plan::new(shape), simd::lanes(), panel_here());
    let panels = shape.outputs.div_ceil(width);
    let mut lot;
    let packed = match kernels {
        Kernels::Packed(packed) => packed,
        Kernels::Plain(weight) => {
            lot = scratch::take(panels * plan.depth * width);
            each_chunk(&mut lot, plan.depth * width, 1, |panel, to| plan.pack(weight, panel, to));
            &*lot
        }
    };

    let target = Shared::unwritten(out);
    let (strips, chunk, pixels) = (shape.batch * plan.strips(), plan.chunk(), plan.pixels());
    let mut windows = scratch::take(chunk * pixels * plan.window);
    let side = (SIDE / width).max(1);
    let blocks = panels.div_ceil(side);
    for first in (0..strips).step_by(chunk) {
        let count = chunk.min(strips - first);
        plan.windows(x, first, count, &mut windows);
        each(count * blocks, 1, |at| {
            let (strip, panel) = (at / blocks, at % blocks * side);
            let panels = side.min(panels - panel);
            let stride = panels * width;
            let mut products = scratch::take(pixels * stride);
            let product = Product {
                rows: pixels,
                panels,
                depth: plan.depth,
                a: windows[strip * pixels * plan.window..].as_ptr(),
                a_stride: plan.window,
                b: packed[panel * plan.depth * width..].as_ptr(),
                b_panel: plan.depth * width,
                b_stride: width,
                c: products.as_mut_ptr(),
                c_stride: stride,
                add: false,
            };
            simd::run(Multiply { product, transposed: false });
            let (image, row) = ((first + strip) / plan.strips(), (first + strip) % plan.strips() * plan.rows);
            for channel in (panel * width..shape.outputs.min((panel + panels) * width)).step_by(lanes) {
                let start = (image * shape.outputs + channel) * shape.out_plane() + row * shape.out_width();
                simd::run(WriteSpan {
                    from: products[channel - panel * width..].as_ptr(),
                    stride,
                    // SAFETY: these pixels lie within the output and belong to this task.
                    to: unsafe { target.at(start) },
                    plane: shape.out_plane(),
                    channels: lanes.min(shape.outputs - channel),
                    span: pixels,
                    tail,
                    start,
                    channel,
                });
            }
        });
    }
}

/// The gradient of the input, `[b, c, h, w]`.
pub(super) fn input_gradient(shape: &ConvShape, weight: &[f32], grad: &[f32]) -> Vec<f32> {
    let (plan, lanes, width) = (Plan::new(shape), simd::lanes(), panel_here());
    let (taps, outputs, panels) = (shape.taps(), shape.outputs, plan.depth.div_ceil(width));
    let mut packed = scratch::take(panels * outputs * width);
    each_chunk(&mut packed, outputs * width, 1, |panel, to| {
        for (output, to) in to.chunks_exact_mut(width).enumerate() {
            for (lane, to) in to.iter_mut().enumerate() {
                let (tap, channel) = ((panel * width + lane) / plan.channels, (panel * width + lane) % plan.channels);
                let exists = tap < taps && channel < shape.inputs;
                *to = if exists { weight[(output * shape.inputs + channel) * taps + tap] } else { 0.0 };
            }
        }
    });

    let mut out = Filling::new(shape.input_len());
    let target = out.shared();
    let pixels = shape.out_plane();
    let images = (CHUNK / (pixels * plan.window)).clamp(1, shape.batch.max(1));
    let mut windows = scratch::take(images * pixels * plan.window);
    let mut grads = scratch::take(images * pixels * plan.grad);
    let side = (4 * SIDE / width).max(1);
    let blocks = panels.div_ceil(side);
    for first in (0..shape.batch).step_by(images) {
        let count = images.min(shape.batch - first);
        plan.gradients(grad, first * plan.strips(), count * plan.strips(), &mut grads);
        let products = Shared::new(&mut windows);
        each(count * plan.strips() * blocks, 1, |at| {
            let (strip, panel) = (at / blocks, at % blocks * side);
            let product = Product {
                rows: plan.pixels(),
                panels: side.min(panels - panel),
                depth: outputs,
                a: grads[strip * plan.pixels() * plan.grad..].as_ptr(),
                a_stride: plan.grad,
                b: packed[panel * outputs * width..].as_ptr(),
                b_panel: outputs * width,
                b_stride: width,
                // SAFETY: each strip and block of panels has places of its own.
                c: unsafe { products.at(strip * plan.pixels() * plan.window + panel * width) },
                c_stride: plan.window,
                add: false,
            };
            simd::run(Multiply { product, transposed: false });
        });
        let groups = plan.channels / lanes;
        each(count * groups, 1, |at| {
            let (image, channel) = (at / groups, at % groups * lanes);
            simd::run(Fold {
                from: windows[image * pixels * plan.window + channel..].as_ptr(),
                plan,
                channels: lanes.min(shape.inputs - channel),
                // SAFETY: these maps lie within the gradient and belong to this task.
                to: unsafe { target.at(((first + image) * shape.inputs + channel) * shape.plane()) },
            });
        });
    }
    // SAFETY: every map of every image was written.
    unsafe { out.finish() }
}

/// The gradient of the weight, `[o, c, kh, kw]`.
pub(super) fn weight_gradient(shape: &ConvShape, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let (plan, width) = (Plan::new(shape), panel_here());
    let (taps, outputs, row) = (shape.taps(), shape.outputs, plan.depth.next_multiple_of(width));
    let (strips, chunk, pixels) = (shape.batch * plan.strips(), plan.chunk(), plan.pixels());
    let mut windows = scratch::take(chunk * pixels * plan.window);
    let mut grads = scratch::take(chunk * pixels * plan.grad);
    let mut sums = scratch::take(outputs * row);
    let (down, across) = (outputs.div_ceil(SIDE), row.div_ceil(SIDE));
    for first in (0..strips).step_by(chunk) {
        let count = chunk.min(strips - first);
        plan.windows(x, first, count, &mut windows);
        plan.gradients(grad, first, count, &mut grads);
        let sums = Shared::new(&mut sums);
        each(down * across, 1, |at| {
            let (output, column) = (at / across * SIDE, at % across * SIDE);
            let product = Product {
                rows: SIDE.min(outputs - output),
                panels: SIDE.min(row - column) / width,
                depth: count * pixels,
                a: grads[output..].as_ptr(),
                a_stride: plan.grad,
                b: windows[column..].as_ptr(),
                b_panel: width,
                b_stride: plan.window,
                // SAFETY: each block has places of its own.
                c: unsafe { sums.at(output * row + column) },
                c_stride: row,
                add: first > 0,
            };
            simd::run(Multiply { product, transposed: true });
        });
    }
    let mut out = vec![0f32; outputs * shape.inputs * taps];
    each_chunk(&mut out, shape.inputs * taps, 1, |output, out| {
        let sums = &sums[output * row..][..plan.depth];
        for (channel, kernel) in out.chunks_exact_mut(taps).enumerate() {
            for (tap, value) in kernel.iter_mut().enumerate() {
                *value = sums[tap * plan.channels + channel];
            }
        }
    });
    out
}
