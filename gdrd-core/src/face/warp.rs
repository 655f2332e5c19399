//! A face moved, scaled, turned and lit otherwise, in one resampling.

use super::Face;
use crate::error::{Error, Result};

/// A change of a face about its centre.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Warp {
    /// Move to the right, as a share of the width.
    pub move_x: f64,
    /// Move downwards, as a share of the height.
    pub move_y: f64,
    /// Factor of the face's size; above 0.
    pub scale: f64,
    /// Rotation, clockwise.
    pub degrees: f64,
    /// Factor of the distance from middle grey.
    pub contrast: f64,
    /// What is added to each value, as a share of the range.
    pub brightness: f64,
}

impl Face {
    /// The face after a change, at the same size: bilinear between pixels, border pixels repeated where nothing moves in.
    ///
    /// # Errors
    /// If the scale is not above 0, or a number is not finite.
    pub fn warped(&self, warp: &Warp) -> Result<Self> {
        let numbers = [warp.move_x, warp.move_y, warp.scale, warp.degrees, warp.contrast, warp.brightness];
        if warp.scale <= 0.0 || numbers.iter().any(|number| !number.is_finite()) {
            return Err(Error::data(format!("expected finite numbers and a scale above 0, found {warp:?}")));
        }
        let (width, height) = (self.width() as f64, self.height() as f64);
        let (sin, cos) = warp.degrees.to_radians().sin_cos();
        let centre = (width / 2.0, height / 2.0);
        let mut pixels = Vec::with_capacity(self.pixels().len());
        for y in 0..self.height() {
            for x in 0..self.width() {
                // Backwards: where does this pixel's centre come from?
                let dx = x as f64 + 0.5 - centre.0 - warp.move_x * width;
                let dy = y as f64 + 0.5 - centre.1 - warp.move_y * height;
                let from_x = (cos * dx + sin * dy) / warp.scale + centre.0 - 0.5;
                let from_y = (cos * dy - sin * dx) / warp.scale + centre.1 - 0.5;
                for value in self.between(from_x, from_y) {
                    let value = 127.5 + (value - 127.5) * warp.contrast + 255.0 * warp.brightness;
                    pixels.push(value.round().clamp(0.0, 255.0) as u8);
                }
            }
        }
        Self::new(self.width(), self.height(), pixels)
    }

    /// The colour at a place between pixels, values from 0 to 255.
    fn between(&self, x: f64, y: f64) -> [f64; 3] {
        let (x, y) = (x.clamp(0.0, (self.width() - 1) as f64), y.clamp(0.0, (self.height() - 1) as f64));
        let (left, top) = (x as usize, y as usize);
        let (right, bottom) = ((left + 1).min(self.width() - 1), (top + 1).min(self.height() - 1));
        let (to_right, to_bottom) = (x - left as f64, y - top as f64);
        let at = |x: usize, y: usize, channel: usize| f64::from(self.pixels()[3 * (y * self.width() + x) + channel]);
        std::array::from_fn(|channel| {
            let above = at(left, top, channel) * (1.0 - to_right) + at(right, top, channel) * to_right;
            let below = at(left, bottom, channel) * (1.0 - to_right) + at(right, bottom, channel) * to_right;
            above * (1.0 - to_bottom) + below * to_bottom
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Warp = Warp { move_x: 0.0, move_y: 0.0, scale: 1.0, degrees: 0.0, contrast: 1.0, brightness: 0.0 };

    fn ramp() -> Face {
        Face::new(4, 4, (0..48).map(|i| 5 * i as u8).collect()).expect("a face")
    }

    #[test]
    fn no_change_changes_nothing() {
        assert_eq!(ramp().warped(&NONE).expect("a face"), ramp());
    }

    #[test]
    fn whole_pixels_and_right_angles_are_exact() {
        let moved = ramp().warped(&Warp { move_x: 0.25, ..NONE }).expect("a face");
        assert_eq!(moved, ramp().shifted(1, 0));
        let turned = ramp().warped(&Warp { degrees: 90.0, ..NONE }).expect("a face");
        // Clockwise: the lower left corner comes to the upper left.
        assert_eq!(turned.pixels()[..3], ramp().pixels()[3 * 12..3 * 13]);
    }

    #[test]
    fn light_and_nonsense() {
        let brighter = ramp().warped(&Warp { brightness: 1.0, ..NONE }).expect("a face");
        assert!(brighter.pixels().iter().all(|value| *value == 255));
        let grey = ramp().warped(&Warp { contrast: 0.0, ..NONE }).expect("a face");
        assert!(grey.pixels().iter().all(|value| *value == 128));
        assert!(ramp().warped(&Warp { scale: 0.0, ..NONE }).is_err());
    }
}
