//! Kernels of three with stride two: two outputs cost five products, where the definition has six.
//!
//! The outputs `y0 = g0 d0 + g1 d1 + g2 d2` and `y1 = g0 d2 + g1 d3 + g2 d4` are those of a kernel of two, `g0` and `g2`, over every other
//! input (F(2, 2) with the points 0, 1 and infinity: three products), and of a kernel of one over the inputs between (two products). With
//!
//! ```text
//! m0 = g0 (d0 - d2) + g1 (d1 - d3)        m1 = (g0 + g2) d2 + g1 d3        m2 = g2 (d4 - d2)
//! ```
//!
//! they are `y0 = m0 + m1` and `y1 = m1 + m2`. All factors are one, so it is as exact as the definition.

use super::super::simd::Simd;
use super::axis::{Algorithm, Along, Axis, MOST, Step, Trainable, steps};

/// A tile of 2x2 outputs by 25 products for each pair of channels, where the definition has 36.
pub(super) struct StrideTwo;

/// Four transformed taps: `g0`, `g0 + g2`, `g2` and `g1`, the last in two products.
const KERNELS: Along<5> = ([0, 1, 2, 3, 3], 4);
/// The products of `g1` are added to those of two others.
const SUMS: Along<5> = ([0, 1, 2, 0, 1], 3);
const ALL: Along<5> = ([0, 1, 2, 3, 4], 5);

impl Algorithm for StrideTwo {
    type Input = Input;
    type Kernel = Kernel;
    type Output = Output;

    const APART: usize = 4;
    const STEPS: &'static [Step] = &steps::<5, 25>(ALL, KERNELS, SUMS);
}

impl Trainable for StrideTwo {
    type OutputAdjoint = OutputAdjoint;
    type KernelAdjoint = KernelAdjoint;

    const KERNEL_STEPS: &'static [Step] = &steps::<5, 25>(SUMS, ALL, KERNELS);
}

/// The gradient of its input, by kernels that are rotated by 180 degrees: tiles of 4x4 values of it from 3x3 of the output's gradient `e`.
/// Along an axis they are `g1 e0`, `g2 e0 + g0 e1`, `g1 e1` and `g2 e1 + g0 e2`.
pub(super) struct StrideTwoBack;

impl Algorithm for StrideTwoBack {
    type Input = Gradient;
    type Kernel = Kernel;
    type Output = InputGradient;

    const APART: usize = 2;
    /// `e1` is in two products.
    const STEPS: &'static [Step] = &steps::<5, 25>(([0, 1, 2, 3, 1], 4), KERNELS, ALL);
}

/// `d0 - d2`, `d2`, `d4 - d2`, and between them `d1 - d3` and `d3`.
pub(super) struct Input;

impl Axis for Input {
    const FROM: usize = 5;
    const TO: usize = 5;

    #[inline(always)]
    fn of<S: Simd>(s: S, d: [S::V; MOST]) -> [S::V; MOST] {
        [s.sub(d[0], d[2]), d[2], s.sub(d[4], d[2]), s.sub(d[1], d[3]), d[3], d[3]]
    }
}

/// `m0 + m1` and `m1 + m2`.
pub(super) struct Output;

impl Axis for Output {
    const FROM: usize = 3;
    const TO: usize = 2;

    #[inline(always)]
    fn of<S: Simd>(s: S, m: [S::V; MOST]) -> [S::V; MOST] {
        let y = [s.add(m[0], m[1]), s.add(m[1], m[2])];
        [y[0], y[1], y[1], y[1], y[1], y[1]]
    }
}

/// `y0`, `y0 + y1` and `y1`.
pub(super) struct OutputAdjoint;

impl Axis for OutputAdjoint {
    const FROM: usize = 2;
    const TO: usize = 3;

    #[inline(always)]
    fn of<S: Simd>(s: S, y: [S::V; MOST]) -> [S::V; MOST] {
        [y[0], s.add(y[0], y[1]), y[1], y[1], y[1], y[1]]
    }
}

/// `g0`, `g0 + g2`, `g2` and `g1`.
pub(super) struct Kernel;

impl Axis for Kernel {
    const FROM: usize = 3;
    const TO: usize = 4;

    #[inline(always)]
    fn of<S: Simd>(s: S, g: [S::V; MOST]) -> [S::V; MOST] {
        [g[0], s.add(g[0], g[2]), g[2], g[1], g[1], g[1]]
    }
}

/// `u0 + u1`, `u3` and `u1 + u2`.
pub(super) struct KernelAdjoint;

impl Axis for KernelAdjoint {
    const FROM: usize = 4;
    const TO: usize = 3;

    #[inline(always)]
    fn of<S: Simd>(s: S, u: [S::V; MOST]) -> [S::V; MOST] {
        let last = s.add(u[1], u[2]);
        [s.add(u[0], u[1]), u[3], last, last, last, last]
    }
}

/// `e0 - e1`, `e1`, `e2 - e1`, and `e0` again.
pub(super) struct Gradient;

impl Axis for Gradient {
    const FROM: usize = 3;
    const TO: usize = 4;

    #[inline(always)]
    fn of<S: Simd>(s: S, e: [S::V; MOST]) -> [S::V; MOST] {
        [s.sub(e[0], e[1]), e[1], s.sub(e[2], e[1]), e[0], e[0], e[0]]
    }
}

/// The four values from the five products.
pub(super) struct InputGradient;

impl Axis for InputGradient {
    const FROM: usize = 5;
    const TO: usize = 4;

    #[inline(always)]
    fn of<S: Simd>(s: S, m: [S::V; MOST]) -> [S::V; MOST] {
        let last = s.add(m[1], m[2]);
        [m[3], s.add(m[0], m[1]), m[4], last, last, last]
    }
}
