//! The one-dimensional transforms of F(4, 3) with the points 0, 1, -1, 2, -2 and infinity: four outputs of a kernel of
//! three cost six products. Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), call the
//! matrices `B^T`, `G` and `A^T`; the adjoints serve the gradients.

use super::super::simd::Simd;

/// Outputs of one tile along one axis.
pub(super) const OUT: usize = 4;
/// Inputs of one tile along one axis.
pub(super) const IN: usize = 6;
/// Taps of the kernel along one axis.
pub(super) const TAPS: usize = 3;

/// `B^T d`.
#[inline(always)]
pub(super) fn input<S: Simd>(s: S, d: [S::V; IN]) -> [S::V; IN] {
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

/// `A^T m`.
#[inline(always)]
pub(super) fn output<S: Simd>(s: S, m: [S::V; IN]) -> [S::V; OUT] {
    let (a, b) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
    let (c, d) = (s.add(m[3], m[4]), s.sub(m[3], m[4]));
    [
        s.add(s.add(m[0], a), c),
        s.mul_add(d, s.splat(2.0), b),
        s.mul_add(c, s.splat(4.0), a),
        s.add(s.mul_add(d, s.splat(8.0), b), m[5]),
    ]
}

/// `A y`, the adjoint of [`output`].
#[inline(always)]
pub(super) fn output_adjoint<S: Simd>(s: S, y: [S::V; OUT]) -> [S::V; IN] {
    let (a, b) = (s.add(y[0], y[2]), s.add(y[1], y[3]));
    let c = s.mul_add(y[2], s.splat(4.0), y[0]);
    let d = s.mul(s.splat(2.0), s.mul_add(y[3], s.splat(4.0), y[1]));
    [y[0], s.add(a, b), s.sub(a, b), s.add(c, d), s.sub(c, d), y[3]]
}

/// `G g`.
#[inline(always)]
pub(super) fn weight<S: Simd>(s: S, g: [S::V; TAPS]) -> [S::V; IN] {
    let ends = s.add(g[0], g[2]);
    let a = s.mul(s.splat(-1.0 / 6.0), ends);
    let b = s.mul(s.splat(1.0 / 6.0), g[1]);
    let c = s.mul_add(g[2], s.splat(1.0 / 6.0), s.mul(s.splat(1.0 / 24.0), g[0]));
    let d = s.mul(s.splat(1.0 / 12.0), g[1]);
    [s.mul(s.splat(0.25), g[0]), s.sub(a, b), s.add(a, b), s.add(c, d), s.sub(c, d), g[2]]
}

/// `G^T u`, the adjoint of [`weight`].
#[inline(always)]
pub(super) fn weight_adjoint<S: Simd>(s: S, u: [S::V; IN]) -> [S::V; TAPS] {
    let (a, b) = (s.add(u[1], u[2]), s.sub(u[2], u[1]));
    let (c, d) = (s.add(u[3], u[4]), s.sub(u[3], u[4]));
    let sixth = s.mul(s.splat(-1.0 / 6.0), a);
    [
        s.mul_add(u[0], s.splat(0.25), s.mul_add(c, s.splat(1.0 / 24.0), sixth)),
        s.mul_add(b, s.splat(1.0 / 6.0), s.mul(s.splat(1.0 / 12.0), d)),
        s.add(s.mul_add(c, s.splat(1.0 / 6.0), sixth), u[5]),
    ]
}
