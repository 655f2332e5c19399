//! Large batches: the rows of a product are 16 images at the same pixel of the target, so that a tap is another pixel's tile, and
//! taps beyond the edge cost nothing.

use super::super::scratch::{self, List};
use super::super::team::each;
use super::maps::ColumnPlaces;
use super::operands::Operands;
use super::split::BatchMaps;
use super::taps::Taps;
use super::tile::{BLOCK, Run, STEP, TILE, TileBlock, multiply};

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
pub(super) fn convolve(operands: &Operands<'_>, maps: BatchMaps<'_>) {
    let Operands { geometry, layout, .. } = *operands;
    let (tiles, plane) = (geometry.batch.div_ceil(16), geometry.plane());
    let cell = layout.blocks * 2 * TILE;
    // One cell more, of zeros.
    let zeros = geometry.source_plane() * tiles * cell / 4;
    let mut cells = scratch::take(zeros + cell / 4);
    cells[zeros..].fill(0.0);
    maps.to_images(&geometry.used(), &mut cells[..zeros]);
    let groups = plane.div_ceil(PIXELS);
    let taps = Taps::new(geometry);
    let task = ImageTask { operands, taps: &taps, cells: &cells, tiles, pixels: plane.div_ceil(groups) };
    let (deep, across) = (tiles.div_ceil(2), layout.panels.div_ceil(PANELS));
    each(groups * deep * across, 1, |at| {
        let (group, at) = (at % groups, at / groups);
        task.run(group * task.pixels, at % deep * 2, at / deep * PANELS);
    });
}

struct ImageTask<'a> {
    operands: &'a Operands<'a>,
    taps: &'a Taps,
    cells: &'a [f32],
    tiles: usize,
    pixels: usize,
}

impl ImageTask<'_> {
    /// The pixels from `pixel` on, at most two tiles of images from `tile` on, and the panels from `panel` on.
    fn run(&self, pixel: usize, tile: usize, panel: usize) {
        let Operands { geometry, layout, packed, target } = *self.operands;
        let plane = geometry.plane();
        let pixels = self.pixels.min(plane - pixel);
        let (tiles, panels) = (2.min(self.tiles - tile), PANELS.min(layout.panels - panel));
        let blocks = (0..pixels * tiles).map(|at| (pixel + at / tiles, tile + at % tiles));
        let blocks = List::from_iter(pixels * tiles, blocks);
        let pairs = blocks.len().div_ceil(2);
        let row = panels * BLOCK + APART;
        let mut sums = scratch::take(pairs * BLOCK * row);
        let sums = sums.as_mut_ptr();
        // Those of a pair, and where they end.
        let (mut runs, mut ends) = (List::new(pairs * layout.taps), List::new(pairs + 1));
        for chunk in layout.chunks() {
            runs.clear();
            ends.clear();
            ends.push(0);
            for pair in blocks.chunks(2) {
                self.runs(pair, chunk, &mut runs);
                ends.push(runs.len());
            }
            let cells = self.cells.as_ptr().cast();
            for at in 0..panels {
                let kernels = packed[layout.at(chunk, panel + at) / 4..].as_ptr().cast();
                let blocks = blocks.chunks(2).enumerate().map(|(pair, tiles)| {
                    let runs = &runs[ends[pair]..ends[pair + 1]];
                    let left = [cells, if tiles.len() > 1 { cells } else { std::ptr::null() }];
                    // The block lies within `sums`.
                    let c = sums.wrapping_add(pair * BLOCK * row + at * BLOCK);
                    TileBlock::new((c, row), (left, 2 * TILE), kernels, runs, chunk.0 > 0)
                });
                // SAFETY: the unit is available, and the factors have the steps of the runs.
                unsafe { multiply(blocks) };
            }
        }
        for at in 0..16 * tiles {
            let image = tile * 16 + at;
            if image >= geometry.batch {
                break;
            }
            let places = (pixel..pixel + pixels).map(|pixel| Some(image * layout.columns * plane + pixel));
            let places = ColumnPlaces::new(places);
            for side in (0..panels * BLOCK).step_by(16) {
                // SAFETY: these pixels of this image belong to this task.
                unsafe {
                    target.write(sums.add(at * row + side), 16 * tiles * row, panel * BLOCK + side, &places);
                }
            }
        }
    }

    /// The steps of one or two tiles, each a pixel and a tile of images.
    fn runs(&self, tiles: &[(usize, usize)], (block, count): (usize, usize), runs: &mut List<Run>) {
        let Operands { geometry, layout, .. } = *self.operands;
        let cell = layout.blocks * 2 * TILE;
        let zeros = geometry.source_plane() * self.tiles * cell;
        for tap in 0..layout.taps {
            let source = |at: usize| {
                let (pixel, tile) = *tiles.get(at)?;
                Some((self.taps.source(pixel, tap)? * self.tiles + tile) * cell)
            };
            let sources = [source(0), source(1)];
            if sources == [None; 2] {
                continue;
            }
            let part = |at: usize| sources[at / 2].unwrap_or(zeros) + block * 2 * TILE + at % 2 * TILE;
            runs.push(Run { a: [0, 1, 2, 3].map(part), b: tap * count * STEP, steps: count });
        }
    }
}
