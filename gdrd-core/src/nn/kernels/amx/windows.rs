//! Small batches: the rows of a product are the pixels of the target, image by image, and their windows are copied.

use std::arch::x86_64::*;

use rayon::prelude::*;

use super::super::scratch;
use super::Convolution;
use super::maps::Places;
use super::split::Maps;
use super::tile::{BLOCK, Block, DEPTH, Run, STEP, TILE, multiply};

/// Blocks of rows, and panels of columns, of a task.
const SIDE: usize = 4;

/// The convolution of `maps`.
pub(super) fn convolve(convolution: &Convolution<'_>, maps: Maps<'_>) {
    let Convolution { taps, layout, .. } = *convolution;
    let mut cells = scratch::take(taps.batch * taps.source_plane * layout.blocks * DEPTH);
    maps.to_pixels(&mut cells);
    let task = Task { convolution, cells: &cells };
    let (down, across) = ((taps.batch * taps.plane).div_ceil(SIDE * BLOCK), layout.panels.div_ceil(SIDE));
    (0..down * across).into_par_iter().for_each(|at| task.run(at % down * SIDE * BLOCK, at / down * SIDE));
}

struct Task<'a> {
    convolution: &'a Convolution<'a>,
    cells: &'a [f32],
}

impl Task<'_> {
    /// The rows from `row` on, and the panels from `panel` on.
    fn run(&self, row: usize, panel: usize) {
        let Convolution { taps, layout, packed, target } = *self.convolution;
        let rows = row..(taps.batch * taps.plane).min(row + SIDE * BLOCK);
        let rows: Vec<_> = rows.map(|row| (row / taps.plane, row % taps.plane)).collect();
        let (pairs, panels) = (rows.len().div_ceil(BLOCK), SIDE.min(layout.panels - panel));
        let (width, window) = (panels * BLOCK, layout.taps * layout.chunk * STEP);
        let mut left = scratch::take(pairs * window / 4);
        let mut sums = scratch::take(pairs * BLOCK * width);
        let (left, sums) = (left.as_mut_ptr().cast::<u8>(), sums.as_mut_ptr());
        let mut runs = vec![Vec::with_capacity(layout.taps); pairs];
        for chunk in layout.chunks() {
            for (pair, (rows, runs)) in rows.chunks(BLOCK).zip(&mut runs).enumerate() {
                // SAFETY: `left` has a window for each pair; the vectors are available where the unit is.
                unsafe { self.copy(rows, chunk, left.add(pair * window), runs) };
            }
            let mut products = Vec::with_capacity(pairs);
            for at in 0..panels {
                let kernels = packed[layout.at(chunk, panel + at) / 4..].as_ptr().cast();
                for (pair, runs) in runs.iter().enumerate() {
                    // SAFETY: the block lies within `sums`.
                    let c = unsafe { sums.add(pair * BLOCK * width + at * BLOCK) };
                    products.push(Block::new((c, width), STEP, kernels, runs, chunk.0 > 0));
                }
                // SAFETY: the unit is available, and the factors have the steps of the runs.
                unsafe { multiply(&mut products) };
            }
        }
        for (at, rows) in rows.chunks(16).enumerate() {
            let image = layout.columns * taps.plane;
            let places = Places::new(rows.iter().map(|(number, pixel)| number * image + pixel));
            for side in (0..width).step_by(16) {
                // SAFETY: these rows of these columns belong to this task.
                unsafe { target.write(sums.add(at * 16 * width + side), width, panel * BLOCK + side, &places) };
            }
        }
    }

    /// Copies the windows of at most 32 rows for some blocks of channels, and says where they are; taps that no row has are left
    /// out.
    ///
    /// # Safety
    /// `to` has room for the steps of all taps.
    #[target_feature(enable = "avx512f")]
    unsafe fn copy(&self, rows: &[(usize, usize)], (block, count): (usize, usize), to: *mut u8, runs: &mut Vec<Run>) {
        let Convolution { taps, layout, .. } = *self.convolution;
        let cells = self.cells.as_ptr().cast::<u8>();
        let mut pixels = [None; BLOCK];
        runs.clear();
        for tap in 0..taps.count {
            for (pixel, (image, at)) in pixels.iter_mut().zip(rows) {
                *pixel = taps.source(*at, tap).map(|source| image * taps.source_plane + source);
            }
            if pixels.iter().all(Option::is_none) {
                continue;
            }
            // SAFETY: the caller's promise, and `cells` has a cell for every block of every pixel.
            unsafe {
                let to = to.add(tap * count * STEP);
                let a = [0, 1, 2, 3].map(|tile| to.add(tile * TILE).cast_const());
                runs.push(Run { a, b: tap * count * STEP, steps: count });
                for (row, pixel) in pixels.into_iter().enumerate() {
                    let to = to.add(row / 16 * 2 * TILE + row % 16 * 64);
                    for at in 0..count {
                        let [upper, lower] = match pixel {
                            Some(pixel) => {
                                let from = cells.add((pixel * layout.blocks + block + at) * 4 * DEPTH);
                                [_mm512_loadu_si512(from.cast()), _mm512_loadu_si512(from.add(2 * DEPTH).cast())]
                            }
                            None => [_mm512_setzero_si512(); 2],
                        };
                        _mm512_storeu_si512(to.add(at * STEP).cast(), upper);
                        _mm512_storeu_si512(to.add(at * STEP + TILE).cast(), lower);
                    }
                }
            }
        }
    }
}
