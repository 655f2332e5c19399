//! Kernels in the form that the products take, and back.

use std::marker::PhantomData;

#[cfg(doc)]
use super::super::pixels::PixelForm;
use super::super::product::{WIDE, panel, panel_here};
use super::super::scratch::{self, Values};
use super::super::shape::ConvShape;
use super::super::simd::{self, Simd, SimdKernel};
use super::axis::{Algorithm, Axis, MOST};

/// Taps of a kernel along one axis.
pub(super) const TAPS: usize = 3;
/// Taps of a kernel.
const KERNEL: usize = TAPS * TAPS;

/// Kernels `[outputs, inputs, 3, 3]`, as they are or as the input's gradient needs them.
#[derive(Clone, Copy)]
pub(super) struct Kernels3x3<'a> {
    pub(super) values: &'a [f32],
    /// Second dimension of the tensor.
    pub(super) inputs: usize,
    /// Whether inputs and outputs change places and kernels are rotated by 180 degrees.
    pub(super) adjoint: bool,
}

impl Kernels3x3<'_> {
    /// Channels that go into the products, and that come out.
    pub(super) fn channels(&self) -> (usize, usize) {
        let outputs = self.values.len() / (self.inputs * KERNEL);
        if self.adjoint { (outputs, self.inputs) } else { (self.inputs, outputs) }
    }
}

/// Distance of neighbouring positions in a transformed panel.
pub(super) fn position(depth: usize, panel: usize) -> usize {
    depth * panel + 16
}

/// Values of a transformed panel.
pub(super) fn panel_len<A: Algorithm>(depth: usize, panel: usize) -> usize {
    A::Kernel::TO * A::Kernel::TO * position(depth, panel)
}

/// Transformed kernels, panel by panel of outputs.
pub(super) fn packed<A: Algorithm>(shape: &ConvShape, weight: &[f32]) -> Values {
    let weights = Kernels3x3 { values: weight, inputs: shape.inputs, adjoint: false };
    let width = panel_here();
    let panel_len = panel_len::<A>(shape.inputs, width);
    let mut packed = Values::zeros(shape.outputs.div_ceil(width) * panel_len);
    for (panel, to) in packed.chunks_exact_mut(panel_len).enumerate() {
        simd::run(Pack { weights, panel, to: to.as_mut_ptr(), transform: PhantomData::<A::Kernel> });
    }
    packed
}

/// Writes `G g G^T` of the kernels to one panel of outputs: position `t`, channel `k`, output `n` at
/// `t * position + k * panel + n`; zeros for outputs that do not exist.
pub(super) struct Pack<'a, X> {
    pub(super) weights: Kernels3x3<'a>,
    /// Which panel of outputs.
    pub(super) panel: usize,
    pub(super) to: *mut f32,
    pub(super) transform: PhantomData<X>,
}

impl<X: Axis> SimdKernel for Pack<'_, X> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let lanes = S::LANES;
        let Kernels3x3 { values, inputs, adjoint } = self.weights;
        let (depth, outputs) = self.weights.channels();
        let width = panel::<S>();
        let mut buffer = scratch::take(KERNEL * lanes * lanes);
        for side in 0..width / lanes {
            let first = self.panel * width + side * lanes;
            let valid = outputs.saturating_sub(first).min(lanes);
            // The kernels of `lanes` input channels at a time, transposed so that the outputs lie side by side.
            for start in (0..depth).step_by(lanes) {
                let count = lanes.min(depth - start);
                // SAFETY: kernels that exist are read, `buffer` has room for the transposed ones, and whoever made the
                // kernel vouches for the target.
                unsafe {
                    transpose(simd, values, (inputs, adjoint), (first, valid), (start, count), &mut buffer);
                    for k in 0..count {
                        let to = self.to.add((start + k) * width + side * lanes);
                        let mut taps = [simd.splat(0.0); KERNEL];
                        for tap in 0..KERNEL {
                            taps[tap] = simd.load(buffer.as_ptr().add((k * KERNEL + tap) * lanes));
                        }
                        transform_one::<S, X>(simd, taps, to, position(depth, width));
                    }
                }
            }
        }
    }
}

/// Brings kernels into the order `[channel, tap, output lane]`.
#[inline(always)]
unsafe fn transpose<S: Simd>(
    simd: S,
    values: &[f32],
    (inputs, adjoint): (usize, bool),
    (first, valid): (usize, usize),
    (start, count): (usize, usize),
    buffer: &mut [f32],
) {
    let lanes = S::LANES;
    let row = inputs * KERNEL;
    if adjoint {
        for k in 0..count {
            let at = if valid == 0 { 0 } else { (start + k) * row + first * KERNEL };
            let from = &values[at..][..valid * KERNEL];
            let to = &mut buffer[k * KERNEL * lanes..][..KERNEL * lanes];
            for tap in 0..KERNEL {
                for lane in 0..lanes {
                    to[tap * lanes + lane] = if lane < valid { from[lane * KERNEL + KERNEL - 1 - tap] } else { 0.0 };
                }
            }
        }
    } else if valid == lanes && count == lanes {
        for square in 0..KERNEL {
            let at = first * row + start * KERNEL + square * lanes;
            let to = &mut buffer[square * lanes * lanes..][..lanes * lanes];
            // SAFETY: `lanes` rows of the weights from `first` on exist, and have `lanes * KERNEL` values from `start` on.
            unsafe { simd.transpose(values.as_ptr().add(at), row, to.as_mut_ptr(), |j| j * lanes) };
        }
    } else {
        for at in 0..count * KERNEL {
            for lane in 0..lanes {
                buffer[at * lanes + lane] =
                    if lane < valid { values[(first + lane) * row + start * KERNEL + at] } else { 0.0 };
            }
        }
    }
}

/// As [`Pack`], of some channels of a panel whose kernels lie as [`PixelForm::Panels`]; `k` counts from the first of them.
pub(super) struct PackPanel<X> {
    /// The first channel's first tap.
    pub(super) from: *const f32,
    pub(super) halves: bool,
    /// All channels of the panel, and those to transform.
    pub(super) inputs: usize,
    pub(super) channels: usize,
    pub(super) to: *mut f32,
    pub(super) transform: PhantomData<X>,
}

impl<X: Axis> SimdKernel for PackPanel<X> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if self.halves { self.all::<S, true>(simd) } else { self.all::<S, false>(simd) }
    }
}

impl<X: Axis> PackPanel<X> {
    #[inline(always)]
    fn all<S: Simd, const HALVES: bool>(&self, simd: S) {
        let width = panel::<S>();
        let row = if HALVES { S::LANES } else { width };
        for k in 0..self.channels {
            for side in 0..WIDE {
                let mut taps = [simd.splat(0.0); KERNEL];
                // SAFETY: whoever made the kernel vouches for the panel and for what is written.
                unsafe {
                    for tap in 0..KERNEL {
                        let from = self.from.add((tap * self.inputs + k) * row);
                        taps[tap] =
                            if HALVES { simd.load_halves(from)[side] } else { simd.load(from.add(side * S::LANES)) };
                    }
                    let to = self.to.add(k * width + side * S::LANES);
                    transform_one::<S, X>(simd, taps, to, position(self.channels, width));
                }
            }
        }
    }
}

/// `G g G^T` for one vector of kernels, tap by tap.
///
/// # Safety
/// The vectors of the transform may be written at distances of `position`.
#[inline(always)]
unsafe fn transform_one<S: Simd, X: Axis>(simd: S, taps: [S::V; KERNEL], to: *mut f32, position: usize) {
    let zero = simd.splat(0.0);
    let mut mid = [[zero; MOST]; MOST];
    for j in 0..TAPS {
        let mut g = [zero; MOST];
        for i in 0..TAPS {
            g[i] = taps[i * TAPS + j];
        }
        let u = X::of(simd, g);
        for i in 0..X::TO {
            mid[i][j] = u[i];
        }
    }
    for i in 0..X::TO {
        let u = X::of(simd, mid[i]);
        for j in 0..X::TO {
            // SAFETY: the caller's promise.
            unsafe { simd.store(to.add((i * X::TO + j) * position), u[j]) };
        }
    }
}

/// `G^T du G` for a block of products: position `t`, output `o`, input `c` at `t * position + o * row + c`; writes the
/// gradients of the kernels.
pub(super) struct Unpack<X> {
    pub(super) from: *const f32,
    pub(super) position: usize,
    pub(super) row: usize,
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    /// The first kernel of the block; the next output's lies `stride` further.
    pub(super) to: *mut f32,
    pub(super) stride: usize,
    pub(super) transform: PhantomData<X>,
}

impl<X: Axis> SimdKernel for Unpack<X> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (lanes, zero) = (S::LANES, simd.splat(0.0));
        let mut buffer = scratch::take(KERNEL * lanes);
        for output in 0..self.outputs {
            for first in (0..self.inputs).step_by(lanes) {
                let mut mid = [[zero; MOST]; TAPS];
                // SAFETY: `buffer` has room for nine vectors; whoever made the kernel vouches for the rest.
                unsafe {
                    let from = self.from.add(output * self.row + first);
                    for j in 0..X::FROM {
                        let mut u = [zero; MOST];
                        for i in 0..X::FROM {
                            u[i] = simd.load(from.add((i * X::FROM + j) * self.position));
                        }
                        let w = X::of(simd, u);
                        for i in 0..TAPS {
                            mid[i][j] = w[i];
                        }
                    }
                    for i in 0..TAPS {
                        let w = X::of(simd, mid[i]);
                        for j in 0..TAPS {
                            simd.store(buffer.as_mut_ptr().add((i * TAPS + j) * lanes), w[j]);
                        }
                    }
                    let to = self.to.add(output * self.stride + first * KERNEL);
                    for lane in 0..lanes.min(self.inputs - first) {
                        for tap in 0..KERNEL {
                            *to.add(lane * KERNEL + tap) = buffer[tap * lanes + lane];
                        }
                    }
                }
            }
        }
    }
}
