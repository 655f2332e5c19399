//! Glasses, and a scarf or mask over the mouth.

use super::head::{Seen, View};
use super::nuisance::{Glasses, Scarf};
use super::shape::{Noise, Rgb, cover, ellipse, lerp, mix, rounded_box, scale, segment, smooth};

/// Glasses on a face: flat, in front of the eyes.
pub(super) struct GlassesPaint {
    glasses: Glasses,
    /// Middle of the right lens.
    middle: (f32, f32),
    /// Distance of the glasses' plane from the head's axis.
    depth: f32,
}

impl GlassesPaint {
    pub(super) fn new(glasses: &Glasses, spacing: f32, eye_y: f32, depth: f32) -> Self {
        let middle = (spacing.max(glasses.half_width + 2.5), eye_y + 1.5);
        Self { glasses: glasses.clone(), middle, depth: depth + 3.0 }
    }

    /// Paints over what is seen at a point of the head plane; `edge` is the distance to the head's outline.
    #[inline]
    pub(super) fn paint(&self, view: &View, px: f32, py: f32, edge: f32, pixel: f32, colour: Rgb) -> Rgb {
        let (x, y) = view.on_plane(px, py, self.depth);
        let g = &self.glasses;
        let (dx, dy) = (x.abs() - self.middle.0, y - self.middle.1);
        if dy.abs() > g.half_height + 4.0 {
            return colour;
        }
        let boxed = rounded_box(dx, dy, g.half_width, g.half_height, lerp(1.5, 5.0, g.roundness));
        let lens = lerp(boxed, ellipse(dx, dy, g.half_width, g.half_height), g.roundness);
        let sky = smooth(g.half_height, -g.half_height, dy);
        let tinted = mix(scale(colour, 1.0 - g.dark), [0.3, 0.32, 0.34], 0.1 * sky * g.dark);
        let mut colour = mix(colour, tinted, cover(lens, pixel));
        let glint = cover((dx * 0.8 + dy + 3.0).abs() - 1.2, pixel.max(1.5)) * cover(lens + 2.0, pixel);
        colour = mix(colour, [0.9; 3], 0.1 * glint);
        let inner = self.middle.0 - g.half_width;
        let bridge = segment(x.abs(), y, (0.0, self.middle.1 - 2.0), (inner, self.middle.1 - 1.0)) - g.thickness * 0.8;
        let outer = self.middle.0 + g.half_width;
        let arm = segment(x.abs(), y, (outer, self.middle.1 - 2.5), (outer + 40.0, self.middle.1 - 3.5)) - g.thickness;
        let frame = (lens.abs() - g.thickness).min(bridge);
        let frame = if edge < 0.0 { frame.min(arm) } else { frame };
        mix(colour, g.colour, cover(frame, pixel) * 0.95)
    }
}

/// Colour and coverage of a scarf at a point of the head plane where the head is `seen`.
#[inline]
pub(super) fn scarf(scarf: &Scarf, seen: &Seen, px: f32, py: f32, pixel: f32, noise: Noise) -> (Rgb, f32) {
    let u = (seen.x / seen.width.max(1.0)).clamp(-1.0, 1.0);
    let top = scarf.top + 3.5 * u * u + 1.2 * noise.at(px * 0.07, 2.0);
    let over_face = cover((top - seen.y).max(seen.edge - 2.0), pixel);
    let around_neck = cover((34.0 - py).max(px.abs() - 50.0 + 0.2 * (50.0 - py)), pixel);
    let alpha = over_face.max(around_neck);
    if alpha == 0.0 {
        return (scarf.colour, 0.0);
    }
    let fold = noise.at(px * 0.05 + 9.0, py * 0.22 + 0.04 * px);
    let stripe = smooth(0.42, 0.58, ((seen.y + 4.0 * u * u + 80.0) / 7.0).fract());
    let colour = mix(scarf.colour, scarf.stripes, stripe * scarf.pattern);
    (scale(colour, 1.0 + 0.22 * fold), alpha)
}
