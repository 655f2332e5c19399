//! Large batches: the rows of a product are 16 images at the same pixel of the target, so that a tap is another pixel's tile, and
//! taps beyond the edge cost nothing.

use rayon::prelude::*;

use super::super::scratch;
use super::Convolution;
use super::maps::Places;
use super::split::Maps;
use super::tile::{BLOCK, Block, Run, STEP, TILE, multiply};

/// Pixels of a task at most, and panels of columns.
const PIXELS: usize = 16;
const PANELS: usize = 4;

/// Values between rows of sums beyond those in use, so that rows do not meet in the cache.
const APART: usize = 16;

/// Whether tiles of 16 images waste little.
pub(super) fn fits(batch: usize) -> bool {
    8 * batch.next_multiple_of(16) <= 9 * batch
}

/// The convolution of `maps`.
pub(super) fn convolve(convolution: &Convolution<'_>, maps: Maps<'_>) {
    let Convolution { taps, layout, .. } = *convolution;
    let tiles = taps.batch.div_ceil(16);
    let cell = layout.blocks * 2 * TILE;
    // One cell more, of zeros.
    let zeros = taps.source_plane * tiles * cell / 4;
    let mut cells = scratch::take(zeros + cell / 4);
    cells[zeros..].fill(0.0);
    maps.to_images(&mut cells[..zeros]);
    let groups = taps.plane.div_ceil(PIXELS);
    let task = Task { convolution, cells: &cells, tiles, pixels: taps.plane.div_ceil(groups) };
    let (deep, across) = (tiles.div_ceil(2), layout.panels.div_ceil(PANELS));
    (0..groups * deep * across).into_par_iter().for_each(|at| {
        let (group, at) = (at % groups, at / groups);
        task.run(group * task.pixels, at % deep * 2, at / deep * PANELS);
    });
}

struct Task<'a> {
    convolution: &'a Convolution<'a>,
    cells: &'a [f32],
    tiles: usize,
    pixels: usize,
}

impl Task<'_> {
    /// The pixels from `pixel` on, at most two tiles of images from `tile` on, and the panels from `panel` on.
    fn run(&self, pixel: usize, tile: usize, panel: usize) {
        let Convolution { taps, layout, packed, target } = *self.convolution;
        let pixels = self.pixels.min(taps.plane - pixel);
        let (tiles, panels) = (2.min(self.tiles - tile), PANELS.min(layout.panels - panel));
        let blocks: Vec<_> = (0..pixels * tiles).map(|at| (pixel + at / tiles, tile + at % tiles)).collect();
        let pairs: Vec<_> = blocks.chunks(2).collect();
        let row = panels * BLOCK + APART;
        let mut sums = scratch::take(pairs.len() * BLOCK * row);
        let sums = sums.as_mut_ptr();
        let mut runs = vec![Vec::with_capacity(taps.count); pairs.len()];
        for chunk in layout.chunks() {
            for (pair, runs) in pairs.iter().zip(&mut runs) {
                self.runs(pair, chunk, runs);
            }
            let mut products = Vec::with_capacity(pairs.len());
            for at in 0..panels {
                let kernels = packed[layout.at(chunk, panel + at) / 4..].as_ptr().cast();
                for (pair, runs) in runs.iter().enumerate() {
                    // SAFETY: the block lies within `sums`.
                    let c = unsafe { sums.add(pair * BLOCK * row + at * BLOCK) };
                    products.push(Block::new((c, row), 2 * TILE, kernels, runs, chunk.0 > 0));
                }
                // SAFETY: the unit is available, and the factors have the steps of the runs.
                unsafe { multiply(&mut products) };
            }
        }
        for at in 0..16 * tiles {
            let image = tile * 16 + at;
            if image >= taps.batch {
                break;
            }
            let places = (pixel..pixel + pixels).map(|pixel| image * layout.columns * taps.plane + pixel);
            let places = Places::new(places);
            for side in (0..panels * BLOCK).step_by(16) {
                // SAFETY: these pixels of this image belong to this task.
                unsafe {
                    target.write(sums.add(at * row + side), 16 * tiles * row, panel * BLOCK + side, &places);
                }
            }
        }
    }

    /// The steps of one or two tiles, each a pixel and a tile of images.
    fn runs(&self, tiles: &[(usize, usize)], (block, count): (usize, usize), runs: &mut Vec<Run>) {
        let Convolution { taps, layout, .. } = *self.convolution;
        let cell = layout.blocks * TILE / 2;
        let zeros = taps.source_plane * self.tiles * cell;
        runs.clear();
        for tap in 0..taps.count {
            let source = |at: usize| {
                let (pixel, tile) = *tiles.get(at)?;
                Some((taps.source(pixel, tap)? * self.tiles + tile) * cell)
            };
            let sources = [source(0), source(1)];
            if sources == [None; 2] {
                continue;
            }
            let part = |at: usize| {
                self.cells[sources[at / 2].unwrap_or(zeros) + block * TILE / 2 + at % 2 * TILE / 4..].as_ptr()
            };
            runs.push(Run { a: [0, 1, 2, 3].map(|at| part(at).cast()), b: tap * count * STEP, steps: count });
        }
    }
}
