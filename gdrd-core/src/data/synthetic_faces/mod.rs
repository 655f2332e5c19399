//! Parametric faces, drawn by us: an endless supply of people without a photograph.
//!
//! A picture has two causes that are kept apart. An [`Identity`] is what makes a person: the shape
//! of head, eyes, brows, nose and mouth, hair, marks of the skin. A [`Nuisance`] is everything
//! else: pose, light, expression, what is worn, background, camera. [`draw`] turns one of each
//! into an aligned face. Both come from a seed, and equal seeds give equal bytes.
//!
//! Skin tones, hair colours and hair styles come from short lists, and light and camera change
//! them, so that who is in a picture has to be read from the face's geometry: well at 112 pixels,
//! hardly at 16.
//!
//! The head is a solid of ellipses (`head.rs`) with a relief (`relief.rs`); features are
//! painted on its surface, so they turn with it, and the light falls on its normals.

mod draw;
mod draws;
mod eyes;
mod hair;
mod head;
mod identity;
mod nuisance;
mod relief;
pub(in crate::data) mod shape;
mod situation;
mod skin;
mod worn;

pub use draw::draw;
pub use identity::{
    Brows, EYE_COLOURS, Eyes, HAIR_COLOURS, Hair, HairStyle, Head, Identity, Marks, Mole, Mouth, Nose, SKIN_TONES,
};
pub use nuisance::{
    Background, CAP_PROBABILITY, Camera, Cap, Expression, GLASSES_PROBABILITY, Glasses, Light, Nuisance, Pose,
    SCARF_PROBABILITY, SUNGLASSES_PROBABILITY, Scarf,
};
pub use situation::Situation;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::Face;

    fn neutral(person: u64) -> Face {
        draw(&Identity::from_seed(person), &Nuisance::neutral(), 112)
    }

    /// Mean absolute difference in bytes.
    fn difference(a: &Face, b: &Face) -> f32 {
        let sum: u32 = a.pixels().iter().zip(b.pixels()).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        sum as f32 / a.pixels().len() as f32
    }

    /// Grey at 16x16, without mean and of unit length.
    fn code(face: &Face) -> Vec<f32> {
        let small = face.resized(16, crate::face::Kernel::Box, true).expect("16x16");
        let grey: Vec<f32> = small.pixels().chunks_exact(3).map(|p| p.iter().map(|&b| f32::from(b)).sum()).collect();
        let mean = grey.iter().sum::<f32>() / 256.0;
        let length = grey.iter().map(|g| (g - mean).powi(2)).sum::<f32>().sqrt();
        grey.iter().map(|g| (g - mean) / length).collect()
    }

    #[test]
    fn equal_seeds_give_equal_bytes() {
        for seed in 0..4 {
            let face = || draw(&Identity::from_seed(seed), &Nuisance::from_seed(seed + 9), 64);
            assert_eq!(face(), face());
        }
    }

    #[test]
    fn people_differ_under_equal_circumstances() {
        let faces: Vec<Face> = (0..24).map(neutral).collect();
        for (at, face) in faces.iter().enumerate() {
            for other in &faces[at + 1..] {
                assert!(difference(face, other) > 1.0, "person {at} looks like another");
            }
        }
    }

    #[test]
    fn each_circumstance_changes_the_picture() {
        let identity = Identity::from_seed(11);
        let plain = draw(&identity, &Nuisance::neutral(), 112);
        type Change = fn(&mut Nuisance, Nuisance);
        let changes: [(&str, Change); 7] = [
            ("pose", |n, other| n.pose = other.pose),
            ("light", |n, other| n.light = other.light),
            ("smile", |n, _| n.expression.smile = 0.9),
            ("mouth", |n, _| n.expression.mouth_open = 0.8),
            ("blink", |n, _| n.expression.blink = 1.0),
            ("background", |n, other| n.background = other.background),
            ("camera", |n, other| n.camera = other.camera),
        ];
        for (name, change) in changes {
            let mut nuisance = Nuisance::neutral();
            change(&mut nuisance, Nuisance::from_seed(5));
            let changed = draw(&identity, &nuisance, 112);
            assert!(difference(&plain, &changed) > 0.3, "{name} changes nothing");
        }
    }

    #[test]
    fn the_neutral_face_is_well_exposed() {
        for person in 0..12 {
            let face = neutral(person);
            let middle: Vec<u8> =
                (30..100).flat_map(|y| face.pixels()[3 * (112 * y + 30)..][..3 * 52].to_vec()).collect();
            let cut = middle.iter().filter(|&&byte| byte == 0 || byte == 255).count();
            assert!(cut * 100 < middle.len(), "person {person}: {cut} of {} bytes are cut off", middle.len());
            let mean = middle.iter().map(|&byte| f64::from(byte)).sum::<f64>() / middle.len() as f64;
            assert!((50.0..220.0).contains(&mean), "person {person}: mean {mean}");
        }
    }

    #[test]
    fn eyes_lie_on_the_template() {
        // The pupil is darker than the white of the eye and the skin on the same row.
        for person in 0..12 {
            let face = neutral(person);
            for (x, y) in [(38, 51), (73, 51)] {
                let darkest = |range: std::ops::Range<usize>| {
                    let rows = range.flat_map(|row| (x - 4..x + 5).map(move |column| (row, column)));
                    rows.map(|(row, column)| face.pixels()[3 * (112 * row + column) + 1]).min()
                };
                assert!(darkest(y - 5..y + 6) < darkest(y + 7..y + 12), "person {person}");
            }
        }
    }

    #[test]
    fn every_size_can_be_drawn_and_flipped() {
        let (identity, nuisance) = (Identity::from_seed(2), Nuisance::from_seed(3));
        for size in [16, 17, 32, 55, 112, 224] {
            let face = draw(&identity, &nuisance, size);
            assert_eq!((face.width(), face.height()), (size, size));
            assert_ne!(face.flipped(), face);
            assert_eq!(face.flipped().flipped(), face);
        }
    }

    #[test]
    fn things_are_worn_as_often_as_stated() {
        let all: Vec<Nuisance> = (0..3000).map(Nuisance::from_seed).collect();
        let share = |is: fn(&Nuisance) -> bool| all.iter().filter(|n| is(n)).count() as f32 / all.len() as f32;
        let shares = [
            (share(|n| n.glasses.as_ref().is_some_and(|g| g.dark == 0.0)), GLASSES_PROBABILITY),
            (share(|n| n.glasses.as_ref().is_some_and(|g| g.dark > 0.0)), SUNGLASSES_PROBABILITY),
            (share(|n| n.scarf.is_some()), SCARF_PROBABILITY),
            (share(|n| n.cap.is_some()), CAP_PROBABILITY),
        ];
        for (found, stated) in shares {
            assert!((found - stated).abs() < 0.025, "found {found}, stated {stated}");
        }
    }

    #[test]
    fn pixels_tell_people_apart_a_little_and_no_more() {
        // Correlation of 16x16 pixels: above chance, far from good enough.
        let people: Vec<[Vec<f32>; 2]> = (0..120)
            .map(|person| {
                let identity = Identity::from_seed(person);
                [0, 1].map(|k| code(&draw(&identity, &Nuisance::from_seed(1000 + 2 * person + k), 112)))
            })
            .collect();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        // How often a person is closer to themselves than to the next ten people.
        let (mut right, mut all) = (0, 0);
        for (at, [first, second]) in people.iter().enumerate() {
            let same = dot(first, second);
            for step in 1..=10 {
                all += 1;
                right += usize::from(same > dot(first, &people[(at + step) % people.len()][1]));
            }
        }
        let share = right as f32 / all as f32;
        assert!((0.55..0.85).contains(&share), "{share}");
    }
}
