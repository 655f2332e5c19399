//! Colours, smooth shapes and noise: what the faces are drawn with.

use std::sync::LazyLock;

/// A colour in linear light, each channel in `[0, 1]` (above 1 where it is overexposed).
///
/// Bytes are the square roots of these values: gamma 2, close to sRGB and fast.
pub(in crate::data) type Rgb = [f32; 3];

/// A colour from the bytes one would see.
pub(super) const fn rgb(red: u8, green: u8, blue: u8) -> Rgb {
    const fn linear(byte: u8) -> f32 {
        let value = byte as f32 / 255.0;
        value * value
    }
    [linear(red), linear(green), linear(blue)]
}

/// From `a` (at `t = 0`) to `b` (at `t = 1`).
#[inline]
pub(in crate::data) fn mix(a: Rgb, b: Rgb, t: f32) -> Rgb {
    [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t]
}

/// A colour times a number.
#[inline]
pub(in crate::data) fn scale(a: Rgb, by: f32) -> Rgb {
    [a[0] * by, a[1] * by, a[2] * by]
}

/// A colour times a colour.
#[inline]
pub(super) fn tint(a: Rgb, by: Rgb) -> Rgb {
    [a[0] * by[0], a[1] * by[1], a[2] * by[2]]
}

/// From `a` (at `t = 0`) to `b` (at `t = 1`), numbers.
#[inline]
pub(in crate::data) fn lerp(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

/// 0 below `low`, 1 above `high`, a smooth step between. With `low > high` it falls.
#[inline]
pub(in crate::data) fn smooth(low: f32, high: f32, x: f32) -> f32 {
    // A product, because the inverse of constants costs nothing.
    let t = ((x - low) * (1.0 / (high - low))).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// A smooth spot: 1 at the centre, 0 outside the ellipse with radii `rx`, `ry`.
#[inline]
pub(super) fn spot(x: f32, y: f32, rx: f32, ry: f32) -> f32 {
    let (u, v) = (x * (1.0 / rx), y * (1.0 / ry));
    let q = u * u + v * v;
    if q < 1.0 { (1.0 - q) * (1.0 - q) } else { 0.0 }
}

/// Signed distance to an axis-parallel ellipse (to first order at its edge); negative inside.
#[inline]
pub(in crate::data) fn ellipse(x: f32, y: f32, rx: f32, ry: f32) -> f32 {
    let (u, v) = (x / rx, y / ry);
    let (gx, gy) = (u / rx, v / ry);
    let q = u * u + v * v;
    (q - 1.0) / (2.0 * (gx * gx + gy * gy).sqrt()).max(1e-3)
}

/// Signed distance to a box with half sides `hx`, `hy` and corners of radius `r`; negative inside.
#[inline]
pub(in crate::data) fn rounded_box(x: f32, y: f32, hx: f32, hy: f32, r: f32) -> f32 {
    let (qx, qy) = (x.abs() - hx + r, y.abs() - hy + r);
    let (ox, oy) = (qx.max(0.0), qy.max(0.0));
    (ox * ox + oy * oy).sqrt() + qx.max(qy).min(0.0) - r
}

/// The greater of two numbers that are not NaN: unlike `f32::max` one instruction.
#[inline]
pub(super) fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The lesser of two numbers that are not NaN.
#[inline]
pub(super) fn lesser(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// How much of a pixel of width `pixel` lies inside a shape at signed distance `distance`.
#[inline]
pub(in crate::data) fn cover(distance: f32, pixel: f32) -> f32 {
    (0.5 - distance * (1.0 / pixel)).clamp(0.0, 1.0)
}

/// Distance to the segment from `a` to `b`.
#[inline]
pub(in crate::data) fn segment(x: f32, y: f32, a: (f32, f32), b: (f32, f32)) -> f32 {
    let (px, py) = (x - a.0, y - a.1);
    let (bx, by) = (b.0 - a.0, b.1 - a.1);
    let t = ((px * bx + py * by) / (bx * bx + by * by)).clamp(0.0, 1.0);
    let (dx, dy) = (px - t * bx, py - t * by);
    (dx * dx + dy * dy).sqrt()
}

/// Mixes the bits of an integer (the finaliser of a 32-bit hash with two odd multipliers).
#[inline]
pub(super) fn scramble(value: u32) -> u32 {
    let mut x = value.wrapping_mul(0x9E37_79B9);
    x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
    x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
    x ^ (x >> 16)
}

const SIDE: usize = 64;

static LATTICE: LazyLock<Vec<f32>> =
    LazyLock::new(|| (0..SIDE * SIDE).map(|at| (scramble(at as u32) >> 8) as f32 / 8_388_608.0 - 1.0).collect());

/// Smooth value noise in `[-1, 1]` with one value per unit square; it repeats every 64 units.
#[derive(Clone, Copy)]
pub(super) struct Noise(&'static [f32]);

impl Noise {
    pub(super) fn new() -> Self {
        Self(&LATTICE)
    }

    /// The noise at a point.
    #[inline]
    pub(super) fn at(self, x: f32, y: f32) -> f32 {
        // Not `f32::floor`, which is a call where the target has no instruction for it.
        let floor = |v: f32| v as i32 - i32::from(v < 0.0);
        let (ix, iy) = (floor(x), floor(y));
        let (tx, ty) = (x - ix as f32, y - iy as f32);
        let (sx, sy) = (tx * tx * (3.0 - 2.0 * tx), ty * ty * (3.0 - 2.0 * ty));
        let (x0, y0) = (ix as usize % SIDE, iy as usize % SIDE);
        let (x1, y1) = ((x0 + 1) % SIDE, (y0 + 1) % SIDE);
        let row0 = &self.0[y0 * SIDE..][..SIDE];
        let row1 = &self.0[y1 * SIDE..][..SIDE];
        lerp(lerp(row0[x0], row0[x1], sx), lerp(row1[x0], row1[x1], sx), sy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_signed_and_zero_on_the_edge() {
        assert!(ellipse(0.0, 0.0, 3.0, 2.0) < 0.0);
        assert!(ellipse(3.0, 0.0, 3.0, 2.0).abs() < 1e-6);
        assert!((ellipse(0.0, 2.1, 3.0, 2.0) - 0.1).abs() < 0.02);
        assert!((rounded_box(6.0, 0.0, 4.0, 3.0, 1.0) - 2.0).abs() < 1e-6);
        assert!(rounded_box(3.9, 2.9, 4.0, 3.0, 1.0) > 0.0, "the corner is cut off");
        assert!((segment(1.0, 2.0, (0.0, 0.0), (4.0, 0.0)) - 2.0).abs() < 1e-6);
    }

    #[test]
    fn noise_is_continuous_and_in_range_also_below_zero() {
        let noise = Noise::new();
        let mut before = noise.at(-3.0, -0.7);
        for step in 1..600 {
            let value = noise.at(-3.0 + step as f32 * 0.01, -0.7);
            assert!((-1.0..=1.0).contains(&value));
            assert!((value - before).abs() < 0.05, "a jump at step {step}");
            before = value;
        }
    }
}
