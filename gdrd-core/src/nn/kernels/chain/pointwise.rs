//! Convolutions of one pixel: products of the weights with some pixels of an image at a time, which stay in the cache.

use super::super::buffer::Shared;
use super::super::product::{Product, panel};
use super::super::scratch;
use super::super::shape::ConvShape;
use super::super::simd::{self, Simd, SimdKernel};
use super::super::team::each;
use super::backward::Task;
use super::norm::{Moments, Source};

/// Values of one side of a product that should lie in the cache.
const CACHED: usize = 1 << 16;

/// Pixels taken at a time.
fn chunk(shape: &ConvShape) -> usize {
    (CACHED / shape.inputs.max(shape.outputs)).clamp(64, 512) / 32 * 32
}

pub(super) fn forward(shape: &ConvShape, source: &Source, weight: &[f32], map: &mut [f32], moments: &mut [Moments]) {
    let (map, len) = (Shared::new(map), shape.outputs * shape.out_plane());
    let moments = Parts::new(moments, shape.outputs);
    each(shape.batch, 1, |image| {
        // SAFETY: each image has values of its own.
        let (out, moments) = unsafe { (std::slice::from_raw_parts_mut(map.at(image * len), len), moments.of(image)) };
        simd::run(Forward { shape, source, weight, image, out, moments });
    });
}

/// Values of which each task has as many of its own.
#[derive(Clone, Copy)]
pub(super) struct Parts<T> {
    start: *mut T,
    len: usize,
}

// SAFETY: whoever takes parts in several threads takes different ones.
unsafe impl<T: Send> Send for Parts<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Parts<T> {}

impl<T> Parts<T> {
    /// `values` in parts of `len`.
    pub(super) fn new(values: &mut [T], len: usize) -> Self {
        Self { start: values.as_mut_ptr(), len }
    }

    /// Part `at`.
    ///
    /// # Safety
    /// There is such a part, and nobody else has it.
    pub(super) unsafe fn of<'a>(&self, at: usize) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at * self.len), self.len) }
    }
}

struct Forward<'a> {
    shape: &'a ConvShape,
    source: &'a Source<'a>,
    weight: &'a [f32],
    image: usize,
    out: &'a mut [f32],
    moments: &'a mut [Moments],
}

impl SimdKernel for Forward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { shape, source, weight, image, out, moments } = self;
        let (inputs, outputs, plane, width) = (shape.inputs, shape.outputs, shape.plane(), panel::<S>());
        let chunk = chunk(shape);
        let mut buffer = scratch::take((inputs + outputs) * chunk);
        for start in (0..plane).step_by(chunk) {
            let len = chunk.min(plane - start);
            let pitch = len.next_multiple_of(width);
            let (x, y) = buffer.split_at_mut(inputs * pitch);
            read(source, image, start, len, pitch, x);
            let product = Product {
                rows: outputs,
                panels: pitch / width,
                depth: inputs,
                a: weight.as_ptr(),
                a_stride: inputs,
                b: x.as_ptr(),
                b_panel: width,
                b_stride: pitch,
                c: y.as_mut_ptr(),
                c_stride: pitch,
                add: false,
            };
            // SAFETY: all of the three matrices lie in the slices.
            unsafe { product.run::<S, false>(simd) };
            for (channel, y) in y.chunks_exact(pitch).take(outputs).enumerate() {
                out[channel * plane + start..][..len].copy_from_slice(&y[..len]);
                moments[channel].add(&y[..len]);
            }
        }
    }
}

/// Pixels of all channels, in rows of `pitch` with zeros at their ends.
#[inline(always)]
fn read(source: &Source, image: usize, start: usize, len: usize, pitch: usize, to: &mut [f32]) {
    for (channel, to) in to.chunks_exact_mut(pitch).take(source.channels).enumerate() {
        source.write(image, channel, start, &mut to[..len]);
        to[len..].fill(0.0);
    }
}

/// The gradients of one image; that of the weight is added to what is there, `[o, c]` in rows that are whole panels.
pub(super) struct Backward<'a> {
    pub(super) task: &'a Task<'a>,
    pub(super) image: usize,
    pub(super) weight: &'a mut [f32],
}

/// The length of a row of the weight's gradient.
pub(super) fn row(inputs: usize) -> usize {
    inputs.next_multiple_of(2 * simd::lanes())
}

impl SimdKernel for Backward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { task, image, weight: d_weight } = self;
        let Task { shape, source, gradient, above, weight, .. } = task;
        let (inputs, outputs, plane, width) = (shape.inputs, shape.outputs, shape.plane(), panel::<S>());
        let (chunk, row) = (chunk(shape), inputs.next_multiple_of(width));
        let mut buffer = scratch::take((2 * inputs + row + outputs) * chunk);
        for start in (0..plane).step_by(chunk) {
            let len = chunk.min(plane - start);
            let pitch = len.next_multiple_of(width);
            let (x, rest) = buffer.split_at_mut(inputs * pitch);
            let (turned, rest) = rest.split_at_mut(row * pitch);
            let (dz, dx) = rest.split_at_mut(outputs * pitch);
            for (channel, dz) in dz.chunks_exact_mut(pitch).enumerate() {
                let above = &above[(image * outputs + channel) * plane + start..][..len];
                gradient.write(image, channel, start, above, &mut dz[..len]);
                dz[len..].fill(0.0);
            }
            read(source, image, start, len, pitch, x);
            // Channels side by side, pixel by pixel.
            if row > inputs {
                turned.fill(0.0);
            }
            for channel in (0..inputs).step_by(S::LANES) {
                for pixel in (0..pitch).step_by(S::LANES) {
                    // SAFETY: there are whole squares: channels come in multiples of 16, pixels of a panel.
                    unsafe {
                        let from = x.as_ptr().add(channel * pitch + pixel);
                        let to = turned.as_mut_ptr().add(pixel * row + channel);
                        simd.transpose(from, pitch, to, |column| column * row);
                    }
                }
            }
            let of_weight = Product {
                rows: outputs,
                panels: row / width,
                depth: len,
                a: dz.as_ptr(),
                a_stride: pitch,
                b: turned.as_ptr(),
                b_panel: width,
                b_stride: row,
                c: d_weight.as_mut_ptr(),
                c_stride: row,
                add: true,
            };
            // SAFETY: all of the three matrices lie in the slices.
            unsafe { of_weight.run::<S, false>(simd) };
            if !task.wants_input() {
                continue;
            }
            let of_input = Product {
                rows: inputs,
                panels: pitch / width,
                depth: outputs,
                a: weight.as_ptr(),
                a_stride: inputs,
                b: dz.as_ptr(),
                b_panel: width,
                b_stride: pitch,
                c: dx.as_mut_ptr(),
                c_stride: pitch,
                add: false,
            };
            // SAFETY: as above.
            unsafe { of_input.run::<S, true>(simd) };
            for (channel, dx) in dx.chunks_exact(pitch).take(inputs).enumerate() {
                task.receive(image, channel, start, &dx[..len]);
            }
        }
    }
}
