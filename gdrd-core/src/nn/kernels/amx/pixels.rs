//! Small batches: the rows of a product are 16 neighbouring pixels of the target.

use std::ops::Range;

use super::super::buffer::Shared;
use super::super::scratch::{self, List};
use super::super::team::each;
use super::maps::ColumnPlaces;
use super::operands::Operands;
use super::split::BatchMaps;
use super::strips::Strips;
use super::tile::{BLOCK, Run, STEP, TileBlock, multiply};

/// Bytes of strips that stay in the second-level cache beside everything else.
const NEAR: usize = 1 << 20;

/// Tiles of rows and panels of columns of a task, where tasks share strips.
const TILES: usize = 8;
const PANELS: usize = 2;

/// The convolution of `maps`.
pub(super) fn convolve(operands: &Operands<'_>, maps: BatchMaps<'_>) {
    let Operands { geometry, layout, .. } = operands;
    let (height, width) = (geometry.rows.target, geometry.columns.target);
    let all = Strips::new(geometry, height, geometry.batch);
    // Maps that fill the cache several times are taken some rows at a time.
    let bytes = 4 * all.len(layout.blocks);
    let bands = height.min((bytes / geometry.batch.max(1)).div_ceil(NEAR)).max(1);
    if geometry.batch * bands >= 4 * rayon::current_num_threads() && bytes > 2 * NEAR {
        let rows = height.div_ceil(bands);
        let bands = height.div_ceil(rows);
        each(geometry.batch * bands, 1, |at| {
            let (image, first) = (at / bands, at % bands * rows);
            let rows = rows.min(height - first);
            let strips = Strips::new(geometry, rows, 1);
            let mut cells = scratch::take(strips.len(layout.blocks));
            for block in 0..layout.blocks {
                let to = cells.as_mut_ptr().cast();
                // SAFETY: the cells are this task's alone; the vectors are available where the unit is.
                unsafe { strips.fill((&maps, image, block), (0, first..first + rows), to) };
            }
            let product = StripProduct { operands, strips: &strips, cells: &cells, image, first: first * width };
            product.run(&tiles(rows * width, 1, strips.pitch()), 0..layout.panels);
        });
        return;
    }
    let mut cells = scratch::take(all.len(layout.blocks));
    let to = Shared::new(&mut cells);
    each(geometry.batch * layout.blocks, maps.least(), |at| {
        let (image, block) = (at / layout.blocks, at % layout.blocks);
        // SAFETY: each block of each image has places of its own; the vectors are available where the unit is.
        unsafe { all.fill((&maps, image, block), (image, 0..height), to.at(0).cast()) };
    });
    let product = StripProduct { operands, strips: &all, cells: &cells, image: 0, first: 0 };
    let tiles = tiles(height * width, geometry.batch, all.pitch());
    let (down, across) = (tiles.len().div_ceil(TILES), layout.panels.div_ceil(PANELS));
    each(down * across, 1, |at| {
        let (tile, panel) = (at % down * TILES, at / down * PANELS);
        product.run(&tiles[tile..tiles.len().min(tile + TILES)], panel..layout.panels.min(panel + PANELS));
    });
}

/// At most 16 places of the strips, from the first to before the second.
type Tile = (usize, usize);

/// The tiles of `images` whose maps have `plane` pixels and lie `pitch` places apart: image by image, or over the gaps between
/// images, whichever takes less.
fn tiles(plane: usize, images: usize, pitch: usize) -> List<Tile> {
    let cut = |start: usize, end: usize| (start..end).step_by(16).map(move |first| (first, end.min(first + 16)));
    let end = (images - 1) * pitch + plane;
    let (together, apart) = (end.div_ceil(16), images * plane.div_ceil(16));
    if together < apart {
        return List::from_iter(together, cut(0, end));
    }
    List::from_iter(apart, (0..images).flat_map(|image| cut(image * pitch, image * pitch + plane)))
}

/// Strips and the kernels.
struct StripProduct<'a> {
    operands: &'a Operands<'a>,
    strips: &'a Strips,
    cells: &'a [f32],
    /// The image and the pixel of the strips' first place.
    image: usize,
    first: usize,
}

impl StripProduct<'_> {
    /// The products of some tiles and panels.
    fn run(&self, tiles: &[Tile], panels: Range<usize>) {
        let Operands { layout, packed, target, .. } = *self.operands;
        let (width, cells) = (panels.len() * BLOCK, self.cells.as_ptr().cast::<u8>());
        let mut sums = scratch::take(tiles.len() * 16 * width);
        let sums = sums.as_mut_ptr();
        let mut runs = List::new(layout.taps);
        for chunk in layout.chunks() {
            self.runs(chunk, &mut runs);
            for panel in panels.clone() {
                let kernels = packed[layout.at(chunk, panel) / 4..].as_ptr().cast();
                let blocks = tiles.chunks(2).enumerate().map(|(pair, tiles)| {
                    let at = |tile: &Tile| cells.wrapping_add(Strips::pixels(tile.0));
                    let left = [at(&tiles[0]), tiles.get(1).map_or(std::ptr::null(), at)];
                    // The block lies within `sums`.
                    let c = sums.wrapping_add(pair * BLOCK * width + (panel - panels.start) * BLOCK);
                    TileBlock::new((c, width), (left, self.strips.step()), kernels, &runs, chunk.0 > 0)
                });
                // SAFETY: the unit is available, and the factors have the steps of the runs.
                unsafe { multiply(blocks) };
            }
        }
        for (at, tile) in tiles.iter().enumerate() {
            let places = ColumnPlaces::new((tile.0..tile.1).map(|place| self.place(place)));
            for side in (0..width).step_by(16) {
                // SAFETY: these rows of these columns belong to this task.
                unsafe { target.write(sums.add(at * 16 * width + side), width, panels.start * BLOCK + side, &places) };
            }
        }
    }

    /// The steps of the taps for some blocks of channels.
    fn runs(&self, (block, count): (usize, usize), runs: &mut List<Run>) {
        runs.clear();
        runs.extend((0..self.operands.layout.taps).map(|tap| {
            let [upper, lower] = self.strips.at(tap).map(|at| at + block * self.strips.step());
            Run { a: [upper, lower, upper, lower], b: tap * count * STEP, steps: count }
        }));
    }

    /// Where what is at a place of the strips goes; nowhere, if it is between two images.
    fn place(&self, place: usize) -> Option<usize> {
        let Operands { layout, geometry, .. } = *self.operands;
        let (image, pixel) = (place / self.strips.pitch(), place % self.strips.pitch());
        let plane = geometry.plane();
        (pixel < plane).then_some((self.image + image) * layout.columns * plane + self.first + pixel)
    }
}
