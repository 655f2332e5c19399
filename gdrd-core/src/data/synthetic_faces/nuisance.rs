//! What changes from picture to picture: pose, light, expression, things worn, background, camera.

use super::draws::Draws;

/// How often glasses are worn.
pub const GLASSES_PROBABILITY: f32 = 0.2;
/// How often sunglasses are worn.
pub const SUNGLASSES_PROBABILITY: f32 = 0.05;
/// How often a scarf or a mask covers the mouth.
pub const SCARF_PROBABILITY: f32 = 0.08;
/// How often a cap covers the hair.
pub const CAP_PROBABILITY: f32 = 0.08;

/// Where the head looks, and how well the picture is aligned.
#[derive(Clone, Debug, PartialEq)]
pub struct Pose {
    /// To the side, in radians, -0.6 to 0.6, mostly small.
    pub yaw: f32,
    /// Down (positive) or up, in radians, -0.28 to 0.28.
    pub pitch: f32,
    /// What the alignment leaves of the head's roll, in radians, -0.1 to 0.1.
    pub roll: f32,
    /// Size over that of the template, 0.94 to 1.06.
    pub scale: f32,
    /// Shift in template pixels (1/112 of the side), -2.5 to 2.5 each.
    pub shift: [f32; 2],
}

/// The light.
#[derive(Clone, Debug, PartialEq)]
pub struct Light {
    /// Where it comes from, from the left (negative) to the right, in radians, -1.3 to 1.3.
    pub azimuth: f32,
    /// How high it stands, in radians, -0.2 to 1.1.
    pub elevation: f32,
    /// Strength, 0.25 to 1.1.
    pub strength: f32,
    /// Light from everywhere, 0.25 to 0.65.
    pub ambient: f32,
    /// From bluish (-1) to reddish (1).
    pub warmth: f32,
    /// Shine of the skin, 0 to 0.22.
    pub shine: f32,
}

/// What the face does.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    /// From a frown's mouth (-0.4) to a broad smile (1).
    pub smile: f32,
    /// How far the mouth is open, 0 (mostly) to 1.
    pub mouth_open: f32,
    /// How far the brows are raised (or pulled down, below 0), -0.7 to 1.
    pub brow_raise: f32,
    /// How far the eyes are closed, 0 (mostly below 0.25) to 1.
    pub blink: f32,
    /// Where the eyes look: right and down, each -1 to 1.
    pub gaze: [f32; 2],
}

/// A pair of glasses.
#[derive(Clone, Debug, PartialEq)]
pub struct Glasses {
    /// Half the width of a lens, 9.5 to 14, in template pixels.
    pub half_width: f32,
    /// Half the height of a lens, 6.5 to 11.
    pub half_height: f32,
    /// From a box (0) to an ellipse (1).
    pub roundness: f32,
    /// Half the thickness of the frame, 0.4 to 1.5.
    pub thickness: f32,
    /// Colour of the frame in linear light.
    pub colour: [f32; 3],
    /// How dark the lenses are: 0 for glasses, 0.8 to 0.97 for sunglasses.
    pub dark: f32,
}

/// A scarf or a mask over mouth and chin.
#[derive(Clone, Debug, PartialEq)]
pub struct Scarf {
    /// Where its upper edge crosses the middle of the face, 3 to 24 (below the nose).
    pub top: f32,
    /// Colour in linear light.
    pub colour: [f32; 3],
    /// Colour of its stripes in linear light.
    pub stripes: [f32; 3],
    /// Strength of the stripes, 0 to 1.
    pub pattern: f32,
}

/// A cap.
#[derive(Clone, Debug, PartialEq)]
pub struct Cap {
    /// Where its edge crosses the middle of the forehead, -38 to -27.
    pub edge: f32,
    /// Colour in linear light.
    pub colour: [f32; 3],
}

/// What lies behind the head, and the clothes.
#[derive(Clone, Debug, PartialEq)]
pub struct Background {
    /// Two colours in linear light between which the background varies.
    pub colours: [[f32; 3]; 2],
    /// Colour of the clothes in linear light.
    pub clothes: [f32; 3],
    /// Size of the background's patches, 6 to 40 template pixels.
    pub grain: f32,
    /// Sharpness of the patches' edges, 0 to 1.
    pub sharpness: f32,
    /// Where in the texture the picture lies.
    pub texture: u32,
}

/// The camera.
#[derive(Clone, Debug, PartialEq)]
pub struct Camera {
    /// Exposure, 0.55 to 1.35.
    pub gain: f32,
    /// How much of the colours is kept, 0.25 to 1.1.
    pub saturation: f32,
    /// Slope of the tones around middle grey, 0.8 to 1.2.
    pub contrast: f32,
    /// Standard deviation of the noise, 0 to 7 of 255.
    pub noise: f32,
    /// Which noise.
    pub seed: u32,
}

/// Everything about a picture that does not tell who is in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Nuisance {
    /// Pose and alignment.
    pub pose: Pose,
    /// Light.
    pub light: Light,
    /// Expression.
    pub expression: Expression,
    /// How the hair lies today: volume over its usual one, 0.6 to 1.4.
    pub hair_volume: f32,
    /// How the hair lies today: the hairline's shift, -3 to 3 template pixels.
    pub hair_shift: f32,
    /// Glasses or sunglasses, if any.
    pub glasses: Option<Glasses>,
    /// A scarf or a mask, if any.
    pub scarf: Option<Scarf>,
    /// A cap, if any.
    pub cap: Option<Cap>,
    /// Background and clothes.
    pub background: Background,
    /// Camera.
    pub camera: Camera,
}

impl Nuisance {
    /// A passport picture: frontal, evenly lit, at rest, nothing worn, grey background, no noise.
    pub fn neutral() -> Self {
        Self {
            pose: Pose { yaw: 0.0, pitch: 0.0, roll: 0.0, scale: 1.0, shift: [0.0; 2] },
            light: Light { azimuth: -0.35, elevation: 0.55, strength: 0.65, ambient: 0.5, warmth: 0.0, shine: 0.06 },
            expression: Expression { smile: 0.1, mouth_open: 0.0, brow_raise: 0.0, blink: 0.0, gaze: [0.0; 2] },
            hair_volume: 1.0,
            hair_shift: 0.0,
            glasses: None,
            scarf: None,
            cap: None,
            background: Background {
                colours: [[0.36; 3], [0.30; 3]],
                clothes: [0.06, 0.07, 0.10],
                grain: 40.0,
                sharpness: 0.0,
                texture: 0,
            },
            camera: Camera { gain: 1.0, saturation: 1.0, contrast: 1.0, noise: 0.0, seed: 0 },
        }
    }

    /// The circumstances of this seed: the same seed gives the same picture of the same person.
    pub fn from_seed(seed: u64) -> Self {
        let mut draws = Draws::new(seed, 2);
        let d = &mut draws;
        let colour = |d: &mut Draws| [d.range(0.0, 0.9), d.range(0.0, 0.9), d.range(0.0, 0.9)].map(|c: f32| c * c);
        let pose = Pose {
            yaw: d.bell(-0.6, 0.6),
            pitch: d.bell(-0.28, 0.28),
            roll: d.bell(-0.1, 0.1),
            scale: d.bell(0.94, 1.06),
            shift: [d.bell(-2.5, 2.5), d.bell(-2.5, 2.5)],
        };
        let light = Light {
            azimuth: d.range(-1.3, 1.3),
            elevation: d.range(-0.2, 1.1),
            strength: d.range(0.25, 1.1),
            ambient: d.range(0.25, 0.65),
            warmth: d.bell(-1.0, 1.0),
            shine: d.range(0.0, 0.22),
        };
        let expression = Expression {
            smile: if d.chance(0.45) { d.range(0.3, 1.0) } else { d.range(-0.4, 0.3) },
            mouth_open: if d.chance(0.3) { d.range(0.1, 1.0) } else { 0.0 },
            brow_raise: d.bell(-0.7, 1.0),
            blink: if d.chance(0.06) { d.range(0.5, 1.0) } else { d.range(0.0, 0.25) },
            gaze: [d.bell(-1.0, 1.0), d.bell(-1.0, 1.0)],
        };
        let hair_volume = d.range(0.6, 1.4);
        let hair_shift = d.bell(-3.0, 3.0);
        let worn =
            d.index(&[1.0 - GLASSES_PROBABILITY - SUNGLASSES_PROBABILITY, GLASSES_PROBABILITY, SUNGLASSES_PROBABILITY]);
        let frames = [[0.01, 0.01, 0.012], [0.06, 0.03, 0.015], [0.35, 0.34, 0.33], [0.12, 0.01, 0.015]];
        let glasses = (worn > 0).then(|| Glasses {
            half_width: d.range(9.5, 14.0),
            half_height: d.range(6.5, 11.0),
            roundness: d.range(0.0, 1.0),
            thickness: d.range(0.4, 1.5),
            colour: frames[d.index(&[0.5, 0.2, 0.2, 0.1])],
            dark: if worn == 2 { d.range(0.8, 0.97) } else { 0.0 },
        });
        let scarf = d.chance(SCARF_PROBABILITY).then(|| Scarf {
            top: d.range(3.0, 24.0),
            colour: colour(d),
            stripes: colour(d),
            pattern: if d.chance(0.5) { d.range(0.3, 1.0) } else { 0.0 },
        });
        let cap = d.chance(CAP_PROBABILITY).then(|| Cap { edge: d.range(-38.0, -27.0), colour: colour(d) });
        let background = Background {
            colours: [colour(d), colour(d)],
            clothes: colour(d),
            grain: d.range(6.0, 40.0),
            sharpness: d.range(0.0, 1.0),
            texture: d.seed(),
        };
        let camera = Camera {
            gain: d.range(0.55, 1.35),
            saturation: d.range(0.25, 1.1),
            contrast: d.range(0.8, 1.2),
            noise: d.range(0.0, 7.0),
            seed: d.seed(),
        };
        Self { pose, light, expression, hair_volume, hair_shift, glasses, scarf, cap, background, camera }
    }
}
