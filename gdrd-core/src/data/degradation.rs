//! Degradations as plug-ins.

use crate::degrade::Downscale;
use crate::error::{Problem, Result};
use crate::face::Face;
use crate::registry::Kind;
use crate::seed::Stream;

/// How training faces lose their resolution. The configuration is the degradation: there is nothing to load.
pub trait Degradation: Send + Sync {
    /// What is wrong with the options.
    fn check(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// What evaluation and the student file do to a face: the same without chance.
    fn downscale(&self) -> &Downscale;

    /// Whether two calls with one face may differ. Features of such views are not stored.
    fn is_random(&self) -> bool {
        false
    }

    /// The small face, of [`downscale`](Degradation::downscale)'s size.
    fn degrade(&self, face: &Face, random: &mut Stream) -> Result<Face>;
}

impl Kind for Downscale {
    const NAME: &'static str = "downscale";
    const PURPOSE: &'static str = "reduction to a few pixels by a named filter";
}

impl Degradation for Downscale {
    fn check(&self) -> Vec<Problem> {
        Downscale::check(self)
    }

    fn downscale(&self) -> &Downscale {
        self
    }

    fn degrade(&self, face: &Face, _: &mut Stream) -> Result<Face> {
        self.apply(face)
    }
}
