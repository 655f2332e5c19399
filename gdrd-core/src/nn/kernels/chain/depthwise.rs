//! One kernel for each channel. A map is copied into a frame of zeros, in which every tap is the same map at another offset, so that
//! rows need not end where the map's do; output gradients stand in such a frame too, as far apart as the stride says.

use super::super::buffer::Shared;
use super::super::scratch;
use super::super::shape::ConvShape;
use super::super::simd::{self, Simd, SimdKernel};
use super::super::team::each;
use super::backward::Task;
use super::norm::{Moments, Source};
use super::pointwise::Parts;

/// Values that are summed in registers.
const SPAN: usize = 32;

/// Values that are multiplied at a time for the weight's gradient.
const LANES: usize = 16;

/// Frame and offsets of a shape.
#[derive(Clone, Copy)]
struct Frame<'a> {
    shape: &'a ConvShape,
    pitch: usize,
    /// Values of the frame.
    len: usize,
    /// The offset of the last tap.
    reach: usize,
}

impl<'a> Frame<'a> {
    fn new(shape: &'a ConvShape) -> Self {
        let (pitch, rows) = (shape.width + 2 * shape.padding, shape.height + 2 * shape.padding);
        Self { shape, pitch, len: rows * pitch, reach: (shape.kernel_h - 1) * pitch + shape.kernel_w - 1 }
    }

    fn offset(&self, tap: usize) -> usize {
        tap / self.shape.kernel_w * self.pitch + tap % self.shape.kernel_w
    }

    /// Values of the frame, with room for what spans read beyond them.
    fn room(&self) -> usize {
        self.len + self.reach + 2 * SPAN
    }

    /// Windows from the first output to the last, with those between rows and strides.
    fn windows(&self) -> usize {
        ((self.shape.out_height() - 1) * self.pitch + self.shape.out_width() - 1) * self.shape.stride + 1
    }

    /// Writes a channel of an image into the frame, which holds zeros elsewhere.
    #[inline(always)]
    fn read(&self, source: &Source, image: usize, channel: usize, frame: &mut [f32]) {
        let (width, padding) = (self.shape.width, self.shape.padding);
        for row in 0..self.shape.height {
            let to = (row + padding) * self.pitch + padding;
            source.write(image, channel, row * width, &mut frame[to..to + width]);
        }
    }
}

pub(super) fn forward(shape: &ConvShape, source: &Source, weight: &[f32], map: &mut [f32], moments: &mut [Moments]) {
    let (map, len) = (Shared::new(map), shape.outputs * shape.out_plane());
    let moments = Parts::new(moments, shape.outputs);
    each(shape.batch, 1, |image| {
        // SAFETY: each image has values of its own.
        let (out, moments) = unsafe { (std::slice::from_raw_parts_mut(map.at(image * len), len), moments.of(image)) };
        simd::run(Forward { frame: Frame::new(shape), source, weight, image, out, moments });
    });
}

struct Forward<'a> {
    frame: Frame<'a>,
    source: &'a Source<'a>,
    weight: &'a [f32],
    image: usize,
    out: &'a mut [f32],
    moments: &'a mut [Moments],
}

impl SimdKernel for Forward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { frame, source, weight, image, out, moments } = self;
        let shape = frame.shape;
        let windows = frame.windows();
        let mut buffer = scratch::take(frame.room() + windows.next_multiple_of(SPAN));
        let (values, sums) = buffer.split_at_mut(frame.room());
        values.fill(0.0);
        let (width, step) = (shape.out_width(), shape.stride);
        for (channel, out) in out.chunks_exact_mut(shape.out_plane()).enumerate() {
            frame.read(source, image, channel, values);
            let kernel = &weight[channel * shape.taps()..][..shape.taps()];
            correlate(kernel, |tap| frame.offset(tap), values, sums);
            for (row, line) in out.chunks_exact_mut(width).enumerate() {
                let from = &sums[row * step * frame.pitch..];
                match step {
                    1 => line.copy_from_slice(&from[..width]),
                    step => line.iter_mut().zip(from.iter().step_by(step)).for_each(|(to, from)| *to = *from),
                }
            }
            moments[channel].add(out);
        }
    }
}

/// `sums[i] = sum of kernel[tap] * values[i + offset(tap)]`, in whole spans.
#[inline(always)]
fn correlate(kernel: &[f32], offset: impl Fn(usize) -> usize, values: &[f32], sums: &mut [f32]) {
    /// With the number of taps known, the loop over them is none.
    #[inline(always)]
    fn known<const TAPS: usize>(kernel: &[f32; TAPS], offsets: [usize; TAPS], values: &[f32], sums: &mut [f32]) {
        for (span, sums) in sums.as_chunks_mut::<SPAN>().0.iter_mut().enumerate() {
            let mut sum = [0f32; SPAN];
            for tap in 0..TAPS {
                let start = span * SPAN + offsets[tap];
                let values = &values[start..start + SPAN];
                for lane in 0..SPAN {
                    sum[lane] += kernel[tap] * values[lane];
                }
            }
            *sums = sum;
        }
    }
    if let Ok(kernel) = <&[f32; 9]>::try_from(kernel) {
        return known(kernel, std::array::from_fn(&offset), values, sums);
    }
    sums.fill(0.0);
    for (tap, factor) in kernel.iter().enumerate() {
        let values = &values[offset(tap)..][..sums.len()];
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * value);
    }
}

/// Adds to `sums[tap]` the sum of `factors[i] * values[i + offset(tap)]`; both are whole multiples of lanes.
#[inline(always)]
fn dots(offset: impl Fn(usize) -> usize, factors: &[f32], values: &[f32], sums: &mut [f32]) {
    #[inline(always)]
    fn known<const TAPS: usize>(offsets: [usize; TAPS], factors: &[f32], values: &[f32]) -> [f32; TAPS] {
        let mut lanes = [[0f32; LANES]; TAPS];
        for (chunk, factors) in factors.as_chunks::<LANES>().0.iter().enumerate() {
            for tap in 0..TAPS {
                let start = chunk * LANES + offsets[tap];
                let values = &values[start..start + LANES];
                for lane in 0..LANES {
                    lanes[tap][lane] += factors[lane] * values[lane];
                }
            }
        }
        lanes.map(|lanes| lanes.iter().sum())
    }
    if let Ok(sums) = <&mut [f32; 9]>::try_from(&mut *sums) {
        let found: [f32; 9] = known(std::array::from_fn(&offset), factors, values);
        sums.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
        return;
    }
    for (tap, sum) in sums.iter_mut().enumerate() {
        *sum += known([offset(tap)], factors, values)[0];
    }
}

/// The gradients of one image; that of the weight, `[c, taps]`, is added to what is there.
pub(super) struct Backward<'a> {
    pub(super) task: &'a Task<'a>,
    pub(super) image: usize,
    pub(super) weight: &'a mut [f32],
}

impl SimdKernel for Backward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { task, image, weight: d_weight } = self;
        let Task { shape, source, gradient, above, weight, .. } = task;
        let frame = Frame::new(shape);
        let (plane, width, step, taps) = (shape.out_plane(), shape.out_width(), shape.stride, shape.taps());
        // Gradients have as many zeros before them as the last tap is away from the first.
        let (spread_len, sums_len) = (frame.reach + frame.room(), frame.len.next_multiple_of(SPAN));
        let mut buffer = scratch::take(frame.room() + spread_len + sums_len + plane + shape.plane());
        let (values, rest) = buffer.split_at_mut(frame.room());
        let (spread, rest) = rest.split_at_mut(spread_len);
        let (sums, rest) = rest.split_at_mut(sums_len);
        let (dz, dx) = rest.split_at_mut(plane);
        values.fill(0.0);
        spread.fill(0.0);
        for channel in 0..shape.outputs {
            let above = &above[(image * shape.outputs + channel) * plane..][..plane];
            gradient.write(image, channel, 0, above, dz);
            for (row, line) in dz.chunks_exact(width).enumerate() {
                let to = &mut spread[frame.reach + row * step * frame.pitch..];
                match step {
                    1 => to[..width].copy_from_slice(line),
                    step => to.iter_mut().step_by(step).zip(line).for_each(|(to, from)| *to = *from),
                }
            }
            frame.read(source, image, channel, values);
            let windows = frame.windows().next_multiple_of(LANES);
            let sum = &mut d_weight[channel * taps..][..taps];
            dots(|tap| frame.offset(tap), &spread[frame.reach..][..windows], values, sum);
            if !task.wants_input() {
                continue;
            }
            let kernel = &weight[channel * taps..][..taps];
            correlate(kernel, |tap| frame.reach - frame.offset(tap), spread, sums);
            let (wide, padding) = (shape.width, shape.padding);
            for (row, line) in dx[..shape.plane()].chunks_exact_mut(wide).enumerate() {
                line.copy_from_slice(&sums[(row + padding) * frame.pitch + padding..][..wide]);
            }
            task.receive(image, channel, 0, &dx[..shape.plane()]);
        }
    }
}
