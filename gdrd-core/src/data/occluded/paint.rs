//! What stands in front of a face, painted by the landmarks of the ArcFace template.

use rand::Rng;

use super::Occlusion;
use crate::data::synthetic_faces::shape::{Rgb, cover, lerp, mix, rounded_box, scale, segment, smooth};
use crate::error::Result;
use crate::face::Face;
use crate::seed::Stream;

/// Height and width of the template, whose units all lengths here are in.
const TEMPLATE: f32 = 112.0;
/// The eyes.
const EYES: [(f32, f32); 2] = [(38.29, 51.70), (73.53, 51.50)];
/// The tip of the nose.
const NOSE: (f32, f32) = (56.03, 71.74);
/// The middle of the mouth.
const MOUTH: (f32, f32) = (56.14, 92.29);

/// A square face in a situation.
///
/// # Errors
/// If the face is not square.
pub(super) fn painted(face: &Face, what: Occlusion, random: &mut Stream) -> Result<Face> {
    let size = face.square()?.width();
    let pixel = TEMPLATE / size as f32;
    let paint: Box<dyn Fn(f32, f32, Rgb) -> Rgb> = match what {
        Occlusion::Plain => return Ok(face.clone()),
        Occlusion::Sunglasses => Box::new(sunglasses(pixel, random)),
        Occlusion::Scarf => Box::new(scarf(pixel, random)),
        Occlusion::Mask => Box::new(mask(pixel, random)),
        Occlusion::SideLight => Box::new(side_light(random)),
    };
    let mut pixels = Vec::with_capacity(face.pixels().len());
    for (at, bytes) in face.pixels().chunks_exact(3).enumerate() {
        let (x, y) = ((at % size) as f32 + 0.5, (at / size) as f32 + 0.5);
        // Linear light as the drawn faces have it: bytes are square roots.
        let seen: Rgb = std::array::from_fn(|channel| (f32::from(bytes[channel]) / 255.0).powi(2));
        let found = paint(x * pixel, y * pixel, seen);
        // What nothing is painted on keeps its bytes.
        match found == seen {
            true => pixels.extend_from_slice(bytes),
            false => pixels.extend(found.map(|value| (value.max(0.0).sqrt() * 255.0).round().min(255.0) as u8)),
        }
    }
    Face::new(size, size, pixels)
}

fn colour(random: &mut Stream, most: f32) -> Rgb {
    std::array::from_fn(|_| random.random_range(0.0..most)).map(|value: f32| value * value)
}

/// Dark lenses over both eyes, with frame, bridge and arms.
fn sunglasses(pixel: f32, random: &mut Stream) -> impl Fn(f32, f32, Rgb) -> Rgb + use<> {
    let half = (random.random_range(12.5..15.5f32), random.random_range(8.5..11.5f32));
    let corner = random.random_range(2.0..8.0f32);
    let thickness = random.random_range(0.6..1.4f32);
    let dark = random.random_range(0.9..0.98f32);
    let frame = scale(colour(random, 0.5), 0.3);
    move |x, y, seen| {
        let mut painted = seen;
        let lens = |(ex, ey): (f32, f32)| rounded_box(x - ex, y - ey - 1.5, half.0, half.1, corner);
        let lenses = lens(EYES[0]).min(lens(EYES[1]));
        painted = mix(painted, scale(seen, 1.0 - dark), cover(lenses, pixel));
        let height = |eye: (f32, f32)| eye.1 - 1.0;
        let inner = [EYES[0].0 + half.0, EYES[1].0 - half.0];
        let bridge = segment(x, y, (inner[0], height(EYES[0])), (inner[1], height(EYES[1])));
        let left = segment(x, y, (-1.0, height(EYES[0]) - 1.5), (EYES[0].0 - half.0, height(EYES[0])));
        let right = segment(x, y, (EYES[1].0 + half.0, height(EYES[1])), (TEMPLATE + 1.0, height(EYES[1]) - 1.5));
        let rims = lenses.abs().min(bridge).min(left).min(right) - thickness;
        mix(painted, frame, cover(rims, pixel))
    }
}

/// Cloth from below the nose to the lower edge, with folds and stripes.
fn scarf(pixel: f32, random: &mut Stream) -> impl Fn(f32, f32, Rgb) -> Rgb + use<> {
    let top = random.random_range(NOSE.1 + 4.0..MOUTH.1 - 8.0);
    let (cloth, stripes) = (colour(random, 0.9), colour(random, 0.9));
    let pattern = random.random_range(0.0..1.0f32);
    let (turn, width) = (random.random_range(-0.3..0.3f32), random.random_range(5.0..10.0f32));
    move |x, y, seen| {
        let across = (x - NOSE.0) / 40.0;
        // It lies higher in the middle, on the nose, than on the cheeks.
        let edge = top + 4.0 * across * across + 3.0 * turn * across - y;
        let covered = cover(edge, pixel);
        if covered == 0.0 {
            return seen;
        }
        let wave = (y + turn * x + 6.0 * across * across) / width;
        let stripe = smooth(0.4, 0.6, wave.rem_euclid(1.0)) * pattern;
        let folds = 0.8 + 0.3 * (0.5 * y + 4.0 * across).sin() * (0.11 * x + turn).cos();
        mix(seen, scale(mix(cloth, stripes, stripe), folds), covered)
    }
}

/// A mask from the bridge of the nose to the chin, with pleats and a strap to each ear.
fn mask(pixel: f32, random: &mut Stream) -> impl Fn(f32, f32, Rgb) -> Rgb + use<> {
    let top = random.random_range(61.0..67.0f32);
    let half_width = random.random_range(31.0..36.0f32);
    let kinds: [Rgb; 3] = [[0.35, 0.55, 0.68], [0.75, 0.76, 0.78], [0.02, 0.02, 0.025]];
    let cloth = scale(kinds[random.random_range(0..kinds.len() as u32) as usize], random.random_range(0.8..1.1f32));
    move |x, y, seen| {
        let across = (x - NOSE.0) / half_width;
        let bottom = 117.0;
        let edge = top + 7.0 * across * across;
        // Narrower towards the chin.
        let side = half_width * lerp(1.0, 0.8, smooth(85.0, bottom, y));
        let inside = (edge - y).max(y - bottom).max((x - NOSE.0).abs() - side);
        let strap = |from: f32, to: f32| {
            let ends = |sign: f32| segment(x, y, (NOSE.0 + sign * side, from), (NOSE.0 + sign * 60.0, to));
            ends(-1.0).min(ends(1.0)) - 0.7
        };
        let strapped = strap(top + 9.0, 54.0).min(strap(103.0, 74.0));
        let behind = mix(seen, scale(cloth, 0.9), cover(strapped, pixel));
        let pleat = 1.0 - 0.2 * smooth(0.75, 1.0, ((y - edge) / 9.0).rem_euclid(1.0));
        let round = 1.0 - 0.35 * across * across;
        mix(behind, scale(cloth, pleat * round), cover(inside, pixel))
    }
}

/// The light that an ellipsoid of the head's size takes from one side, in place of light from the front.
fn side_light(random: &mut Stream) -> impl Fn(f32, f32, Rgb) -> Rgb + use<> {
    let side = if random.random_range(0.0..1.0f32) < 0.5 { -1.0 } else { 1.0 };
    let azimuth = side * random.random_range(1.0..1.35f32);
    let elevation = random.random_range(0.0..0.4f32);
    let ambient = random.random_range(0.03..0.09f32);
    let light = [azimuth.sin() * elevation.cos(), -elevation.sin(), azimuth.cos() * elevation.cos()];
    move |x, y, seen| {
        let (u, v) = ((x - NOSE.0) / 46.0, (y - 64.0) / 62.0);
        let flat = (u * u + v * v).sqrt();
        // Outside of the head its outline's direction.
        let normal = match flat < 1.0 {
            true => [u, v, (1.0 - flat * flat).sqrt()],
            false => [u / flat, v / flat, 0.0],
        };
        let falls = normal.iter().zip(light).map(|(n, l)| n * l).sum::<f32>().max(0.0);
        scale(seen, ambient + 1.3 * falls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    fn grey(size: usize) -> Face {
        Face::new(size, size, vec![150; 3 * size * size]).expect("a face")
    }

    fn shown(size: usize, what: Occlusion, number: u64) -> Face {
        painted(&grey(size), what, &mut Seed(3).stream("test", &[number])).expect("painted")
    }

    fn at(face: &Face, (x, y): (f32, f32)) -> i32 {
        let scale = face.width() as f32 / TEMPLATE;
        let pixel = |value: f32| (value * scale) as usize;
        face.pixels()[3 * (pixel(y) * face.width() + pixel(x)) + 1].into()
    }

    #[test]
    fn what_is_covered_changes_and_the_rest_does_not() {
        for (number, size) in (0..10).flat_map(|number| [(number, 112), (number, 64)]) {
            let glasses = shown(size, Occlusion::Sunglasses, number);
            assert!(EYES.iter().all(|eye| at(&glasses, *eye) < 60), "glasses {number}");
            assert_eq!((at(&glasses, MOUTH), at(&glasses, (56.0, 20.0))), (150, 150));
            let scarf = shown(size, Occlusion::Scarf, number);
            assert_eq!((at(&scarf, EYES[0]), at(&scarf, (56.0, 66.0))), (150, 150));
            let mask = shown(size, Occlusion::Mask, number);
            assert!(at(&mask, NOSE) != 150 && at(&mask, (56.0, 40.0)) == 150, "mask {number}");
        }
        let covered = (0..10).filter(|number| (at(&shown(112, Occlusion::Scarf, *number), MOUTH) - 150).abs() > 8);
        assert!(covered.count() >= 8, "a scarf is hardly ever of the face's own grey");
    }

    #[test]
    fn light_from_the_side_darkens_the_other_cheek() {
        for number in 0..10 {
            let lit = shown(112, Occlusion::SideLight, number);
            let (left, right) = (at(&lit, (25.0, 70.0)), at(&lit, (87.0, 70.0)));
            assert!(left.min(right) < 60 && left.max(right) > 110, "{left} and {right}");
        }
    }

    #[test]
    fn a_face_that_is_not_square_is_refused() {
        let face = Face::new(2, 1, vec![0; 6]).expect("a face");
        assert!(painted(&face, Occlusion::Mask, &mut Seed(0).stream("test", &[])).is_err());
    }
}
