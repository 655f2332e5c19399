//! Any other convolution, by the methods of single ones on the whole batch.

use super::super::buffer::{Filling, Shared};
use super::super::convolution::ConvWeights;
use super::super::epilogue::Epilogue;
use super::super::methods::{method, weight_gradient_method};
use super::super::scratch::Pooled;
use super::super::shape::ConvShape;
use super::super::simd::{self, Simd, SimdKernel};
use super::super::team::each;
use super::backward::Task;
use super::norm::{Moments, Source};
use super::pointwise::Parts;

pub(super) fn forward(shape: &ConvShape, source: &Source, weight: &[f32], map: &mut [f32], moments: &mut [Moments]) {
    let input = Input::new(shape, source);
    let len = map.len();
    // SAFETY: the method writes values and nothing else.
    let out = unsafe { std::slice::from_raw_parts_mut(map.as_mut_ptr().cast(), len) };
    method(shape).forward(shape, input.values(source), ConvWeights::Plain(weight), Epilogue::default(), out);
    let (moments, map) = (Parts::new(moments, shape.outputs), &*map);
    each(shape.batch, 1, |image| {
        // SAFETY: each image has moments of its own.
        let moments = unsafe { moments.of(image) };
        simd::run(Moment { plane: shape.out_plane(), map: &map[image * moments.len() * shape.out_plane()..], moments });
    });
}

/// The input of the batch, written out where it has to be computed.
struct Input(Option<Vec<f32>>);

impl Input {
    fn new(shape: &ConvShape, source: &Source) -> Self {
        Self(source.normal.map(|_| {
            let mut out = Filling::new(shape.input_len());
            let target = out.shared();
            each(shape.batch, 1, |image| {
                let len = shape.inputs * shape.plane();
                // SAFETY: each image has values of its own.
                let out = unsafe { std::slice::from_raw_parts_mut(target.at(image * len), len) };
                simd::run(super::norm::WriteOutput { source: *source, image, add: None, out });
            });
            // SAFETY: all images were visited.
            unsafe { out.finish() }
        }))
    }

    fn values<'a>(&'a self, source: &Source<'a>) -> &'a [f32] {
        self.0.as_deref().unwrap_or(source.values)
    }
}

struct Moment<'a> {
    plane: usize,
    map: &'a [f32],
    moments: &'a mut [Moments],
}

impl SimdKernel for Moment<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        self.moments.iter_mut().zip(self.map.chunks_exact(self.plane)).for_each(|(moments, map)| moments.add(map));
    }
}

/// The gradient of the weight, `[o, c / groups, kh, kw]`; that of the input goes to the task.
pub(super) fn backward(task: &Task) -> Vec<f32> {
    let Task { shape, source, gradient, above, weight, .. } = task;
    let input = Input::new(shape, source);
    let mut dz = Pooled::take(shape.output_len());
    let (len, plane) = (shape.outputs * shape.out_plane(), shape.out_plane());
    let target = Shared::new(&mut dz);
    each(shape.batch, 1, |image| {
        // SAFETY: each image has values of its own.
        let out = unsafe { std::slice::from_raw_parts_mut(target.at(image * len), len) };
        simd::run(Own { gradient, above: &above[image * len..], image, plane, out });
    });
    let d_weight = weight_gradient_method(shape).weight_gradient(shape, input.values(source), &dz);
    if task.wants_input() {
        let dx = method(shape).input_gradient(shape, weight, &dz);
        let (inputs, plane) = (shape.inputs, shape.plane());
        each(shape.batch, 1, |image| {
            for channel in 0..inputs {
                let start = (image * inputs + channel) * plane;
                task.receive(image, channel, 0, &dx[start..start + plane]);
            }
        });
    }
    d_weight
}

/// The gradient of the map of an image.
struct Own<'a> {
    gradient: &'a super::norm::Gradient<'a>,
    above: &'a [f32],
    image: usize,
    plane: usize,
    out: &'a mut [f32],
}

impl SimdKernel for Own<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { gradient, above, image, plane, out } = self;
        for (channel, (out, above)) in out.chunks_exact_mut(plane).zip(above.chunks_exact(plane)).enumerate() {
            gradient.write(image, channel, 0, above, out);
        }
    }
}
