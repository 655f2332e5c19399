//! The skin with nose, mouth, beard and marks, painted in head coordinates.

use super::eyes::EyePaint;
use super::identity::{Identity, Mole};
use super::nuisance::Expression;
use super::shape::{Noise, Rgb, cover, ellipse, greater, lerp, mix, rgb, scale, smooth, spot, tint};

/// What a face's surface looks like without light.
pub(super) struct SkinPaint {
    identity: Identity,
    eyes: EyePaint,
    smile: f32,
    open: f32,
    lip: Rgb,
    noise: Noise,
    texture: f32,
    /// Parts that most faces lack, so that they cost nothing there.
    bearded: bool,
}

impl SkinPaint {
    pub(super) fn new(identity: &Identity, expression: &Expression) -> Self {
        let dark = identity.head.skin[1].sqrt();
        let red = scale(rgb(196, 84, 86), 0.35 + 0.75 * dark);
        Self {
            eyes: EyePaint::new(identity, expression),
            smile: expression.smile,
            open: expression.mouth_open,
            lip: mix(tint(identity.head.skin, [0.86, 0.68, 0.66]), red, identity.mouth.red),
            noise: Noise::new(),
            texture: (identity.marks.texture % 59) as f32,
            bearded: identity.hair.beard > 0.0 || identity.hair.moustache > 0.0,
            identity: identity.clone(),
        }
    }

    /// The colour at a point; `pixel` is the width of a pixel there, `width` half that of the head.
    #[inline]
    pub(super) fn at(&self, x: f32, y: f32, width: f32, pixel: f32) -> Rgb {
        let mut colour = self.tone(x, y, pixel);
        if self.bearded && y > -14.0 {
            colour = self.beard(x, y, width, colour);
        }
        if y > -10.0 && y < 24.0 && x.abs() < 16.0 {
            colour = self.nose(x, y, pixel, colour);
        }
        if y > 14.0 {
            colour = self.mouth(x, y, pixel, colour);
        }
        colour = self.eyes.paint(x, y, pixel, colour);
        for &Mole { x: mx, y: my, radius } in &self.identity.marks.moles {
            let (dx, dy) = (x - mx, y - my);
            if dx * dx + dy * dy < 9.0 {
                let alpha = cover((dx * dx + dy * dy).sqrt() - radius, pixel.max(0.8));
                colour = mix(colour, tint(colour, [0.22, 0.15, 0.14]), alpha);
            }
        }
        colour
    }

    fn tone(&self, x: f32, y: f32, pixel: f32) -> Rgb {
        let Identity { head, marks, mouth, eyes, .. } = &self.identity;
        let blotch = self.noise.at(x * 0.11 + self.texture, y * 0.11);
        let mut colour = scale(head.skin, 1.0 + 0.06 * blotch);
        let cheek =
            spot(x.abs() - eyes.spacing - 5.0, y - 10.0, 15.0, 13.0) * (marks.blush + 0.1 * self.smile.max(0.0));
        colour = tint(colour, mix([1.0; 3], [1.05, 0.62, 0.62], cheek));
        if marks.freckles > 0.0 && y.abs() < 24.0 {
            let dots = self.noise.at(x * 0.55 + y * 0.35 + self.texture, y * 0.55 - x * 0.35);
            let where_ = spot(x.abs() - 12.0, y - 3.0, 24.0, 16.0);
            let alpha = smooth(0.35, 0.6, dots) * where_ * marks.freckles * 1.6;
            colour = tint(colour, mix([1.0; 3], [0.62, 0.46, 0.38], alpha.min(1.0)));
        }
        if marks.forehead_lines > 0.0 && y < -26.0 && y > -42.0 {
            let wave = y + 0.005 * x * x - 0.6 * self.noise.at(x * 0.08, 3.0);
            let line = ((wave + 44.0) / 4.6).fract() - 0.5;
            let alpha = cover(line.abs() * 4.6 - 0.3, pixel.max(1.0)) * smooth(24.0, 14.0, x.abs());
            colour = scale(colour, 1.0 - 0.28 * marks.forehead_lines * alpha);
        }
        // The folds from the wings of the nose to the corners of the mouth.
        let strength = (0.28 * marks.folds + 0.3 * self.smile.max(0.0)).min(0.6);
        let (top, bottom) = (self.identity.nose.tip_y + 1.0, mouth.y + 1.0);
        let along = (y - top) / (bottom - top);
        if (0.0..1.0).contains(&along) {
            let from = self.identity.nose.half_width + 1.5;
            let to = mouth.half_width * (1.0 + 0.14 * self.smile) + 3.5;
            let fold = lerp(from, to, along) + 1.5 * along * (1.0 - along);
            let off = (x.abs() - fold) / 2.2;
            let alpha = (1.0 - off * off).max(0.0) * (4.0 * along * (1.0 - along)).min(1.0);
            colour = tint(colour, mix([1.0; 3], [0.62, 0.5, 0.48], alpha * strength));
        }
        colour
    }

    fn nose(&self, x: f32, y: f32, pixel: f32, colour: Rgb) -> Rgb {
        let nose = &self.identity.nose;
        let wing_y = nose.tip_y + nose.wings;
        let (ax, down) = (x.abs(), y - wing_y);
        // Shadow beside the bridge and below the tip.
        let beside = spot(ax - nose.bridge_width - 1.5, y + 3.0, 3.6, 14.0) * 0.16;
        let below = spot(x, y - nose.tip_y - 6.0, nose.half_width + 1.0, 4.6) * 0.42;
        let mut colour = tint(colour, mix([1.0; 3], [0.45, 0.33, 0.31], beside + below));
        // The wings' outline: an arc around each, open towards the tip.
        let (cx, radius) = (nose.half_width * 0.66, nose.half_width * 0.36);
        let (dx, dy) = (ax - cx, down);
        let ring = ((dx * dx + dy * dy * 0.75).sqrt() - radius).abs() - 0.35;
        let open = smooth(-0.5, 1.8, dx + 0.3 * dy) * smooth(-4.6, -1.0, dy + 0.2 * dx);
        colour = tint(colour, mix([1.0; 3], [0.38, 0.26, 0.24], cover(ring, pixel.max(1.2)) * open * 0.75));
        let hole = ellipse(
            ax - nose.half_width * 0.42 + 0.25 * (y - nose.tip_y - 3.4),
            y - nose.tip_y - 3.4 - 0.4 * nose.wings,
            nose.half_width * 0.24,
            0.5 + 1.3 * nose.nostrils,
        );
        mix(colour, rgb(44, 22, 20), cover(hole, pixel.max(1.2)) * (0.45 + 0.45 * nose.nostrils))
    }

    fn mouth(&self, x: f32, y: f32, pixel: f32, colour: Rgb) -> Rgb {
        let m = &self.identity.mouth;
        let half = m.half_width * (1.0 + 0.14 * self.smile - 0.1 * self.open);
        let t = x / half;
        if t.abs() > 1.35 || (y - m.y).abs() > 19.0 {
            return colour;
        }
        let arc = greater(1.0 - t * t, 0.0);
        let beyond = (t.abs() - 1.0).max(0.0) * half;
        let rise = m.corners + 3.4 * self.smile;
        let line = m.y - rise * (t * t - 0.4) - m.asymmetry * 0.5 * t;
        let gap = 7.5 * self.open * arc.sqrt();
        let thin = 1.0 - 0.22 * self.smile.max(0.0);
        let (upper_edge, lower_edge) = (line - 0.25 * gap, line + 0.75 * gap);
        let bow = 1.0 + 0.15 * m.bow - m.bow * spot(t, 0.0, 0.42, 1.0);
        let top = upper_edge - m.upper * thin * arc * bow;
        let bottom = lower_edge + m.lower * thin * lerp(arc, arc.sqrt(), 0.45);

        let shadow = spot(x, y - bottom - 2.2, half * 0.75, 3.4) * 0.3;
        let mut colour = tint(colour, mix([1.0; 3], [0.5, 0.4, 0.38], shadow));
        let lips = greater(greater(top - y, y - bottom), beyond);
        let lip = if y < line { scale(self.lip, 0.74) } else { self.lip };
        let streaks = 1.0 + 0.08 * self.noise.at(x * 0.9, y * 0.12);
        colour = mix(colour, scale(lip, streaks), cover(lips, pixel.max(1.1)) * 0.92);
        let hollow = cover(greater(greater(upper_edge - y, y - lower_edge), beyond), pixel);
        if gap > 0.3 && hollow > 0.0 {
            let teeth = cover(y - upper_edge - (0.55 * gap).min(3.2), pixel) * smooth(0.95, 0.75, t.abs());
            let shade = lerp(0.55, 1.0, smooth(1.0, 0.2, t.abs()));
            let inner = mix(rgb(46, 16, 16), scale(rgb(222, 214, 202), shade), teeth);
            colour = mix(colour, inner, hollow);
        }
        let between = (y - line).abs() - 0.45;
        let closed = smooth(1.2, 0.2, gap) * smooth(1.12, 0.98, t.abs());
        colour = mix(colour, rgb(58, 26, 24), cover(between, pixel.max(0.9)) * closed * 0.85);
        let corner = spot(x.abs() - half - 0.3, y - line, 2.6, 2.2) * 0.5;
        tint(colour, mix([1.0; 3], [0.4, 0.3, 0.28], corner))
    }

    fn beard(&self, x: f32, y: f32, width: f32, colour: Rgb) -> Rgb {
        let Identity { hair, mouth, nose, .. } = &self.identity;
        let speckle = 0.72 + 0.4 * self.noise.at(x * 0.9 + y * 0.5 + self.texture, y * 0.8 - x * 0.4);
        let side = (x.abs() / width.max(1.0)).min(1.0);
        let edge = hair.beard_line - 24.0 * smooth(0.62, 0.95, side);
        let around = smooth(1.0, 1.25, ((x / (mouth.half_width + 2.0)).powi(2) + ((y - mouth.y) / 9.0).powi(2)).sqrt());
        let beard = hair.beard * smooth(edge - 2.5, edge + 3.5, y) * around;
        let lip_top = mouth.y - 1.5 - 0.5 * mouth.upper;
        let above = smooth(nose.tip_y + 4.5, nose.tip_y + 8.0, y)
            * smooth(lip_top + 3.0, lip_top, y - 0.018 * x * x)
            * smooth(mouth.half_width + 4.0, mouth.half_width - 1.0, x.abs());
        let alpha = (beard.max(hair.moustache * above) * speckle).clamp(0.0, 0.95);
        mix(colour, mix(hair.colour, rgb(34, 26, 24), 0.3), alpha)
    }
}
