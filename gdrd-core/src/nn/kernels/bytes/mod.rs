//! Convolution in whole numbers of 8 bits, for maps whose channels lie side by side (see `pixels`): a quarter of the memory, and on
//! processors with VNNI four times the products of an instruction.
//!
//! A weight is `scale[output] * w`, `w` from -127 to 127, with the scale that its output's largest weight needs. A value of an image is
//! `scale * (u - zero)`, `u` from 0 to 255, with the scale that the image's largest value needs; `zero` is 0 where no value of
//! the image is negative, and 128 elsewhere. Sums of products are exact, so every unit makes the same of the same map, whatever the batch.

use super::buffer::Shared;
use super::epilogue::Epilogue;
use super::pixels::{filled_up, is_filled_up, pitch, windows};
use super::product::WIDE;
use super::scratch::{self, Values};
use super::shape::ConvShape;
use super::simd::{ByteKernel, ByteSimd, ByteUnit, Simd};
use super::team::each;

/// Rows of a task; whole blocks of every unit.
const ROWS: usize = 48;
/// Bytes of packed kernels of a task that fit the cache of a core, beside what it reads.
const KERNELS: usize = 1 << 17;
/// The most products in a sum: 255 * 127 times as much fits into 31 bits.
const DEPTH: usize = 1 << 16;

/// Whether such a convolution can be computed so. One of few channels, the first of a network, reads what a camera saw: it stays
/// float32.
pub(super) fn applies(shape: &ConvShape) -> bool {
    let whole_vectors = is_filled_up(shape.inputs) && is_filled_up(shape.outputs);
    shape.groups == 1 && whole_vectors && shape.taps() * shape.inputs <= DEPTH
}

/// Kernels as panels of outputs: within one, tap by tap, four channels by four, output by output, with an output's four side by side.
pub(super) struct ByteKernels {
    unit: ByteUnit,
    values: Values,
    /// Of each output, filled up to whole panels with zeros.
    scales: Vec<f32>,
    /// What is subtracted from the sums of an output where `zero` is 0, and where it is 128; filled up likewise.
    less: [Vec<i32>; 2],
}

impl ByteKernels {
    /// The kernels `weight [o, c, kh, kw]`, rounded.
    pub(super) fn pack(unit: ByteUnit, shape: &ConvShape, weight: &[f32]) -> Self {
        let (taps, width, len) = (shape.taps(), WIDE * unit.lanes(), panel_len(unit, shape));
        let mut values = Values::zeros((shape.outputs.div_ceil(width) * len).div_ceil(4));
        let (mut scales, mut sums) = (Vec::with_capacity(shape.outputs), Vec::with_capacity(shape.outputs));
        let all = bytes_of(&mut values);
        for (output, kernels) in weight.chunks_exact(shape.inputs * taps).enumerate() {
            let largest = kernels.iter().fold(0f32, |most, value| most.max(value.abs()));
            let (scale, factor) = scale_and_factor(largest, 127.0);
            let panel = &mut all[output / width * len..][..len];
            let mut sum = 0;
            for (at, value) in kernels.iter().enumerate() {
                let (channel, tap) = (at / taps, at % taps);
                let whole = (factor * value).round_ties_even() as i8;
                let row = tap * shape.inputs.div_ceil(4) + channel / 4;
                panel[(row * width + output % width) * 4 + channel % 4] = whole;
                sum += i32::from(whole);
            }
            scales.push(scale);
            sums.push(128 * sum);
        }
        let scales = filled_up(scales);
        sums.resize(scales.len(), 0);
        Self { unit, values, less: [vec![0; sums.len()], sums], scales }
    }

    /// The kernels as they were rounded, `[o, c, kh, kw]`.
    pub(super) fn unpack(&self, shape: &ConvShape) -> Vec<f32> {
        let (taps, width, len) = (shape.taps(), WIDE * self.unit.lanes(), panel_len(self.unit, shape));
        let mut weight = vec![0f32; shape.outputs * shape.inputs * taps];
        // SAFETY: as many bytes as the values have.
        let all = unsafe { std::slice::from_raw_parts(self.values.as_ptr().cast::<i8>(), 4 * self.values.len()) };
        for (output, kernels) in weight.chunks_exact_mut(shape.inputs * taps).enumerate() {
            let panel = &all[output / width * len..][..len];
            for (at, value) in kernels.iter_mut().enumerate() {
                let (channel, tap) = (at / taps, at % taps);
                let row = tap * shape.inputs.div_ceil(4) + channel / 4;
                let whole = panel[(row * width + output % width) * 4 + channel % 4];
                *value = self.scales[output] * f32::from(whole);
            }
        }
        weight
    }

    /// What multiplies them.
    pub(super) fn unit(&self) -> ByteUnit {
        self.unit
    }
}

/// Bytes of a panel.
fn panel_len(unit: ByteUnit, shape: &ConvShape) -> usize {
    shape.taps() * shape.inputs.div_ceil(4) * 4 * WIDE * unit.lanes()
}

/// The values as bytes.
fn bytes_of(values: &mut [f32]) -> &mut [i8] {
    // SAFETY: as many bytes as the values have, and every byte is a number.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), 4 * values.len()) }
}

/// What a whole number stands for where `largest` is `most`, and the opposite; zeros where there is nothing to tell apart.
#[inline(always)]
fn scale_and_factor(largest: f32, most: f32) -> (f32, f32) {
    let factor = most / largest;
    if factor.is_finite() { (largest / most, factor) } else { (0.0, 0.0) }
}

/// `epilogue(conv2d(x, kernels))` for maps with channels side by side; `shape` may have more images than that of the packing.
pub(super) fn forward(shape: &ConvShape, x: &[f32], kernels: &ByteKernels, epilogue: Epilogue<'_>, out: &mut [f32]) {
    let (unit, pitch) = (kernels.unit, pitch(shape.inputs));
    let image = shape.plane() * pitch;
    // A pixel of zeros for either meaning of zero, then the images; what their numbers stand for; where they are below zero.
    let mut bytes = scratch::take((2 * pitch + shape.batch * image).div_ceil(4));
    let (mut scales, mut signed) = (scratch::take(shape.batch), scratch::take(shape.batch));
    let all = bytes_of(&mut bytes);
    all[..pitch].fill(0);
    all[pitch..2 * pitch].fill(-128);
    {
        let (scales, signed) = (Shared::new(&mut scales), Shared::new(&mut signed));
        let to = Shared::new(&mut bytes);
        each(shape.batch, 1, |at| {
            // SAFETY: each task writes an image of its own, its scale and its sign.
            let (to, scale, signed) = unsafe { (to.at(0).cast::<u8>(), scales.at(at), signed.at(at)) };
            let to = to.wrapping_add(2 * pitch + at * image);
            unit.run(Rounding { from: &x[at * image..][..image], to, scale, signed });
        });
    }

    let (width, len) = (WIDE * unit.lanes(), panel_len(unit, shape));
    let panels = shape.outputs.div_ceil(width);
    let rows = shape.batch * shape.out_plane();
    let side = (KERNELS / len).clamp(1, panels);
    // Kernels that no cache holds are read once for many rows.
    let blocks = rows.div_ceil(if len > 2 * KERNELS { 2 * ROWS } else { ROWS });
    let height = rows.div_ceil(blocks).next_multiple_of(ROWS / 2).min(rows);
    let blocks = rows.div_ceil(height);
    let (target, bytes) = (Shared::new(out), Shared::new(&mut bytes));
    each(blocks * panels.div_ceil(side), 1, |at| {
        let (first, panel) = (at % blocks * height, at / blocks * side);
        unit.run(Gathered {
            // SAFETY: it is the start, and only read from here on.
            bytes: unsafe { bytes.at(0) }.cast::<u8>().cast_const(),
            shape: *shape,
            scales: &scales,
            signed: &signed,
            rows: first..(first + height).min(rows),
            panels: panel..(panel + side).min(panels),
            panel_len: len,
            kernels,
            // SAFETY: it is the start; each task writes pixels and channels of its own.
            to: unsafe { target.at(0) },
            epilogue,
        });
    });
}

/// An image's values as bytes.
struct Rounding<'a> {
    /// Whole vectors.
    from: &'a [f32],
    to: *mut u8,
    scale: *mut f32,
    /// 1 where a value is negative, else 0.
    signed: *mut f32,
}

impl ByteKernel for Rounding<'_> {
    #[inline(always)]
    fn run<S: ByteSimd>(self, simd: S) {
        let (floats, lanes) = (simd.floats(), <S::Floats as Simd>::LANES);
        let (mut least, mut most) = (floats.splat(0.0), floats.splat(0.0));
        // SAFETY: whole vectors, of an image that whoever made the kernel vouches for.
        unsafe {
            for at in (0..self.from.len()).step_by(lanes) {
                let values = floats.load(self.from.as_ptr().add(at));
                (least, most) = (floats.min(values, least), floats.max(values, most));
            }
            let mut ends = [0f32; 32];
            floats.store(ends.as_mut_ptr(), least);
            floats.store(ends.as_mut_ptr().add(16), most);
            let least = ends[..lanes].iter().fold(0f32, |least, value| least.min(*value));
            let most = ends[16..16 + lanes].iter().fold(0f32, |most, value| most.max(*value));
            let signed = least < 0.0;
            let (scale, factor) =
                if signed { scale_and_factor(most.max(-least), 127.0) } else { scale_and_factor(most, 255.0) };
            for at in (0..self.from.len()).step_by(lanes) {
                simd.round(self.from.as_ptr().add(at), factor, if signed { 128 } else { 0 }, self.to.add(at));
            }
            *self.scale = scale;
            *self.signed = f32::from(u8::from(signed));
        }
    }
}

/// Some rows, which are pixels, of some panels of outputs.
struct Gathered<'a> {
    /// Two pixels of zeros, then the images.
    bytes: *const u8,
    shape: ConvShape,
    scales: &'a [f32],
    signed: &'a [f32],
    rows: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
    panel_len: usize,
    kernels: &'a ByteKernels,
    /// The first pixel of the output.
    to: *mut f32,
    epilogue: Epilogue<'a>,
}

impl ByteKernel for Gathered<'_> {
    #[inline(always)]
    fn run<S: ByteSimd>(self, simd: S) {
        let most = <S::Floats as Simd>::ROWS;
        for panel_at in self.panels.clone() {
            let mut row = self.rows.start;
            while row < self.rows.end {
                let left = self.rows.end - row;
                // SAFETY: whoever made the kernel vouches for the matrices.
                row += unsafe {
                    if most == 8 && left >= 8 {
                        self.block::<S, 8>(simd, row, panel_at)
                    } else if left >= 4 {
                        self.block::<S, 4>(simd, row, panel_at)
                    } else if left >= 2 {
                        self.block::<S, 2>(simd, row, panel_at)
                    } else {
                        self.block::<S, 1>(simd, row, panel_at)
                    }
                };
            }
        }
    }
}

impl Gathered<'_> {
    /// `ROWS` rows of one panel; returns `ROWS`.
    #[inline(always)]
    unsafe fn block<S: ByteSimd, const ROWS: usize>(&self, simd: S, row: usize, panel_at: usize) -> usize {
        let ConvShape { height, width, inputs, kernel_h, kernel_w, .. } = self.shape;
        let (lanes, floats) = (<S::Floats as Simd>::LANES, simd.floats());
        let (from, to) = (pitch(inputs), pitch(self.shape.outputs));
        let windows = windows::<ROWS>(&self.shape, from, row);
        let images = self.bytes.wrapping_add(2 * from);
        // SAFETY: the caller's promise covers all addresses of the block.
        unsafe {
            let mut b = self.kernels.values.as_ptr().cast::<i8>().add(panel_at * self.panel_len);
            let mut sums = [[simd.none(); WIDE]; ROWS];
            for tap in 0..kernel_h * kernel_w {
                let (ky, kx) = (tap / kernel_w, tap % kernel_w);
                let step = (ky * width + kx) * from;
                let mut a = [self.bytes; ROWS];
                for i in 0..ROWS {
                    let window = &windows[i];
                    if window.line.wrapping_add(ky) < height && window.column.wrapping_add(kx) < width {
                        a[i] = images.wrapping_add(window.at.wrapping_add(step));
                    } else if self.signed[window.image] > 0.0 {
                        a[i] = self.bytes.add(from);
                    }
                }
                for k in 0..inputs.div_ceil(4) {
                    let right = [simd.right(b), simd.right(b.add(4 * lanes))];
                    for i in 0..ROWS {
                        let left = simd.left(a[i].add(4 * k));
                        for j in 0..WIDE {
                            sums[i][j] = simd.dot(sums[i][j], left, right[j]);
                        }
                    }
                    b = b.add(4 * lanes * WIDE);
                }
            }
            // First as they are, which leaves the sums in registers until here.
            let first = panel_at * WIDE * lanes;
            let wide = first + lanes < to;
            let out = self.to.add(row * to + first);
            for i in 0..ROWS {
                simd.store(out.add(i * to), sums[i][0]);
                if wide {
                    simd.store(out.add(i * to + lanes), sums[i][1]);
                }
            }
            for j in 0..if wide { WIDE } else { 1 } {
                let channel = first + j * lanes;
                let scales = floats.load(self.kernels.scales.as_ptr().add(channel));
                for i in 0..ROWS {
                    let image = windows[i].image;
                    let less = self.kernels.less[usize::from(self.signed[image] > 0.0)].as_ptr().add(channel);
                    let scale = floats.mul(floats.splat(self.scales[image]), scales);
                    let at = (row + i) * to + channel;
                    let value = floats.mul(scale, simd.difference(self.to.add(at), less));
                    floats.store(self.to.add(at), self.epilogue.of(floats, value, at, channel));
                }
            }
        }
        ROWS
    }
}

#[cfg(test)]
mod tests;
