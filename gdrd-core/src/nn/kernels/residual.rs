//! A residual block in training as one operation.
//!
//! Layer by layer, the graph adds a gradient of zeros to that of each map between them, which takes as long as a tenth of a training
//! step. The kernels are those of the layers, in their order: the numbers are the same.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::activation::{filled, masked};
use super::buffer::{Filling, floats, supported, tensor, with_floats};
use super::chain::{BatchStatistics, Link, LinkActivation};
use super::channels::Channels;
use super::convolution::ConvWeights;
use super::epilogue::Epilogue;
use super::methods::{method, weight_gradient_method};
use super::norm::{Gradients, Statistics, scaled};
use super::norm_relu::normal_relu;
use super::shape::ConvShape;

/// `relu(second(relu(first(x))) + shortcut(x))`, where each layer is a convolution and its batch normalisation.
#[derive(Clone, Copy)]
pub struct ResidualBlock<'a> {
    /// With a ReLU.
    pub first: Link<'a>,
    /// With a ReLU, which follows the addition.
    pub second: Link<'a>,
    /// Without an activation; none for `x` itself.
    pub shortcut: Option<Link<'a>>,
}

/// What the block makes of `x` `[b, c, h, w]`, and the statistics of the first layer, the second, and the shortcut. All tensors receive
/// gradients. None where there is no kernel for it (another device, type or activation), or where the block's weights are so large
/// beside its maps that putting them side by side costs more than is saved.
///
/// # Errors
/// If the shapes do not fit.
pub fn residual_block(x: &Tensor, block: &ResidualBlock) -> Result<Option<(Tensor, Vec<BatchStatistics>)>> {
    let ResidualBlock { first, second, shortcut } = block;
    let here = |link: &Link| supported(&[x, link.weight, link.gamma, link.beta]);
    let relu = |link: &Link| matches!(link.activation, LinkActivation::Relu);
    let plain = |link: &Link| matches!(link.activation, LinkActivation::Identity);
    let shortcut_fits = shortcut.as_ref().is_none_or(|link| plain(link) && here(link));
    if ![first, second].into_iter().all(|link| relu(link) && here(link)) || !shortcut_fits {
        return Ok(None);
    }
    let mut parameters = Vec::new();
    let dims = x.dims4()?;
    let first = Layer::new(dims, first, &mut parameters)?;
    let second = Layer::new(first.dims(), second, &mut parameters)?;
    let shortcut = shortcut.as_ref().map(|link| Layer::new(dims, link, &mut parameters)).transpose()?;
    let beside = shortcut.as_ref().map_or(dims, Layer::dims);
    if beside != second.dims() {
        bail!("a residual block: maps {:?} and {beside:?} cannot be added", second.dims());
    }
    let layers = Layers { first, second, shortcut };
    let maps: usize = layers.all().map(|layer| layer.shape.output_len()).sum();
    let count: usize = parameters.iter().map(Tensor::elem_count).sum();
    if 2 * count > maps {
        return Ok(None);
    }
    let (x, parameters) = (x.contiguous()?, Tensor::cat(&parameters, 0)?);
    let (kept, out) = with_floats([&x, &parameters], |[x, p]| Ok(layers.forward(x, p)))?;
    let statistics = kept.all().map(|kept| {
        let count = kept.variance.len();
        Ok((tensor(kept.statistics.mean.clone(), count)?, tensor(kept.variance.clone(), count)?))
    });
    let statistics = statistics.collect::<Result<_>>()?;
    let operation = Residual { layers, kept, out: Mutex::new(Some(out)) };
    Ok(Some((x.apply_op2(&parameters, operation)?, statistics)))
}

/// A convolution and its normalisation, with the places of their numbers among all parameters.
struct Layer {
    shape: ConvShape,
    weight: Range<usize>,
    /// All of gamma, then all of beta.
    normal: Range<usize>,
    eps: f64,
    channels: Channels,
}

impl Layer {
    /// Adds the link's parameters to `parameters`.
    fn new(x: (usize, usize, usize, usize), link: &Link, parameters: &mut Vec<Tensor>) -> Result<Self> {
        let shape = ConvShape::new(x, link.weight.dims4()?, link.stride, link.padding, link.groups)?;
        let out = Shape::from((shape.batch, shape.outputs, shape.out_height(), shape.out_width()));
        let channels = Channels::new("a residual block", &out, &[link.gamma.shape(), link.beta.shape()])?;
        let start: usize = parameters.iter().map(Tensor::elem_count).sum();
        let weight = start..start + link.weight.elem_count();
        parameters.extend([link.weight.flatten_all()?, link.gamma.clone(), link.beta.clone()]);
        let normal = weight.end..weight.end + 2 * shape.outputs;
        Ok(Self { shape, weight, normal, eps: link.eps, channels })
    }

    fn dims(&self) -> (usize, usize, usize, usize) {
        let shape = &self.shape;
        (shape.batch, shape.outputs, shape.out_height(), shape.out_width())
    }

    fn forward(&self, x: &[f32], p: &[f32]) -> Kept {
        let (shape, weights) = (&self.shape, ConvWeights::Plain(&p[self.weight.clone()]));
        let mut map = Filling::new(shape.output_len());
        method(shape).forward(shape, x, weights, Epilogue::default(), map.slots());
        // SAFETY: all values were written.
        let map = unsafe { map.finish() };
        let (statistics, variance) = Statistics::of_map(&map, self.channels, self.eps);
        Kept { map, statistics, variance }
    }

    /// From the gradient of what follows the normalisation, masked by `result` if a ReLU follows: the gradient of `x`, where it is
    /// wanted; those of the parameters go to their places in `all`.
    fn backward(
        &self,
        kept: &Kept,
        (x, p): (&[f32], &[f32]),
        (grad, result): (&[f32], Option<&[f32]>),
        wants_x: bool,
        all: Option<&mut [f32]>,
    ) -> Option<Vec<f32>> {
        let (shape, Statistics { mean, inverse, .. }) = (&self.shape, &kept.statistics);
        let gammas = &p[self.normal.start..];
        let gradients = Gradients { channels: self.channels, x: &kept.map, grad, result, of_batch: true };
        let (map, d_gamma, d_beta) = gradients.compute(|c| (mean[c], inverse[c], gammas[c]));
        let dx = wants_x.then(|| method(shape).input_gradient(shape, &p[self.weight.clone()], &map));
        if let Some(all) = all {
            let weight = weight_gradient_method(shape).weight_gradient(shape, x, &map);
            all[self.weight.clone()].copy_from_slice(&weight);
            let (gamma, beta) = all[self.normal.clone()].split_at_mut(shape.outputs);
            gamma.copy_from_slice(&d_gamma);
            beta.copy_from_slice(&d_beta);
        }
        dx
    }
}

/// A layer's map before normalisation, and its statistics.
struct Kept {
    map: Vec<f32>,
    statistics: Statistics,
    /// The biased variance of each channel.
    variance: Vec<f32>,
}

struct Layers {
    first: Layer,
    second: Layer,
    shortcut: Option<Layer>,
}

/// What the backward pass needs of the forward pass.
struct KeptMaps {
    first: Kept,
    /// What follows the first layer.
    middle: Vec<f32>,
    second: Kept,
    shortcut: Option<Kept>,
}

impl KeptMaps {
    fn all(&self) -> impl Iterator<Item = &Kept> {
        [&self.first, &self.second].into_iter().chain(&self.shortcut)
    }
}

impl Layers {
    fn all(&self) -> impl Iterator<Item = &Layer> {
        [&self.first, &self.second].into_iter().chain(&self.shortcut)
    }

    fn forward(&self, x: &[f32], p: &[f32]) -> (KeptMaps, Vec<f32>) {
        let normal = |layer: &Layer| &p[layer.normal.clone()];
        let first = self.first.forward(x, p);
        let middle = normal_relu(&first.statistics, &first.map, normal(&self.first), None);
        let second = self.second.forward(&middle, p);
        let shortcut = self.shortcut.as_ref().map(|layer| layer.forward(x, p));
        let beside = self.shortcut.as_ref().zip(shortcut.as_ref()).map(|(layer, kept)| {
            let (gammas, betas) = normal(layer).split_at(layer.shape.outputs);
            scaled(&layer.channels, &kept.map, |c| kept.statistics.scale_shift(c, gammas[c], betas[c]))
        });
        let beside = beside.as_deref().unwrap_or(x);
        let out = normal_relu(&second.statistics, &second.map, normal(&self.second), Some(beside));
        (KeptMaps { first, middle, second, shortcut }, out)
    }

    /// The gradients of `x` and of the parameters, those that are wanted.
    fn backward(
        &self,
        kept: &KeptMaps,
        (x, p): (&[f32], &[f32]),
        (grad, out): (&[f32], &[f32]),
        (wants_x, wants_p): (bool, bool),
    ) -> (Option<Vec<f32>>, Option<Vec<f32>>) {
        let mut all = wants_p.then(|| vec![0f32; p.len()]);
        let grad = masked(grad, out);
        let of_middle = self.second.backward(&kept.second, (&kept.middle, p), (&grad, None), true, all.as_deref_mut());
        let of_middle = (&*of_middle.unwrap_or_default(), Some(&*kept.middle));
        let of_first = self.first.backward(&kept.first, (x, p), of_middle, wants_x, all.as_deref_mut());
        let beside = match self.shortcut.as_ref().zip(kept.shortcut.as_ref()) {
            Some((layer, kept)) => layer.backward(kept, (x, p), (&grad, None), wants_x, all.as_deref_mut()),
            None => Some(grad),
        };
        let dx = of_first.zip(beside).map(|(one, other)| {
            filled(one.len(), |start, slots| {
                for ((slot, one), other) in slots.iter_mut().zip(&one[start..]).zip(&other[start..]) {
                    slot.write(one + other);
                }
            })
        });
        (dx, all)
    }
}

struct Residual {
    layers: Layers,
    kept: KeptMaps,
    /// The output, which was computed with the statistics before the graph knew of it.
    out: Mutex<Option<Vec<f32>>>,
}

impl CustomOp2 for Residual {
    fn name(&self) -> &'static str {
        "gdrd-residual-block"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, p: &CpuStorage, pl: &Layout) -> Result<(CpuStorage, Shape)> {
        let out = self.out.lock().unwrap_or_else(PoisonError::into_inner).take();
        let out = match out {
            Some(out) => out,
            None => self.layers.forward(floats(x, xl)?, floats(p, pl)?).1,
        };
        Ok((CpuStorage::F32(out), Shape::from(self.layers.second.dims())))
    }

    fn bwd(&self, x: &Tensor, p: &Tensor, out: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let wanted = (x.track_op(), p.track_op());
        with_floats([x, p, out, grad], |[xs, ps, outs, grads]| {
            let (dx, dp) = self.layers.backward(&self.kept, (xs, ps), (grads, outs), wanted);
            let dx = dx.map(|values| tensor(values, x.shape())).transpose()?;
            Ok((dx, dp.map(|values| tensor(values, p.shape())).transpose()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, flat, gradients, on_each_level, random, with_threads};
    use super::super::{batch_norm_relu_train, batch_norm_train, conv2d};
    use super::*;

    /// `x`, then weight, gamma and beta of the first layer, the second, and the shortcut if there is one.
    fn tensors(x: (usize, usize, usize, usize), outputs: usize, shortcut: bool) -> Vec<Tensor> {
        let mut all = vec![random(x, 1).expect("x")];
        let layers = [(x.1, 3), (outputs, 3), (x.1, 1)];
        for (at, (inputs, kernel)) in layers.into_iter().take(if shortcut { 3 } else { 2 }).enumerate() {
            let seed = 10 * at as u64;
            all.push(random((outputs, inputs, kernel, kernel), seed + 2).expect("weight"));
            all.push(random(outputs, seed + 3).and_then(|g| g.affine(0.3, 1.0)).expect("gamma"));
            all.push(random(outputs, seed + 4).expect("beta"));
        }
        all
    }

    fn link<'a>(v: &'a [Tensor], stride: usize, activation: LinkActivation<'a>) -> Link<'a> {
        let padding = v[0].dims()[2] / 2;
        Link { weight: &v[0], gamma: &v[1], beta: &v[2], eps: 1e-5, stride, padding, groups: 1, activation }
    }

    fn block(v: &[Tensor], stride: usize) -> ResidualBlock<'_> {
        ResidualBlock {
            first: link(&v[1..], stride, LinkActivation::Relu),
            second: link(&v[4..], 1, LinkActivation::Relu),
            shortcut: v.get(7..10).map(|v| link(v, stride, LinkActivation::Identity)),
        }
    }

    fn together(v: &[Tensor], stride: usize) -> Result<Tensor> {
        let found = residual_block(&v[0], &block(v, stride))?;
        Ok(found.ok_or_else(|| candle_core::Error::Msg("no kernel".into()))?.0)
    }

    fn one_by_one(v: &[Tensor], stride: usize) -> Result<Tensor> {
        let x = &v[0];
        let y = conv2d(x, &v[1], stride, 1, 1)?;
        let y = batch_norm_relu_train(&y, &v[2], &v[3], None, 1e-5)?.0;
        let beside = match v.get(7..10) {
            Some(v) => batch_norm_train(&conv2d(x, &v[0], stride, 0, 1)?, &v[1], &v[2], 1e-5)?.0,
            None => x.clone(),
        };
        let y = conv2d(&y, &v[4], 1, 1, 1)?;
        Ok(batch_norm_relu_train(&y, &v[5], &v[6], Some(&beside), 1e-5)?.0)
    }

    /// Input, outputs, stride, whether with a layer on the shortcut.
    const CASES: [((usize, usize, usize, usize), usize, usize, bool); 4] = [
        ((9, 16, 12, 12), 16, 1, false),
        ((17, 3, 16, 16), 16, 1, true),
        ((24, 16, 15, 13), 24, 2, true),
        ((48, 5, 7, 6), 7, 2, true),
    ];

    /// To the bit, so that a run is the same whichever form it takes.
    #[test]
    fn a_block_equals_its_layers() {
        for (x, outputs, stride, shortcut) in CASES {
            let all = tensors(x, outputs, shortcut);
            let inputs: Vec<&Tensor> = all.iter().collect();
            on_each_level(|| {
                let ours = gradients(&inputs, |v| together(v, stride));
                let theirs = gradients(&inputs, |v| one_by_one(v, stride));
                assert_close(&ours, &theirs, 0.0);
                let run = |threads| with_threads(threads, || gradients(&inputs, |v| together(v, stride)));
                assert!(run(1) == ours && run(3) == ours, "{x:?}: threads");
            });
        }
    }

    #[test]
    fn the_statistics_are_those_of_the_layers() {
        let all = tensors(CASES[2].0, CASES[2].1, true);
        let (_, found) = residual_block(&all[0], &block(&all, 2)).expect("fits").expect("a kernel");
        let z = conv2d(&all[0], &all[7], 2, 0, 1).expect("a map");
        let (_, mean, var) = batch_norm_train(&z, &all[8], &all[9], 1e-5).expect("normal");
        assert_eq!(found.len(), 3);
        assert_close(&[flat(&found[2].0), flat(&found[2].1)], &[flat(&mean), flat(&var)], 0.0);
    }

    #[test]
    fn gradients_that_nobody_wants_are_not_computed() {
        let all = tensors(CASES[1].0, CASES[1].1, true);
        let whole = gradients(&all.iter().collect::<Vec<_>>(), |v| together(v, 1));
        // The input alone, then the parameters alone.
        let of_x = gradients(&[&all[0]], |v| {
            let all: Vec<Tensor> = v.iter().chain(&all[1..]).cloned().collect();
            together(&all, 1)
        });
        assert_close(&of_x, &whole[..2], 0.0);
        let of_p = gradients(&all[1..].iter().collect::<Vec<_>>(), |v| {
            let all: Vec<Tensor> = all[..1].iter().chain(v).cloned().collect();
            together(&all, 1)
        });
        assert_close(&of_p[1..], &whole[2..], 0.0);
    }

    #[test]
    fn blocks_that_do_not_fit_are_refused_and_large_weights_left_to_layers() {
        let all = tensors(CASES[0].0, CASES[0].1, false);
        assert!(residual_block(&all[0], &block(&all, 2)).is_err(), "a smaller map cannot be added to x");
        let one_image = all[0].narrow(0, 0, 1).expect("an image");
        assert!(residual_block(&one_image, &block(&all, 1)).expect("no error").is_none(), "weights weigh more");
        let halves = all[0].to_dtype(candle_core::DType::F16).expect("half precision");
        assert!(residual_block(&halves, &block(&all, 1)).expect("no error").is_none());
        let mut other = block(&all, 1);
        other.second.activation = LinkActivation::Identity;
        assert!(residual_block(&all[0], &other).expect("no error").is_none());
    }
}
