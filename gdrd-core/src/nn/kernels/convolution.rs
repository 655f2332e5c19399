//! What a method of convolution offers. `methods.rs` has the table of them.

use std::mem::MaybeUninit;

use super::epilogue::Epilogue;
use super::instructions::Instructions;
#[cfg(doc)]
use super::pixels::PixelForm;
use super::pixels::{self, PixelWeights};
use super::scratch::Values;
use super::shape::ConvShape;
use super::team::each_chunk;

/// Maps that a thread takes at a time, at least.
const PLANES: usize = 16;

/// A way to compute a convolution and its gradients.
pub(super) trait Convolution: Sync {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// Whether it applies and pays for a convolution with these instructions.
    fn applies(&self, shape: &ConvShape, instructions: Instructions) -> bool;

    /// Whether it does for the gradient of the weight.
    fn applies_to_weight_gradient(&self, shape: &ConvShape, instructions: Instructions) -> bool {
        self.applies(shape, instructions)
    }

    /// Whether a fully connected layer is better computed this way than as a product of matrices.
    fn suits_linear(&self) -> bool {
        false
    }

    /// The kernels in the form that [`forward`](Self::forward) takes them in as [`ConvWeights::Packed`]; it depends on the
    /// instructions. None where they are taken as they are.
    fn pack(&self, shape: &ConvShape, weight: &[f32]) -> Option<Values> {
        let _ = (shape, weight);
        None
    }

    /// Writes all of `y [b, o, oh, ow]`, each value after its epilogue.
    fn forward(
        &self,
        shape: &ConvShape,
        x: &[f32],
        weights: ConvWeights<'_>,
        epilogue: Epilogue<'_>,
        out: &mut [MaybeUninit<f32>],
    );

    /// Whether it applies and pays for maps whose channels lie side by side.
    fn applies_to_pixels(&self, shape: &ConvShape, instructions: Instructions) -> bool {
        self.applies(shape, instructions)
    }

    /// Whether [`forward_pixels`](Self::forward_pixels) takes the kernels as [`PixelForm::Panels`], so that they need no other form.
    fn reads_panels(&self, shape: &ConvShape) -> bool {
        let _ = shape;
        false
    }

    /// The kernels for [`forward_pixels`](Self::forward_pixels) as [`PixelForm::Packed`].
    fn pack_pixels(&self, shape: &ConvShape, weight: &[f32]) -> Values {
        let _ = shape;
        let mut plain = Values::zeros(weight.len());
        plain.copy_from_slice(weight);
        plain
    }

    /// Writes all of the output for maps whose channels lie side by side ([`pixels`]). The epilogue has numbers for whole vectors of
    /// channels.
    fn forward_pixels(
        &self,
        shape: &ConvShape,
        x: &[f32],
        weights: PixelWeights<'_>,
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) {
        pixels::by_maps(self, shape, x, weights.values, epilogue, out);
    }

    /// The gradient of the input, `[b, c, h, w]`, from that of the output.
    fn input_gradient(&self, shape: &ConvShape, weight: &[f32], grad: &[f32]) -> Vec<f32>;

    /// As [`input_gradient`](Self::input_gradient), each value after an epilogue.
    fn input_gradient_with(&self, shape: &ConvShape, weight: &[f32], grad: &[f32], epilogue: Epilogue<'_>) -> Vec<f32> {
        let mut found = self.input_gradient(shape, weight, grad);
        if !epilogue.is_nothing() {
            let plane = shape.plane();
            each_chunk(&mut found, plane, PLANES, |at, values| {
                epilogue.apply_to(values, at * plane, at % shape.inputs);
            });
        }
        found
    }

    /// The gradient of the weight, `[o, c / groups, kh, kw]`, from that of the output.
    fn weight_gradient(&self, shape: &ConvShape, x: &[f32], grad: &[f32]) -> Vec<f32>;
}

/// The kernels of a convolution.
#[derive(Clone, Copy)]
pub(super) enum ConvWeights<'a> {
    /// `[o, c / groups, kh, kw]`.
    Plain(&'a [f32]),
    /// In the form that [`Convolution::pack`] gives.
    Packed(&'a [f32]),
}
