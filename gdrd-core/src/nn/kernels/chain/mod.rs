//! Convolutions in a row with their batch normalisations and activations, in training, as one operation.
//!
//! One by one, each layer writes its map, its normalised map and two gradients of each to memory, and the graph adds a gradient of
//! zeros to each; for networks of many cheap layers on large maps, memory is then all that training waits for. Here the maps before
//! normalisation are all that is kept: what follows them is computed again wherever it is needed, image by image, while it lies in
//! the cache, and sums over a map are taken where the map is made.
//!
//! Results do not depend on the number of threads: images are tasks, sums over images run in their order, and those of weights'
//! gradients over groups of images whose size depends on the batch alone.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use self::backward::backward;
use self::norm::{Bend, Moments, Normal, Source};
use super::buffer::{Filling, floats, supported, tensor, with_floats};
use super::scratch::Pooled;
use super::shape::ConvShape;
use super::simd;
use super::team::each;

mod backward;
mod depthwise;
mod norm;
mod pointwise;
mod whole;

/// A convolution without bias, its batch normalisation with the statistics of the batch, and its activation.
#[derive(Clone, Copy)]
pub struct Link<'a> {
    /// `[o, c / groups, kh, kw]`.
    pub weight: &'a Tensor,
    /// The normalisation's factors, `[o]`.
    pub gamma: &'a Tensor,
    /// The normalisation's summands, `[o]`.
    pub beta: &'a Tensor,
    /// Added to variances.
    pub eps: f64,
    /// Step between outputs, in pixels.
    pub stride: usize,
    /// Zeros around the input, in pixels.
    pub padding: usize,
    /// Groups of channels that do not mix.
    pub groups: usize,
    /// What follows.
    pub activation: LinkActivation<'a>,
}

/// The activation of a [`Link`].
#[derive(Clone, Copy)]
pub enum LinkActivation<'a> {
    /// None.
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// A slope below zero for each channel, `[o]`.
    PRelu(&'a Tensor),
}

/// The statistics of a batch after a convolution.
#[derive(Debug)]
pub struct BatchStatistics {
    /// The mean of each channel, `[c]`.
    pub mean: Tensor,
    /// The biased variance of each channel, `[c]`.
    pub var: Tensor,
    /// Values that a channel has in the batch.
    pub count: usize,
}

/// What the links make of `x` `[b, c, h, w]`, one after the other, and the statistics of each. With `residual`, `x` is added to
/// the last one's, which must have no activation and the same shape. All tensors receive gradients. None where there is no kernel
/// for it: on another device, or in another type.
///
/// # Errors
/// If the shapes do not fit.
pub fn conv_chain(x: &Tensor, links: &[Link], residual: bool) -> Result<Option<(Tensor, Vec<BatchStatistics>)>> {
    let here = |link: &Link| supported(&[x, link.weight, link.gamma, link.beta, link.slopes().unwrap_or(x)]);
    if links.is_empty() || !links.iter().all(here) {
        return Ok(None);
    }
    let (mut dims, mut layers, mut flat, mut len) = (x.dims4()?, Vec::new(), Vec::new(), 0);
    for link in links {
        let shape = ConvShape::new(dims, link.weight.dims4()?, link.stride, link.padding, link.groups)?;
        let mut place = |tensor: &Tensor, expected: usize| -> Result<Range<usize>> {
            if tensor.elem_count() != expected {
                bail!("a chain: expected {expected} values, found {:?}", tensor.dims());
            }
            flat.push(tensor.flatten_all()?);
            len += expected;
            Ok(len - expected..len)
        };
        let (weights, outputs) = (link.weight.elem_count(), shape.outputs);
        let (weight, gamma, beta) =
            (place(link.weight, weights)?, place(link.gamma, outputs)?, place(link.beta, outputs)?);
        let slopes = link.slopes().map(|slopes| place(slopes, outputs)).transpose()?;
        layers.push(Layer { shape, weight, gamma, beta, slopes, bend: link.bend(), eps: link.eps });
        dims = (shape.batch, outputs, shape.out_height(), shape.out_width());
    }
    if residual && (dims != x.dims4()? || layers.last().is_some_and(|layer| layer.bend != Bend::Identity)) {
        bail!("a chain from {:?} to {dims:?} with an activation at its end cannot be added to its input", x.dims());
    }
    let (x, parameters) = (x.contiguous()?, Tensor::cat(&flat, 0)?);
    let (normals, out) = with_floats([&x, &parameters], |[x, p]| Ok(forward(&layers, x, p, residual)))?;
    let statistics = layers.iter().zip(&normals).map(|(layer, normal)| {
        let tensor = |values: &Vec<f32>| tensor(values.clone(), values.len());
        let count = layer.shape.batch * layer.shape.out_plane();
        Ok(BatchStatistics { mean: tensor(&normal.mean)?, var: tensor(&normal.var)?, count })
    });
    let statistics = statistics.collect::<Result<_>>()?;
    let chain = Chain { layers, normals, residual, dims, out: Mutex::new(Some(out)) };
    Ok(Some((x.apply_op2(&parameters, chain)?, statistics)))
}

impl<'a> Link<'a> {
    fn slopes(&self) -> Option<&'a Tensor> {
        match self.activation {
            LinkActivation::PRelu(slopes) => Some(slopes),
            _ => None,
        }
    }

    fn bend(&self) -> Bend {
        match self.activation {
            LinkActivation::Identity => Bend::Identity,
            LinkActivation::Relu => Bend::Relu,
            LinkActivation::Relu6 => Bend::Relu6,
            LinkActivation::PRelu(_) => Bend::PRelu,
        }
    }
}

/// A link, with the places of its numbers among all parameters.
struct Layer {
    shape: ConvShape,
    weight: Range<usize>,
    gamma: Range<usize>,
    beta: Range<usize>,
    slopes: Option<Range<usize>>,
    bend: Bend,
    eps: f64,
}

/// How a layer's convolution is computed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Kernels of one pixel: products, image by image.
    Pointwise,
    /// One kernel for each channel, image by image.
    Depthwise,
    /// All else: the methods of single convolutions, on the whole batch.
    Whole,
}

impl Layer {
    fn way(&self) -> Way {
        let shape = &self.shape;
        if shape.taps() == 1
            && (shape.stride, shape.padding, shape.groups) == (1, 0, 1)
            && shape.inputs.is_multiple_of(16)
        {
            Way::Pointwise
        } else if shape.groups > 1 && shape.group_inputs() == 1 && shape.group_outputs() == 1 {
            Way::Depthwise
        } else {
            Way::Whole
        }
    }
}

/// The input of layer `at`: `x`, or what follows the map of the layer before.
fn source<'a>(at: usize, layers: &'a [Layer], x: &'a [f32], p: &'a [f32], normals: &'a [Normal]) -> Source<'a> {
    let shape = &layers[at].shape;
    let (channels, plane) = (shape.inputs, shape.plane());
    match at.checked_sub(1) {
        None => Source { values: x, channels, plane, normal: None, bend: Bend::Identity, slopes: None },
        Some(before) => normals[before].source(&layers[before], p),
    }
}

impl Normal {
    /// What follows this map.
    fn source<'a>(&'a self, layer: &Layer, p: &'a [f32]) -> Source<'a> {
        Source {
            values: &self.map,
            channels: layer.shape.outputs,
            plane: layer.shape.out_plane(),
            normal: Some(self),
            bend: layer.bend,
            slopes: layer.slopes.clone().map(|range| &p[range]),
        }
    }
}

fn forward(layers: &[Layer], x: &[f32], p: &[f32], residual: bool) -> (Vec<Normal>, Vec<f32>) {
    let mut normals: Vec<Normal> = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let (shape, weight) = (&layer.shape, &p[layer.weight.clone()]);
        let mut map = Pooled::take(shape.output_len());
        let mut moments = vec![Moments::default(); shape.batch * shape.outputs];
        let source = source(at, layers, x, p, &normals);
        match layer.way() {
            Way::Pointwise => pointwise::forward(shape, &source, weight, &mut map, &mut moments),
            Way::Depthwise => depthwise::forward(shape, &source, weight, &mut map, &mut moments),
            Way::Whole => whole::forward(shape, &source, weight, &mut map, &mut moments),
        }
        let (gamma, beta) = (&p[layer.gamma.clone()], &p[layer.beta.clone()]);
        normals.push(Normal::new(map, &moments, gamma, beta, layer.eps));
    }
    let (last, normal) = (&layers[layers.len() - 1], &normals[layers.len() - 1]);
    let source = normal.source(last, p);
    let (channels, plane) = (source.channels, source.plane);
    let mut out = Filling::new(last.shape.output_len());
    let target = out.shared();
    each(last.shape.batch, 1, |image| {
        let start = image * channels * plane;
        // SAFETY: each image has values of its own.
        let out = unsafe { std::slice::from_raw_parts_mut(target.at(start), channels * plane) };
        let add = residual.then(|| &x[start..start + channels * plane]);
        simd::run(norm::WriteOutput { source, image, add, out });
    });
    // SAFETY: all images were visited.
    let out = unsafe { out.finish() };
    (normals, out)
}

struct Chain {
    layers: Vec<Layer>,
    normals: Vec<Normal>,
    residual: bool,
    dims: (usize, usize, usize, usize),
    /// The output, which was computed with the statistics before the graph knew of it.
    out: Mutex<Option<Vec<f32>>>,
}

impl CustomOp2 for Chain {
    fn name(&self) -> &'static str {
        "gdrd-conv-chain"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, p: &CpuStorage, pl: &Layout) -> Result<(CpuStorage, Shape)> {
        let kept = self.out.lock().unwrap_or_else(PoisonError::into_inner).take();
        let out = match kept {
            Some(out) => out,
            None => forward(&self.layers, floats(x, xl)?, floats(p, pl)?, self.residual).1,
        };
        Ok((CpuStorage::F32(out), Shape::from(self.dims)))
    }

    fn bwd(&self, x: &Tensor, p: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        with_floats([x, p, grad], |[xs, ps, gs]| {
            let (dx, dp) = backward(&self.layers, &self.normals, (xs, ps, gs), self.residual, x.track_op());
            let dx = dx.map(|values| tensor(values, x.shape())).transpose()?;
            Ok((dx, Some(tensor(dp, p.shape())?)))
        })
    }
}

#[cfg(test)]
mod tests;
