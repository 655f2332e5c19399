//! F(2, 3) with the points 0, 1, -1 and infinity: two outputs of a kernel of three cost four products, where F(4, 3) has three for two
//! outputs. Its kernels are less than half as large, and its tiles four times as many: for a face or two.

use super::super::simd::Simd;
use super::axis::{Algorithm, Along, Axis, MOST, Step, Trainable, steps};

/// A tile of 2x2 outputs by 16 products for each pair of channels, where the definition has 36.
pub(super) struct StrideOneSmall;

const ALL: Along<4> = ([0, 1, 2, 3], 4);

impl Algorithm for StrideOneSmall {
    type Input = Input;
    type Kernel = Kernel;
    type Output = Output;

    const APART: usize = 2;
    const STEPS: &'static [Step] = &steps::<4, 16>(ALL, ALL, ALL);
}

impl Trainable for StrideOneSmall {
    type OutputAdjoint = OutputAdjoint;
    type KernelAdjoint = KernelAdjoint;

    const KERNEL_STEPS: &'static [Step] = Self::STEPS;
}

/// `d0 - d2`, `d1 + d2`, `d2 - d1` and `d1 - d3`.
pub(super) struct Input;

impl Axis for Input {
    const FROM: usize = 4;
    const TO: usize = 4;

    #[inline(always)]
    fn of<S: Simd>(s: S, d: [S::V; MOST]) -> [S::V; MOST] {
        let last = s.sub(d[1], d[3]);
        [s.sub(d[0], d[2]), s.add(d[1], d[2]), s.sub(d[2], d[1]), last, last, last]
    }
}

/// `m0 + m1 + m2` and `m1 - m2 - m3`.
pub(super) struct Output;

impl Axis for Output {
    const FROM: usize = 4;
    const TO: usize = 2;

    #[inline(always)]
    fn of<S: Simd>(s: S, m: [S::V; MOST]) -> [S::V; MOST] {
        let last = s.sub(s.sub(m[1], m[2]), m[3]);
        [s.add(s.add(m[0], m[1]), m[2]), last, last, last, last, last]
    }
}

/// `y0`, `y0 + y1`, `y0 - y1` and `-y1`.
pub(super) struct OutputAdjoint;

impl Axis for OutputAdjoint {
    const FROM: usize = 2;
    const TO: usize = 4;

    #[inline(always)]
    fn of<S: Simd>(s: S, y: [S::V; MOST]) -> [S::V; MOST] {
        let last = s.sub(s.splat(0.0), y[1]);
        [y[0], s.add(y[0], y[1]), s.sub(y[0], y[1]), last, last, last]
    }
}

/// `g0`, `(g0 + g1 + g2) / 2`, `(g0 - g1 + g2) / 2` and `g2`.
pub(super) struct Kernel;

impl Axis for Kernel {
    const FROM: usize = 3;
    const TO: usize = 4;

    #[inline(always)]
    fn of<S: Simd>(s: S, g: [S::V; MOST]) -> [S::V; MOST] {
        let half = s.splat(0.5);
        let (ends, middle) = (s.mul(half, s.add(g[0], g[2])), s.mul(half, g[1]));
        [g[0], s.add(ends, middle), s.sub(ends, middle), g[2], g[2], g[2]]
    }
}

/// `u0 + (u1 + u2) / 2`, `(u1 - u2) / 2` and `(u1 + u2) / 2 + u3`.
pub(super) struct KernelAdjoint;

impl Axis for KernelAdjoint {
    const FROM: usize = 4;
    const TO: usize = 3;

    #[inline(always)]
    fn of<S: Simd>(s: S, u: [S::V; MOST]) -> [S::V; MOST] {
        let half = s.splat(0.5);
        let (sum, difference) = (s.mul(half, s.add(u[1], u[2])), s.mul(half, s.sub(u[1], u[2])));
        let last = s.add(sum, u[3]);
        [s.add(u[0], sum), difference, last, last, last, last]
    }
}
