//! The gradient of a convolution's weight: for each tap, the product of the input at the tap's pixel and the output's gradient,
//! summed over the images and the pixels.

use std::arch::x86_64::*;

use super::super::buffer::{Filling, Shared};
use super::super::scratch;
use super::super::shape::ConvShape;
use super::super::team::each;
use super::split::BatchMaps;
use super::taps::{Geometry, Taps};
use super::tile::{BLOCK, Run, STEP, TILE, TileBlock, multiply};
use super::vector::{first, transpose};

/// Steps that are taken at a time: what they take of both factors stays in the second-level cache.
const CHUNK: usize = 36;

/// Panels of outputs of a task.
const PANELS: usize = 2;

/// The gradient of the weight, `[o, c, kh, kw]`.
pub(super) fn weight_gradient(shape: &ConvShape, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let geometry = Geometry::forward(shape);
    let ConvShape { batch, inputs, outputs, .. } = *shape;
    let x = BatchMaps { values: x, batch, channels: inputs, plane: shape.plane() };
    let grad = BatchMaps { values: grad, batch, channels: outputs, plane: shape.out_plane() };
    let (blocks, panels, images) = (x.blocks(), grad.blocks(), batch.div_ceil(32));
    let mut left = scratch::take(shape.plane() * blocks * images * TILE);
    x.to_left(&geometry.used(), &mut left);
    let mut right = scratch::take(shape.out_plane() * panels * images * TILE);
    grad.to_right(&mut right);

    let mut out = Filling::new(outputs * inputs * shape.taps());
    let (taps, to) = (Taps::new(&geometry), out.shared());
    let task = GradientTask { shape, taps: &taps, left: &left, right: &right, blocks, panels, images, to };
    let across = panels.div_ceil(PANELS);
    // Few blocks are shared out tap by tap.
    let share = if blocks * across >= 4 { shape.taps() } else { 1 };
    let shares = shape.taps() / share;
    each(blocks * across * shares, 1, |at| {
        let (block, at) = (at / (across * shares), at % (across * shares));
        task.run(block, at / shares * PANELS, at % shares * share, share);
    });
    // SAFETY: the tasks write every tap of every block.
    unsafe { out.finish() }
}

struct GradientTask<'a> {
    shape: &'a ConvShape,
    taps: &'a Taps,
    left: &'a [f32],
    right: &'a [f32],
    /// Blocks of 32 inputs and of 32 outputs, and groups of 32 images.
    blocks: usize,
    panels: usize,
    images: usize,
    to: Shared,
}

impl GradientTask<'_> {
    /// `share` taps from `tap` on of a block of inputs and the panels of outputs from `panel` on.
    fn run(&self, block: usize, panel: usize, tap: usize, share: usize) {
        let panels = PANELS.min(self.panels - panel);
        let width = panels * BLOCK;
        let mut sums = scratch::take(share * BLOCK * width);
        let sums = sums.as_mut_ptr();
        let step = self.images * STEP;
        let chunk = (CHUNK / self.images).max(1);
        let mut runs = vec![Vec::with_capacity(chunk); share];
        for first in (0..self.shape.out_plane()).step_by(chunk) {
            let pixels = first..self.shape.out_plane().min(first + chunk);
            for (nth, runs) in runs.iter_mut().enumerate() {
                let run = |pixel: usize| {
                    let source = self.taps.source(pixel, tap + nth)?;
                    let left = (source * self.blocks + block) * step;
                    Some(Run {
                        a: [0, 1, 2, 3].map(|tile| left + tile * TILE),
                        b: pixel * self.panels * step,
                        steps: self.images,
                    })
                };
                runs.clear();
                runs.extend(pixels.clone().filter_map(run));
            }
            let left = [self.left.as_ptr().cast(); 2];
            let blocks = runs.iter().enumerate().flat_map(|(nth, runs)| {
                (0..panels).map(move |at| {
                    let right = self.right[(panel + at) * step / 4..].as_ptr().cast();
                    // The block lies within `sums`.
                    let c = sums.wrapping_add(nth * BLOCK * width + at * BLOCK);
                    TileBlock::new((c, width), (left, STEP), right, runs, first > 0)
                })
            });
            // SAFETY: the unit is available, and the factors have the steps of the runs.
            unsafe { multiply(blocks) };
        }
        for nth in 0..share {
            for side in (0..width).step_by(16) {
                for half in [0, 16] {
                    let (output, input) = (panel * BLOCK + side, block * BLOCK + half);
                    if output >= self.shape.outputs || input >= self.shape.inputs {
                        continue;
                    }
                    // SAFETY: these inputs of these outputs belong to this task.
                    unsafe {
                        let to = self.to.at((output * self.shape.inputs + input) * self.shape.taps() + tap + nth);
                        self.write(sums.add((nth * BLOCK + half) * width + side), width, (input, output), to);
                    }
                }
            }
        }
    }

    /// A square of at most 16 inputs and 16 outputs.
    ///
    /// # Safety
    /// There is a row of 16 values for each of 16 inputs, and `to` is where the first of them goes.
    #[target_feature(enable = "avx512f")]
    unsafe fn write(&self, from: *const f32, row: usize, (input, output): (usize, usize), to: *mut f32) {
        let mut values = [_mm512_setzero_ps(); 16];
        for (at, values) in values.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *values = unsafe { _mm512_loadu_ps(from.add(at * row)) };
        }
        let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let places = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(self.shape.taps() as i32));
        let mask = first(self.shape.inputs - input);
        for (at, value) in transpose(values).into_iter().enumerate().take(self.shape.outputs - output) {
            // SAFETY: the caller's promise; the mask leaves out inputs that do not exist.
            unsafe {
                let to = to.add(at * self.shape.inputs * self.shape.taps());
                _mm512_mask_i32scatter_ps::<4>(to, mask, places, value);
            }
        }
    }
}
