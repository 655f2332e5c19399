//! The gradient of a convolution's weight: for each tap, the product of the shifted input and the output's gradient over all pixels
//! of the batch.
//!
//! The pixels of the batch stand in one line, with zeros between rows and between images, so that a tap is a shift of the line.
//! With a stride there is a line for each remainder of the input's rows and columns.

use std::arch::x86_64::*;

use rayon::prelude::*;

use super::super::buffer::{Filling, Shared};
use super::super::scratch;
use super::super::shape::ConvShape;
use super::tile::{BLOCK, DEPTH, Product, Run, STEP, TILE};
use super::vector::{first, split, transpose};

/// Steps that are taken at a time: what they take of both factors stays in the second-level cache.
const CHUNK: usize = 36;

/// One of the two spatial directions.
#[derive(Clone, Copy)]
struct Side {
    len: usize,
    out: usize,
    stride: usize,
    padding: usize,
    /// Positions that taps reach before the first output, and behind the last.
    before: usize,
    after: usize,
}

impl Side {
    fn new(shape: &ConvShape, len: usize, out: usize, taps: usize) -> Self {
        let mut side = Self { len, out, stride: shape.stride, padding: shape.padding, before: 0, after: 0 };
        let reach = (0..taps).map(|tap| side.tap(tap).1);
        let (low, high) = reach.fold((0, 0), |(low, high), at| (at.min(low), at.max(high)));
        (side.before, side.after) = (low.unsigned_abs(), high.unsigned_abs());
        side
    }

    /// The line that a tap reads, and its shift there.
    fn tap(&self, tap: usize) -> (usize, isize) {
        let (at, stride) = (tap as isize - self.padding as isize, self.stride as isize);
        (at.rem_euclid(stride) as usize, at.div_euclid(stride))
    }

    /// Positions of a row with the zeros that follow it.
    fn pitch(&self) -> usize {
        self.out + self.before.max(self.after)
    }

    /// The input position at a place of line `line`, if there is one.
    fn source(&self, place: usize, line: usize) -> Option<usize> {
        let end = self.out + if self.before == 0 { self.after } else { 0 };
        let at = place * self.stride + line;
        (place < end && at < self.len).then_some(at)
    }

    /// Whether places behind a row's last output can be zero, where they stand before the first of the next row.
    fn fits(&self) -> bool {
        self.before == 0 || self.after == 0 || self.out * self.stride >= self.len
    }
}

/// The line of pixels.
struct Line {
    rows: Side,
    columns: Side,
    batch: usize,
    /// Positions of an image.
    frame: usize,
    /// Steps of the sum.
    steps: usize,
    /// Positions before the first image.
    front: usize,
    /// Positions in all; a multiple of 32.
    len: usize,
}

impl Line {
    fn new(shape: &ConvShape) -> Self {
        let rows = Side::new(shape, shape.height, shape.out_height(), shape.kernel_h);
        let columns = Side::new(shape, shape.width, shape.out_width(), shape.kernel_w);
        let frame = rows.pitch() * columns.pitch();
        let steps = (shape.batch * frame).div_ceil(DEPTH);
        let margin = |rows: usize, column: usize| rows * columns.pitch() + column;
        let (front, back) = (margin(rows.before, columns.before), margin(rows.after, columns.after));
        let len = (front + steps * DEPTH + back).next_multiple_of(DEPTH);
        Self { rows, columns, batch: shape.batch, frame, steps, front, len }
    }

    /// Lines of the input.
    fn lines(&self) -> usize {
        self.rows.stride * self.columns.stride
    }

    /// The line of a tap, and its first position there.
    fn tap(&self, ky: usize, kx: usize) -> (usize, usize) {
        let ((row_line, down), (column_line, right)) = (self.rows.tap(ky), self.columns.tap(kx));
        let shift = self.front as isize + down * self.columns.pitch() as isize + right;
        (row_line * self.columns.stride + column_line, shift as usize)
    }

    /// For `len` positions from `front` before the first image on, `pixel(row, column)` of maps whose images are `image` values
    /// apart; negative where there is none.
    fn offsets(
        &self,
        (front, len): (usize, usize),
        image: usize,
        pixel: impl Fn(usize, usize) -> Option<usize>,
    ) -> Vec<i32> {
        let mut offsets = vec![-1; len];
        let pitch = self.columns.pitch();
        let frame: Vec<_> = (0..self.frame).map(|at| pixel(at / pitch, at % pitch)).collect();
        for (number, to) in offsets[front..].chunks_mut(self.frame).take(self.batch).enumerate() {
            for (to, pixel) in to.iter_mut().zip(&frame) {
                *to = pixel.map_or(-1, |pixel| (number * image + pixel) as i32);
            }
        }
        offsets
    }
}

/// Whether [`weight_gradient`] can take the shape.
pub(super) fn applies(shape: &ConvShape) -> bool {
    let line = Line::new(shape);
    line.rows.fits() && line.columns.fits()
}

/// The gradient of the weight, `[o, c, kh, kw]`.
pub(in super::super) fn weight_gradient(shape: &ConvShape, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let line = Line::new(shape);
    let (inputs, outputs, taps) = (shape.inputs, shape.outputs, shape.taps());
    let (blocks, panels) = (inputs.div_ceil(BLOCK), outputs.div_ceil(BLOCK));

    // Bytes from channel to channel: an odd number of cache lines, so that channels do not meet in the cache.
    let row = (line.len / DEPTH | 1) * 64;
    let mut streams = scratch::take(line.lines() * blocks * BLOCK * 2 * row / 4);
    let part = blocks * BLOCK * row;
    let to = Shared::new(&mut streams);
    for number in 0..line.lines() {
        let (down, right) = (number / line.columns.stride, number % line.columns.stride);
        let offsets = line.offsets((line.front, line.len), inputs * shape.plane(), |y, x| {
            Some(line.rows.source(y, down)? * shape.width + line.columns.source(x, right)?)
        });
        (0..inputs).into_par_iter().for_each(|channel| {
            // SAFETY: each channel has places of its own.
            unsafe { split_line(&x[channel * shape.plane()..], &offsets, to.at((number * 2 * part + channel * row) / 4), part) };
        });
    }

    let mut right = scratch::take(panels * line.steps * STEP / 4);
    let to = Shared::new(&mut right);
    let offsets = line.offsets((0, line.steps * DEPTH), outputs * shape.out_plane(), |y, x| {
        (y < line.rows.out && x < line.columns.out).then_some(y * line.columns.out + x)
    });
    (0..panels * line.steps).into_par_iter().with_min_len(8).for_each(|at| {
        let (panel, step) = (at / line.steps, at % line.steps);
        let maps = &grad[panel * BLOCK * shape.out_plane()..];
        let count = BLOCK.min(outputs - panel * BLOCK);
        // SAFETY: each step of each panel has places of its own.
        unsafe { split_step(maps, shape.out_plane(), count, &offsets[step * DEPTH..], to.at(at * STEP / 4).cast()) };
    });

    let mut out = Filling::new(outputs * inputs * taps);
    let target = out.shared();
    // Few blocks are shared out tap by tap.
    let wide = 2.min(panels);
    let groups = panels.div_ceil(wide);
    let share = if blocks * groups >= 4 { taps } else { 1 };
    let shares = taps / share;
    (0..blocks * groups * shares).into_par_iter().for_each(|at| {
        let (block, at) = (at / (groups * shares), at % (groups * shares));
        let (panel, tap) = (at / shares * wide, at % shares * share);
        let count = wide.min(panels - panel);
        let width = count * BLOCK;
        let mut sums = scratch::take(share * BLOCK * width);
        let sums = Shared::new(&mut sums);
        for step in (0..line.steps).step_by(CHUNK) {
            let steps = CHUNK.min(line.steps - step);
            for nth in 0..share {
                let (number, start) = line.tap((tap + nth) / shape.kernel_w, (tap + nth) % shape.kernel_w);
                let first = number * 2 * part + block * BLOCK * row + 2 * (start + step * DEPTH);
                let left = streams.as_ptr().cast::<u8>();
                for at in 0..count {
                    let from = right[((panel + at) * line.steps + step) * STEP / 4..].as_ptr().cast();
                    // SAFETY: the line reaches as far as the taps do; the block lies within `sums`.
                    unsafe {
                        let a = [0, part, 16 * row, 16 * row + part].map(|more| left.add(first + more));
                        let c = [0, 16].map(|row| sums.at((nth * BLOCK + row) * width + at * BLOCK));
                        let runs = &[Run { from, steps }];
                        let add = usize::from(step > 0);
                        Product { a, a_row: row, a_step: 64, c, c_row: 4 * width, add, runs }.run();
                    }
                }
            }
        }
        for nth in 0..share {
            for side in (0..width).step_by(16) {
                let output = panel * BLOCK + side;
                for half in [0, 16] {
                    let channel = block * BLOCK + half;
                    if output >= outputs || channel >= inputs {
                        continue;
                    }
                    // SAFETY: these channels of these outputs belong to this task.
                    unsafe {
                        let from = sums.at((nth * BLOCK + half) * width + side);
                        let to = target.at((output * inputs + channel) * taps + tap + nth);
                        let counts = (16.min(inputs - channel), 16.min(outputs - output));
                        write(from, width, counts, to, (taps, inputs * taps));
                    }
                }
            }
        }
    });
    // SAFETY: the tasks write every tap of every block.
    unsafe { out.finish() }
}

/// The values at `offsets` from the first of `maps`: upper parts to `to`, lower parts `part` bytes behind.
///
/// # Safety
/// The offsets lie within `maps`, and there is room for as many values, a multiple of 32.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn split_line(maps: &[f32], offsets: &[i32], to: *mut f32, part: usize) {
    for (at, offsets) in offsets.chunks_exact(DEPTH).enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            let [upper, lower] = split(gather(maps, offsets));
            let to = to.cast::<u8>().add(at * 64);
            _mm512_storeu_si512(to.cast(), upper);
            _mm512_storeu_si512(to.add(part).cast(), lower);
        }
    }
}

/// 32 values, zero where the offset is negative.
///
/// # Safety
/// There are 32 offsets, which lie within `maps`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn gather(maps: &[f32], offsets: &[i32]) -> [__m512; 2] {
    [0, 16].map(|start| {
        // SAFETY: the caller's promise.
        unsafe {
            let offsets = _mm512_loadu_si512(offsets.as_ptr().add(start).cast());
            let exists = _mm512_cmpge_epi32_mask(offsets, _mm512_setzero_si512());
            _mm512_mask_i32gather_ps::<4>(_mm512_setzero_ps(), exists, offsets, maps.as_ptr())
        }
    })
}

/// One step of the right factor: pairs of positions of `count` maps, at most 32, side by side.
///
/// # Safety
/// The offsets, at least 32, lie within the maps, and there is room for a step.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn split_step(maps: &[f32], plane: usize, count: usize, offsets: &[i32], to: *mut u8) {
    for half in 0..2 {
        let mut parts = [[_mm512_setzero_ps(); 16]; 2];
        for lane in 0..16.min(count.saturating_sub(16 * half)) {
            // SAFETY: the caller's promise.
            let values = unsafe { gather(&maps[(16 * half + lane) * plane..], offsets) };
            let [upper, lower] = split(values);
            parts[0][lane] = _mm512_castsi512_ps(upper);
            parts[1][lane] = _mm512_castsi512_ps(lower);
        }
        for (part, lanes) in parts.into_iter().enumerate() {
            for (pair, words) in transpose(lanes).into_iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { _mm512_storeu_ps(to.add((2 * half + part) * TILE + pair * 64).cast(), words) };
            }
        }
    }
}

/// A square of at most 16 channels and 16 outputs: values of a channel are `step` apart, those of an output `jump`.
///
/// # Safety
/// There is a row of 16 values for each channel, and room for all values.
#[target_feature(enable = "avx512f")]
unsafe fn write(
    from: *const f32,
    row: usize,
    (channels, outputs): (usize, usize),
    to: *mut f32,
    (step, jump): (usize, usize),
) {
    let mut values = [_mm512_setzero_ps(); 16];
    for (at, values) in values.iter_mut().enumerate().take(channels) {
        // SAFETY: the caller's promise.
        *values = unsafe { _mm512_loadu_ps(from.add(at * row)) };
    }
    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let places = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(step as i32));
    for (output, value) in transpose(values).into_iter().enumerate().take(outputs) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_mask_i32scatter_ps::<4>(to.add(output * jump), first(channels), places, value) };
    }
}
