//! Hair on the head, and a cap over it.

use super::head::Seen;
use super::identity::{HairStyle, Identity};
use super::nuisance::Nuisance;
use super::shape::{Noise, Rgb, cover, lerp, mix, scale, smooth, spot};

/// The hair of one picture.
pub(super) struct HairPaint {
    style: HairStyle,
    colour: Rgb,
    hairline: f32,
    recession: f32,
    peak: f32,
    side: f32,
    cap: Option<(f32, Rgb)>,
    noise: Noise,
    texture: f32,
}

impl HairPaint {
    pub(super) fn new(identity: &Identity, nuisance: &Nuisance) -> Self {
        let hair = &identity.hair;
        let side = match hair.style {
            HairStyle::Long => 90.0,
            HairStyle::Cropped => hair.sideburns - 4.0,
            _ => hair.sideburns,
        };
        Self {
            style: hair.style,
            colour: hair.colour,
            hairline: hair.hairline + nuisance.hair_shift,
            recession: hair.recession,
            peak: hair.peak,
            side,
            cap: nuisance.cap.as_ref().map(|cap| (cap.edge, cap.colour)),
            noise: Noise::new(),
            texture: (identity.marks.texture % 53) as f32,
        }
    }

    /// How far the hair stands off the head, and how much wider it is at its ends.
    pub(super) fn volume(identity: &Identity, nuisance: &Nuisance) -> (f32, f32) {
        let volume = identity.hair.volume * nuisance.hair_volume;
        match identity.hair.style {
            HairStyle::Cropped => (1.0, 0.0),
            HairStyle::Long => (2.0 + 0.7 * volume, 4.0 + volume),
            _ => (1.0 + volume, 0.0),
        }
    }

    /// The height below which there is none.
    pub(super) fn end(&self) -> f32 {
        self.side + 2.0
    }

    /// How much of it there is behind the head at this height.
    #[inline]
    pub(super) fn behind(&self, y: f32) -> f32 {
        smooth(self.side, self.side - 4.0, y)
    }

    /// Whether it falls over the ears.
    pub(super) fn hides_ears(&self) -> bool {
        self.style == HairStyle::Long
    }

    /// Where the hair begins at a point of the hair's surface: above this height is hair.
    fn line(&self, x: f32, u: f32) -> f32 {
        let jag = self.noise.at(x * 0.35 + self.texture, 11.0);
        let front = match self.style {
            HairStyle::Fringe => self.hairline * 0.35 - 14.0 + 3.0 * jag + 0.008 * x * x,
            HairStyle::Parted => self.hairline + 3.0 + 0.16 * (x + 14.0).abs().min(30.0) + jag,
            _ => self.hairline + 1.2 * jag,
        };
        let corners = self.recession * smooth(0.2, 0.55, u) * smooth(0.95, 0.7, u);
        let front = if self.style == HairStyle::Fringe { front } else { front - corners };
        let front = front + self.peak * spot(x, 0.0, 11.0, 1.0) + 14.0 * smooth(0.45, 0.95, u);
        let (from, to) = if self.style == HairStyle::Long { (0.74, 0.9) } else { (0.82, 0.95) };
        lerp(front, self.side, smooth(from, to, u))
    }

    /// Colour and coverage at a point of the hair's surface.
    #[inline]
    pub(super) fn at(&self, seen: &Seen, pixel: f32) -> (Rgb, f32) {
        let inside = cover(seen.edge, pixel.max(1.2));
        if inside == 0.0 {
            return (self.colour, 0.0);
        }
        let Seen { x, y, width, .. } = *seen;
        let u = (x.abs() / width).min(1.0);
        if let Some((edge, colour)) = self.cap {
            let edge = edge + 7.0 * u * u;
            let alpha = inside * cover(y - edge, pixel);
            if alpha > 0.0 {
                let rib = 1.0 + 0.12 * self.noise.at(x * 0.8, y * 0.1);
                let band = if y > edge - 8.0 { 0.75 } else { 1.0 };
                return (scale(colour, rib * band), alpha);
            }
        }
        let alpha = inside * smooth(1.6, -1.6, y - self.line(x, u));
        if alpha == 0.0 {
            return (self.colour, 0.0);
        }
        (self.strands(x, y), if self.style == HairStyle::Cropped { alpha * 0.82 } else { alpha })
    }

    /// The colour of hair at a point, strand by strand.
    #[inline]
    pub(super) fn strands(&self, x: f32, y: f32) -> Rgb {
        let along = match self.style {
            HairStyle::Parted => (x + 14.0) * 0.35 + y * 0.2,
            HairStyle::Cropped => y * 0.8,
            _ => y * 0.1,
        };
        let across = if self.style == HairStyle::Parted { y * 0.75 - x * 0.2 } else { x * 0.6 };
        let strand = self.noise.at(across + self.texture, along * 0.5);
        let lock = self.noise.at(across * 0.27 + 5.0, along * 0.3);
        mix(scale(self.colour, 1.0 + 0.32 * strand + 0.3 * lock), [0.5; 3], 0.012 * (1.0 + strand))
    }
}
