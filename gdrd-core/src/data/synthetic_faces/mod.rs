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
mod shape;
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
