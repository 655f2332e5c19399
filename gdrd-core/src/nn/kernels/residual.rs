//! A residual block in training as one operation.
//!
//! Layer by layer, the graph adds each layer's gradient to zeros: three more passes over memory for each map. Here gradients go from layer to layer
//! as they are, and only that of the block's input comes to the graph. The sums are those of the layers, to the bit.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::buffer::{Filling, supported, tensor, with_floats};
use super::chain::{BatchStatistics, Link, LinkActivation};
use super::channels::Channels;
use super::convolution::ConvWeights;
use super::epilogue::Epilogue;
use super::joint::{JointGradients, join};
use super::methods::{method, weight_gradient_method};
use super::norm::{Gradients, Statistics, scaled};
use super::shape::ConvShape;

/// `relu(second(relu(first(x))) + shortcut(x))`, or `+ x` without a shortcut, for `x` `[b, c, h, w]`; each link is a convolution without bias
/// and its normalisation with the statistics of the batch, and the two ReLUs are those of `first` and `second`. Also the statistics of
/// `first`, `second` and `shortcut`. All tensors receive gradients. None where there is no kernel for it: on another device, in another type,
/// or with other activations.
///
/// # Errors
/// If the shapes do not fit.
pub fn residual_block(
    x: &Tensor,
    [first, second]: [&Link; 2],
    shortcut: Option<&Link>,
) -> Result<Option<(Tensor, Vec<BatchStatistics>)>> {
    let links: Vec<&Link> = [first, second].into_iter().chain(shortcut).collect();
    let here = |link: &&Link| supported(&[x, link.weight, link.gamma, link.beta]);
    let relu = |link: &Link| matches!(link.activation, LinkActivation::Relu);
    let plain = |link: &Link| matches!(link.activation, LinkActivation::Identity);
    if !links.iter().all(here) || !relu(first) || !relu(second) || !shortcut.is_none_or(plain) {
        return Ok(None);
    }
    let x = x.contiguous()?;
    let dims = x.dims4()?;
    let parts = with_floats([&x], |[xs]| {
        let (first, first_found) = Layer::of(xs, dims, first)?;
        let hidden = first.relu(None)?;
        let (second, second_found) = Layer::of(&hidden, first.dims(), second)?;
        let shortcut = shortcut.map(|link| Layer::of(xs, dims, link)).transpose()?;
        let beside = shortcut.as_ref().map_or(dims, |(layer, _)| layer.dims());
        if beside != second.dims() {
            bail!("a residual block: maps {:?} and {beside:?} differ", second.dims());
        }
        let out = match &shortcut {
            None => second.relu(Some(xs))?,
            Some((layer, _)) => second.relu(Some(&layer.normalised()?))?,
        };
        let (shortcut, shortcut_found) = shortcut.unzip();
        let found: Vec<_> = [first_found, second_found].into_iter().chain(shortcut_found).collect();
        Ok((first, hidden, second, shortcut, out, found))
    })?;
    let (first, hidden, second, shortcut, out, found) = parts;
    let tensors: Vec<&Tensor> = links.iter().flat_map(|link| [link.weight, link.gamma, link.beta]).collect();
    let (joint, gradients) = join(&tensors)?;
    let block = ResidualBlock { first, hidden, second, shortcut, out: Mutex::new(Some(out)), gradients };
    Ok(Some((x.apply_op2(&joint, block)?, found)))
}

/// The gradients of a layer's weight, gamma and beta, and of its input where it is wanted.
type LayerGradients = (Vec<Option<Tensor>>, Option<Vec<f32>>);

/// A convolution and its normalisation, with what it gave.
struct Layer {
    shape: ConvShape,
    weight: Tensor,
    gamma: Tensor,
    beta: Tensor,
    /// What the convolution gave.
    map: Vec<f32>,
    statistics: Statistics,
}

impl Layer {
    fn of(x: &[f32], dims: (usize, usize, usize, usize), link: &Link) -> Result<(Self, BatchStatistics)> {
        let shape = ConvShape::new(dims, link.weight.dims4()?, link.stride, link.padding, link.groups)?;
        let map = with_floats([link.weight], |[weight]| {
            let weight = ConvWeights::Plain(weight);
            let write = |out: &mut [_]| method(&shape).forward(&shape, x, weight, Epilogue::default(), out);
            // SAFETY: all values are written.
            Ok(unsafe { Filling::by(shape.output_len(), write) })
        })?;
        let out = Shape::from((shape.batch, shape.outputs, shape.out_height(), shape.out_width()));
        let channels = Channels::new("a residual block", &out, &[link.gamma.shape(), link.beta.shape()])?;
        let (statistics, var) = Statistics::of_values(&map, channels, link.eps);
        let mean = tensor(statistics.mean.clone(), channels.count)?;
        let found = BatchStatistics { mean, var: tensor(var, channels.count)?, count: channels.batch * channels.plane };
        let [weight, gamma, beta] = [link.weight, link.gamma, link.beta].map(Tensor::clone);
        Ok((Self { shape, weight, gamma, beta, map, statistics }, found))
    }

    /// Those of its map.
    fn dims(&self) -> (usize, usize, usize, usize) {
        (self.shape.batch, self.shape.outputs, self.shape.out_height(), self.shape.out_width())
    }

    /// `relu` of its normalised map and `add`.
    fn relu(&self, add: Option<&[f32]>) -> Result<Vec<f32>> {
        with_floats([&self.gamma, &self.beta], |[gamma, beta]| Ok(self.statistics.relu(&self.map, (gamma, beta), add)))
    }

    fn normalised(&self) -> Result<Vec<f32>> {
        with_floats([&self.gamma, &self.beta], |[gamma, beta]| {
            let of = |channel: usize| self.statistics.scale_shift(channel, gamma[channel], beta[channel]);
            Ok(scaled(&self.statistics.channels, &self.map, of))
        })
    }

    /// The gradients of weight, gamma and beta, and of its input `x` where it is wanted, after an epilogue; `grad` is that of what
    /// follows the normalisation, and zero where a ReLU there gave `result` and that is not positive.
    fn backward(&self, x: &[f32], grad: &[f32], result: &[f32], for_x: Option<Epilogue<'_>>) -> Result<LayerGradients> {
        with_floats([&self.weight, &self.gamma], |[weight, gamma]| {
            let Statistics { channels, mean, inverse } = &self.statistics;
            let all = Gradients { channels: *channels, x: &self.map, grad, result: Some(result), of_batch: true };
            let (dz, d_gamma, d_beta) = all.compute(|c| (mean[c], inverse[c], gamma[c]));
            let d_weight = || weight_gradient_method(&self.shape).weight_gradient(&self.shape, x, &dz);
            let d_weight = self.weight.track_op().then(|| tensor(d_weight(), self.weight.shape())).transpose()?;
            let dx = for_x.map(|after| method(&self.shape).input_gradient_with(&self.shape, weight, &dz, after));
            let of_norm = [tensor(d_gamma, self.gamma.shape())?, tensor(d_beta, self.beta.shape())?];
            Ok((std::iter::once(d_weight).chain(of_norm.map(Some)).collect(), dx))
        })
    }
}

struct ResidualBlock {
    first: Layer,
    /// What the first ReLU gave.
    hidden: Vec<f32>,
    second: Layer,
    shortcut: Option<Layer>,
    /// The output, which was computed with the statistics before the graph knew of it.
    out: Mutex<Option<Vec<f32>>>,
    gradients: JointGradients,
}

impl CustomOp2 for ResidualBlock {
    fn name(&self) -> &'static str {
        "gdrd-residual-block"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        match self.out.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(out) => Ok((CpuStorage::F32(out), Shape::from(self.second.dims()))),
            None => bail!("a residual block is computed once"),
        }
    }

    fn bwd(
        &self,
        x: &Tensor,
        joint: &Tensor,
        result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        with_floats([x, result, grad], |[xs, result, grad]| {
            let nothing = Epilogue::default();
            let (second, d_hidden) = self.second.backward(&self.hidden, grad, result, Some(nothing))?;
            let d_hidden = d_hidden.unwrap_or_default();
            // What comes around the two layers is added to what comes through them.
            let around = match &self.shortcut {
                None => None,
                Some(layer) => Some(layer.backward(xs, grad, result, x.track_op().then_some(nothing))?),
            };
            let after = match &around {
                None => Epilogue { add: Some(grad), mask: Some(result), ..nothing },
                Some((_, beside)) => Epilogue { add: beside.as_deref(), ..nothing },
            };
            let (first, dx) = self.first.backward(xs, &d_hidden, &self.hidden, x.track_op().then_some(after))?;
            let mut gradients = [first, second].concat();
            gradients.extend(around.into_iter().flat_map(|(found, _)| found));
            let dx = dx.map(|values| tensor(values, x.shape())).transpose()?;
            let of_joint = self.gradients.leave(gradients)?;
            Ok((dx, joint.track_op().then_some(of_joint)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, gradients, on_each_level, random};
    use super::super::{batch_norm_relu_train, batch_norm_train, conv2d};
    use super::*;

    /// Shape of `x`, outputs, stride, and whether there is a shortcut.
    type Case = ((usize, usize, usize, usize), usize, usize, bool);

    const CASES: [Case; 4] = [
        ((3, 16, 8, 8), 16, 1, false),
        ((2, 16, 8, 8), 32, 2, true),
        ((2, 24, 7, 5), 40, 1, true),
        ((96, 3, 4, 4), 5, 2, true),
    ];

    /// `x`, then weight, gamma and beta of each layer.
    fn tensors((x, outputs, _, has_shortcut): Case) -> Vec<Tensor> {
        let layer = |inputs: usize, kernel: usize, seed: u64| {
            let scale = (2.0 / (inputs * kernel * kernel) as f64).sqrt();
            let weight = random((outputs, inputs, kernel, kernel), seed).and_then(|weight| weight * scale);
            let gamma = random(outputs, seed + 1).and_then(|gamma| gamma.affine(0.3, 1.0));
            [weight.expect("weight"), gamma.expect("gamma"), random(outputs, seed + 2).expect("beta")]
        };
        let mut all = vec![random(x, 1).expect("x")];
        all.extend(layer(x.1, 3, 10));
        all.extend(layer(outputs, 3, 20));
        all.extend(has_shortcut.then(|| layer(x.1, 1, 30)).into_iter().flatten());
        all
    }

    fn link<'a>(v: &'a [Tensor], stride: usize, activation: LinkActivation<'a>) -> Link<'a> {
        let padding = v[0].dims()[2] / 2;
        Link { weight: &v[0], gamma: &v[1], beta: &v[2], eps: 1e-5, stride, padding, groups: 1, activation }
    }

    fn block(v: &[Tensor], (_, _, stride, _): Case) -> Result<Tensor> {
        let (first, second) = (link(&v[1..], stride, LinkActivation::Relu), link(&v[4..], 1, LinkActivation::Relu));
        let shortcut = (v.len() > 7).then(|| link(&v[7..], stride, LinkActivation::Identity));
        let found = residual_block(&v[0], [&first, &second], shortcut.as_ref())?;
        Ok(found.ok_or_else(|| candle_core::Error::Msg("no kernel".into()))?.0)
    }

    fn one_by_one(v: &[Tensor], (_, _, stride, _): Case) -> Result<Tensor> {
        let x = &v[0];
        let hidden = conv2d(x, &v[1], stride, 1, 1)?;
        let hidden = batch_norm_relu_train(&hidden, &v[2], &v[3], None, 1e-5)?.0;
        let beside = match v.get(7..) {
            Some([weight, gamma, beta]) => batch_norm_train(&conv2d(x, weight, stride, 0, 1)?, gamma, beta, 1e-5)?.0,
            _ => x.clone(),
        };
        Ok(batch_norm_relu_train(&conv2d(&hidden, &v[4], 1, 1, 1)?, &v[5], &v[6], Some(&beside), 1e-5)?.0)
    }

    /// To the bit, so that a run is the same whichever form it takes.
    #[test]
    fn it_equals_its_layers() {
        for case in CASES {
            let all = tensors(case);
            let all: Vec<&Tensor> = all.iter().collect();
            on_each_level(|| {
                let ours = gradients(&all, |v| block(v, case));
                assert_close(&ours, &gradients(&all, |v| one_by_one(v, case)), 0.0);
            });
        }
    }

    /// Weights that nobody trains have no gradient, and those after them still do.
    #[test]
    fn frozen_weights_have_no_gradients() {
        let case = CASES[1];
        let mut all = tensors(case);
        let trained = [5, 9].map(|at| candle_core::Var::from_tensor(&all[at]).expect("a variable"));
        all[5] = trained[0].as_tensor().clone();
        all[9] = trained[1].as_tensor().clone();
        let of = |y: Result<Tensor>| y.and_then(|y| y.sqr()?.sum_all()?.backward()).expect("gradients");
        let (ours, theirs) = (of(block(&all, case)), of(one_by_one(&all, case)));
        for (at, tensor) in all.iter().enumerate() {
            let [ours, theirs] =
                [&ours, &theirs].map(|store| store.get(tensor).map(|g| g.to_vec1::<f32>().expect("values")));
            let is_trained = at == 5 || at == 9;
            assert_eq!(ours.is_some(), is_trained, "{at}");
            assert!(!is_trained || ours == theirs, "{at}");
        }
    }

    #[test]
    fn maps_that_do_not_fit_are_refused() {
        let mut all = tensors(CASES[0]);
        all[4] = random((8, 16, 3, 3), 5).expect("weight");
        (all[5], all[6]) = (random(8, 6).expect("gamma"), random(8, 7).expect("beta"));
        let error = block(&all, CASES[0]).expect_err("eight channels beside sixteen").to_string();
        assert!(error.contains("(3, 8, 8, 8) and (3, 16, 8, 8) differ"), "{error}");
    }
}
