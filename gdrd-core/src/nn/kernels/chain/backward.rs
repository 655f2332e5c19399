//! The gradients of a chain, from its end to its beginning.

use super::super::buffer::{Filling, Shared};
use super::super::scratch::{self, Pooled};
use super::super::shape::ConvShape;
use super::super::simd::{self, Simd, SimdKernel};
use super::super::team::each;
use super::norm::{Gradient, Normal, Source, Sums};
use super::pointwise::Parts;
use super::{Layer, Way, depthwise, pointwise, source, whole};

/// Groups of images whose gradients of the weights are summed apart, at most.
const GROUPS: usize = 16;

/// A layer's convolution, and what its gradients are computed from.
pub(super) struct Task<'a> {
    pub(super) shape: &'a ConvShape,
    pub(super) source: Source<'a>,
    pub(super) weight: &'a [f32],
    /// That of the convolution's map, once that of what follows is known.
    pub(super) gradient: Gradient<'a>,
    /// The gradient of what follows the map, `[b, o, plane]`.
    pub(super) above: &'a [f32],
    /// Where the gradient of the input goes, if it is wanted.
    input: Option<Receiver<'a>>,
}

/// Where the gradient of a layer's input goes.
struct Receiver<'a> {
    out: Shared,
    channels: usize,
    plane: usize,
    /// A gradient that is added: that of the output of a chain with its input added, at the chain's begin.
    add: Option<&'a [f32]>,
    /// The layer before and its sums, image by image, if there is one.
    before: Option<(Gradient<'a>, Parts<Sums>)>,
}

impl Task<'_> {
    pub(super) fn wants_input(&self) -> bool {
        self.input.is_some()
    }

    /// Takes the gradient of a channel of an image of the input, from `start` on. Each image belongs to one thread.
    #[inline(always)]
    pub(super) fn receive(&self, image: usize, channel: usize, start: usize, values: &[f32]) {
        let Some(Receiver { out, channels, plane, add, before }) = &self.input else { return };
        let place = (image * channels + channel) * plane + start;
        // SAFETY: the place lies within the gradient, and each image belongs to one thread.
        let out = unsafe { std::slice::from_raw_parts_mut(out.at(place), values.len()) };
        match add {
            None => out.copy_from_slice(values),
            Some(add) => {
                out.iter_mut().zip(values).zip(&add[place..]).for_each(|((out, value), add)| *out = value + add);
            }
        }
        if let Some((gradient, sums)) = before {
            // SAFETY: as above.
            let sums = unsafe { &mut sums.of(image)[channel] };
            gradient.sum(image, channel, start, values, sums);
        }
    }
}

/// The gradients of `x`, if it is wanted, and of all parameters.
pub(super) fn backward(
    layers: &[Layer],
    normals: &[Normal],
    (x, p, grad): (&[f32], &[f32], &[f32]),
    residual: bool,
    wants_x: bool,
) -> (Option<Vec<f32>>, Vec<f32>) {
    let mut all = vec![0f32; p.len()];
    let unknown = |at: usize| {
        let normal: &Normal = &normals[at];
        Gradient { after: normal.source(&layers[at], p), normal, of_batch: None }
    };
    let last = layers.len() - 1;
    let mut sums = vec![Sums::default(); layers[last].shape.batch * layers[last].shape.outputs];
    sums_of_output(&unknown(last), grad, &mut sums);
    let (mut dx, mut above) = (None, None::<Pooled>);
    for at in (0..layers.len()).rev() {
        let (layer, normal) = (&layers[at], &normals[at]);
        let shape = &layer.shape;
        let of_batch = of_batch(layer, normal, &sums, &mut all);
        let gradient = Gradient { of_batch: Some(&of_batch), ..unknown(at) };
        let mut next_sums = vec![Sums::default(); if at > 0 { shape.batch * shape.inputs } else { 0 }];
        let (mut first, mut later) = (None, None);
        let out = match at {
            0 if wants_x => Some(first.insert(Filling::new(shape.input_len())).shared()),
            0 => None,
            _ => Some(Shared::new(later.insert(Pooled::take(shape.input_len())))),
        };
        let before = (at > 0).then(|| (unknown(at - 1), Parts::new(&mut next_sums, shape.inputs)));
        let receiver = |out| Receiver {
            out,
            channels: shape.inputs,
            plane: shape.plane(),
            add: (at == 0 && residual).then_some(grad),
            before,
        };
        let task = Task {
            shape,
            source: source(at, layers, x, p, normals),
            weight: &p[layer.weight.clone()],
            gradient,
            above: above.as_deref().unwrap_or(grad),
            input: out.map(receiver),
        };
        run(layer.way(), &task, &mut all[layer.weight.clone()]);
        drop(task);
        // SAFETY: every map of every image of the input was received.
        dx = first.map(|first| unsafe { first.finish() });
        (above, sums) = (later, next_sums);
    }
    (dx, all)
}

/// The gradients of one layer.
fn run(way: Way, task: &Task, d_weight: &mut [f32]) {
    let shape = task.shape;
    let row = match way {
        Way::Whole => return d_weight.copy_from_slice(&whole::backward(task)),
        Way::Pointwise => pointwise::row(shape.inputs),
        Way::Depthwise => shape.taps(),
    };
    let size = shape.batch.div_ceil(GROUPS).max(1);
    let (groups, len) = (shape.batch.div_ceil(size), shape.outputs * row);
    let mut partial = scratch::take(groups * len);
    partial.fill(0.0);
    let parts = Parts::new(&mut partial, len);
    each(groups, 1, |group| {
        for image in group * size..shape.batch.min((group + 1) * size) {
            // SAFETY: each group has a part of its own.
            let weight = unsafe { parts.of(group) };
            match way {
                Way::Pointwise => simd::run(pointwise::Backward { task, image, weight }),
                _ => simd::run(depthwise::Backward { task, image, weight }),
            }
        }
    });
    let columns = d_weight.len() / shape.outputs;
    for group in partial.chunks_exact(len) {
        for (sum, found) in d_weight.chunks_exact_mut(columns).zip(group.chunks_exact(row)) {
            sum.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
        }
    }
}

/// Writes the gradients of the normalisation's and the activation's parameters; returns what each channel's gradients of the map
/// are computed with.
fn of_batch(layer: &Layer, normal: &Normal, sums: &[Sums], all: &mut [f32]) -> Vec<(f32, f32)> {
    let (channels, size) = (layer.shape.outputs, (layer.shape.batch * layer.shape.out_plane()) as f64);
    let of_channel = |channel: usize| {
        let mut total = Sums::default();
        for one in sums[channel..].iter().step_by(channels) {
            total.iter_mut().zip(one).for_each(|(total, one)| *total += one);
        }
        let [sum, product, sloped] = total;
        let inverse = f64::from(normal.inverse[channel]);
        all[layer.gamma.start + channel] = (product * inverse) as f32;
        all[layer.beta.start + channel] = sum as f32;
        if let Some(slopes) = &layer.slopes {
            all[slopes.start + channel] = sloped as f32;
        }
        ((sum / size) as f32, (product * inverse * inverse / size) as f32)
    };
    (0..channels).map(of_channel).collect()
}

/// The sums over the output's gradient.
fn sums_of_output(gradient: &Gradient, grad: &[f32], sums: &mut [Sums]) {
    let (channels, plane) = (gradient.after.channels, gradient.after.plane);
    let (images, parts) = (sums.len() / channels, Parts::new(sums, channels));
    each(images, 1, |image| {
        // SAFETY: each image has sums of its own.
        let sums = unsafe { parts.of(image) };
        simd::run(OfOutput { gradient, grad: &grad[image * channels * plane..], image, plane, sums });
    });
}

struct OfOutput<'a> {
    gradient: &'a Gradient<'a>,
    grad: &'a [f32],
    image: usize,
    plane: usize,
    sums: &'a mut [Sums],
}

impl SimdKernel for OfOutput<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (channel, (sums, grad)) in self.sums.iter_mut().zip(self.grad.chunks_exact(self.plane)).enumerate() {
            self.gradient.sum(self.image, channel, 0, grad, sums);
        }
    }
}
