//! The right factor of a convolution: its kernels, cut into the tiles that products take.

use std::arch::x86_64::*;

use super::super::buffer::Shared;
use super::super::scratch::Values;
use super::super::shape::ConvShape;
use super::super::team::each;
use super::tile::{BLOCK, DEPTH, STEP, TILE};
use super::vector::{first, split_pairs};

/// Steps of a chunk of the sum, about: what a product takes of one factor then stays in the second-level cache.
const CHUNK: usize = 36;

/// Where the parts of the right factor are. The sum runs over chunks of channels, in a chunk over taps, and in a tap over
/// blocks of 32 channels; a panel has 32 columns.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) taps: usize,
    /// Channels of the sum and columns.
    pub(super) depth: usize,
    pub(super) columns: usize,
    /// Blocks of channels, in all and in a chunk; the last chunk may have fewer.
    pub(super) blocks: usize,
    pub(super) chunk: usize,
    pub(super) panels: usize,
}

impl Layout {
    pub(super) fn new(taps: usize, depth: usize, columns: usize) -> Self {
        let blocks = depth.div_ceil(DEPTH);
        let chunk = (CHUNK / taps).clamp(1, blocks);
        Self { taps, depth, columns, blocks, chunk, panels: columns.div_ceil(BLOCK) }
    }

    /// Chunks as the first block and the number of blocks.
    pub(super) fn chunks(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.blocks).step_by(self.chunk).map(move |first| (first, self.chunk.min(self.blocks - first)))
    }

    /// All panels of all chunks.
    fn parts(&self) -> Vec<((usize, usize), usize)> {
        self.chunks().flat_map(|chunk| (0..self.panels).map(move |panel| (chunk, panel))).collect()
    }

    /// The first byte of a panel in the chunk that begins with block `block` and has `count` blocks.
    pub(super) fn at(&self, (block, count): (usize, usize), panel: usize) -> usize {
        STEP * self.taps * (block * self.panels + panel * count)
    }

    /// Float32 values that take the same room.
    pub(super) fn len(&self) -> usize {
        STEP / 4 * self.taps * self.blocks * self.panels
    }
}

/// A matrix for each tap: row `k` and column `n` of it is `values[k * row + n * column + tap]`.
#[derive(Clone, Copy)]
pub(super) struct Matrices<'a> {
    values: &'a [f32],
    row: usize,
    column: usize,
}

impl<'a> Matrices<'a> {
    /// From input channels to output channels, of `weight [o, c, kh, kw]`.
    pub(super) fn forward(shape: &ConvShape, weight: &'a [f32]) -> Self {
        Self { values: weight, row: shape.taps(), column: shape.inputs * shape.taps() }
    }

    /// From output channels to input channels.
    pub(super) fn backward(shape: &ConvShape, weight: &'a [f32]) -> Self {
        Self { values: weight, row: shape.inputs * shape.taps(), column: shape.taps() }
    }
}

/// Cuts the matrices into tiles.
pub(super) fn pack(layout: &Layout, matrices: Matrices<'_>, to: &mut [f32]) {
    assert_eq!(to.len(), layout.len());
    let to = Shared::new(to);
    let parts = layout.parts();
    each(parts.len(), 1, |at| {
        let (chunk, panel) = parts[at];
        // SAFETY: every panel of every chunk has a place of its own within `to`; whoever calls has seen that the unit is
        // available, and with it the vectors.
        unsafe { pack_panel(layout, matrices, panel, chunk, to.at(layout.at(chunk, panel) / 4).cast()) };
    });
}

/// The same in memory of its own, by the calling thread alone.
pub(super) fn packed(layout: &Layout, matrices: Matrices<'_>) -> Values {
    let mut to = Values::zeros(layout.len());
    for (chunk, panel) in layout.parts() {
        let to = to[layout.at(chunk, panel) / 4..].as_mut_ptr();
        // SAFETY: as above.
        unsafe { pack_panel(layout, matrices, panel, chunk, to.cast()) };
    }
    to
}

/// # Safety
/// `to` has room for the panel.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_panel(
    layout: &Layout,
    matrices: Matrices<'_>,
    panel: usize,
    (block, count): (usize, usize),
    to: *mut u8,
) {
    let zero = _mm512_setzero_ps();
    let places = _mm512_mullo_epi32(
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        _mm512_set1_epi32(matrices.column as i32),
    );
    for half in 0..2 {
        let column = panel * BLOCK + 16 * half;
        let mask = first(layout.columns.saturating_sub(column));
        for at in 0..count {
            for tap in 0..layout.taps {
                for pair in 0..16 {
                    let values = [0, 1].map(|second| {
                        let row = (block + at) * DEPTH + 2 * pair + second;
                        if row >= layout.depth || mask == 0 {
                            return zero;
                        }
                        let from = &matrices.values[row * matrices.row + column * matrices.column + tap];
                        // SAFETY: the mask leaves out columns that do not exist.
                        unsafe {
                            if matrices.column == 1 {
                                _mm512_maskz_loadu_ps(mask, from)
                            } else {
                                _mm512_mask_i32gather_ps::<4>(zero, mask, places, &raw const *from)
                            }
                        }
                    });
                    for (part, words) in split_pairs(values[0], values[1]).into_iter().enumerate() {
                        let offset = (tap * count + at) * STEP + (2 * half + part) * TILE + pair * 64;
                        // SAFETY: the caller's promise.
                        unsafe { _mm512_storeu_si512(to.add(offset).cast(), words) };
                    }
                }
            }
        }
    }
}
