//! What the two forms of a convolution on tiles have in common.

use super::maps::Target;
use super::taps::Geometry;
use super::weights::Layout;

/// What a convolution takes, but for the maps.
pub(super) struct Operands<'a> {
    pub(super) geometry: &'a Geometry,
    pub(super) layout: &'a Layout,
    /// The kernels in the form of the products.
    pub(super) packed: &'a [f32],
    pub(super) target: Target<'a>,
}
