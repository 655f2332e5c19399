//! Maps of float32 values into cells of bfloat16 parts.

use std::arch::x86_64::*;

use super::super::buffer::Shared;
use super::super::team::each;
use super::tile::{DEPTH, TILE};
use super::vector::{first, split, split_pairs, transpose};

/// Maps `[batch, channels, plane]`.
#[derive(Clone, Copy)]
pub(super) struct BatchMaps<'a> {
    pub(super) values: &'a [f32],
    pub(super) batch: usize,
    pub(super) channels: usize,
    pub(super) plane: usize,
}

/// Pixels that are taken at a time.
const GROUP: usize = 16;

/// Values that one thread splits sooner than two of them meet.
const ALONE: usize = 1 << 12;

/// Groups of pixels of which one is of use, by their first.
fn groups(used: &[bool]) -> impl Iterator<Item = usize> {
    (0..used.len()).step_by(GROUP).filter(|first| used[*first..].iter().take(GROUP).any(|used| *used))
}

impl BatchMaps<'_> {
    /// Blocks of 32 channels.
    pub(super) fn blocks(&self) -> usize {
        self.channels.div_ceil(DEPTH)
    }

    /// 16 columns of a square: for each of 16 pixels from `pixel` on, the values of `count` neighbours that are `step` values
    /// apart from `at` on, and zeros.
    ///
    /// # Safety
    /// The pixel exists, and all neighbours.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn square(&self, at: usize, step: usize, count: usize, pixel: usize) -> [__m512; 16] {
        let mask = first(self.plane - pixel);
        let mut rows = [_mm512_setzero_ps(); 16];
        if count == 0 {
            return rows;
        }
        for (lane, row) in rows.iter_mut().enumerate().take(count) {
            // SAFETY: the caller's promise; the mask leaves out pixels that do not exist. The next pixels are asked for ahead.
            unsafe {
                let from = self.values.as_ptr().add(at + lane * step + pixel);
                _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(16).cast());
                *row = _mm512_maskz_loadu_ps(mask, from);
            }
        }
        transpose(rows)
    }

    /// Where the maps of an image begin, from a channel on.
    fn at(&self, image: usize, channel: usize) -> usize {
        (image * self.channels + channel) * self.plane
    }

    /// Blocks of channels that one thread splits sooner than two of them meet.
    pub(super) fn least(&self) -> usize {
        (ALONE / (DEPTH * self.plane)).max(1)
    }

    /// For every pixel tiles of 16 images: `to [plane, tile, block, part, 16, 32]`.
    pub(super) fn to_images(self, used: &[bool], to: &mut [f32]) {
        let (blocks, tiles) = (self.blocks(), self.batch.div_ceil(16));
        assert!(to.len() >= self.plane * tiles * blocks * TILE / 2);
        let to = Shared::new(to);
        each(tiles * blocks, 1, |at| {
            let (tile, block) = (at / blocks, at % blocks);
            let step = tiles * blocks * 2 * TILE;
            for pixel in groups(used) {
                for image in tile * 16..self.batch.min(tile * 16 + 16) {
                    // SAFETY: each block of each tile has places of its own; the vectors are available where the unit is.
                    unsafe {
                        let to = to.at(((pixel * tiles + tile) * blocks + block) * TILE / 2).cast::<u8>();
                        self.tiles_to((image, block), (pixel, used), to.add(image % 16 * 64), step);
                    }
                }
            }
        });
    }

    /// The upper and the lower parts of 32 channels of an image whose maps have one pixel; zeros beyond the last channel.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) fn only_pixel(&self, image: usize, block: usize) -> [__m512i; 2] {
        let count = DEPTH.min(self.channels - block * DEPTH);
        let from = self.values[self.at(image, block * DEPTH)..].as_ptr();
        // SAFETY: the masks leave out channels that do not exist.
        let halves = unsafe {
            let second = from.wrapping_add(16);
            [_mm512_maskz_loadu_ps(first(count), from), _mm512_maskz_loadu_ps(first(count.saturating_sub(16)), second)]
        };
        split(halves)
    }

    /// The upper and the lower parts of 16 pixels of an image, from pixel `pixel` on, each with its 32 channels side by side;
    /// zeros beyond the last channel.
    ///
    /// # Safety
    /// The pixel exists.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn parts(&self, image: usize, block: usize, pixel: usize) -> [[__m512i; 16]; 2] {
        let count = DEPTH.min(self.channels - block * DEPTH);
        let from = self.values[self.at(image, block * DEPTH)..].as_ptr();
        let zero = _mm512_setzero_ps();
        let mask = first(self.plane - pixel);
        let (mut upper, mut lower) = ([zero; 16], [zero; 16]);
        for pair in 0..count.div_ceil(2) {
            // SAFETY: the channels exist; the mask leaves out pixels that do not. The next pixels are asked for ahead.
            let (a, b) = unsafe {
                let a = from.add(2 * pair * self.plane + pixel);
                let b = a.wrapping_add(self.plane);
                _mm_prefetch::<_MM_HINT_T0>(a.wrapping_add(16).cast());
                _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(16).cast());
                let mask_b = if 2 * pair + 1 < count { mask } else { 0 };
                (_mm512_maskz_loadu_ps(mask, a), _mm512_maskz_loadu_ps(mask_b, b))
            };
            let parts = split_pairs(a, b);
            (upper[pair], lower[pair]) = (_mm512_castsi512_ps(parts[0]), _mm512_castsi512_ps(parts[1]));
        }
        let (upper, lower) = (transpose(upper), transpose(lower));
        // SAFETY: both are vectors of 64 bytes without structure.
        unsafe { std::mem::transmute([upper, lower]) }
    }

    /// Pixels of an image: the upper parts every `step` bytes, the lower ones a tile behind them.
    ///
    /// # Safety
    /// The pixel exists, and there is room.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn tiles_to(
        &self,
        (image, block): (usize, usize),
        (pixel, used): (usize, &[bool]),
        to: *mut u8,
        step: usize,
    ) {
        if self.plane == 1 {
            // SAFETY: the caller's promise.
            return unsafe { store(self.only_pixel(image, block), to, TILE) };
        }
        // SAFETY: the caller's promise.
        let [upper, lower] = unsafe { self.parts(image, block, pixel) };
        for (nth, used) in used[pixel..].iter().enumerate().take(16) {
            if *used {
                // SAFETY: the caller's promise.
                unsafe { store([upper[nth], lower[nth]], to.add(nth * step), TILE) };
            }
        }
    }

    /// For every pixel and channel its values over the images, as left factors whose sums run over images:
    /// `to [plane, block, images, half, part, 16, 32]`, with `images` groups of 32 images.
    pub(super) fn to_left(self, used: &[bool], to: &mut [f32]) {
        let (blocks, images) = (self.blocks(), self.batch.div_ceil(DEPTH));
        assert!(to.len() >= self.plane * blocks * images * TILE);
        let to = Shared::new(to);
        each(blocks * images, 1, |at| {
            let (block, group) = (at / images, at % images);
            let count = DEPTH.min(self.channels - block * DEPTH);
            if self.plane == 1 {
                // SAFETY: as below.
                unsafe {
                    self.rows_to_left(group * DEPTH, block * DEPTH, to.at((block * images + group) * TILE).cast())
                };
                return;
            }
            for pixel in groups(used) {
                for channel in 0..count {
                    // SAFETY: each block of each group has places of its own; the vectors are available where the unit is.
                    unsafe {
                        let to = to.at(((pixel * blocks + block) * images + group) * TILE).cast::<u8>();
                        let to = to.add(channel / 16 * 2 * TILE + channel % 16 * 64);
                        self.images_to(
                            (group * DEPTH, block * DEPTH + channel),
                            (pixel, used),
                            to,
                            blocks * images * 4 * TILE,
                        );
                    }
                }
            }
        });
    }

    /// 32 channels of 32 images of one pixel.
    ///
    /// # Safety
    /// There is room for four tiles.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn rows_to_left(&self, image: usize, channel: usize, to: *mut u8) {
        // Channels take the place of pixels.
        let rows = BatchMaps { plane: self.channels, channels: 1, ..*self };
        for half in (0..DEPTH.min(self.channels - channel)).step_by(16) {
            // SAFETY: the images and the channels exist.
            let [a, b] = [0, 16].map(|later| unsafe {
                let count = 16.min(self.batch.saturating_sub(image + later));
                rows.square(self.at(image + later, 0), self.channels, count, channel + half)
            });
            for (nth, (a, b)) in a.into_iter().zip(b).enumerate() {
                // SAFETY: the caller's promise.
                unsafe { store(split([a, b]), to.add(half * 2 * TILE / 16 + nth * 64), TILE) };
            }
        }
    }

    /// 16 pixels of a channel of 32 images: the upper parts every `step` bytes, the lower ones a tile behind them.
    ///
    /// # Safety
    /// The pixel exists, and there is room.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn images_to(
        &self,
        (image, channel): (usize, usize),
        (pixel, used): (usize, &[bool]),
        to: *mut u8,
        step: usize,
    ) {
        let count = self.batch - image;
        // SAFETY: the images exist.
        let [a, b] = [0, 16].map(|half| unsafe {
            let at = self.at(image + half, channel);
            self.square(at, self.channels * self.plane, 16.min(count.saturating_sub(half)), pixel)
        });
        for (nth, (a, b)) in a.into_iter().zip(b).enumerate().take(self.plane - pixel) {
            if !used[pixel + nth] {
                continue;
            }
            // SAFETY: the caller's promise.
            unsafe { store(split([a, b]), to.add(nth * step), TILE) };
        }
    }

    /// For every pixel its channels, as right factors whose sums run over images:
    /// `to [plane, block, images, half, part, 16, 16, 2]`, pairs of images side by side.
    pub(super) fn to_right(self, to: &mut [f32]) {
        let (blocks, images) = (self.blocks(), self.batch.div_ceil(DEPTH));
        assert!(to.len() >= self.plane * blocks * images * TILE);
        let to = Shared::new(to);
        each(blocks * images, 1, |at| {
            let (block, group) = (at / images, at % images);
            for pixel in (0..self.plane).step_by(GROUP) {
                for pair in 0..32 {
                    let (pair, half) = (pair / 2, pair % 2);
                    // SAFETY: each block of each group has places of its own; the vectors are available where the unit is.
                    unsafe {
                        let to = to.at(((pixel * blocks + block) * images + group) * TILE).cast::<u8>();
                        let to = to.add(half * 2 * TILE + pair * 64);
                        let (image, channel) = (group * DEPTH + 2 * pair, block * DEPTH + 16 * half);
                        self.pairs_to(image, channel, pixel, to, blocks * images * 4 * TILE);
                    }
                }
            }
        });
    }

    /// 16 pixels of 16 channels of two images: the upper parts every `step` bytes, the lower ones a tile behind them.
    ///
    /// # Safety
    /// The pixel exists, and there is room.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn pairs_to(&self, image: usize, channel: usize, pixel: usize, to: *mut u8, step: usize) {
        let count = 16.min(self.channels.saturating_sub(channel));
        if self.plane == 1 {
            // SAFETY: the masks leave out channels that do not exist.
            let [a, b] = [0, 1].map(|second| unsafe {
                let count = if image + second < self.batch { count } else { 0 };
                _mm512_maskz_loadu_ps(first(count), self.values.as_ptr().wrapping_add(self.at(image + second, channel)))
            });
            // SAFETY: the caller's promise.
            unsafe { store(split_pairs(a, b), to, TILE) };
            return;
        }
        // SAFETY: the channels exist, where the image does.
        let [a, b] = [0, 1].map(|second| unsafe {
            let count = if image + second < self.batch { count } else { 0 };
            self.square(self.at(image + second, channel), self.plane, count, pixel)
        });
        for (nth, (a, b)) in a.into_iter().zip(b).enumerate().take(self.plane - pixel) {
            // SAFETY: the caller's promise.
            unsafe { store(split_pairs(a, b), to.add(nth * step), TILE) };
        }
    }
}

/// # Safety
/// There is room for 64 bytes of upper parts, and for as many of lower ones `part` bytes behind.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store([upper, lower]: [__m512i; 2], to: *mut u8, part: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        _mm512_storeu_si512(to.cast(), upper);
        _mm512_storeu_si512(to.add(part).cast(), lower);
    }
}
