//! The product where channels lie side by side already: nothing is copied. A row of the left factor is gathered where it lies, from
//! one place for each tap of the kernel.

use std::ops::Range;

use super::super::buffer::Shared;
use super::super::epilogue::Epilogue;
use super::super::pixels::{PixelForm, PixelWeights, is_filled_up, pitch, windows};
use super::super::product::{WIDE, panel, panel_here};
use super::super::scratch::{self, Values};
use super::super::shape::ConvShape;
use super::super::simd::{self, Simd, SimdKernel};
use super::super::team::each;

/// Rows of a task; whole blocks on every level.
const ROWS: usize = 48;

/// Values of packed kernels of a task that fit the cache of a core, beside what it reads.
const KERNELS: usize = 1 << 15;

/// Values of pixels that fit it likewise.
const PIXELS: usize = 1 << 17;

/// Words of all of a layer's kernels up to which a cache has them from one call to the next, about.
const HELD: usize = 1 << 20;

/// Values between panels of kernels.
fn panel_len(shape: &ConvShape, halves: bool) -> usize {
    shape.taps() * shape.inputs * panel_here() / if halves { 2 } else { 1 }
}

/// Kernels as panels of outputs: within one, tap by tap, channel by channel, output by output; with `halves`, rounded to bfloat16,
/// outputs `n` and `n + lanes` of a panel in the lower and upper half of a word.
pub(in super::super) fn panels(shape: &ConvShape, weight: &[f32], halves: bool) -> Values {
    let (taps, width, lanes) = (shape.taps(), panel_here(), simd::lanes());
    let len = panel_len(shape, halves);
    let mut packed = Values::zeros(shape.outputs.div_ceil(width) * len);
    for (output, kernels) in weight.chunks_exact(shape.inputs * taps).enumerate() {
        let (to, lane) = (&mut packed[output / width * len..][..len], output % width);
        for (at, value) in kernels.iter().enumerate() {
            let row = at % taps * shape.inputs + at / taps;
            if halves {
                let word = &mut to[row * lanes + lane % lanes];
                *word = f32::from_bits(word.to_bits() | u32::from(rounded(*value)) << (16 * (lane / lanes)));
            } else {
                to[row * width + lane] = *value;
            }
        }
    }
    packed
}

/// The opposite of [`panels`], of panels of some width; of a value that was rounded, what it was rounded to.
pub(in super::super) fn unpack(shape: &ConvShape, values: &[f32], halves: bool, width: usize) -> Vec<f32> {
    let (taps, lanes) = (shape.taps(), width / WIDE);
    let len = taps * shape.inputs * width / if halves { 2 } else { 1 };
    let mut weight = vec![0f32; shape.outputs * shape.inputs * taps];
    for (output, kernels) in weight.chunks_exact_mut(shape.inputs * taps).enumerate() {
        let (from, lane) = (&values[output / width * len..][..len], output % width);
        for (at, value) in kernels.iter_mut().enumerate() {
            let row = at % taps * shape.inputs + at / taps;
            *value = if halves {
                let word = from[row * lanes + lane % lanes].to_bits();
                f32::from_bits(if lane < lanes { word << 16 } else { word & 0xffff_0000 })
            } else {
                from[row * width + lane]
            };
        }
    }
    weight
}

/// The bits of the nearest bfloat16 value, the even one of two; weights are finite.
fn rounded(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

pub(super) fn forward(
    shape: &ConvShape,
    x: &[f32],
    weights: PixelWeights<'_>,
    epilogue: Epilogue<'_>,
    out: &mut [f32],
) {
    let halves = weights.form == PixelForm::Panels { halves: true };
    let (width, len) = (panel_here(), panel_len(shape, halves));
    let panels = shape.outputs.div_ceil(width);
    // Each pixel is an image of its own where the output's are the input's.
    let flat = shape.taps() == 1 && shape.stride == 1 && shape.padding == 0;
    let rows = shape.batch * shape.out_plane();
    // So it is where windows are written out: where channels are few, and some panels read them.
    let written = !is_filled_up(shape.inputs) && !flat && panels > 2;
    let of = match (flat, written) {
        (true, _) => ConvShape { height: 1, width: 1, ..*shape },
        (_, true) => pointwise(shape),
        _ => *shape,
    };
    let mut zeros = scratch::take(shape.inputs);
    zeros.fill(0.0);

    let side = (KERNELS / len).clamp(1, panels);
    // Kernels that no cache holds are read once for many rows.
    let blocks = rows.div_ceil(if len > 2 * KERNELS { 2 * ROWS } else { ROWS });
    let height = rows.div_ceil(blocks).next_multiple_of(ROWS / 2).min(rows);
    let blocks = rows.div_ceil(height);
    // What some blocks read stays in a core's cache until all panels have read it.
    let together = (PIXELS / (height * shape.stride * shape.stride * shape.inputs)).clamp(1, blocks);
    let sides = panels.div_ceil(side);
    let ahead = rows <= ROWS && panels * len > HELD;
    let target = Shared::new(out);
    each(blocks * sides, 1, |at| {
        let (group, at) = (at / (together * sides), at % (together * sides));
        let count = together.min(blocks - group * together);
        let (first, panel) = ((group * together + at % count) * height, at / count * side);
        let rows = first..(first + height).min(rows);
        let mut windows = scratch::take(if written { rows.len() * pitch(of.inputs) } else { 0 });
        let mut from = x.as_ptr();
        if written {
            write_windows(shape, x, rows.clone(), &mut windows);
            from = windows.as_ptr().wrapping_sub(rows.start * pitch(of.inputs));
        }
        simd::run(Gathered {
            x: from,
            shape: of,
            zeros: zeros.as_ptr(),
            rows,
            panels: panel..(panel + side).min(panels),
            panel_len: len,
            weights: weights.values,
            halves,
            ahead,
            // SAFETY: it is the start; each task writes pixels and channels of its own.
            to: unsafe { target.at(0) },
            pitch: pitch(shape.outputs),
            epilogue,
        });
    });
}

/// The convolution of windows that are written out, each a pixel of an image of its own.
fn pointwise(shape: &ConvShape) -> ConvShape {
    let (batch, inputs) = (shape.batch * shape.out_plane(), shape.taps() * shape.inputs);
    let one = ConvShape { height: 1, width: 1, kernel_h: 1, kernel_w: 1, stride: 1, padding: 0, ..*shape };
    ConvShape { batch, inputs, ..one }
}

/// Writes the windows of some rows: tap by tap, channel by channel, without gaps since channels are not filled up.
fn write_windows(shape: &ConvShape, x: &[f32], rows: Range<usize>, to: &mut [f32]) {
    let ConvShape { inputs, kernel_w, height, width, .. } = *shape;
    for (row, to) in rows.zip(to.chunks_exact_mut(pitch(shape.taps() * inputs))) {
        let [window] = windows::<1>(shape, inputs, row);
        // Taps of a line that lie within the map.
        let inside = |kx: &usize| window.column.wrapping_add(*kx) < width;
        let first = (0..kernel_w).find(inside).unwrap_or(kernel_w);
        let count = (first..kernel_w).take_while(inside).count();
        for (ky, to) in to[..shape.taps() * inputs].chunks_exact_mut(kernel_w * inputs).enumerate() {
            let count = if window.line.wrapping_add(ky) < height { count } else { 0 };
            let (before, rest) = to.split_at_mut(first * inputs);
            let (line, after) = rest.split_at_mut(count * inputs);
            before.fill(0.0);
            after.fill(0.0);
            if count > 0 {
                line.copy_from_slice(&x[window.at.wrapping_add((ky * width + first) * inputs)..][..line.len()]);
            }
        }
    }
}

/// Some rows, which are pixels, of some panels of outputs.
struct Gathered<'a> {
    /// The first image, or where it would lie.
    x: *const f32,
    shape: ConvShape,
    /// A pixel of zeros.
    zeros: *const f32,
    rows: Range<usize>,
    panels: Range<usize>,
    panel_len: usize,
    weights: &'a [f32],
    /// Whether they are pairs of bfloat16 values.
    halves: bool,
    /// Whether they come from memory: all rows take one tap before the next, which is fetched meanwhile.
    ahead: bool,
    /// The first pixel of the output; the next is `pitch` further.
    to: *mut f32,
    pitch: usize,
    epilogue: Epilogue<'a>,
}

impl SimdKernel for Gathered<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if self.halves { self.all::<S, true>(simd) } else { self.all::<S, false>(simd) }
    }
}

impl Gathered<'_> {
    #[inline(always)]
    fn all<S: Simd, const HALVES: bool>(&self, simd: S) {
        let taps = self.shape.taps();
        for panel_at in self.panels.clone() {
            if self.ahead {
                for tap in 0..taps {
                    self.part::<S, HALVES, true>(simd, panel_at, tap..tap + 1);
                }
            } else {
                self.part::<S, HALVES, false>(simd, panel_at, 0..taps);
            }
        }
    }

    /// Some taps of all rows of one panel.
    #[inline(always)]
    fn part<S: Simd, const HALVES: bool, const AHEAD: bool>(&self, simd: S, panel_at: usize, taps: Range<usize>) {
        let mut row = self.rows.start;
        while row < self.rows.end {
            let left = self.rows.end - row;
            // SAFETY: whoever made the kernel vouches for the matrices.
            row += unsafe {
                if S::ROWS == 8 && left >= 8 {
                    self.block::<S, HALVES, AHEAD, 8>(simd, row, panel_at, taps.clone())
                } else if S::ROWS == 6 && left >= 6 && left != 8 {
                    self.block::<S, HALVES, AHEAD, 6>(simd, row, panel_at, taps.clone())
                } else if left >= 4 {
                    self.block::<S, HALVES, AHEAD, 4>(simd, row, panel_at, taps.clone())
                } else if left >= 2 {
                    self.block::<S, HALVES, AHEAD, 2>(simd, row, panel_at, taps.clone())
                } else {
                    self.block::<S, HALVES, AHEAD, 1>(simd, row, panel_at, taps.clone())
                }
            };
        }
    }

    /// Some taps of `ROWS` rows of one panel; returns `ROWS`. With `AHEAD` each block fetches its share of the kernels of the next taps.
    #[inline(always)]
    unsafe fn block<S: Simd, const HALVES: bool, const AHEAD: bool, const ROWS: usize>(
        &self,
        simd: S,
        row: usize,
        panel_at: usize,
        taps: Range<usize>,
    ) -> usize {
        let ConvShape { height, width, inputs, kernel_w, .. } = self.shape;
        let pitch = pitch(inputs);
        let windows = windows::<ROWS>(&self.shape, pitch, row);
        let line = if HALVES { S::LANES } else { panel::<S>() };
        let first = panel_at * panel::<S>();
        let wide = first + S::LANES < self.pitch;
        // SAFETY: the caller's promise covers all addresses of the block.
        unsafe {
            let kernels = self.weights.as_ptr().add(panel_at * self.panel_len);
            let to = self.to.add(row * self.pitch + first);
            let mut sums = [[simd.splat(0.0); WIDE]; ROWS];
            if taps.start > 0 {
                for i in 0..ROWS {
                    sums[i][0] = simd.load(to.add(i * self.pitch));
                    if wide {
                        sums[i][1] = simd.load(to.add(i * self.pitch + S::LANES));
                    }
                }
            }
            let share = line / self.rows.len().div_ceil(S::ROWS);
            let mut ahead =
                kernels.wrapping_add(taps.end * inputs * line + (row - self.rows.start) / S::ROWS * inputs * share);
            let mut b = kernels.add(taps.start * inputs * line);
            for tap in taps.clone() {
                let (ky, kx) = (tap / kernel_w, tap % kernel_w);
                let step = (ky * width + kx) * pitch;
                let mut a = [self.zeros; ROWS];
                for i in 0..ROWS {
                    let window = &windows[i];
                    if window.line.wrapping_add(ky) < height && window.column.wrapping_add(kx) < width {
                        a[i] = self.x.wrapping_add(window.at.wrapping_add(step));
                    }
                }
                for k in 0..inputs {
                    if AHEAD {
                        simd.prefetch(ahead);
                        ahead = ahead.wrapping_add(share);
                    }
                    let right = if HALVES { simd.load_halves(b) } else { [simd.load(b), simd.load(b.add(S::LANES))] };
                    for i in 0..ROWS {
                        let left = simd.splat(*a[i].add(k));
                        for j in 0..WIDE {
                            sums[i][j] = simd.mul_add(left, right[j], sums[i][j]);
                        }
                    }
                    b = b.add(line);
                }
            }
            // First as they are, which leaves the sums in registers until here.
            for i in 0..ROWS {
                simd.store(to.add(i * self.pitch), sums[i][0]);
                if wide {
                    simd.store(to.add(i * self.pitch + S::LANES), sums[i][1]);
                }
            }
            if taps.end == self.shape.taps() && !self.epilogue.is_nothing() {
                for j in 0..if wide { WIDE } else { 1 } {
                    let at = row * self.pitch + first + j * S::LANES;
                    self.epilogue.over(simd, self.to, (at, self.pitch, ROWS), first + j * S::LANES);
                }
            }
        }
        ROWS
    }
}
