//! The left factor of a convolution: a row of channels for each pixel, and the windows that output pixels have of them.

use std::arch::x86_64::*;

use rayon::prelude::*;

use super::super::buffer::Shared;
use super::super::shape::ConvShape;
use super::tile::{DEPTH, STEP, TILE};
use super::vector::{first, split, transpose};

/// Bytes of a block of 32 channels of one pixel: upper parts, then lower parts.
const CELL: usize = 4 * DEPTH;

/// Float32 values that take the room of the rows of `pixels` pixels.
pub(super) fn len(pixels: usize, channels: usize) -> usize {
    pixels * channels.div_ceil(DEPTH) * DEPTH
}

/// Splits maps `x [batch, channels, plane]` into `to [batch, plane, blocks, part, 32]`.
pub(super) fn split_maps(x: &[f32], (batch, channels, plane): (usize, usize, usize), to: &mut [f32]) {
    let blocks = channels.div_ceil(DEPTH);
    assert!(x.len() == batch * channels * plane && to.len() >= len(batch * plane, channels));
    let to = Shared::new(to);
    (0..batch * blocks).into_par_iter().with_min_len((4096 / (DEPTH * plane)).max(1)).for_each(|at| {
        let (image, block) = (at / blocks, at % blocks);
        let count = DEPTH.min(channels - block * DEPTH);
        let maps = &x[(image * channels + block * DEPTH) * plane..][..count * plane];
        // SAFETY: each block of each image has places of its own; the vectors are available where the unit is.
        unsafe { split_block(maps, plane, to.at((image * plane * blocks + block) * DEPTH).cast(), blocks * CELL) };
    });
}

/// The maps of at most 32 channels, a cell every `step` bytes.
///
/// # Safety
/// There is room for `plane` cells.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn split_block(maps: &[f32], plane: usize, to: *mut u8, step: usize) {
    let channels = maps.len() / plane;
    let zero = _mm512_setzero_ps();
    if plane == 1 {
        let values = [0, 16].map(|start| {
            let from = maps.as_ptr().wrapping_add(start);
            // SAFETY: the mask leaves out channels that do not exist.
            unsafe { _mm512_maskz_loadu_ps(first(channels.saturating_sub(start)), from) }
        });
        // SAFETY: the caller's promise.
        unsafe { store(split(values), to) };
        return;
    }
    for start in (0..plane).step_by(16) {
        let count = 16.min(plane - start);
        let halves = [0, 16].map(|half| {
            let mut rows = [zero; 16];
            for (lane, row) in rows.iter_mut().enumerate().take(channels.saturating_sub(half)) {
                let from = &maps[(half + lane) * plane + start..];
                // SAFETY: the mask leaves out pixels that do not exist.
                *row = unsafe { _mm512_maskz_loadu_ps(first(count), from.as_ptr()) };
            }
            if channels > half { transpose(rows) } else { rows }
        });
        for (pixel, (a, b)) in halves[0].into_iter().zip(halves[1]).enumerate().take(count) {
            // SAFETY: the caller's promise.
            unsafe { store(split([a, b]), to.add((start + pixel) * step)) };
        }
    }
}

/// # Safety
/// There is room for a cell.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store([upper, lower]: [__m512i; 2], to: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        _mm512_storeu_si512(to.cast(), upper);
        _mm512_storeu_si512(to.add(CELL / 2).cast(), lower);
    }
}

/// Which pixel of the source each pixel of the target takes for each tap. The rows of the whole batch are ordered by classes,
/// whose pixels take the same taps; within a class by images.
pub(super) struct Windows {
    pub(super) batch: usize,
    pub(super) taps: usize,
    /// Pixels of a map of the source, and of the target.
    pub(super) source_plane: usize,
    pub(super) plane: usize,
    /// Pixels of the target, class by class.
    pub(super) targets: Vec<usize>,
    /// For each of them, and each tap, the pixel of the source; negative where there is none.
    sources: Vec<i32>,
    /// Where the classes end in `targets`.
    ends: Vec<usize>,
}

impl Windows {
    /// From the input to the output.
    pub(super) fn forward(shape: &ConvShape) -> Self {
        let target = (shape.out_height(), shape.out_width());
        Self::new(shape, target, (shape.height, shape.width), 1, |at, tap| {
            (at * shape.stride + tap).checked_sub(shape.padding)
        })
    }

    /// From the output's gradient to the input's.
    pub(super) fn backward(shape: &ConvShape) -> Self {
        let source = (shape.out_height(), shape.out_width());
        Self::new(shape, (shape.height, shape.width), source, shape.stride, |at, tap| {
            let from = (at + shape.padding).checked_sub(tap)?;
            from.is_multiple_of(shape.stride).then_some(from / shape.stride)
        })
    }

    /// `source(at, tap)` is the row or column of the source, which may lie outside; it depends on `at` modulo `classes`.
    fn new(
        shape: &ConvShape,
        (height, width): (usize, usize),
        (source_height, source_width): (usize, usize),
        classes: usize,
        source: impl Fn(usize, usize) -> Option<usize>,
    ) -> Self {
        let (mut targets, mut sources, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for class in 0..classes * classes {
            for y in (class / classes..height).step_by(classes) {
                for x in (class % classes..width).step_by(classes) {
                    targets.push(y * width + x);
                    for tap in 0..shape.taps() {
                        let row = source(y, tap / shape.kernel_w).filter(|row| *row < source_height);
                        let column = source(x, tap % shape.kernel_w).filter(|column| *column < source_width);
                        let pixel = row.zip(column).map_or(-1, |(row, column)| (row * source_width + column) as i32);
                        sources.push(pixel);
                    }
                }
            }
            ends.push(targets.len());
        }
        let (plane, source_plane) = (height * width, source_height * source_width);
        Self { batch: shape.batch, taps: shape.taps(), source_plane, plane, targets, sources, ends }
    }

    /// Rows of the whole batch.
    pub(super) fn rows(&self) -> usize {
        self.batch * self.plane
    }

    /// The image of a row, and its place in `targets`.
    pub(super) fn row(&self, row: usize) -> (usize, usize) {
        let (mut start, mut first) = (0, 0);
        for end in &self.ends {
            let (len, at) = (end - start, row - first);
            if at < len * self.batch {
                return (at / len, start + at % len);
            }
            first += len * self.batch;
            start = *end;
        }
        unreachable!("row {row} of {}", self.rows())
    }

    /// Copies the windows of at most 32 rows for blocks `block..block + count` of channels from `cells`, what
    /// [`split_maps`] made, and leaves the taps in `taps` that any of the rows has; `to` has a step for each of them and each block.
    ///
    /// # Safety
    /// `cells` has all rows of the batch with `blocks` blocks, and `to` has room for all taps.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn copy(
        &self,
        rows: &[(usize, usize)],
        (cells, blocks): (*const u8, usize),
        (block, count): (usize, usize),
        to: *mut u8,
        taps: &mut Vec<usize>,
    ) {
        taps.clear();
        for tap in 0..self.taps {
            if rows.iter().all(|(_, at)| self.sources[at * self.taps + tap] < 0) {
                continue;
            }
            let step = taps.len() * count;
            taps.push(tap);
            for row in 0..DEPTH {
                let source = rows.get(row).map_or(-1, |(_, at)| self.sources[at * self.taps + tap]);
                // SAFETY: the caller's promise.
                unsafe {
                    let to = to.add(step * STEP + row / 16 * 2 * TILE + row % 16 * 64);
                    if source < 0 {
                        let zero = _mm512_setzero_si512();
                        for at in 0..count {
                            _mm512_storeu_si512(to.add(at * STEP).cast(), zero);
                            _mm512_storeu_si512(to.add(at * STEP + TILE).cast(), zero);
                        }
                        continue;
                    }
                    let pixel = rows[row].0 * self.source_plane + source as usize;
                    let from = cells.add((pixel * blocks + block) * CELL);
                    for at in 0..count {
                        let upper = _mm512_loadu_si512(from.add(at * CELL).cast());
                        let lower = _mm512_loadu_si512(from.add(at * CELL + CELL / 2).cast());
                        _mm512_storeu_si512(to.add(at * STEP).cast(), upper);
                        _mm512_storeu_si512(to.add(at * STEP + TILE).cast(), lower);
                    }
                }
            }
        }
    }
}
