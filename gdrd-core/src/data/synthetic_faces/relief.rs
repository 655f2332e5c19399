//! What stands out of the head's ellipses and lies deep in them: nose, brow ridge, sockets, lips, chin.

use super::identity::Identity;
use super::nuisance::Expression;

/// A smooth hill `height (1 - q)²` inside the ellipse `q = (x / rx)² + (y / ry)² < 1`.
#[derive(Clone, Copy)]
struct Hill {
    x: f32,
    y: f32,
    /// Inverse squares of the radii.
    ix: f32,
    iy: f32,
    height: f32,
}

impl Hill {
    fn new(x: f32, y: f32, rx: f32, ry: f32, height: f32) -> Self {
        Self { x, y, ix: 1.0 / (rx * rx), iy: 1.0 / (ry * ry), height }
    }

    /// Adds height and slopes at a point.
    #[inline]
    fn add(&self, x: f32, y: f32, sum: &mut [f32; 3]) {
        let (dx, dy) = (x - self.x, y - self.y);
        let left = 1.0 - dx * dx * self.ix - dy * dy * self.iy;
        if left > 0.0 {
            let slope = -4.0 * self.height * left;
            sum[0] += self.height * left * left;
            sum[1] += slope * dx * self.ix;
            sum[2] += slope * dy * self.iy;
        }
    }
}

/// Below this height nothing of brows and eyes stands out.
const UPPER_END: f32 = 0.5;
/// Above this height nothing of mouth, chin, cheeks and the nose's wings stands out.
const LOWER_START: f32 = 0.0;

/// The relief of one face with one expression.
pub(super) struct Relief {
    nose: [Hill; 4],
    /// In the middle, below [`LOWER_START`].
    lower: [Hill; 7],
    forehead: Hill,
    /// Given for the right half, mirrored on the left: above [`UPPER_END`] and below [`LOWER_START`].
    upper_sides: [Hill; 3],
    lower_sides: [Hill; 3],
    cheekbones: Hill,
    /// The nose lies within these: half width, top, bottom.
    nose_box: [f32; 3],
    nose_height: f32,
}

impl Relief {
    pub(super) fn new(identity: &Identity, expression: &Expression) -> Self {
        let Identity { head, eyes, nose, mouth, marks, .. } = identity;
        let smile = expression.smile.max(0.0);
        let root = eyes.y + 1.0;
        let half = (root + nose.tip_y) / 2.0;
        let lip = mouth.y + 3.0 * expression.mouth_open;
        let chin = head.chin_y + 5.0 * expression.mouth_open - 9.0;
        let nose_hills = [
            Hill::new(0.0, root + 2.0, nose.bridge_width + 2.0, 15.0, nose.bridge * 0.7),
            Hill::new(nose.bend * 0.5, half + 1.0, nose.bridge_width + 2.5, 14.0, nose.bridge * 0.8 + nose.hump),
            Hill::new(nose.bend, nose.tip_y - 1.5, nose.tip_width + 1.5, nose.tip_width + 2.5, nose.tip * 0.75),
            Hill::new(0.0, nose.tip_y - 2.0, nose.half_width + 5.0, 10.0, nose.tip * 0.3),
        ];
        let lower = [
            Hill::new(0.0, (nose.tip_y + mouth.y) / 2.0 + 1.5, 2.6, 6.5, -mouth.philtrum),
            Hill::new(0.0, mouth.y, mouth.half_width + 7.0, 13.0, 3.0),
            Hill::new(0.0, mouth.y - 1.4, mouth.half_width * 0.8, 3.6, 0.3 + 0.22 * mouth.upper),
            Hill::new(0.0, lip + 3.0, mouth.half_width * 0.75, 4.4, 0.4 + 0.3 * mouth.lower),
            Hill::new(0.0, chin - 3.5, 15.0, 4.0, -0.7),
            Hill::new(0.0, chin, 15.0, 10.0, head.chin),
            Hill::new(0.0, chin + 1.0, 2.6, 6.0, -1.6 * head.cleft),
        ];
        let upper_sides = [
            Hill::new(eyes.spacing - 1.0, eyes.y - 9.5, 17.0, 7.5, head.brow_ridge),
            Hill::new(eyes.spacing - 2.5, eyes.y - 0.5, eyes.half_width + 5.5, 9.0, -eyes.depth),
            Hill::new(eyes.spacing, eyes.y, eyes.half_width + 0.5, 5.5, 1.9),
        ];
        let lower_sides = [
            Hill::new(nose.half_width * 0.72, nose.tip_y + nose.wings, nose.half_width * 0.5, 4.6, 2.4),
            Hill::new(mouth.half_width + 9.0, mouth.y - 10.0, 13.0, 12.0, 0.4 + 1.8 * smile),
            Hill::new(mouth.half_width + 3.0, mouth.y - 6.0, 4.0, 11.0, -0.7 * marks.folds - 0.5 * smile),
        ];
        let nose_box = [nose.half_width + 6.0, root - 14.0, nose.tip_y + 9.0];
        let forehead = Hill::new(0.0, -36.0, 34.0, 22.0, 2.0);
        let cheekbones = Hill::new(eyes.spacing + 9.0, eyes.y + 17.0, 15.0, 13.0, head.cheekbone);
        Self {
            nose: nose_hills,
            lower,
            forehead,
            upper_sides,
            lower_sides,
            cheekbones,
            nose_box,
            nose_height: 1.4 * nose.tip,
        }
    }

    /// How far the nose stands out at a point.
    #[inline]
    pub(super) fn nose(&self, x: f32, y: f32) -> f32 {
        let mut sum = [0.0; 3];
        self.nose.iter().for_each(|hill| hill.add(x, y, &mut sum));
        sum[0]
    }

    /// How the relief's height changes to the right and downwards.
    #[inline]
    pub(super) fn slopes(&self, x: f32, y: f32) -> (f32, f32) {
        let mut sum = [0.0; 3];
        let side = x.abs();
        self.cheekbones.add(side, y, &mut sum);
        if y > LOWER_START {
            self.lower_sides.iter().for_each(|hill| hill.add(side, y, &mut sum));
        }
        if y < UPPER_END {
            self.upper_sides.iter().for_each(|hill| hill.add(side, y, &mut sum));
        }
        sum[1] *= x.signum();
        if y > LOWER_START {
            self.lower.iter().for_each(|hill| hill.add(x, y, &mut sum));
        } else {
            self.forehead.add(x, y, &mut sum);
        }
        let [half_width, top, bottom] = self.nose_box;
        if x.abs() < half_width && y > top && y < bottom {
            self.nose.iter().for_each(|hill| hill.add(x, y, &mut sum));
        }
        (sum[1], sum[2])
    }

    /// The point seen instead of `(x, y)` when the nose is in the way: what stands out by `h` is
    /// seen shifted by `h` times `(shift_x, shift_y)`. Marches from the tip inwards.
    #[inline]
    pub(super) fn behind(&self, x: f32, y: f32, shift_x: f32, shift_y: f32) -> (f32, f32) {
        let [half_width, top, bottom] = self.nose_box;
        let (far_x, far_y) = (self.nose_height * shift_x.abs(), self.nose_height * shift_y.abs());
        if x.abs() > half_width + far_x || y < top - far_y || y > bottom + far_y {
            return (x, y);
        }
        const STEPS: usize = 5;
        let step = self.nose_height / STEPS as f32;
        let mut gap_above = None;
        for level in (0..=STEPS).rev() {
            let height = step * level as f32;
            let gap = self.nose(x - height * shift_x, y - height * shift_y) - height;
            if gap >= 0.0 {
                let back: f32 = gap_above.map_or(0.0, |above: f32| step * gap / (gap - above).max(1e-6));
                return (x - (height + back) * shift_x, y - (height + back) * shift_y);
            }
            gap_above = Some(gap);
        }
        (x, y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synthetic_faces::Nuisance;

    fn relief() -> Relief {
        Relief::new(&Identity::from_seed(5), &Nuisance::neutral().expression)
    }

    #[test]
    fn slopes_are_the_derivative_and_mirror() {
        let mut sum = [0.0; 3];
        let hill = Hill::new(1.0, 2.0, 5.0, 4.0, 3.0);
        hill.add(2.0, 1.0, &mut sum);
        let (mut right, mut left) = ([0.0; 3], [0.0; 3]);
        hill.add(2.01, 1.0, &mut right);
        hill.add(1.99, 1.0, &mut left);
        assert!((sum[1] - (right[0] - left[0]) / 0.02).abs() < 1e-2);
        let (at_right, at_left) = (relief().slopes(25.0, 5.0), relief().slopes(-25.0, 5.0));
        assert!((at_right.0 + at_left.0).abs() < 1e-6 && (at_right.1 - at_left.1).abs() < 1e-6);
    }

    #[test]
    fn hills_stay_where_they_are_looked_for() {
        for seed in 0..200 {
            let relief = Relief::new(&Identity::from_seed(seed), &Nuisance::from_seed(seed).expression);
            let radius = |hill: &Hill| 1.0 / hill.iy.sqrt();
            assert!(relief.upper_sides.iter().all(|hill| hill.y + radius(hill) < UPPER_END), "{seed}");
            let mut lower = relief.lower.iter().chain(&relief.lower_sides);
            assert!(lower.all(|hill| hill.y - radius(hill) > LOWER_START), "{seed}");
            assert!(relief.forehead.y + radius(&relief.forehead) < LOWER_START);
            let nose = relief.nose.iter().all(|hill| {
                hill.x.abs() + 1.0 / hill.ix.sqrt() <= relief.nose_box[0] + 1.0
                    && hill.y - radius(hill) >= relief.nose_box[1] - 1.0
                    && hill.y + radius(hill) <= relief.nose_box[2] + 1.5
            });
            assert!(nose, "{seed}");
        }
    }

    #[test]
    fn the_nose_is_seen_to_the_side() {
        let relief = relief();
        assert_eq!(relief.behind(0.0, 8.0, 0.0, 0.0), (0.0, 8.0));
        let (x, y) = relief.behind(3.0, 8.0, 0.5, 0.0);
        let height = relief.nose(x, y);
        assert!(height > 1.0 && (x + 0.5 * height - 3.0).abs() < 0.4, "{x} {height}");
    }
}
