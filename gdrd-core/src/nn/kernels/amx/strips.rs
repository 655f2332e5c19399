//! The left factor of a small batch: for each tap the pixels of 16 rows side by side.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::scratch::List;
use super::split::Maps;
use super::taps::{Axis, Geometry};
use super::tile::{DEPTH, TILE};
use super::vector::split;

/// Bytes of 32 channels of a pixel, in one of two parts.
const CELL: usize = 2 * DEPTH;

/// Rows of a tile, which the last one may have beyond the last pixel.
const BEYOND: usize = 16;

/// Maps by [`Axis::source`]: a column of the kernel and a strip of rows have a map of their own, as wide as the target, so that
/// what neighbouring pixels of the target take lies side by side, from row to row too.
///
/// In memory: `[block, column, strip, part, pixel, 32]`, for some rows of one image, or for all rows of some images.
pub(super) struct Strips {
    rows: Axis,
    columns: Axis,
    /// Target rows of an image that are asked for, and images.
    height: usize,
    images: usize,
    /// For each column of the source and of the kernel, its place in a row.
    takers: List<Option<usize>>,
    /// Places of a row that nothing comes to, each with its column of the kernel.
    empty: List<(usize, usize)>,
}

impl Strips {
    /// Of `height` rows of the target of each of `images`.
    pub(super) fn new(geometry: &Geometry, height: usize, images: usize) -> Self {
        let Geometry { rows, columns, .. } = *geometry;
        let takers = (0..columns.source).flat_map(|from| (0..columns.taps).map(move |tap| columns.taker(from, tap)));
        let cells = (0..columns.taps).flat_map(|tap| (0..columns.target).map(move |x| (tap, x)));
        let empty = cells.filter(|(tap, x)| columns.taken(*x, *tap).is_none());
        Self {
            rows,
            columns,
            height,
            images,
            takers: List::from_iter(columns.source * columns.taps, takers),
            empty: List::from_iter(columns.target * columns.taps, empty),
        }
    }

    /// Pixels of a strip from one image to the next.
    pub(super) fn pitch(&self) -> usize {
        (self.rows.places() - self.rows.target + self.height) * self.columns.target
    }

    /// Bytes of a strip's part.
    fn part(&self) -> usize {
        (self.images * self.pitch() + BEYOND) * CELL
    }

    /// Bytes from block to block.
    pub(super) fn step(&self) -> usize {
        self.columns.taps * self.rows.strips() * 2 * self.part()
    }

    /// Bytes from the first block's first cell to the upper and to the lower parts that the target's first pixel takes for a tap.
    pub(super) fn at(&self, tap: usize) -> [usize; 2] {
        let (row, column) = (tap / self.columns.taps, tap % self.columns.taps);
        let (strip, below) = self.rows.strip(row);
        let upper = (column * self.rows.strips() + strip) * 2 * self.part() + below * self.columns.target * CELL;
        [upper, upper + self.part()]
    }

    /// Bytes of some pixels.
    pub(super) fn pixels(count: usize) -> usize {
        count * CELL
    }

    /// Fills block `block` of an image, of which `rows` of the target are asked for, and which is number `nth` of these strips.
    ///
    /// # Safety
    /// `to` has room for all blocks, and nobody else touches this block of this image; the vectors are available.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn fill(
        &self,
        (maps, image, block): (&Maps<'_>, usize, usize),
        (nth, rows): (usize, Range<usize>),
        to: *mut u8,
    ) {
        let places = rows.start..rows.end + self.rows.places() - self.rows.target;
        let (width, strips) = (self.columns.target, self.rows.strips());
        // SAFETY: the caller's promise.
        let to = unsafe { to.add(block * self.step() + nth * self.pitch() * CELL) };
        let cell = |column: usize, strip: usize, place: usize, x: usize| {
            let at = (place - places.start) * width + x;
            // SAFETY: the caller's promise.
            unsafe { to.add((column * strips + strip) * 2 * self.part() + at * CELL) }
        };
        let put = |to: *mut u8, [upper, lower]: [__m512i; 2]| {
            // SAFETY: the caller's promise.
            unsafe {
                _mm512_storeu_si512(to.cast(), upper);
                _mm512_storeu_si512(to.add(self.part()).cast(), lower);
            }
        };
        let nothing = [_mm512_setzero_si512(); 2];
        for (strip, place) in (0..strips).flat_map(|strip| places.clone().map(move |place| (strip, place))) {
            if self.rows.source(strip, place).is_some() {
                self.empty.iter().for_each(|(tap, x)| put(cell(*tap, strip, place, *x), nothing));
            } else {
                (0..self.columns.taps)
                    .for_each(|tap| (0..width).for_each(|x| put(cell(tap, strip, place, x), nothing)));
            }
        }
        let wanted = |row: usize| self.rows.place(row).filter(|(_, place)| places.contains(place));
        let Some(first) = (0..self.rows.source).find(|row| wanted(*row).is_some()) else { return };
        let last = (first..self.rows.source).rfind(|row| wanted(*row).is_some()).unwrap_or(first);
        let end = (last + 1) * self.columns.source;
        let mut pixel = first * self.columns.source;
        let (mut row, mut column) = (wanted(first), 0);
        while pixel < end {
            // SAFETY: the pixels exist.
            let cells = unsafe { maps.cells(image, block, pixel) };
            for values in cells.into_iter().take(end - pixel) {
                if let Some((strip, place)) = row {
                    let parts = split(values);
                    for (tap, x) in self.takers[column * self.columns.taps..][..self.columns.taps].iter().enumerate() {
                        if let Some(x) = x {
                            put(cell(tap, strip, place, *x), parts);
                        }
                    }
                }
                (pixel, column) = (pixel + 1, column + 1);
                if column == self.columns.source {
                    (row, column) = (wanted(pixel / self.columns.source), 0);
                }
            }
        }
    }

    /// Float32 values that take as much room as `blocks` blocks.
    pub(super) fn len(&self, blocks: usize) -> usize {
        blocks * self.step() / 4
    }
}

const _: () = assert!(16 * CELL == TILE);
