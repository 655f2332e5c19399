//! Strips: some rows of tiles of one image, for as many channels as a vector has lanes.
//!
//! A strip is read from (or written to) maps stored channel by channel, transposed so that the channels lie side by side,
//! and transformed there, all within the nearest cache.

use std::marker::PhantomData;

use super::super::epilogue::Epilogue;
use super::super::scratch;
use super::super::simd::{Simd, SimdKernel};
use super::super::transpose::{ImageMaps, read_rows, write_span};
use super::axis::{Axis, MOST};

/// Where the transformed tiles lie: value `t` of tile `p`, channel `c`, at `t * position + p * tile + c`.
#[derive(Clone, Copy)]
pub(super) struct TilePlaces {
    /// Distance of neighbouring values.
    pub(super) position: usize,
    /// Distance of neighbouring tiles.
    pub(super) tile: usize,
}

impl TilePlaces {
    /// Places for `tiles` tiles of `channels` channels, at distances that spread over the sets of a cache.
    pub(super) fn new(tiles: usize, channels: usize) -> Self {
        let lines = channels.div_ceil(16) + 1;
        Self { position: ((tiles * lines) | 1) * 16, tile: lines * 16 }
    }

    /// Floats that tiles of `values` values along an axis take in all.
    pub(super) fn len(&self, values: usize) -> usize {
        values * values * self.position
    }
}

/// Reads the tiles of one strip and writes them transformed.
pub(super) struct ReadTiles<X> {
    pub(super) maps: ImageMaps,
    /// The strip's first row in the maps, and the zeros to the left of each row.
    pub(super) first: isize,
    pub(super) left: usize,
    /// Rows of tiles, and tiles in a row.
    pub(super) rows: usize,
    pub(super) tiles: usize,
    /// Values from one tile to the next, both ways.
    pub(super) apart: usize,
    /// The first tile's first channel.
    pub(super) to: *mut f32,
    pub(super) places: TilePlaces,
    pub(super) transform: PhantomData<X>,
}

impl<X: Axis> SimdKernel for ReadTiles<X> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (lanes, zero) = (S::LANES, simd.splat(0.0));
        let [height, pitch] = [self.rows, self.tiles].map(|tiles| (tiles - 1) * self.apart + X::FROM);
        let mut buffer = scratch::take((height + X::TO) * pitch * lanes);
        let lines = buffer.as_mut_ptr();
        let mid = lines.wrapping_add(height * pitch * lanes);
        // SAFETY: `buffer` has room for blocks of `height * pitch` and `X::TO * pitch` vectors; whoever made the kernel vouches for the
        // rest.
        unsafe {
            read_rows(simd, &self.maps, (self.first, height), (self.left, pitch), lines, lanes);
            for row in 0..self.rows {
                let lines = lines.add(row * self.apart * pitch * lanes);
                for column in 0..pitch {
                    let mut d = [zero; MOST];
                    for i in 0..X::FROM {
                        d[i] = simd.load(lines.add((i * pitch + column) * lanes));
                    }
                    let v = X::of(simd, d);
                    for i in 0..X::TO {
                        simd.store(mid.add((i * pitch + column) * lanes), v[i]);
                    }
                }
                for tile in 0..self.tiles {
                    for i in 0..X::TO {
                        let mut d = [zero; MOST];
                        for j in 0..X::FROM {
                            d[j] = simd.load(mid.add((i * pitch + tile * self.apart + j) * lanes));
                        }
                        let v = X::of(simd, d);
                        let at = (row * self.tiles + tile) * self.places.tile + i * X::TO * self.places.position;
                        for j in 0..X::TO {
                            simd.store(self.to.add(at + j * self.places.position), v[j]);
                        }
                    }
                }
            }
        }
    }
}

/// Transforms the products of one strip back and writes the outputs that exist, with what follows them.
pub(super) struct WriteTiles<'a, X> {
    /// The first tile's first channel.
    pub(super) from: *const f32,
    pub(super) places: TilePlaces,
    /// The strip's first row in the maps.
    pub(super) first: usize,
    /// Rows of tiles, and tiles in a row.
    pub(super) rows: usize,
    pub(super) tiles: usize,
    /// The first map's first value; `channels`, `height` and `width` are those of [`ImageMaps`].
    pub(super) to: *mut f32,
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) epilogue: Epilogue<'a>,
    /// The first map's place in the output, and its channel.
    pub(super) map: usize,
    pub(super) channel: usize,
    pub(super) transform: PhantomData<X>,
}

impl<X: Axis> SimdKernel for WriteTiles<'_, X> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (lanes, zero) = (S::LANES, simd.splat(0.0));
        let (width, plane) = (self.width, self.height * self.width);
        let height = (self.rows * X::TO).min(self.height - self.first);
        let mut buffer = scratch::take((X::FROM * X::TO + self.rows * X::TO * width) * lanes);
        let mid = buffer.as_mut_ptr();
        let transposed = mid.wrapping_add(X::FROM * X::TO * lanes);
        // SAFETY: `buffer` has room for `X::FROM * X::TO` vectors and for the strip's rows; whoever made the kernel vouches for the rest.
        unsafe {
            for tile in 0..self.rows * self.tiles {
                for i in 0..X::FROM {
                    let from = self.from.add(tile * self.places.tile + i * X::FROM * self.places.position);
                    let mut m = [zero; MOST];
                    for j in 0..X::FROM {
                        m[j] = simd.load(from.add(j * self.places.position));
                    }
                    let y = X::of(simd, m);
                    for j in 0..X::TO {
                        simd.store(mid.add((i * X::TO + j) * lanes), y[j]);
                    }
                }
                let (row, column) = (tile / self.tiles * X::TO, tile % self.tiles * X::TO);
                for j in 0..X::TO.min(width - column) {
                    let mut m = [zero; MOST];
                    for i in 0..X::FROM {
                        m[i] = simd.load(mid.add((i * X::TO + j) * lanes));
                    }
                    let y = X::of(simd, m);
                    for i in 0..X::TO {
                        simd.store(transposed.add(((row + i) * width + column + j) * lanes), y[i]);
                    }
                }
            }
            let start = self.first * width;
            let to = self.to.add(start);
            write_span(simd, (transposed, lanes), to, plane, self.channels, height * width);
            self.epilogue.apply(to, self.map + start, self.channel, (self.channels, plane), height * width);
        }
    }
}
