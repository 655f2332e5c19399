//! Convolution as one product with channels side by side: row `p` of the left factor has the window of output pixel
//! `p`, tap by tap and within a tap channel by channel. Any kernel and stride; one group.

mod layout;
mod pixels;
mod strips;

use std::mem::MaybeUninit;

use self::layout::{CHUNK, WindowLayout};
use self::strips::{Fold, ReadGradients, ReadWindows, WriteSpan};
use super::buffer::{Filling, Shared};
use super::convolution::{ConvWeights, Convolution};
use super::epilogue::Epilogue;
use super::instructions::Instructions;
use super::pixels::{PixelWeights, is_filled_up};
use super::product::{Multiply, Product, panel_here};
use super::scratch::{self, ScratchBuffer, Values};
use super::shape::ConvShape;
use super::simd;
use super::team::{each, each_chunk};
use super::transpose::ImageMaps;

pub(super) use self::pixels::{panels, unpack};

/// Channels taken at a time on either side of a block of products.
const SIDE: usize = 64;

/// One product with channels side by side.
pub(super) struct Direct;

impl Convolution for Direct {
    fn name(&self) -> &'static str {
        "direct"
    }

    fn applies(&self, shape: &ConvShape, _: Instructions) -> bool {
        shape.groups == 1 && shape.inputs >= 8 && shape.outputs >= 16
    }

    fn pack(&self, shape: &ConvShape, weight: &[f32]) -> Option<Values> {
        let (layout, width) = (WindowLayout::new(shape), panel_here());
        let mut packed = Values::zeros(shape.outputs.div_ceil(width) * layout.depth * width);
        packed
            .chunks_exact_mut(layout.depth * width)
            .enumerate()
            .for_each(|(panel, to)| layout.pack(weight, panel, to));
        Some(packed)
    }

    fn forward(
        &self,
        shape: &ConvShape,
        x: &[f32],
        weights: ConvWeights<'_>,
        epilogue: Epilogue<'_>,
        out: &mut [MaybeUninit<f32>],
    ) {
        let (layout, lanes, width) = (WindowLayout::new(shape), simd::lanes(), panel_here());
        let panels = shape.outputs.div_ceil(width);
        let mut buffer;
        let packed = match weights {
            ConvWeights::Packed(packed) => packed,
            ConvWeights::Plain(weight) => {
                buffer = scratch::take(panels * layout.depth * width);
                each_chunk(&mut buffer, layout.depth * width, 1, |panel, to| layout.pack(weight, panel, to));
                &*buffer
            }
        };

        let target = Shared::unwritten(out);
        let (strips, chunk, pixels) = (shape.batch * layout.strips(), layout.chunk(), layout.pixels());
        let mut windows = scratch::take(chunk * pixels * layout.window);
        let side = (SIDE / width).max(1);
        let blocks = panels.div_ceil(side);
        for first in (0..strips).step_by(chunk) {
            let count = chunk.min(strips - first);
            layout.windows(x, first, count, &mut windows);
            each(count * blocks, 1, |at| {
                let (strip, panel) = (at / blocks, at % blocks * side);
                let panels = side.min(panels - panel);
                let stride = panels * width;
                let mut products = scratch::take(pixels * stride);
                let product = Product {
                    rows: pixels,
                    panels,
                    depth: layout.depth,
                    a: windows[strip * pixels * layout.window..].as_ptr(),
                    a_stride: layout.window,
                    b: packed[panel * layout.depth * width..].as_ptr(),
                    b_panel: layout.depth * width,
                    b_stride: width,
                    c: products.as_mut_ptr(),
                    c_stride: stride,
                    add: false,
                };
                simd::run(Multiply { product, transposed: false });
                let (image, row) = ((first + strip) / layout.strips(), (first + strip) % layout.strips() * layout.rows);
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
                        epilogue,
                        start,
                        channel,
                    });
                }
            });
        }
    }

    fn applies_to_pixels(&self, shape: &ConvShape, _: Instructions) -> bool {
        shape.groups == 1 && is_filled_up(shape.outputs)
    }

    fn reads_panels(&self, _: &ConvShape) -> bool {
        true
    }

    fn pack_pixels(&self, shape: &ConvShape, weight: &[f32]) -> Values {
        panels(shape, weight, false)
    }

    fn forward_pixels(
        &self,
        shape: &ConvShape,
        x: &[f32],
        weights: PixelWeights<'_>,
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) {
        pixels::forward(shape, x, weights, epilogue, out);
    }

    fn input_gradient(&self, shape: &ConvShape, weight: &[f32], grad: &[f32]) -> Vec<f32> {
        let (layout, lanes, width) = (WindowLayout::new(shape), simd::lanes(), panel_here());
        let (taps, outputs, panels) = (shape.taps(), shape.outputs, layout.depth.div_ceil(width));
        let mut packed = scratch::take(panels * outputs * width);
        each_chunk(&mut packed, outputs * width, 1, |panel, to| {
            for (output, to) in to.chunks_exact_mut(width).enumerate() {
                for (lane, to) in to.iter_mut().enumerate() {
                    let (tap, channel) =
                        ((panel * width + lane) / layout.channels, (panel * width + lane) % layout.channels);
                    let exists = tap < taps && channel < shape.inputs;
                    *to = if exists { weight[(output * shape.inputs + channel) * taps + tap] } else { 0.0 };
                }
            }
        });

        let mut out = Filling::new(shape.input_len());
        let target = out.shared();
        let pixels = shape.out_plane();
        let images = (CHUNK / (pixels * layout.window)).clamp(1, shape.batch.max(1));
        let mut windows = scratch::take(images * pixels * layout.window);
        let mut grads = scratch::take(images * pixels * layout.grad);
        let side = (4 * SIDE / width).max(1);
        let blocks = panels.div_ceil(side);
        for first in (0..shape.batch).step_by(images) {
            let count = images.min(shape.batch - first);
            layout.gradients(grad, first * layout.strips(), count * layout.strips(), &mut grads);
            let products = Shared::new(&mut windows);
            each(count * layout.strips() * blocks, 1, |at| {
                let (strip, panel) = (at / blocks, at % blocks * side);
                let product = Product {
                    rows: layout.pixels(),
                    panels: side.min(panels - panel),
                    depth: outputs,
                    a: grads[strip * layout.pixels() * layout.grad..].as_ptr(),
                    a_stride: layout.grad,
                    b: packed[panel * outputs * width..].as_ptr(),
                    b_panel: outputs * width,
                    b_stride: width,
                    // SAFETY: each strip and block of panels has places of its own.
                    c: unsafe { products.at(strip * layout.pixels() * layout.window + panel * width) },
                    c_stride: layout.window,
                    add: false,
                };
                simd::run(Multiply { product, transposed: false });
            });
            let groups = layout.channels / lanes;
            each(count * groups, 1, |at| {
                let (image, channel) = (at / groups, at % groups * lanes);
                simd::run(Fold {
                    from: windows[image * pixels * layout.window + channel..].as_ptr(),
                    layout,
                    channels: lanes.min(shape.inputs - channel),
                    // SAFETY: these maps lie within the gradient and belong to this task.
                    to: unsafe { target.at(((first + image) * shape.inputs + channel) * shape.plane()) },
                });
            });
        }
        // SAFETY: every map of every image was written.
        unsafe { out.finish() }
    }

    fn weight_gradient(&self, shape: &ConvShape, x: &[f32], grad: &[f32]) -> Vec<f32> {
        let (layout, width) = (WindowLayout::new(shape), panel_here());
        let (taps, outputs, row) = (shape.taps(), shape.outputs, layout.depth.next_multiple_of(width));
        let (strips, chunk, pixels) = (shape.batch * layout.strips(), layout.chunk(), layout.pixels());
        let mut windows = scratch::take(chunk * pixels * layout.window);
        let mut grads = scratch::take(chunk * pixels * layout.grad);
        let mut sums = scratch::take(outputs * row);
        let (down, across) = (outputs.div_ceil(SIDE), row.div_ceil(SIDE));
        for first in (0..strips).step_by(chunk) {
            let count = chunk.min(strips - first);
            layout.windows(x, first, count, &mut windows);
            layout.gradients(grad, first, count, &mut grads);
            let sums = Shared::new(&mut sums);
            each(down * across, 1, |at| {
                let (output, column) = (at / across * SIDE, at % across * SIDE);
                let product = Product {
                    rows: SIDE.min(outputs - output),
                    panels: SIDE.min(row - column) / width,
                    depth: count * pixels,
                    a: grads[output..].as_ptr(),
                    a_stride: layout.grad,
                    b: windows[column..].as_ptr(),
                    b_panel: width,
                    b_stride: layout.window,
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
            let sums = &sums[output * row..][..layout.depth];
            for (channel, kernel) in out.chunks_exact_mut(taps).enumerate() {
                for (tap, value) in kernel.iter_mut().enumerate() {
                    *value = sums[tap * layout.channels + channel];
                }
            }
        });
        out
    }
}

impl WindowLayout {
    /// Writes the windows of `count` strips from `first` on.
    fn windows(&self, x: &[f32], first: usize, count: usize, to: &mut ScratchBuffer) {
        let (lanes, to, shape) = (simd::lanes(), Shared::new(to), self.shape);
        let groups = self.channels / lanes;
        each(count * groups, 8.min(groups), |at| {
            let (strip, channel) = (at / groups, at % groups * lanes);
            let (image, row) = ((first + strip) / self.strips(), (first + strip) % self.strips() * self.rows);
            let maps = ImageMaps {
                at: x[(image * shape.inputs + channel) * shape.plane()..].as_ptr(),
                channels: lanes.min(shape.inputs - channel),
                height: shape.height,
                width: shape.width,
            };
            // SAFETY: each strip and group of channels has places of its own in `to`.
            let to = unsafe { to.at(strip * self.pixels() * self.window + channel) };
            simd::run(ReadWindows { maps, layout: *self, row, to });
        });
    }

    /// Writes the output gradients of `count` strips from `first` on, channels side by side.
    fn gradients(&self, grad: &[f32], first: usize, count: usize, to: &mut ScratchBuffer) {
        let (lanes, to, shape) = (simd::lanes(), Shared::new(to), self.shape);
        let groups = shape.outputs.div_ceil(lanes);
        each(count * groups, 8.min(groups), |at| {
            let (strip, channel) = (at / groups, at % groups * lanes);
            let (image, row) = ((first + strip) / self.strips(), (first + strip) % self.strips() * self.rows);
            let maps = ImageMaps {
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
