//! Eyes and eyebrows, painted in head coordinates.

use super::identity::{Brows, Eyes, Identity};
use super::nuisance::Expression;
use super::shape::{Noise, Rgb, cover, greater, lerp, mix, rgb, scale, smooth, spot, tint};

/// The eyes and brows of one face with one expression.
pub(super) struct EyePaint {
    eyes: Eyes,
    brows: Brows,
    tilt: (f32, f32),
    blink: f32,
    lower: f32,
    gaze: [f32; 2],
    raise: f32,
    brow_colour: Rgb,
    noise: Noise,
    texture: f32,
}

impl EyePaint {
    pub(super) fn new(identity: &Identity, expression: &Expression) -> Self {
        let Identity { eyes, brows, hair, marks, .. } = identity;
        let (sin, cos) = eyes.tilt.sin_cos();
        Self {
            eyes: eyes.clone(),
            brows: brows.clone(),
            tilt: (sin, cos),
            blink: expression.blink,
            lower: eyes.lower * (1.0 - 0.4 * expression.smile.max(0.0)),
            gaze: expression.gaze,
            raise: expression.brow_raise,
            brow_colour: mix(hair.colour, rgb(40, 30, 26), 0.45),
            noise: Noise::new(),
            texture: (marks.texture % 61) as f32,
        }
    }

    /// Paints over the skin's `colour` at a point; `pixel` is the width of a pixel there.
    #[inline]
    pub(super) fn paint(&self, x: f32, y: f32, pixel: f32, colour: Rgb) -> Rgb {
        let across = x.abs() - self.eyes.spacing;
        if across.abs() > 20.0 || y < self.eyes.y - 24.0 || y > self.eyes.y + 14.0 {
            return colour;
        }
        let side = if x < 0.0 { -1.0 } else { 1.0 };
        let colour = self.brow(x, y, side, pixel, colour);
        self.eye(across, y - self.eyes.y, side, pixel, colour)
    }

    fn brow(&self, x: f32, y: f32, side: f32, pixel: f32, colour: Rgb) -> Rgb {
        let b = &self.brows;
        let t = (x.abs() - b.inner) / b.length;
        if !(-0.1..=1.1).contains(&t) {
            return colour;
        }
        let from_arch = if t < b.arch_at { (b.arch_at - t) / b.arch_at } else { (t - b.arch_at) / (1.0 - b.arch_at) };
        let lift = if self.raise > 0.0 { 3.6 * self.raise } else { self.raise * (3.2 - 2.6 * t) };
        let middle = self.eyes.y
            - b.height
            - b.slope * t
            - b.arch * (1.0 - from_arch * from_arch)
            - lift
            - b.asymmetry * 0.5 * side;
        let half = b.thickness * lerp(0.75, 1.0, smooth(0.0, 0.25, t)) * lerp(1.0, b.taper, smooth(0.3, 1.0, t));
        let hairs = 0.8 + 0.35 * self.noise.at(x * 1.1 + self.texture, y * 0.6 + x.abs() * 0.4);
        let ends = smooth(-0.07, 0.06, t) * smooth(1.06, 0.9, t);
        let alpha = cover((y - middle).abs() - half, pixel.max(1.0)) * ends * b.density * hairs;
        mix(colour, self.brow_colour, alpha.min(1.0))
    }

    fn eye(&self, across: f32, down: f32, side: f32, pixel: f32, colour: Rgb) -> Rgb {
        let e = &self.eyes;
        let size = 1.0 + e.asymmetry * 0.5 * side;
        let (dx, dy) = (across / size, down / size);
        let (sin, cos) = self.tilt;
        let (lx, ly) = (dx * cos - dy * sin, dx * sin + dy * cos);
        // The socket lies in shadow, most towards the nose and under the brow.
        let socket = spot(dx + 5.0, dy + 3.0, 11.0, 10.0) * 0.45 + spot(dx, dy + 2.0, e.half_width + 7.0, 10.0) * 0.3;
        let mut colour = tint(colour, mix([1.0; 3], [0.52, 0.42, 0.40], socket * (0.3 + 0.3 * e.depth)));
        let t = lx / e.half_width;
        if t.abs() > 1.4 || ly.abs() > 11.0 {
            return colour;
        }
        let arc = (1.0 - t * t).max(-0.6);
        let top = -e.upper * arc * (1.0 + e.peak * t);
        let low = self.lower * arc;
        let lid = lerp(top, low * 0.85, self.blink);
        let steep = 1.0 / (1.0 + (2.0 * e.upper * t / e.half_width).powi(2)).sqrt();

        let bag = low + 2.6 - 0.6 * t * t;
        let bags = e.bags * (1.0 - ((ly - bag) / 2.0).powi(2)).max(0.0) * smooth(1.1, 0.5, t.abs());
        colour = scale(colour, 1.0 - 0.32 * bags);
        let crease = top * 0.95 - e.crease_gap - 0.3 * t;
        let crease_alpha = e.crease * smooth(1.3, 0.8, t.abs());
        if ly > crease && ly < lid {
            colour = scale(colour, 1.0 - 0.18 * crease_alpha);
        }
        colour = scale(colour, 1.0 - 0.6 * crease_alpha * cover((ly - crease).abs() * steep - 0.35, pixel.max(0.9)));

        let inside = greater(lid - ly, ly - low) * steep;
        let open = cover(inside, pixel);
        if open > 0.0 {
            let ball = self.ball(lx, ly, lid, t, side, pixel);
            colour = mix(colour, ball, open);
        }
        let along = smooth(1.16, 1.0, t.abs());
        let line = (ly - lid).abs() * steep - e.lashes * (0.55 + 0.3 * t);
        colour = mix(colour, rgb(26, 18, 16), cover(line, pixel) * along * 0.9);
        let lower_line = (ly - low).abs() * steep - 0.25;
        mix(colour, rgb(70, 44, 40), cover(lower_line, pixel) * along * 0.45)
    }

    /// The eyeball at a point relative to the eye's middle, `x` outwards.
    fn ball(&self, x: f32, y: f32, lid: f32, t: f32, side: f32, pixel: f32) -> Rgb {
        let e = &self.eyes;
        let mut colour = mix(rgb(226, 220, 216), rgb(188, 140, 130), smooth(0.55, 1.05, t.abs()));
        let gaze = self.gaze[0] * side * 0.22 * e.half_width;
        let (ix, iy) = (x - gaze, y + 0.12 * e.upper - self.gaze[1] * 0.8);
        let radius = (ix * ix + iy * iy).sqrt();
        let iris = cover(radius - e.iris, pixel);
        if iris > 0.0 {
            let bright = lerp(1.45, 0.75, radius / e.iris) * if radius > e.iris * 0.82 { 0.6 } else { 1.0 };
            let shade = mix(scale(e.colour, bright), rgb(12, 10, 10), cover(radius - e.iris * 0.42, pixel));
            colour = mix(colour, shade, iris);
        }
        // The upper lid's shadow.
        colour = scale(colour, lerp(0.5, 1.0, smooth(0.0, 2.4, y - lid)));
        let (hx, hy) = (ix * side + 1.1, iy + 1.2);
        mix(colour, [0.95; 3], cover((hx * hx + hy * hy).sqrt() - 0.75, pixel) * 0.85)
    }
}
