//! How the matrices of a convolution lie in memory.

use super::super::product::panel_here;
use super::super::shape::ConvShape;
use super::super::simd;

/// Values of windows that are made before they are used: about what a last-level cache holds.
pub(super) const CHUNK: usize = 2 << 20;

/// Pixels of a strip, about.
const STRIP: usize = 64;

/// How the matrices are laid out.
#[derive(Clone, Copy)]
pub(super) struct WindowLayout {
    pub(super) shape: ConvShape,
    /// Input channels, filled up to whole vectors.
    pub(super) channels: usize,
    /// Values of a window.
    pub(super) depth: usize,
    /// Distance of neighbouring windows, and of neighbouring pixels of gradients: whole panels and one cache line.
    pub(super) window: usize,
    pub(super) grad: usize,
    /// Output rows of a strip; they divide those of the output.
    pub(super) rows: usize,
}

impl WindowLayout {
    pub(super) fn new(shape: &ConvShape) -> Self {
        let channels = shape.inputs.next_multiple_of(simd::lanes());
        let (depth, width) = (shape.taps() * channels, panel_here());
        let apart = |values: usize| values.next_multiple_of(width) + 16;
        let (height, limit) = (shape.out_height(), STRIP.div_ceil(shape.out_width()));
        let rows = (1..=height.min(limit)).rev().find(|rows| height % rows == 0).unwrap_or(1);
        Self { shape: *shape, channels, depth, window: apart(depth), grad: apart(shape.outputs), rows }
    }

    /// Pixels of a strip.
    pub(super) fn pixels(&self) -> usize {
        self.rows * self.shape.out_width()
    }

    /// Strips of an image.
    pub(super) fn strips(&self) -> usize {
        self.shape.out_height() / self.rows
    }

    /// Strips of a chunk.
    pub(super) fn chunk(&self) -> usize {
        (CHUNK / (self.pixels() * self.window)).clamp(1, self.shape.batch * self.strips())
    }

    /// Writes the kernels of one panel of outputs as they stand in the products.
    pub(super) fn pack(&self, weight: &[f32], panel: usize, to: &mut [f32]) {
        let (taps, width) = (self.shape.taps(), panel_here());
        to.fill(0.0);
        let first = panel * width;
        for (lane, kernels) in weight.chunks_exact(self.shape.inputs * taps).skip(first).take(width).enumerate() {
            for (at, value) in kernels.iter().enumerate() {
                to[(at % taps * self.channels + at / taps) * width + lane] = *value;
            }
        }
    }
}
