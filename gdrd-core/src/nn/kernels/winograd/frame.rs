//! The spatial side of a convolution by tiles.

use std::marker::PhantomData;

use super::super::buffer::Shared;
use super::super::scratch::ScratchBuffer;
use super::super::shape::ConvShape;
use super::super::simd;
use super::super::team::each;
use super::super::transpose::ImageMaps;
use super::CHUNK;
use super::axis::{Algorithm, Axis};
use super::strips::{ReadTiles, TilePlaces};
use super::weights::TAPS;

/// Values of a row of maps that are transposed at once, at most.
const ROW: usize = 16;

/// Maps that are read, maps that are written, and how tiles cover them.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub(super) batch: usize,
    /// Of what is read.
    pub(super) height: usize,
    pub(super) width: usize,
    /// Zeros before the first value, both ways.
    pub(super) before: usize,
    /// Of what is written.
    pub(super) out_height: usize,
    pub(super) out_width: usize,
    /// Strips of an image.
    pub(super) strips: usize,
    /// Rows of tiles of a strip.
    pub(super) rows: usize,
    /// Tiles in a row.
    pub(super) across: usize,
}

impl Frame {
    fn new<A: Algorithm>(batch: usize, (height, width): (usize, usize), before: usize, out: (usize, usize)) -> Self {
        let (out_height, out_width) = out;
        let [down, across] = [out_height, out_width].map(|values| values.div_ceil(A::Output::TO));
        // Strips of small maps have rows enough for whole vectors.
        let least = (A::Output::TO * out_width).min(A::APART * width);
        let rows = ROW.div_ceil(least).clamp(1, down);
        Self { batch, height, width, before, out_height, out_width, strips: down.div_ceil(rows), rows, across }
    }

    /// The convolution itself.
    pub(super) fn forward<A: Algorithm>(shape: &ConvShape) -> Self {
        let out = (shape.out_height(), shape.out_width());
        Self::new::<A>(shape.batch, (shape.height, shape.width), shape.padding, out)
    }

    /// The convolution that leads from the output's gradient to the input's.
    pub(super) fn backward<A: Algorithm>(shape: &ConvShape) -> Self {
        let out = (shape.out_height(), shape.out_width());
        let before = (TAPS - 1 - shape.padding) / shape.stride;
        Self::new::<A>(shape.batch, out, before, (shape.height, shape.width))
    }

    /// Tiles of a strip.
    pub(super) fn tiles(&self) -> usize {
        self.rows * self.across
    }

    /// Strips of the whole batch of which each has `values` values for a tile, so that they stay within [`CHUNK`].
    pub(super) fn chunk(&self, values: usize) -> usize {
        (CHUNK / (values * self.tiles())).clamp(1, self.batch * self.strips)
    }

    /// Transforms the tiles of `count` strips from `first` on of the maps that are read.
    pub(super) fn read<A: Algorithm>(
        &self,
        x: &[f32],
        channels: usize,
        strips: (usize, usize),
        to: &mut ScratchBuffer,
        places: TilePlaces,
    ) {
        let maps = (self.height, self.width, self.before);
        self.read_as::<A::Input>(x, (channels, maps, A::APART), strips, to, places);
    }

    /// Transforms the tiles of `count` strips from `first` on of a gradient of the maps that are written.
    pub(super) fn read_gradient<X: Axis>(
        &self,
        grad: &[f32],
        channels: usize,
        strips: (usize, usize),
        to: &mut ScratchBuffer,
        places: TilePlaces,
    ) {
        let maps = (self.out_height, self.out_width, 0);
        self.read_as::<X>(grad, (channels, maps, X::FROM), strips, to, places);
    }

    fn read_as<X: Axis>(
        &self,
        x: &[f32],
        (channels, (height, width, before), apart): (usize, (usize, usize, usize), usize),
        (first, count): (usize, usize),
        to: &mut ScratchBuffer,
        places: TilePlaces,
    ) {
        let (lanes, to) = (simd::lanes(), Shared::new(to));
        let (groups, plane) = (channels.div_ceil(lanes), height * width);
        each(count * groups, 8.min(groups), |at| {
            let (strip, channel) = (at / groups, at % groups * lanes);
            let image = (first + strip) / self.strips;
            let maps = ImageMaps {
                at: x[(image * channels + channel) * plane..].as_ptr(),
                channels: lanes.min(channels - channel),
                height,
                width,
            };
            simd::run(ReadTiles {
                maps,
                first: ((first + strip) % self.strips * self.rows * apart) as isize - before as isize,
                left: before,
                rows: self.rows,
                tiles: self.across,
                apart,
                // SAFETY: each strip and group of channels has places of its own in `to`.
                to: unsafe { to.at(strip * self.tiles() * places.tile + channel) },
                places,
                transform: PhantomData::<X>,
            });
        });
    }
}
