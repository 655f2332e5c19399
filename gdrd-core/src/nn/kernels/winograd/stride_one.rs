//! F(4, 3) with the points 0, 1, -1, 2, -2 and infinity: four outputs of a kernel of three cost six products. Lavin and Gray, "Fast
//! Algorithms for Convolutional Neural Networks" (2016), call the matrices `B^T`, `G` and `A^T`; the adjoints serve the gradients.

use super::super::simd::Simd;
use super::axis::{Algorithm, Along, Axis, MOST, Step, Trainable, steps};

/// A tile of 4x4 outputs by 36 products for each pair of channels, where the definition has 144.
pub(super) struct StrideOne;

const ALL: Along<6> = ([0, 1, 2, 3, 4, 5], 6);

impl Algorithm for StrideOne {
    type Input = Input;
    type Kernel = Kernel;
    type Output = Output;

    const APART: usize = 4;
    const STEPS: &'static [Step] = &steps::<6, 36>(ALL, ALL, ALL);
}

impl Trainable for StrideOne {
    type OutputAdjoint = OutputAdjoint;
    type KernelAdjoint = KernelAdjoint;

    const KERNEL_STEPS: &'static [Step] = Self::STEPS;
}

/// `B^T d`.
pub(super) struct Input;

impl Axis for Input {
    const FROM: usize = 6;
    const TO: usize = 6;

    #[inline(always)]
    fn of<S: Simd>(s: S, d: [S::V; MOST]) -> [S::V; MOST] {
        let (four, five, two) = (s.splat(4.0), s.splat(-5.0), s.splat(2.0));
        let minus_four = s.splat(-4.0);
        let a = s.mul_add(d[2], minus_four, d[4]);
        let b = s.mul_add(d[1], minus_four, d[3]);
        let c = s.sub(d[4], d[2]);
        let e = s.mul(two, s.sub(d[3], d[1]));
        [
            s.mul_add(d[0], four, s.mul_add(d[2], five, d[4])),
            s.add(a, b),
            s.sub(a, b),
            s.add(c, e),
            s.sub(c, e),
            s.mul_add(d[1], four, s.mul_add(d[3], five, d[5])),
        ]
    }
}

/// `A^T m`.
pub(super) struct Output;

impl Axis for Output {
    const FROM: usize = 6;
    const TO: usize = 4;

    #[inline(always)]
    fn of<S: Simd>(s: S, m: [S::V; MOST]) -> [S::V; MOST] {
        let (a, b) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
        let (c, d) = (s.add(m[3], m[4]), s.sub(m[3], m[4]));
        let zero = s.splat(0.0);
        [
            s.add(s.add(m[0], a), c),
            s.mul_add(d, s.splat(2.0), b),
            s.mul_add(c, s.splat(4.0), a),
            s.add(s.mul_add(d, s.splat(8.0), b), m[5]),
            zero,
            zero,
        ]
    }
}

/// `A y`.
pub(super) struct OutputAdjoint;

impl Axis for OutputAdjoint {
    const FROM: usize = 4;
    const TO: usize = 6;

    #[inline(always)]
    fn of<S: Simd>(s: S, y: [S::V; MOST]) -> [S::V; MOST] {
        let (a, b) = (s.add(y[0], y[2]), s.add(y[1], y[3]));
        let c = s.mul_add(y[2], s.splat(4.0), y[0]);
        let d = s.mul(s.splat(2.0), s.mul_add(y[3], s.splat(4.0), y[1]));
        [y[0], s.add(a, b), s.sub(a, b), s.add(c, d), s.sub(c, d), y[3]]
    }
}

/// `G g`.
pub(super) struct Kernel;

impl Axis for Kernel {
    const FROM: usize = 3;
    const TO: usize = 6;

    #[inline(always)]
    fn of<S: Simd>(s: S, g: [S::V; MOST]) -> [S::V; MOST] {
        let ends = s.add(g[0], g[2]);
        let a = s.mul(s.splat(-1.0 / 6.0), ends);
        let b = s.mul(s.splat(1.0 / 6.0), g[1]);
        let c = s.mul_add(g[2], s.splat(1.0 / 6.0), s.mul(s.splat(1.0 / 24.0), g[0]));
        let d = s.mul(s.splat(1.0 / 12.0), g[1]);
        [s.mul(s.splat(0.25), g[0]), s.sub(a, b), s.add(a, b), s.add(c, d), s.sub(c, d), g[2]]
    }
}

/// `G^T u`.
pub(super) struct KernelAdjoint;

impl Axis for KernelAdjoint {
    const FROM: usize = 6;
    const TO: usize = 3;

    #[inline(always)]
    fn of<S: Simd>(s: S, u: [S::V; MOST]) -> [S::V; MOST] {
        let (a, b) = (s.add(u[1], u[2]), s.sub(u[2], u[1]));
        let (c, d) = (s.add(u[3], u[4]), s.sub(u[3], u[4]));
        let sixth = s.mul(s.splat(-1.0 / 6.0), a);
        let zero = s.splat(0.0);
        [
            s.mul_add(u[0], s.splat(0.25), s.mul_add(c, s.splat(1.0 / 24.0), sixth)),
            s.mul_add(b, s.splat(1.0 / 6.0), s.mul(s.splat(1.0 / 12.0), d)),
            s.add(s.mul_add(c, s.splat(1.0 / 6.0), sixth), u[5]),
            zero,
            zero,
            zero,
        ]
    }
}
