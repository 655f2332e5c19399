//! The product where channels lie side by side already: nothing is copied. A row of the left factor is gathered where it lies, from
//! one place for each tap of the kernel.

use super::super::buffer::Shared;
use super::super::epilogue::Epilogue;
use super::super::pixels::{PixelWeights, pitch, windows};
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

/// Values between panels of kernels.
fn panel_len(shape: &ConvShape, halves: bool) -> usize {
    shape.taps() * shape.inputs * panel_here() / if halves { 2 } else { 1 }
}

/// Kernels as panels of outputs: within one, tap by tap, channel by channel, output by output; with `halves`, rounded to bfloat16,
/// outputs `n` and `n + lanes` of a panel in the lower and upper half of a word.
pub(super) fn pack(shape: &ConvShape, weight: &[f32], halves: bool) -> Values {
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

/// The opposite of [`pack`]; of a value that was rounded, what it was rounded to.
pub(in super::super) fn unpack(shape: &ConvShape, packed: PixelWeights<'_>, width: usize) -> Vec<f32> {
    let (taps, lanes) = (shape.taps(), width / WIDE);
    let len = taps * shape.inputs * width / if packed.halves { 2 } else { 1 };
    let mut weight = vec![0f32; shape.outputs * shape.inputs * taps];
    for (output, kernels) in weight.chunks_exact_mut(shape.inputs * taps).enumerate() {
        let (from, lane) = (&packed.values[output / width * len..][..len], output % width);
        for (at, value) in kernels.iter_mut().enumerate() {
            let row = at % taps * shape.inputs + at / taps;
            *value = if packed.halves {
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
    let (width, len) = (panel_here(), panel_len(shape, weights.halves));
    let panels = shape.outputs.div_ceil(width);
    // Each pixel is an image of its own where the output's are the input's.
    let flat = shape.taps() == 1 && shape.stride == 1 && shape.padding == 0;
    let of = if flat { ConvShape { height: 1, width: 1, ..*shape } } else { *shape };
    let rows = shape.batch * shape.out_plane();
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
    let target = Shared::new(out);
    each(blocks * sides, 1, |at| {
        let (group, at) = (at / (together * sides), at % (together * sides));
        let count = together.min(blocks - group * together);
        let (first, panel) = ((group * together + at % count) * height, at / count * side);
        simd::run(Gathered {
            x: x.as_ptr(),
            shape: of,
            zeros: zeros.as_ptr(),
            rows: first..(first + height).min(rows),
            panels: panel..(panel + side).min(panels),
            panel_len: len,
            weights,
            // SAFETY: it is the start; each task writes pixels and channels of its own.
            to: unsafe { target.at(0) },
            pitch: pitch(shape.outputs),
            epilogue,
        });
    });
}

/// Some rows, which are pixels, of some panels of outputs.
struct Gathered<'a> {
    /// The first image.
    x: *const f32,
    shape: ConvShape,
    /// A pixel of zeros.
    zeros: *const f32,
    rows: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
    panel_len: usize,
    weights: PixelWeights<'a>,
    /// The first pixel of the output; the next is `pitch` further.
    to: *mut f32,
    pitch: usize,
    epilogue: Epilogue<'a>,
}

impl SimdKernel for Gathered<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if self.weights.halves { self.all::<S, true>(simd) } else { self.all::<S, false>(simd) }
    }
}

impl Gathered<'_> {
    #[inline(always)]
    fn all<S: Simd, const HALVES: bool>(&self, simd: S) {
        for panel_at in self.panels.clone() {
            let mut row = self.rows.start;
            while row < self.rows.end {
                let left = self.rows.end - row;
                // SAFETY: whoever made the kernel vouches for the matrices.
                row += unsafe {
                    if S::ROWS == 8 && left >= 8 {
                        self.block::<S, HALVES, 8>(simd, row, panel_at)
                    } else if S::ROWS == 6 && left >= 6 {
                        self.block::<S, HALVES, 6>(simd, row, panel_at)
                    } else if left >= 4 {
                        self.block::<S, HALVES, 4>(simd, row, panel_at)
                    } else if left >= 2 {
                        self.block::<S, HALVES, 2>(simd, row, panel_at)
                    } else {
                        self.block::<S, HALVES, 1>(simd, row, panel_at)
                    }
                };
            }
        }
    }

    /// `ROWS` rows of one panel; returns `ROWS`.
    #[inline(always)]
    unsafe fn block<S: Simd, const HALVES: bool, const ROWS: usize>(
        &self,
        simd: S,
        row: usize,
        panel_at: usize,
    ) -> usize {
        let ConvShape { height, width, inputs, kernel_h, kernel_w, .. } = self.shape;
        let pitch = pitch(inputs);
        let windows = windows::<ROWS>(&self.shape, pitch, row);
        // SAFETY: the caller's promise covers all addresses of the block.
        unsafe {
            let mut b = self.weights.values.as_ptr().add(panel_at * self.panel_len);
            let mut sums = [[simd.splat(0.0); WIDE]; ROWS];
            for tap in 0..kernel_h * kernel_w {
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
                    let right = if HALVES { simd.load_halves(b) } else { [simd.load(b), simd.load(b.add(S::LANES))] };
                    for i in 0..ROWS {
                        let left = simd.splat(*a[i].add(k));
                        for j in 0..WIDE {
                            sums[i][j] = simd.mul_add(left, right[j], sums[i][j]);
                        }
                    }
                    b = b.add(if HALVES { S::LANES } else { panel::<S>() });
                }
            }
            // First as they are, which leaves the sums in registers until here.
            let first = panel_at * panel::<S>();
            let to = self.to.add(row * self.pitch + first);
            let wide = first + S::LANES < self.pitch;
            for i in 0..ROWS {
                simd.store(to.add(i * self.pitch), sums[i][0]);
                if wide {
                    simd.store(to.add(i * self.pitch + S::LANES), sums[i][1]);
                }
            }
            if !self.epilogue.is_nothing() {
                for j in 0..if wide { WIDE } else { 1 } {
                    let at = row * self.pitch + first + j * S::LANES;
                    self.epilogue.over(simd, self.to, (at, self.pitch, ROWS), first + j * S::LANES);
                }
            }
        }
        ROWS
    }
}
