//! Strips: one row of tiles of one image, for as many channels as a vector has lanes.
//!
//! A strip is read from (or written to) maps stored channel by channel, transposed so that the channels lie side by side,
//! and transformed there, all within the nearest cache.

use super::super::epilogue::Epilogue;
use super::super::scratch;
use super::super::simd::{Simd, SimdKernel};
use super::super::transpose::{ImageMaps, read_rows, write_span};
use super::transform::{self, IN, OUT};

/// Where the transformed tiles lie: position `t` of the 36 of tile `p`, channel `c`, at
/// `t * position + p * tile + c`.
#[derive(Clone, Copy)]
pub(super) struct TilePlaces {
    /// Distance of neighbouring positions.
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

    /// Values they take in all.
    pub(super) fn len(&self) -> usize {
        IN * IN * self.position
    }
}

/// Reads the input tiles of one strip and writes them transformed: `B^T d B`.
pub(super) struct ReadInput {
    pub(super) maps: ImageMaps,
    /// Which row of tiles.
    pub(super) strip: usize,
    /// Tiles in the row.
    pub(super) tiles: usize,
    pub(super) padding: usize,
    /// The first tile's first channel.
    pub(super) to: *mut f32,
    pub(super) places: TilePlaces,
}

impl SimdKernel for ReadInput {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (lanes, pitch) = (S::LANES, self.tiles * OUT + IN - OUT);
        let mut buffer = scratch::take(2 * IN * pitch * lanes);
        let rows = buffer.as_mut_ptr();
        let mid = rows.wrapping_add(IN * pitch * lanes);
        let first = (self.strip * OUT) as isize - self.padding as isize;
        // SAFETY: `buffer` has room for two blocks of `IN * pitch` vectors; whoever made the kernel vouches for the rest.
        unsafe {
            read_rows(simd, &self.maps, (first, IN), (self.padding, pitch), rows, lanes);
            for column in 0..pitch {
                let mut d = [simd.splat(0.0); IN];
                for i in 0..IN {
                    d[i] = simd.load(rows.add((i * pitch + column) * lanes));
                }
                let v = transform::input(simd, d);
                for i in 0..IN {
                    simd.store(mid.add((i * pitch + column) * lanes), v[i]);
                }
            }
            for tile in 0..self.tiles {
                for i in 0..IN {
                    let mut d = [simd.splat(0.0); IN];
                    for j in 0..IN {
                        d[j] = simd.load(mid.add((i * pitch + tile * OUT + j) * lanes));
                    }
                    let v = transform::input(simd, d);
                    let to = self.to.add(tile * self.places.tile + i * IN * self.places.position);
                    for j in 0..IN {
                        simd.store(to.add(j * self.places.position), v[j]);
                    }
                }
            }
        }
    }
}

/// Reads the output gradients of one strip and writes them transformed: `A dy A^T`.
pub(super) struct ReadGradient {
    pub(super) maps: ImageMaps,
    pub(super) strip: usize,
    pub(super) tiles: usize,
    pub(super) to: *mut f32,
    pub(super) places: TilePlaces,
}

impl SimdKernel for ReadGradient {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (lanes, pitch) = (S::LANES, self.tiles * OUT);
        let mut buffer = scratch::take((OUT + IN) * pitch * lanes);
        let rows = buffer.as_mut_ptr();
        let mid = rows.wrapping_add(OUT * pitch * lanes);
        // SAFETY: `buffer` has room for `OUT * pitch` and `IN * pitch` vectors; whoever made the kernel vouches for the
        // rest.
        unsafe {
            read_rows(simd, &self.maps, ((self.strip * OUT) as isize, OUT), (0, pitch), rows, lanes);
            for column in 0..pitch {
                let mut y = [simd.splat(0.0); OUT];
                for i in 0..OUT {
                    y[i] = simd.load(rows.add((i * pitch + column) * lanes));
                }
                let m = transform::output_adjoint(simd, y);
                for i in 0..IN {
                    simd.store(mid.add((i * pitch + column) * lanes), m[i]);
                }
            }
            for tile in 0..self.tiles {
                for i in 0..IN {
                    let mut y = [simd.splat(0.0); OUT];
                    for j in 0..OUT {
                        y[j] = simd.load(mid.add((i * pitch + tile * OUT + j) * lanes));
                    }
                    let m = transform::output_adjoint(simd, y);
                    let to = self.to.add(tile * self.places.tile + i * IN * self.places.position);
                    for j in 0..IN {
                        simd.store(to.add(j * self.places.position), m[j]);
                    }
                }
            }
        }
    }
}

/// Transforms the products of one strip back, `A^T m A`, and writes the outputs that exist, with what follows them.
pub(super) struct WriteOutput<'a> {
    /// The first tile's first channel.
    pub(super) from: *const f32,
    pub(super) places: TilePlaces,
    pub(super) strip: usize,
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
}

impl SimdKernel for WriteOutput<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let lanes = S::LANES;
        let (width, plane) = (self.width, self.height * self.width);
        let rows = OUT.min(self.height - self.strip * OUT);
        let mut buffer = scratch::take((IN * OUT + OUT * width) * lanes);
        let mid = buffer.as_mut_ptr();
        let transposed = mid.wrapping_add(IN * OUT * lanes);
        // SAFETY: `buffer` has room for `IN * OUT` and `OUT * width` vectors; whoever made the kernel vouches for the
        // rest.
        unsafe {
            for tile in 0..self.tiles {
                for i in 0..IN {
                    let from = self.from.add(tile * self.places.tile + i * IN * self.places.position);
                    let mut m = [simd.splat(0.0); IN];
                    for j in 0..IN {
                        m[j] = simd.load(from.add(j * self.places.position));
                    }
                    let y = transform::output(simd, m);
                    for j in 0..OUT {
                        simd.store(mid.add((i * OUT + j) * lanes), y[j]);
                    }
                }
                for j in 0..OUT.min(width - tile * OUT) {
                    let mut m = [simd.splat(0.0); IN];
                    for i in 0..IN {
                        m[i] = simd.load(mid.add((i * OUT + j) * lanes));
                    }
                    let y = transform::output(simd, m);
                    for i in 0..OUT {
                        simd.store(transposed.add((i * width + tile * OUT + j) * lanes), y[i]);
                    }
                }
            }
            let start = self.strip * OUT * width;
            let to = self.to.add(start);
            write_span(simd, (transposed, lanes), to, plane, self.channels, rows * width);
            self.epilogue.apply(to, self.map + start, self.channel, (self.channels, plane), rows * width);
        }
    }
}
