//! Faces cut out of photographs.

use gdrd_core::error::{Error, Result};
use gdrd_core::face::Face;

use super::aligned::Aligned;
use super::geometry::{Bounds, Landmarks, Similarity};

/// The most samples along a side of one pixel of an aligned face.
const MOST_SAMPLES: f64 = 64.0;
/// The largest aligned face, in pixels.
const MAX_SIZE: usize = 4096;
/// The largest square that a box may become, in pixels.
const MAX_SIDE: f32 = 8192.0;

/// The face with these landmarks, upright at `size`x`size` pixels: [`similarity`](super::similarity) to the
/// [`template`](super::template) of this size, then [`warp`].
///
/// This is the image alone, for a file. Whoever embeds the face takes [`Aligned::of`], which knows how large it is in the photograph.
///
/// ```
/// use gdrd_student::Face;
/// use gdrd_student::front_end::{TEMPLATE, align};
///
/// // Five points that lie as the template wants them already: nothing is moved.
/// let photograph = Face::new(112, 112, (0..3 * 112 * 112).map(|i| i as u8).collect())?;
/// assert_eq!(align(&photograph, &TEMPLATE, 112)?, photograph);
/// # Ok::<(), gdrd_student::Error>(())
/// ```
///
/// # Errors
/// If a landmark is not finite, all of them are one point, or the size is not 1 to 4096.
pub fn align(photograph: &Face, landmarks: &Landmarks, size: usize) -> Result<Face> {
    Ok(Aligned::of(photograph, landmarks, size)?.face)
}

/// The square of `size` pixels that a photograph becomes by a transform of its coordinates.
///
/// Bilinear between pixels and black beyond the border, as OpenCV's `warpAffine` and insightface's `norm_crop`. Where the transform
/// reduces a photograph by more than 1.5, a pixel is the mean of several such samples, about one for each pixel that it covers (at
/// most 64x64): OpenCV leaves the others out, which is noise in large photographs.
///
/// # Errors
/// If the transform cannot be undone, or the size is not 1 to 4096.
pub fn warp(photograph: &Face, transform: &Similarity, size: usize) -> Result<Face> {
    if !(1..=MAX_SIZE).contains(&size) {
        return Err(Error::data(format!("expected an aligned face of 1 to {MAX_SIZE} pixels, found {size}")));
    }
    let back = transform.inverse()?;
    let samples = back.scale().round().clamp(1.0, MOST_SAMPLES) as usize;
    let offsets: Vec<f64> = (0..samples).map(|at| (at as f64 + 0.5) / samples as f64 - 0.5).collect();
    let share = 1.0 / (samples * samples) as f64;
    let mut pixels = Vec::with_capacity(3 * size * size);
    for y in 0..size {
        for x in 0..size {
            let mut sum = [0.0; 3];
            for dy in &offsets {
                for dx in &offsets {
                    add_sample(photograph, back.apply([x as f64 + dx, y as f64 + dy]), &mut sum);
                }
            }
            pixels.extend(sum.map(|value| (value * share).round() as u8));
        }
    }
    Face::new(size, size, pixels)
}

/// Adds the colour at a place between pixels, from 0 to 255; what is beyond the border is black.
fn add_sample(photograph: &Face, [x, y]: [f64; 2], sum: &mut [f64; 3]) {
    let (width, height) = (photograph.width(), photograph.height());
    let near = x > -1.0 && y > -1.0 && x < width as f64 && y < height as f64;
    if !near {
        return;
    }
    let (left, top) = (x.floor(), y.floor());
    let (right_share, bottom_share) = (x - left, y - top);
    let (left, top) = (left as isize, top as isize);
    let rows = [(top, 1.0 - bottom_share), (top + 1, bottom_share)];
    let columns = [(left, 1.0 - right_share), (left + 1, right_share)];
    for (row, row_share) in rows {
        for (column, column_share) in columns {
            if (0..height as isize).contains(&row) && (0..width as isize).contains(&column) {
                let at = 3 * (row as usize * width + column as usize);
                for (sum, value) in sum.iter_mut().zip(&photograph.pixels()[at..at + 3]) {
                    *sum += f64::from(*value) * row_share * column_share;
                }
            }
        }
    }
}

/// The square around a box, pixel by pixel as the photograph has them; black beyond the border.
///
/// **A box is enough.** A face of 16 pixels is too small for any detector's landmarks, but trackers, people counters and datasets such
/// as UCCS and QMUL-SurvFace give boxes. The square is not turned and not resized: a student brings it to its own size in one step.
/// Its side is the longer one of the box, with `margin` times that added on each side; its middle is the box's, to the pixel. A student
/// that was trained on aligned faces expects a face to fill the square as it fills an aligned one.
///
/// ```
/// use gdrd_student::Face;
/// use gdrd_student::front_end::{Bounds, crop};
///
/// let frame = Face::new(640, 480, vec![90; 3 * 640 * 480])?;
/// let face = crop(&frame, &Bounds { left: 300.0, top: 200.0, width: 14.0, height: 18.0 }, 0.0)?;
/// assert_eq!((face.width(), face.height()), (18, 18));
/// # Ok::<(), gdrd_student::Error>(())
/// ```
///
/// # Errors
/// If the box is none ([`Bounds::within`]), the margin is not from -0.4 to 4, or the square would have more than 8192 pixels a side.
pub fn crop(photograph: &Face, bounds: &Bounds, margin: f32) -> Result<Face> {
    let (width, height) = (photograph.width(), photograph.height());
    bounds.within(width, height)?;
    if !(-0.4..=4.0).contains(&margin) {
        return Err(Error::data(format!("expected a margin from -0.4 to 4, found {margin}")));
    }
    let side = (bounds.width.max(bounds.height) * (1.0 + 2.0 * margin)).round().max(1.0);
    if side > MAX_SIDE {
        return Err(Error::data(format!("expected a square of at most {MAX_SIDE} pixels a side, found {side}")));
    }
    let [left, top] = bounds.centre().map(|centre| (centre - side / 2.0).round() as isize);
    let side = side as usize;
    let mut pixels = vec![0; 3 * side * side];
    // What of the square's columns is in the photograph.
    let from = left.max(0);
    let to = left.saturating_add_unsigned(side).min(width as isize);
    for (at, row) in pixels.chunks_exact_mut(3 * side).enumerate() {
        let y = top.saturating_add_unsigned(at);
        if (0..height as isize).contains(&y) && from < to {
            let source = 3 * (y as usize * width);
            let source = source + 3 * from as usize..source + 3 * to as usize;
            row[3 * (from - left) as usize..3 * (to - left) as usize].copy_from_slice(&photograph.pixels()[source]);
        }
    }
    Face::new(side, side, pixels)
}

#[cfg(test)]
mod tests {
    use super::super::geometry::TEMPLATE;
    use super::*;

    fn ramp(width: usize, height: usize) -> Face {
        let pixel = |at: usize| [(at % width * 20) as u8, (at / width * 20) as u8, 9];
        Face::new(width, height, (0..width * height).flat_map(pixel).collect()).expect("pixels")
    }

    #[test]
    fn half_a_pixel_is_between_two_and_the_outside_is_black() {
        let half = Similarity { a: 1.0, b: 0.0, dx: -0.5, dy: 0.0 };
        let face = warp(&ramp(4, 4), &half, 4).expect("a face");
        assert_eq!(face.pixels()[..12], [10, 0, 9, 30, 0, 9, 50, 0, 9, 30, 0, 5]);
        let far = Similarity { dx: 100.0, ..half };
        assert!(warp(&ramp(4, 4), &far, 4).expect("a face").pixels().iter().all(|value| *value == 0));
    }

    #[test]
    fn a_right_angle_is_exact() {
        // Clockwise about the middle of 4x4 pixels: the lower left corner comes to the upper left.
        let turn = Similarity { a: 0.0, b: 1.0, dx: 3.0, dy: 0.0 };
        let face = warp(&ramp(4, 4), &turn, 4).expect("a face");
        assert_eq!(face.pixels()[..3], ramp(4, 4).pixels()[3 * 12..3 * 13]);
    }

    #[test]
    fn a_large_photograph_is_averaged() {
        // Stripes of one pixel: bilinear samples alone would be all black or all white.
        let stripes = Face::new(64, 64, (0..64 * 64).flat_map(|at| [if at % 2 == 0 { 255 } else { 0 }; 3]).collect());
        let small = Similarity { a: 0.125, b: 0.0, dx: -0.4375, dy: -0.4375 };
        let face = warp(&stripes.expect("pixels"), &small, 8).expect("a face");
        assert!(face.pixels().iter().all(|value| (127..=128).contains(value)), "{:?}", face.pixels());
    }

    #[test]
    fn far_landmarks_are_black_and_cost_little() {
        let far = TEMPLATE.map(|point| point.map(|at| at * 1e30));
        let face = align(&ramp(4, 4), &far, 112).expect("a face somewhere");
        assert!(face.pixels().iter().all(|value| *value < 10));
        assert!(align(&ramp(4, 4), &TEMPLATE, 0).is_err() && align(&ramp(4, 4), &TEMPLATE, 5000).is_err());
    }

    #[test]
    fn a_crop_keeps_pixels_as_they_are() {
        let photograph = ramp(12, 10);
        let at = |x: usize, y: usize| &photograph.pixels()[3 * (12 * y + x)..][..3];
        let bounds = Bounds { left: 4.0, top: 3.0, width: 2.0, height: 4.0 };
        let face = crop(&photograph, &bounds, 0.0).expect("a face");
        assert_eq!((face.width(), &face.pixels()[..3]), (4, at(3, 3)));
        let wider = crop(&photograph, &bounds, 0.5).expect("a face");
        assert_eq!((wider.width(), &wider.pixels()[..3]), (8, at(1, 1)));
        let corner = Bounds { left: -2.0, top: -2.0, width: 4.0, height: 4.0 };
        let face = crop(&photograph, &corner, 0.0).expect("a face");
        assert_eq!(face.pixels()[..3], [0, 0, 0]);
        assert_eq!(&face.pixels()[3 * (4 * 2 + 2)..][..3], at(0, 0));
    }

    #[test]
    fn boxes_without_a_face_are_refused() {
        let photograph = ramp(12, 10);
        let bounds = Bounds { left: 4.0, top: 3.0, width: 2.0, height: 4.0 };
        for (wrong, margin, expected) in [
            (Bounds { left: 12.0, ..bounds }, 0.0, "outside of the photograph"),
            (Bounds { width: f32::NAN, ..bounds }, 0.0, "finite"),
            (Bounds { width: 1e9, ..bounds }, 0.0, "at most 8192"),
            (bounds, f32::NAN, "margin"),
            (bounds, 40.0, "margin"),
        ] {
            let error = crop(&photograph, &wrong, margin).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(crop(&photograph, &Bounds { width: 0.1, height: 0.1, ..bounds }, 0.0).expect("a pixel").width(), 1);
    }
}
