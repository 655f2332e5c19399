//! Where faces come from.

pub mod synthetic_faces;
