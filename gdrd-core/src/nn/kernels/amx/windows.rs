//! Small batches: the rows of a product are the pixels of the target, image by image, and their windows are copied.

use std::arch::x86_64::*;

use rayon::prelude::*;

use super::super::scratch;
use super::maps::{Places, Target};
use super::split::Maps;
use super::taps::Taps;
use super::tile::{BLOCK, DEPTH, Product, Run, STEP, TILE};
use super::weights::Layout;

/// Blocks of rows, and panels of columns, of a task.
const SIDE: usize = 4;

/// The convolution of `maps`, whose kernels are `packed`.
pub(super) fn convolve(taps: &Taps, maps: Maps<'_>, layout: &Layout, packed: &[f32], target: Target<'_>) {
    let mut cells = scratch::take(taps.batch * taps.source_plane * layout.blocks * DEPTH);
    maps.to_pixels(&mut cells);
    let task = Task { taps, layout, cells: &cells, packed, target };
    let (down, across) = ((taps.batch * taps.plane).div_ceil(SIDE * BLOCK), layout.panels.div_ceil(SIDE));
    (0..down * across).into_par_iter().for_each(|at| task.run(at % down * SIDE * BLOCK, at / down * SIDE));
}

struct Task<'a> {
    taps: &'a Taps,
    layout: &'a Layout,
    cells: &'a [f32],
    packed: &'a [f32],
    target: Target<'a>,
}

impl Task<'_> {
    /// The rows from `row` on, and the panels from `panel` on.
    fn run(&self, row: usize, panel: usize) {
        let Self { taps, layout, .. } = *self;
        let rows = row..(taps.batch * taps.plane).min(row + SIDE * BLOCK);
        let rows: Vec<_> = rows.map(|row| (row / taps.plane, row % taps.plane)).collect();
        let (pairs, panels) = (rows.len().div_ceil(BLOCK), SIDE.min(layout.panels - panel));
        let (width, window) = (panels * BLOCK, layout.taps * layout.chunk * STEP);
        let mut left = scratch::take(pairs * window / 4);
        let mut sums = scratch::take(pairs * BLOCK * width);
        sums.fill(0.0);
        let (left, sums) = (left.as_mut_ptr().cast::<u8>(), sums.as_mut_ptr());
        let mut runs = Vec::with_capacity(layout.taps);
        for (block, count) in layout.chunks() {
            for (pair, rows) in rows.chunks(BLOCK).enumerate() {
                // SAFETY: `left` has a window for each pair.
                unsafe { self.copy(rows, (block, count), left.add(pair * window)) };
            }
            for at in 0..panels {
                let kernels = self.packed[layout.at((block, count), panel + at) / 4..].as_ptr().cast::<u8>();
                for (pair, rows) in rows.chunks(BLOCK).enumerate() {
                    runs.clear();
                    for tap in 0..taps.count {
                        if rows.iter().any(|(_, pixel)| taps.source(*pixel, tap).is_some()) {
                            // SAFETY: the window and the panel have the steps of every tap.
                            let (a, b) = unsafe {
                                let first = left.add(pair * window + tap * count * STEP);
                                (
                                    [0, 1, 2, 3].map(|tile| first.add(tile * TILE).cast_const()),
                                    kernels.add(tap * count * STEP),
                                )
                            };
                            runs.push(Run { a, b, steps: count });
                        }
                    }
                    // SAFETY: the block lies within `sums`; the unit is available, and the factors have the steps of the runs.
                    unsafe {
                        let c = [0, 16].map(|row| sums.add((pair * BLOCK + row) * width + at * BLOCK));
                        Product { c, c_row: 4 * width, a_step: STEP, runs: &runs }.run();
                    }
                }
            }
        }
        for (at, rows) in rows.chunks(16).enumerate() {
            let image = layout.columns * taps.plane;
            let places = Places::new(rows.iter().map(|(number, pixel)| number * image + pixel));
            for side in (0..width).step_by(16) {
                // SAFETY: these rows of these columns belong to this task.
                unsafe { self.target.write(sums.add(at * 16 * width + side), width, panel * BLOCK + side, &places) };
            }
        }
    }

    /// Copies the windows of at most 32 rows for some blocks of channels; taps that no row has are left out.
    ///
    /// # Safety
    /// `to` has room for the steps of all taps.
    unsafe fn copy(&self, rows: &[(usize, usize)], (block, count): (usize, usize), to: *mut u8) {
        let cells = self.cells.as_ptr().cast::<u8>();
        for tap in 0..self.taps.count {
            let source = |row: &(usize, usize)| {
                Some(row.0 * self.taps.source_plane + self.taps.source(row.1, tap)?)
            };
            if rows.iter().all(|row| source(row).is_none()) {
                continue;
            }
            for row in 0..BLOCK {
                let pixel = rows.get(row).and_then(source);
                // SAFETY: the caller's promise, and `cells` has a cell for every block of every pixel; the vectors are available
                // where the unit is.
                unsafe {
                    let to = to.add(tap * count * STEP + row / 16 * 2 * TILE + row % 16 * 64);
                    match pixel {
                        Some(pixel) => copy(cells.add((pixel * self.layout.blocks + block) * 4 * DEPTH), to, count),
                        None => clear(to, count),
                    }
                }
            }
        }
    }
}

/// One row of `count` steps, its upper and its lower parts.
///
/// # Safety
/// There are `count` cells, and there is room for the steps.
#[target_feature(enable = "avx512f")]
unsafe fn copy(from: *const u8, to: *mut u8, count: usize) {
    for at in 0..count {
        // SAFETY: the caller's promise.
        unsafe {
            let upper = _mm512_loadu_si512(from.add(at * 4 * DEPTH).cast());
            let lower = _mm512_loadu_si512(from.add(at * 4 * DEPTH + 2 * DEPTH).cast());
            _mm512_storeu_si512(to.add(at * STEP).cast(), upper);
            _mm512_storeu_si512(to.add(at * STEP + TILE).cast(), lower);
        }
    }
}

/// Zeros in the place of a row.
///
/// # Safety
/// There is room for the steps.
#[target_feature(enable = "avx512f")]
unsafe fn clear(to: *mut u8, count: usize) {
    for at in 0..count {
        // SAFETY: the caller's promise.
        unsafe {
            _mm512_storeu_si512(to.add(at * STEP).cast(), _mm512_setzero_si512());
            _mm512_storeu_si512(to.add(at * STEP + TILE).cast(), _mm512_setzero_si512());
        }
    }
}
