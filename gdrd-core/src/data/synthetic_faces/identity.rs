//! What makes a person: everything that stays the same from picture to picture.

use super::draws::Draws;
use super::shape::{Rgb, rgb};

/// Skin tones, light to dark, and how often each is drawn. Few, so that many people share one.
pub const SKIN_TONES: [([u8; 3], f32); 5] = [
    ([240, 208, 188], 0.22),
    ([228, 184, 154], 0.28),
    ([208, 158, 122], 0.24),
    ([166, 114, 82], 0.15),
    ([120, 80, 58], 0.11),
];

/// Hair colours (black, two browns, blond, grey, red) and how often each is drawn.
pub const HAIR_COLOURS: [([u8; 3], f32); 6] = [
    ([30, 26, 26], 0.36),
    ([58, 42, 34], 0.30),
    ([96, 66, 46], 0.15),
    ([176, 140, 94], 0.09),
    ([148, 146, 144], 0.06),
    ([130, 64, 38], 0.04),
];

/// Eye colours (two browns, green, blue, grey) and how often each is drawn.
pub const EYE_COLOURS: [([u8; 3], f32); 5] = [
    ([58, 36, 24], 0.45),
    ([104, 70, 38], 0.22),
    ([92, 108, 72], 0.11),
    ([84, 124, 160], 0.13),
    ([118, 128, 132], 0.09),
];

pub(super) fn linear(colour: [u8; 3]) -> Rgb {
    rgb(colour[0], colour[1], colour[2])
}

/// The outline and relief of the head. Lengths are in template pixels: 1/112 of the picture's
/// side, with the eyes 35 apart; heights (`y`) count downwards from a point between eyes and nose tip.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// Half the width at the cheekbones, 37 to 44.
    pub cheek_width: f32,
    /// Width at the temples over that at the cheekbones, 0.88 to 1.0.
    pub temple: f32,
    /// Width at the jaw over that at the cheekbones, 0.7 to 0.96.
    pub jaw: f32,
    /// Where the chin ends, 44 to 54.
    pub chin_y: f32,
    /// From a pointed (1.7) to a square (3.6) chin: exponent of the outline.
    pub chin_square: f32,
    /// Depth of the head over its width, 0.88 to 1.1.
    pub depth: f32,
    /// How far the cheekbones stand out, 0 to 2.5.
    pub cheekbone: f32,
    /// How far the chin stands out, 0 to 4.
    pub chin: f32,
    /// Depth of the cleft in the chin, 0 to 1; most have none.
    pub cleft: f32,
    /// How far the ridge over the eyes stands out, 0 to 2.5.
    pub brow_ridge: f32,
    /// Size of the ears, 0.8 to 1.25.
    pub ear_size: f32,
    /// How far the ears stand off, 0 to 4.
    pub ear_off: f32,
    /// Skin tone in linear light, one of [`SKIN_TONES`].
    pub skin: [f32; 3],
}

/// The eyes. Angles are in radians, lengths in template pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Eyes {
    /// From the middle of the face to the middle of an eye, 15.2 to 20.
    pub spacing: f32,
    /// Height of the eyes, -12.5 to -8.5.
    pub y: f32,
    /// Half the width of an eye, 7 to 10.
    pub half_width: f32,
    /// From the corners' line to the upper lid, 2.6 to 5.6.
    pub upper: f32,
    /// From the corners' line to the lower lid, 1.3 to 3.
    pub lower: f32,
    /// The outer corner's rise, -0.16 to 0.2.
    pub tilt: f32,
    /// Where the upper lid is highest: -0.4 (inside) to 0.4 (outside).
    pub peak: f32,
    /// Radius of the iris, 2.9 to 3.8.
    pub iris: f32,
    /// Colour of the iris in linear light, one of [`EYE_COLOURS`].
    pub colour: [f32; 3],
    /// Distance of the lid's crease from the lash line, 0.9 to 3.4.
    pub crease_gap: f32,
    /// Strength of that crease, 0 to 1.
    pub crease: f32,
    /// How deep the eyes lie, 0.4 to 3.
    pub depth: f32,
    /// Bags under the eyes, 0 to 1.
    pub bags: f32,
    /// Thickness of the lash line, 0.5 to 1.5.
    pub lashes: f32,
    /// Size of the left eye over that of the right, less one, -0.1 to 0.1.
    pub asymmetry: f32,
}

/// The eyebrows.
#[derive(Clone, Debug, PartialEq)]
pub struct Brows {
    /// From the eyes' middle up to the brow, 8.2 to 13.
    pub height: f32,
    /// From the middle of the face to the inner end, 4.5 to 9.5.
    pub inner: f32,
    /// Length from the inner to the outer end, 15 to 23.
    pub length: f32,
    /// Half the thickness at the inner third, 0.9 to 2.9.
    pub thickness: f32,
    /// Thickness at the outer end over that at the inner third, 0.15 to 0.7.
    pub taper: f32,
    /// Height of the arch, -0.3 to 4.
    pub arch: f32,
    /// Where the arch is highest along the brow, 0.45 to 0.8.
    pub arch_at: f32,
    /// Rise of the outer end over the inner one, -2.5 to 3.
    pub slope: f32,
    /// How much of the skin they cover, 0.55 to 1.
    pub density: f32,
    /// How much higher the left brow sits, -1.2 to 1.2.
    pub asymmetry: f32,
}

/// The nose.
#[derive(Clone, Debug, PartialEq)]
pub struct Nose {
    /// Height of the tip, 6.5 to 13.
    pub tip_y: f32,
    /// Half the width at the nostrils, 6.4 to 11.
    pub half_width: f32,
    /// Half the width of the bridge, 3.6 to 7.
    pub bridge_width: f32,
    /// How far the bridge stands out, 2 to 6.5.
    pub bridge: f32,
    /// How far the hump half way down stands out, -1 to 2.5.
    pub hump: f32,
    /// How far the tip stands out, 6 to 10.5.
    pub tip: f32,
    /// Radius of the tip, 5 to 8.
    pub tip_width: f32,
    /// How much of the nostrils one sees, 0.2 to 1.
    pub nostrils: f32,
    /// How far the wings sit above (-1.5) or below (2) the tip.
    pub wings: f32,
    /// How far the tip stands to one side, -1.2 to 1.2.
    pub bend: f32,
}

/// The mouth.
#[derive(Clone, Debug, PartialEq)]
pub struct Mouth {
    /// Height of the line between the lips, 27.5 to 33.
    pub y: f32,
    /// Half the width, 10 to 16.5.
    pub half_width: f32,
    /// Thickness of the upper lip, 1.6 to 5.4.
    pub upper: f32,
    /// Thickness of the lower lip, 2.4 to 7.
    pub lower: f32,
    /// Depth of the bow in the upper lip, 0 to 0.6.
    pub bow: f32,
    /// How far the corners hang (negative) or rise at rest, -1.2 to 1.6.
    pub corners: f32,
    /// How red the lips are, 0.15 to 0.85.
    pub red: f32,
    /// Depth of the groove above the upper lip, 0 to 1.2.
    pub philtrum: f32,
    /// How much higher the left corner is, -0.9 to 0.9.
    pub asymmetry: f32,
}

/// How the hair is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HairStyle {
    /// A few millimetres everywhere.
    Cropped,
    /// Short, brushed up or back.
    Short,
    /// Short, parted on one side.
    Parted,
    /// Hair over the forehead.
    Fringe,
    /// Down to the shoulders.
    Long,
}

/// Hair and beard.
#[derive(Clone, Debug, PartialEq)]
pub struct Hair {
    /// The cut; short styles are the most frequent.
    pub style: HairStyle,
    /// Colour in linear light, one of [`HAIR_COLOURS`].
    pub colour: [f32; 3],
    /// Height of the hairline in the middle, -48 to -37.
    pub hairline: f32,
    /// How far the hairline's corners recede, 0 to 9.
    pub recession: f32,
    /// How far a peak comes down in the middle, 0 to 4.
    pub peak: f32,
    /// How far the hair stands off the head, 1 to 8.
    pub volume: f32,
    /// Where the sideburns end, -10 to 12.
    pub sideburns: f32,
    /// Strength of the moustache, 0 (most people) to 0.9.
    pub moustache: f32,
    /// Strength of the beard, 0 (most people) to 0.85.
    pub beard: f32,
    /// How far the beard reaches up the cheeks, 14 (high) to 26.
    pub beard_line: f32,
}

/// A dark spot on the skin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mole {
    /// To the right of the middle, -32 to 32.
    pub x: f32,
    /// Height, -32 to 44.
    pub y: f32,
    /// Radius, 0.7 to 1.7.
    pub radius: f32,
}

/// What age and chance leave in the skin.
#[derive(Clone, Debug, PartialEq)]
pub struct Marks {
    /// Up to four moles.
    pub moles: Vec<Mole>,
    /// Strength of freckles, 0 (most people) to 0.5.
    pub freckles: f32,
    /// The fold from nose to mouth, 0 to 1.
    pub folds: f32,
    /// Lines on the forehead, 0 to 0.8; most have none.
    pub forehead_lines: f32,
    /// Colour of the cheeks, 0 to 0.35.
    pub blush: f32,
    /// Which freckles and hairs: a seed for textures.
    pub texture: u32,
}

/// A person: all parameters that do not change from picture to picture.
///
/// Colours and hair styles come from short lists, so that many people share them; what tells
/// people apart is mostly the geometry of eyes, brows, nose, mouth and jaw.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The head.
    pub head: Head,
    /// The eyes.
    pub eyes: Eyes,
    /// The brows.
    pub brows: Brows,
    /// The nose.
    pub nose: Nose,
    /// The mouth.
    pub mouth: Mouth,
    /// Hair and beard.
    pub hair: Hair,
    /// Marks of the skin.
    pub marks: Marks,
}

impl Identity {
    /// The person of this seed: the same seed gives the same person, whatever else is drawn.
    pub fn from_seed(seed: u64) -> Self {
        let mut draws = Draws::new(seed, 1);
        let d = &mut draws;
        let colour = |d: &mut Draws, list: &[([u8; 3], f32)]| {
            let weights: Vec<f32> = list.iter().map(|entry| entry.1).collect();
            linear(list[d.index(&weights)].0)
        };
        let head = Head {
            cheek_width: d.bell(37.0, 44.0),
            temple: d.range(0.88, 1.0),
            jaw: d.range(0.7, 0.96),
            chin_y: d.bell(44.0, 54.0),
            chin_square: d.range(1.7, 3.6),
            depth: d.range(0.88, 1.1),
            cheekbone: d.range(0.0, 2.5),
            chin: d.range(0.0, 4.0),
            cleft: if d.chance(0.18) { d.range(0.3, 1.0) } else { 0.0 },
            brow_ridge: d.range(0.0, 2.5),
            ear_size: d.range(0.8, 1.25),
            ear_off: d.range(0.0, 4.0),
            skin: colour(d, &SKIN_TONES),
        };
        let eyes = Eyes {
            spacing: d.range(15.2, 20.0),
            y: d.range(-12.5, -8.5),
            half_width: d.range(7.0, 10.0),
            upper: d.range(2.6, 5.6),
            lower: d.range(1.3, 3.0),
            tilt: d.range(-0.16, 0.2),
            peak: d.range(-0.4, 0.4),
            iris: d.range(2.9, 3.8),
            colour: colour(d, &EYE_COLOURS),
            crease_gap: d.range(0.9, 3.4),
            crease: d.range(0.0, 1.0),
            depth: d.range(0.4, 3.0),
            bags: if d.chance(0.5) { d.range(0.2, 1.0) } else { 0.0 },
            lashes: d.range(0.5, 1.5),
            asymmetry: d.bell(-0.1, 0.1),
        };
        let brows = Brows {
            height: d.range(8.2, 13.0),
            inner: d.range(4.5, 9.5),
            length: d.range(15.0, 23.0),
            thickness: d.range(0.9, 2.9),
            taper: d.range(0.15, 0.7),
            arch: d.range(-0.3, 4.0),
            arch_at: d.range(0.45, 0.8),
            slope: d.range(-2.5, 3.0),
            density: d.range(0.55, 1.0),
            asymmetry: d.bell(-1.2, 1.2),
        };
        let nose = Nose {
            tip_y: d.range(6.5, 13.0),
            half_width: d.range(6.4, 11.0),
            bridge_width: d.range(3.6, 7.0),
            bridge: d.range(2.0, 6.5),
            hump: d.range(-1.0, 2.5),
            tip: d.range(6.0, 10.5),
            tip_width: d.range(5.0, 8.0),
            nostrils: d.range(0.2, 1.0),
            wings: d.range(-1.5, 2.0),
            bend: d.bell(-1.2, 1.2),
        };
        let mouth = Mouth {
            y: d.range(27.5, 33.0),
            half_width: d.range(10.0, 16.5),
            upper: d.range(1.6, 5.4),
            lower: d.range(2.4, 7.0),
            bow: d.range(0.0, 0.6),
            corners: d.range(-1.2, 1.6),
            red: d.range(0.15, 0.85),
            philtrum: d.range(0.0, 1.2),
            asymmetry: d.bell(-0.9, 0.9),
        };
        let styles = [HairStyle::Cropped, HairStyle::Short, HairStyle::Parted, HairStyle::Fringe, HairStyle::Long];
        let hair = Hair {
            style: styles[d.index(&[0.16, 0.30, 0.24, 0.12, 0.18])],
            colour: colour(d, &HAIR_COLOURS),
            hairline: d.bell(-48.0, -37.0),
            recession: d.range(0.0, 9.0),
            peak: if d.chance(0.3) { d.range(1.0, 4.0) } else { 0.0 },
            volume: d.range(1.0, 8.0),
            sideburns: d.range(-10.0, 12.0),
            moustache: if d.chance(0.2) { d.range(0.25, 0.9) } else { 0.0 },
            beard: if d.chance(0.2) { d.range(0.2, 0.85) } else { 0.0 },
            beard_line: d.range(14.0, 26.0),
        };
        let count = d.index(&[0.35, 0.3, 0.2, 0.1, 0.05]);
        let marks = Marks {
            moles: (0..count)
                .map(|_| Mole { x: d.range(-32.0, 32.0), y: d.range(-32.0, 44.0), radius: d.range(0.7, 1.7) })
                .collect(),
            freckles: if d.chance(0.15) { d.range(0.15, 0.5) } else { 0.0 },
            folds: d.range(0.0, 1.0),
            forehead_lines: if d.chance(0.25) { d.range(0.2, 0.8) } else { 0.0 },
            blush: d.range(0.0, 0.35),
            texture: d.seed(),
        };
        Self { head, eyes, brows, nose, mouth, hair, marks }
    }
}
