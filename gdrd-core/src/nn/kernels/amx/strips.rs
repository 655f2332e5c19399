//! The left factor of a small batch: for each tap the pixels of 16 rows side by side.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::scratch::List;
use super::split::BatchMaps;
use super::taps::{Axis, Geometry};
use super::tile::{DEPTH, TILE};

/// Bytes of 32 channels of a pixel, in one of two parts.
const CELL: usize = 2 * DEPTH;

/// Rows of a tile, which the last one may have beyond the last pixel.
const BEYOND: usize = 16;

/// No place.
const NOWHERE: u32 = u32::MAX;

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
    /// For each column of the kernel and of the source, its place in a row, or [`NOWHERE`].
    takers: List<u32>,
    /// Places of a row that nothing comes to, each with its column of the kernel.
    empty: List<(usize, usize)>,
}

impl Strips {
    /// Of `height` rows of the target of each of `images`.
    pub(super) fn new(geometry: &Geometry, height: usize, images: usize) -> Self {
        let Geometry { rows, columns, .. } = *geometry;
        let place = |tap, from| columns.taker(from, tap).map_or(NOWHERE, |place| place as u32);
        let takers = (0..columns.taps).flat_map(|tap| (0..columns.source).map(move |from| place(tap, from)));
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
        (maps, image, block): (&BatchMaps<'_>, usize, usize),
        (nth, rows): (usize, Range<usize>),
        to: *mut u8,
    ) {
        let places = rows.start..rows.end + self.rows.places() - self.rows.target;
        let (width, strips, part) = (self.columns.target, self.rows.strips(), self.part());
        // SAFETY: the caller's promise.
        let to = unsafe { to.add(block * self.step() + nth * self.pitch() * CELL) };
        let line = |tap: usize, strip: usize, place: usize| {
            let at = (place - places.start) * width;
            // SAFETY: the caller's promise.
            unsafe { to.add((tap * strips + strip) * 2 * part + at * CELL) }
        };
        let put = |line: *mut u8, x: usize, [upper, lower]: [__m512i; 2]| {
            // SAFETY: the caller's promise.
            unsafe {
                _mm512_storeu_si512(line.add(x * CELL).cast(), upper);
                _mm512_storeu_si512(line.add(x * CELL + part).cast(), lower);
            }
        };
        let nothing = [_mm512_setzero_si512(); 2];
        for (strip, place) in (0..strips).flat_map(|strip| places.clone().map(move |place| (strip, place))) {
            if self.rows.source(strip, place).is_some() {
                self.empty.iter().for_each(|(tap, x)| put(line(*tap, strip, place), *x, nothing));
                continue;
            }
            for tap in 0..self.columns.taps {
                let line = line(tap, strip, place);
                (0..width).for_each(|x| put(line, x, nothing));
            }
        }
        let wanted = |row: usize| self.rows.place(row).filter(|(_, place)| places.contains(place));
        let Some(first) = (0..self.rows.source).find(|row| wanted(*row).is_some()) else { return };
        let last = (first..self.rows.source).rfind(|row| wanted(*row).is_some()).unwrap_or(first);
        let across = self.columns.source;
        if let (1, Some((strip, place))) = (maps.plane, wanted(0)) {
            let parts = maps.only_pixel(image, block);
            for (tap, x) in self.takers.iter().enumerate().filter(|(_, x)| **x != NOWHERE) {
                put(line(tap, strip, place), *x as usize, parts);
            }
            return;
        }
        let (mut row, mut column) = (first, 0);
        for pixel in (first * across..(last + 1) * across).step_by(16) {
            // SAFETY: the pixels exist.
            let [upper, lower] = unsafe { maps.parts(image, block, pixel) };
            let mut done = 0;
            while done < 16 && row <= last {
                let count = (across - column).min(16 - done);
                if let Some((strip, place)) = wanted(row) {
                    for tap in 0..self.columns.taps {
                        let line = line(tap, strip, place);
                        for (nth, x) in self.takers[tap * across + column..][..count].iter().enumerate() {
                            if *x != NOWHERE {
                                put(line, *x as usize, [upper[done + nth], lower[done + nth]]);
                            }
                        }
                    }
                }
                (done, column) = (done + count, column + count);
                if column == across {
                    (row, column) = (row + 1, 0);
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
