//! Degradations as plug-ins.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::BuildContext;
use crate::degrade::Downscale;
use crate::error::{Problem, Result};
use crate::face::Face;
use crate::plugin::Kind;
use crate::seed::Stream;

/// How faces lose their resolution: what a view does to a face.
///
/// Who is called when: loader threads call [`degrade`](Degradation::degrade) for every face of a batch; evaluation, teachers
/// and the student file use [`downscale`](Degradation::downscale) alone.
///
/// ```
/// use gdrd_core::data::Degradation;
/// use gdrd_core::degrade::Downscale;
/// use gdrd_core::face::Face;
/// use gdrd_core::seed::Seed;
///
/// let small = Downscale { size: 8, ..Downscale::default() };
/// let face = Face::new(32, 32, vec![7; 3 * 32 * 32])?;
/// assert_eq!(small.degrade(&face, &mut Seed(7).stream("doc", &[]))?.width(), 8);
/// # Ok::<(), gdrd_core::error::Error>(())
/// ```
pub trait Degradation: Send + Sync {
    /// The same without chance and without what real low-resolution faces have already: evaluation, the student file and faces
    /// of low resolution are brought to size by it. None leaves a face as it is.
    fn downscale(&self) -> Option<&Downscale>;

    /// Whether two calls with one face may differ. Features of such views are not stored.
    fn is_random(&self) -> bool {
        false
    }

    /// The small face, of [`downscale`](Degradation::downscale)'s size.
    ///
    /// # Errors
    /// If the face does not allow it.
    fn degrade(&self, face: &Face, random: &mut Stream) -> Result<Face>;
}

/// What a recipe says of a degradation.
///
/// ```
/// use candle_core::Device;
/// use gdrd_core::context::{Bare, BuildContext};
/// use gdrd_core::data::{Degradation, DegradationConfig};
/// use gdrd_core::degrade::Downscale;
/// use gdrd_core::error::Result;
/// use gdrd_core::face::Face;
/// use gdrd_core::plugin::Kind;
/// use gdrd_core::seed::{Seed, Stream};
///
/// /// A reduction without its lowest bits.
/// #[derive(Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(deny_unknown_fields)]
/// struct Coarse {
///     /// Height and width, in pixels.
///     size: usize,
/// }
///
/// impl Kind for Coarse {
///     const NAME: &'static str = "coarse";
///     const PURPOSE: &'static str = "a reduction to four bits a value";
/// }
///
/// impl DegradationConfig for Coarse {
///     fn build(&self, _: &BuildContext) -> Result<Box<dyn Degradation>> {
///         Ok(Box::new(Small(Downscale { size: self.size, ..Downscale::default() })))
///     }
/// }
///
/// struct Small(Downscale);
///
/// impl Degradation for Small {
///     fn downscale(&self) -> Option<&Downscale> {
///         Some(&self.0)
///     }
///     fn degrade(&self, face: &Face, _: &mut Stream) -> Result<Face> {
///         let small = self.0.apply(face)?;
///         let pixels = small.pixels().iter().map(|value| value & 0xf0).collect();
///         Face::new(small.width(), small.height(), pixels)
///     }
/// }
///
/// let coarse = Coarse { size: 4 }.build(&BuildContext::new(&Bare(Device::Cpu)))?;
/// let face = Face::new(8, 8, vec![0x7f; 3 * 64])?;
/// assert_eq!(coarse.degrade(&face, &mut Seed(7).stream("doc", &[]))?.pixels()[0], 0x70);
/// # Ok::<(), gdrd_core::error::Error>(())
/// ```
pub trait DegradationConfig: Send + Sync {
    /// What is wrong with the options.
    fn check(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// The degradation.
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Degradation>>;
}

impl Kind for Downscale {
    const NAME: &'static str = "downscale";
    const PURPOSE: &'static str = "reduction to a few pixels by a named filter";
}

impl DegradationConfig for Downscale {
    fn check(&self) -> Vec<Problem> {
        Downscale::check(self)
    }

    fn build(&self, _: &BuildContext) -> Result<Box<dyn Degradation>> {
        Ok(Box::new(self.clone()))
    }
}

impl Degradation for Downscale {
    fn downscale(&self) -> Option<&Downscale> {
        Some(self)
    }

    fn degrade(&self, face: &Face, _: &mut Stream) -> Result<Face> {
        self.apply(face)
    }
}

/// Nothing is done to a face: the view `high`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AsIs {}

impl Kind for AsIs {
    const NAME: &'static str = "as-is";
    const PURPOSE: &'static str = "faces as the dataset has them";
}

impl DegradationConfig for AsIs {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Degradation>> {
        Ok(Box::new(Self {}))
    }
}

impl Degradation for AsIs {
    fn downscale(&self) -> Option<&Downscale> {
        None
    }

    fn degrade(&self, face: &Face, _: &mut Stream) -> Result<Face> {
        Ok(face.clone())
    }
}
