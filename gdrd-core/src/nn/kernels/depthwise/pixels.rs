//! Depthwise convolution where channels lie side by side: vectors of channels, each with its own kernel. Groups of two or four channels
//! are as many such convolutions: of each channel, of its neighbours, and so on.

use super::super::buffer::Shared;
use super::super::epilogue::Epilogue;
use super::super::pixels::{is_filled_up, pitch};
use super::super::scratch::Values;
use super::super::shape::ConvShape;
use super::super::simd::{self, Simd, SimdKernel};
use super::super::team::each;

/// Whether there is a form for a convolution.
pub(super) fn applies(shape: &ConvShape) -> bool {
    let alike = shape.group_inputs() == shape.group_outputs();
    shape.groups > 1 && alike && matches!(shape.group_inputs(), 1 | 2 | 4) && is_filled_up(shape.inputs)
}

/// Kernels tap by tap, channels side by side, filled up with zeros: for each tap that of channel `c` for input `c`, then that for
/// `c ^ 1`, and so on.
pub(super) fn pack(shape: &ConvShape, weight: &[f32]) -> Values {
    let (taps, group, pitch) = (shape.taps(), shape.group_inputs(), pitch(shape.inputs));
    let mut packed = Values::zeros(taps * group * pitch);
    for (channel, kernels) in weight.chunks_exact(group * taps).enumerate() {
        for (at, value) in kernels.iter().enumerate() {
            let by = (channel % group) ^ (at / taps);
            packed[(at % taps * group + by) * pitch + channel] = *value;
        }
    }
    packed
}

pub(super) fn forward(shape: &ConvShape, x: &[f32], packed: &[f32], epilogue: Epilogue<'_>, out: &mut [f32]) {
    let (height, pitch, target) = (shape.out_height(), pitch(shape.inputs), Shared::new(out));
    // Rows of one image that take some microseconds.
    let rows = (TASK / (shape.out_width() * pitch * shape.taps() * shape.group_inputs())).clamp(1, height);
    let blocks = height.div_ceil(rows);
    each(shape.batch * blocks, 1, |at| {
        let (image, row) = (at / blocks, at % blocks * rows);
        simd::run(Rows {
            shape,
            x: x[image * shape.plane() * pitch..].as_ptr(),
            packed: packed.as_ptr(),
            pitch,
            image,
            rows: row..(row + rows).min(height),
            epilogue,
            // SAFETY: it is the start; each task writes rows of its own.
            to: unsafe { target.at(0) },
        });
    });
}

/// Multiplications of a task.
const TASK: usize = 1 << 19;

/// Some rows of one image.
struct Rows<'a> {
    shape: &'a ConvShape,
    x: *const f32,
    packed: *const f32,
    pitch: usize,
    image: usize,
    rows: std::ops::Range<usize>,
    epilogue: Epilogue<'a>,
    to: *mut f32,
}

/// Neighbouring pixels whose sums are kept in registers.
const SPAN: usize = 4;

impl SimdKernel for Rows<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.shape.group_inputs() {
            1 => self.all::<S, 1>(simd),
            2 => self.all::<S, 2>(simd),
            _ => self.all::<S, 4>(simd),
        }
    }
}

impl Rows<'_> {
    #[inline(always)]
    fn all<S: Simd, const GROUP: usize>(&self, simd: S) {
        let ConvShape { width, height, stride, padding, kernel_h, kernel_w, .. } = *self.shape;
        let (out_width, out_plane) = (self.shape.out_width(), self.shape.out_plane());
        // Columns whose windows lie within the map.
        let (begin, end) = {
            let begin = padding.div_ceil(stride).min(out_width);
            let end = ((width + padding).saturating_sub(kernel_w) / stride + 1).min(out_width);
            (begin, if width + padding < kernel_w { begin } else { end.max(begin) })
        };
        for y in self.rows.clone() {
            let top = y * stride;
            let tap_rows = padding.saturating_sub(top)..(height + padding).saturating_sub(top).min(kernel_h);
            let first = (self.image * out_plane + y * out_width) * self.pitch;
            for channel in (0..self.pitch).step_by(S::LANES) {
                let mut column = 0;
                while column < out_width {
                    // SAFETY: whoever made the kernel vouches for the map, the kernels and the output.
                    unsafe {
                        let inside = begin <= column && column + SPAN <= end;
                        let count = if inside { SPAN } else { 1 };
                        let mut sums = [simd.splat(0.0); SPAN];
                        for ky in tap_rows.clone() {
                            let line = self.x.add((top + ky - padding) * width * self.pitch + channel);
                            let kernel = self.packed.add(ky * kernel_w * GROUP * self.pitch + channel);
                            if inside {
                                let line = line.add((column * stride - padding) * self.pitch);
                                for kx in 0..kernel_w {
                                    for by in 0..GROUP {
                                        let factor = simd.load(kernel.add((kx * GROUP + by) * self.pitch));
                                        for i in 0..SPAN {
                                            let value = simd.load(line.add((i * stride + kx) * self.pitch));
                                            sums[i] = simd.mul_add(factor, simd.exchange(value, by), sums[i]);
                                        }
                                    }
                                }
                            } else {
                                for kx in 0..kernel_w {
                                    let from = (column * stride + kx).wrapping_sub(padding);
                                    if from < width {
                                        let value = simd.load(line.add(from * self.pitch));
                                        for by in 0..GROUP {
                                            let factor = simd.load(kernel.add((kx * GROUP + by) * self.pitch));
                                            sums[0] = simd.mul_add(factor, simd.exchange(value, by), sums[0]);
                                        }
                                    }
                                }
                            }
                        }
                        for i in 0..count {
                            let at = first + (column + i) * self.pitch + channel;
                            simd.store(self.to.add(at), self.epilogue.of(simd, sums[i], at, channel));
                        }
                        column += count;
                    }
                }
            }
        }
    }
}
