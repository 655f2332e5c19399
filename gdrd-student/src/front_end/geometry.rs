//! Where a face is in a photograph, and the similarity transform that brings it upright.

use gdrd_core::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// A box around a face, in pixels of the photograph; it may reach beyond the border.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// The left edge, from the left border of the photograph.
    pub left: f32,
    /// The upper edge, from the upper border.
    pub top: f32,
    /// Above 0.
    pub width: f32,
    /// Above 0.
    pub height: f32,
}

impl Bounds {
    /// Its area in pixels.
    pub fn area(&self) -> f32 {
        self.width * self.height
    }

    /// Its middle, `[x, y]`.
    pub fn centre(&self) -> [f32; 2] {
        [self.left + self.width / 2.0, self.top + self.height / 2.0]
    }

    /// Intersection over union with another box, from 0 to 1.
    pub fn overlap(&self, other: &Self) -> f32 {
        let shared = |a: f32, a_size: f32, b: f32, b_size: f32| ((a + a_size).min(b + b_size) - a.max(b)).max(0.0);
        let width = shared(self.left, self.width, other.left, other.width);
        let both = width * shared(self.top, self.height, other.top, other.height);
        let union = self.area() + other.area() - both;
        if union > 0.0 { both / union } else { 0.0 }
    }

    /// Itself, if it is a box that shares an area with a photograph of `width` x `height` pixels.
    ///
    /// # Errors
    /// If a number is not finite, a side is not above 0, or no part of it is in the photograph.
    pub fn within(&self, width: usize, height: usize) -> Result<&Self> {
        let Self { left, top, width: w, height: h } = *self;
        let finite = [left, top, w, h].iter().all(|number| number.is_finite());
        if !finite || w <= 0.0 || h <= 0.0 {
            return Err(Error::data(format!(
                "expected a box of finite numbers, wider and higher than 0, found left {left}, top {top}, width {w}, height {h}"
            )));
        }
        if left >= width as f32 || top >= height as f32 || left + w <= 0.0 || top + h <= 0.0 {
            return Err(Error::data(format!(
                "the box (left {left}, top {top}, width {w}, height {h}) is outside of the photograph, which has {width}x{height} \
                 pixels; expected pixels of the photograph as it is shown, turned by its EXIF orientation"
            )));
        }
        Ok(self)
    }
}

/// Five points of a face, each `[x, y]` in pixels of the photograph, the middle of the first pixel at `[0, 0]`: the eye on the left of
/// the picture, the eye on its right, the tip of the nose, the corner of the mouth on the left, that on the right.
pub type Landmarks = [[f32; 2]; 5];

/// Where the five points are in an aligned face of 112x112 pixels: insightface's template, on which ArcFace was trained.
pub const TEMPLATE: Landmarks =
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]];

/// Pixels of a face whose landmarks are [`TEMPLATE`].
pub const TEMPLATE_SIZE: usize = 112;

/// The template for aligned faces of `size` pixels.
pub fn template(size: usize) -> Landmarks {
    TEMPLATE.map(|point| point.map(|at| at * size as f32 / TEMPLATE_SIZE as f32))
}

/// A transform that turns, scales and moves: `x' = a x - b y + dx`, `y' = b x + a y + dy`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    /// Scale times the cosine of the angle.
    pub a: f64,
    /// Scale times the sine of the angle.
    pub b: f64,
    /// Move to the right, in pixels.
    pub dx: f64,
    /// Move downwards, in pixels.
    pub dy: f64,
}

impl Similarity {
    /// Where a point goes.
    pub fn apply(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        [self.a * x - self.b * y + self.dx, self.b * x + self.a * y + self.dy]
    }

    /// Pixels after the transform for each pixel before.
    pub fn scale(&self) -> f64 {
        self.a.hypot(self.b)
    }

    /// The rotation in degrees, clockwise in a picture.
    pub fn degrees(&self) -> f64 {
        self.b.atan2(self.a).to_degrees()
    }

    /// The transform that leads back.
    ///
    /// # Errors
    /// If the scale is 0, or a number is not finite.
    pub fn inverse(&self) -> Result<Self> {
        let norm = self.a * self.a + self.b * self.b;
        let (a, b) = (self.a / norm, -self.b / norm);
        let back = Self { a, b, dx: -(a * self.dx - b * self.dy), dy: -(b * self.dx + a * self.dy) };
        match [back.a, back.b, back.dx, back.dy].iter().all(|number| number.is_finite()) {
            true => Ok(back),
            false => Err(Error::data(format!("expected a transform that can be undone, found {self:?}"))),
        }
    }
}

/// The similarity transform that brings `from` closest to `to` by the sum of squared distances, never a mirror image.
///
/// In the plane the solution of Umeyama (1991) has a closed form. Of points relative to their means, as complex numbers:
/// `a + ib = sum(conj(p) q) / sum(|p|^2)`, and the means go to each other.
///
/// ```
/// use gdrd_student::front_end::{TEMPLATE, similarity};
///
/// let twice = TEMPLATE.map(|[x, y]| [2.0 * x + 30.0, 2.0 * y - 10.0]);
/// let back = similarity(&twice, &TEMPLATE)?;
/// assert!((back.scale() - 0.5).abs() < 1e-6 && back.degrees().abs() < 1e-4);
/// # Ok::<(), gdrd_student::Error>(())
/// ```
///
/// # Errors
/// If a number is not finite, or all points of `from` are one: there is nothing to tell a size from.
pub fn similarity(from: &Landmarks, to: &Landmarks) -> Result<Similarity> {
    let wide = |points: &Landmarks| points.map(|point| point.map(f64::from));
    let mean = |points: &[[f64; 2]; 5]| [0, 1].map(|axis| points.iter().map(|point| point[axis]).sum::<f64>() / 5.0);
    let (from, to) = (wide(from), wide(to));
    let (from_mean, to_mean) = (mean(&from), mean(&to));
    let (mut a, mut b, mut norm) = (0.0, 0.0, 0.0);
    for (p, q) in from.iter().zip(&to) {
        let [px, py] = [p[0] - from_mean[0], p[1] - from_mean[1]];
        let [qx, qy] = [q[0] - to_mean[0], q[1] - to_mean[1]];
        a += px * qx + py * qy;
        b += px * qy - py * qx;
        norm += px * px + py * py;
    }
    let (a, b) = (a / norm, b / norm);
    let found = Similarity {
        a,
        b,
        dx: to_mean[0] - a * from_mean[0] + b * from_mean[1],
        dy: to_mean[1] - b * from_mean[0] - a * from_mean[1],
    };
    let finite = [a, b, found.dx, found.dy].iter().all(|number| number.is_finite());
    match finite && found.scale() > 0.0 {
        true => Ok(found),
        false => Err(Error::data(format!("expected five landmarks apart from each other, found {from:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turned_face_is_turned_back() {
        let turn = Similarity { a: 0.3, b: -0.4, dx: 11.0, dy: 7.0 };
        let moved = TEMPLATE.map(|point| turn.apply(point.map(f64::from)).map(|at| at as f32));
        let back = similarity(&moved, &TEMPLATE).expect("a face");
        let expected = turn.inverse().expect("a transform");
        assert!((back.a - expected.a).abs() < 1e-5 && (back.b - expected.b).abs() < 1e-5, "{back:?} {expected:?}");
        assert!((back.scale() - 2.0).abs() < 1e-5 && (back.degrees() - 53.1301).abs() < 1e-3, "{}", back.degrees());
        for (from, to) in moved.iter().zip(&TEMPLATE) {
            let [x, y] = back.apply(from.map(f64::from));
            assert!((x - f64::from(to[0])).abs() < 1e-3 && (y - f64::from(to[1])).abs() < 1e-3);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(similarity(&[[3.0, 4.0]; 5], &TEMPLATE).is_err(), "one point five times");
        let mut broken = TEMPLATE;
        broken[2][1] = f32::NAN;
        let error = similarity(&broken, &TEMPLATE).expect_err("a NaN").to_string();
        assert!(error.contains("NaN"), "{error}");
        assert!(Similarity { a: 0.0, b: 0.0, dx: 1.0, dy: 1.0 }.inverse().is_err());
    }

    #[test]
    fn boxes_overlap_by_area() {
        let unit = Bounds { left: 0.0, top: 0.0, width: 2.0, height: 2.0 };
        assert_eq!(unit.overlap(&unit), 1.0);
        assert_eq!(unit.overlap(&Bounds { left: 1.0, ..unit }), 1.0 / 3.0);
        assert_eq!(unit.overlap(&Bounds { left: 2.0, ..unit }), 0.0);
        assert_eq!(unit.centre(), [1.0, 1.0]);
    }

    #[test]
    fn boxes_must_meet_the_photograph() {
        let good = Bounds { left: -5.0, top: 90.0, width: 10.0, height: 20.0 };
        good.within(100, 100).expect("a corner of it is in");
        for wrong in [
            Bounds { left: 100.0, ..good },
            Bounds { left: -10.0, ..good },
            Bounds { top: 100.0, ..good },
            Bounds { width: 0.0, ..good },
            Bounds { height: f32::NAN, ..good },
            Bounds { left: f32::INFINITY, ..good },
        ] {
            assert!(wrong.within(100, 100).is_err(), "{wrong:?}");
        }
    }
}
