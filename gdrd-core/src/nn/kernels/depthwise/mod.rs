//! Depthwise convolution: one kernel per channel, computed directly.

mod pixels;

use std::mem::MaybeUninit;

use super::buffer::{Filling, Shared, zeros};
use super::convolution::{ConvWeights, Convolution};
use super::epilogue::Epilogue;
use super::instructions::Instructions;
use super::pixels::PixelWeights;
use super::scratch::{self, Values};
use super::shape::ConvShape;
use super::simd::{self, Simd, SimdKernel};
use super::team::{each, each_chunk};

/// One kernel for each channel, computed directly.
pub(super) struct Depthwise;

impl Convolution for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise"
    }

    fn applies(&self, shape: &ConvShape, _: Instructions) -> bool {
        shape.groups > 1 && shape.group_inputs() == 1 && shape.group_outputs() == 1
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
        each_chunk(out, shape.out_plane(), 8, |at, out| {
            let out = zeros(out);
            let map = &x[at * shape.plane()..(at + 1) * shape.plane()];
            let kernel = &weight[at % shape.groups * shape.taps()..][..shape.taps()];
            if shape.stride == 1 && shape.out_width() > 1 {
                simd::run(Padded { shape, map, kernel, out });
            } else {
                lines(shape, |tap, to, from| {
                    for (value, source) in out[to].iter_mut().zip(map[from..].iter().step_by(shape.stride)) {
                        *value += kernel[tap] * source;
                    }
                });
            }
            epilogue.apply_to(out, at * shape.out_plane(), at % shape.groups);
        });
    }

    fn applies_to_pixels(&self, shape: &ConvShape, _: Instructions) -> bool {
        pixels::applies(shape)
    }

    fn pack_pixels(&self, shape: &ConvShape, weight: &[f32]) -> Values {
        pixels::pack(shape, weight)
    }

    fn forward_pixels(
        &self,
        shape: &ConvShape,
        x: &[f32],
        weights: PixelWeights<'_>,
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) {
        pixels::forward(shape, x, weights.values, epilogue, out);
    }

    fn input_gradient(&self, shape: &ConvShape, weight: &[f32], grad: &[f32]) -> Vec<f32> {
        let mut out = vec![0f32; shape.input_len()];
        each_chunk(&mut out, shape.plane(), 8, |at, out| {
            let grad = &grad[at * shape.out_plane()..(at + 1) * shape.out_plane()];
            let kernel = &weight[at % shape.groups * shape.taps()..];
            lines(shape, |tap, from, to| {
                let factor = kernel[tap];
                if shape.stride == 1 {
                    for (value, source) in out[to..].iter_mut().zip(&grad[from]) {
                        *value += factor * source;
                    }
                } else {
                    for (value, source) in out[to..].iter_mut().step_by(shape.stride).zip(&grad[from]) {
                        *value += factor * source;
                    }
                }
            });
        });
        out
    }

    fn weight_gradient(&self, shape: &ConvShape, x: &[f32], grad: &[f32]) -> Vec<f32> {
        let mut out = Filling::new(shape.groups * shape.taps());
        let target: Shared = out.shared();
        each(shape.groups, 1, |channel| {
            let mut sums = vec![0f32; shape.taps()];
            for image in 0..shape.batch {
                let at = image * shape.groups + channel;
                let map = &x[at * shape.plane()..(at + 1) * shape.plane()];
                let grad = &grad[at * shape.out_plane()..(at + 1) * shape.out_plane()];
                lines(shape, |tap, to, from| {
                    let inputs = map[from..].iter().step_by(shape.stride);
                    sums[tap] += grad[to].iter().zip(inputs).map(|(g, v)| g * v).sum::<f32>();
                });
            }
            // SAFETY: each channel has `taps` values of its own.
            let kernel = unsafe { target.slots(channel * shape.taps(), shape.taps()) };
            for (slot, sum) in kernel.iter_mut().zip(sums) {
                slot.write(sum);
            }
        });
        // SAFETY: all channels were visited.
        unsafe { out.finish() }
    }
}

/// Calls `visit(tap, output range, first input)` for every kernel tap and output row that meet the input; the inputs
/// lie `stride` apart.
fn lines(shape: &ConvShape, mut visit: impl FnMut(usize, std::ops::Range<usize>, usize)) {
    let (oh, ow, stride) = (shape.out_height(), shape.out_width(), shape.stride);
    for tap in 0..shape.taps() {
        let (ky, kx) = (tap / shape.kernel_w, tap % shape.kernel_w);
        let (top, bottom) = shape.inside(ky, shape.height, oh);
        let (left, right) = shape.inside(kx, shape.width, ow);
        if left == right {
            continue;
        }
        for y in top..bottom {
            let from = (y * stride + ky - shape.padding) * shape.width + left * stride + kx - shape.padding;
            visit(tap, y * ow + left..y * ow + right, from);
        }
    }
}

/// One map at stride 1. It is copied into a frame of zeros, in which every tap is the same map at another offset, so that
/// rows need not end where the map's do.
struct Padded<'a> {
    shape: &'a ConvShape,
    map: &'a [f32],
    kernel: &'a [f32],
    out: &'a mut [f32],
}

/// Outputs that are summed in registers.
const SPAN: usize = 32;

impl SimdKernel for Padded<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { shape, map, kernel, out } = self;
        let (width, padding, pitch) = (shape.width, shape.padding, shape.width + 2 * shape.padding);
        let rows = shape.height + 2 * padding;
        let (out_width, count) = (shape.out_width(), shape.out_height() * pitch);
        let spans = count.div_ceil(SPAN);
        // The last span may read beyond the frame, and its outputs are not used.
        let mut buffer = scratch::take(rows * pitch + SPAN + pitch + spans * SPAN);
        let (frame, sums) = buffer.split_at_mut(rows * pitch + SPAN + pitch);
        frame.fill(0.0);
        for (row, line) in map.chunks_exact(width).enumerate() {
            frame[(row + padding) * pitch + padding..][..width].copy_from_slice(line);
        }
        for (span, sums) in sums.as_chunks_mut::<SPAN>().0.iter_mut().enumerate() {
            let mut sum = [0f32; SPAN];
            for (tap, factor) in kernel.iter().enumerate() {
                let start = span * SPAN + tap / shape.kernel_w * pitch + tap % shape.kernel_w;
                let values = &frame[start..start + SPAN];
                for lane in 0..SPAN {
                    sum[lane] += factor * values[lane];
                }
            }
            *sums = sum;
        }
        for (line, sums) in out.chunks_exact_mut(out_width).zip(sums.chunks(pitch)) {
            line.copy_from_slice(&sums[..out_width]);
        }
    }
}
