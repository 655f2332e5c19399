//! Batch normalisation.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::buffer::{Filling, Shared, floats, supported, tensor, with_floats};
use super::channels::Channels;
use super::cuda;
use super::simd::{self, Simd, SimdKernel};

/// Batch normalisation with the statistics of the batch: `(y, mean, var)` with
/// `y = (x - mean) / sqrt(var + eps) * gamma + beta` per channel, for `x [b, c, h, w]` or `[b, c]`.
///
/// `var [c]` is the biased variance that `y` was made with; `mean` and `var` receive no gradients, `x`, `gamma [c]`
/// and `beta [c]` do.
///
/// # Errors
/// If `gamma` or `beta` does not have one value per channel.
pub fn batch_norm_train(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<(Tensor, Tensor, Tensor)> {
    let channels = Channels::new("batch_norm_train", x.shape(), &[gamma.shape(), beta.shape()])?;
    if !supported(&[x, gamma, beta]) {
        if cuda::supported(&[x, gamma, beta]) {
            return cuda::batch_norm_train(x, gamma, beta, channels, eps);
        }
        let reduced: &[usize] = if x.rank() == 4 { &[0, 2, 3] } else { &[0] };
        let mean = x.mean_keepdim(reduced)?;
        let centred = x.broadcast_sub(&mean)?;
        let var = centred.sqr()?.mean_keepdim(reduced)?;
        let normal = centred.broadcast_div(&(&var + eps)?.sqrt()?)?;
        let y = normal.broadcast_mul(&channels.broadcastable(gamma)?)?.broadcast_add(&channels.broadcastable(beta)?)?;
        let count = gamma.elem_count();
        return Ok((y, mean.detach().reshape(count)?, var.detach().reshape(count)?));
    }
    let x = x.contiguous()?;
    let (statistics, mean, var) = Statistics::of(&x, channels, eps)?;
    Ok((x.apply_op3(&gamma.contiguous()?, &beta.contiguous()?, BatchNormOp { statistics })?, mean, var))
}

/// The statistics of a batch.
pub(super) struct Statistics {
    pub(super) channels: Channels,
    pub(super) mean: Vec<f32>,
    /// `1 / sqrt(var + eps)`.
    pub(super) inverse: Vec<f32>,
}

impl Statistics {
    /// Those of `x`, and mean and biased variance as tensors.
    pub(super) fn of(x: &Tensor, channels: Channels, eps: f64) -> Result<(Self, Tensor, Tensor)> {
        let (found, var) = with_floats([x], |[x]| Ok(Self::of_values(x, channels, eps)))?;
        let tensors = (tensor(found.mean.clone(), channels.count)?, tensor(var, channels.count)?);
        Ok((found, tensors.0, tensors.1))
    }

    /// Those of `x`, and the biased variance.
    pub(super) fn of_values(x: &[f32], channels: Channels, eps: f64) -> (Self, Vec<f32>) {
        let (mean, var) = statistics(&channels, x);
        let inverse = var.iter().map(|v| (1.0 / (f64::from(*v) + eps).sqrt()) as f32).collect();
        (Self { channels, mean, inverse }, var)
    }

    /// Factor and summand that normalise a channel.
    pub(super) fn scale_shift(&self, channel: usize, gamma: f32, beta: f32) -> (f32, f32) {
        let scale = gamma * self.inverse[channel];
        (scale, beta - self.mean[channel] * scale)
    }
}

/// `x * scale [c] + shift [c]` per channel, for `x [b, c, h, w]` or `[b, c]`: batch normalisation with fixed
/// statistics. All three receive gradients.
///
/// # Errors
/// If `scale` or `shift` does not have one value per channel.
pub fn scale_shift(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let channels = Channels::new("scale_shift", x.shape(), &[scale.shape(), shift.shape()])?;
    if !supported(&[x, scale, shift]) {
        if cuda::supported(&[x, scale, shift]) {
            return cuda::scale_shift(x, scale, shift, channels);
        }
        return x.broadcast_mul(&channels.broadcastable(scale)?)?.broadcast_add(&channels.broadcastable(shift)?);
    }
    x.contiguous()?.apply_op3(&scale.contiguous()?, &shift.contiguous()?, ScaleShift { channels })
}

/// Parts of a sum that are kept side by side, so that the processor can add them at once.
const LANES: usize = 16;

/// `sum of term(values[i], others[i], thirds[i])`, in an order that depends on the length alone.
#[inline(always)]
fn sum_of(values: &[f32], others: &[f32], thirds: &[f32], term: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    let (other_chunks, other_rest) = others.as_chunks::<LANES>();
    let (third_chunks, third_rest) = thirds.as_chunks::<LANES>();
    for ((chunk, other), third) in chunks.iter().zip(other_chunks).zip(third_chunks) {
        for lane in 0..LANES {
            lanes[lane] += term(chunk[lane], other[lane], third[lane]);
        }
    }
    let others: f32 = rest.iter().zip(other_rest).zip(third_rest).map(|((v, o), t)| term(*v, *o, *t)).sum();
    lanes.iter().sum::<f32>() + others
}

/// The sum of `(value - centre)^2`.
#[inline(always)]
pub(super) fn squares_around(values: &[f32], centre: f32) -> f32 {
    sum_of(values, values, values, |v, _, _| (v - centre) * (v - centre))
}

/// The sum of all values.
#[inline(always)]
pub(super) fn sum(values: &[f32]) -> f32 {
    sum_of(values, values, values, |v, _, _| v)
}

/// Mean and biased variance of each channel. The maps' own means and squares around them are merged in float64, so
/// that a large mean costs no precision.
fn statistics(channels: &Channels, x: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mut means, mut vars) = (vec![0f32; channels.count], vec![0f32; channels.count]);
    let (mean_out, var_out) = (Shared::new(&mut means), Shared::new(&mut vars));
    let size = channels.plane as f64;
    channels.for_each_block(|block| {
        for channel in block {
            let (mut mean, mut squares, mut seen) = (0f64, 0f64, 0f64);
            for start in channels.planes(channel) {
                let map = &x[start..start + channels.plane];
                let centre = sum(map) / channels.plane as f32;
                let around = f64::from(squares_around(map, centre));
                // `centre` is rounded; what it misses is below the precision of the result.
                let step = f64::from(centre) - mean;
                let total = seen + size;
                mean += step * size / total;
                squares += around + step * step * seen * size / total;
                seen = total;
            }
            // SAFETY: each channel has one slot, within the vectors.
            unsafe {
                *mean_out.at(channel) = mean as f32;
                *var_out.at(channel) = if seen > 0.0 { (squares / seen) as f32 } else { 0.0 };
            }
        }
    });
    (means, vars)
}

/// `x * scale + shift` per channel.
pub(super) fn scaled(channels: &Channels, x: &[f32], of: impl Fn(usize) -> (f32, f32) + Sync) -> Vec<f32> {
    let mut out = Filling::new(x.len());
    let target = out.shared();
    channels.for_each_plane(|channel, start, len| {
        let (scale, shift) = of(channel);
        // SAFETY: every map is visited by one call.
        let slots = unsafe { target.slots(start, len) };
        for (slot, value) in slots.iter_mut().zip(&x[start..start + len]) {
            slot.write(value * scale + shift);
        }
    });
    // SAFETY: `for_each_plane` visits all maps.
    unsafe { out.finish() }
}

/// What the gradients of `y = (x - mean) * inverse * gamma + beta` are computed from.
pub(super) struct Gradients<'a> {
    pub(super) channels: Channels,
    pub(super) x: &'a [f32],
    pub(super) grad: &'a [f32],
    /// What a ReLU after `y` gave, if there was one.
    pub(super) result: Option<&'a [f32]>,
    /// Whether mean and inverse are the statistics of `x`.
    pub(super) of_batch: bool,
}

impl Gradients<'_> {
    /// The gradients of `x`, `gamma` and `beta`; `of` gives mean, inverse and gamma of a channel.
    pub(super) fn compute(&self, of: impl Fn(usize) -> (f32, f32, f32) + Sync) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let Self { channels, x, .. } = *self;
        let (mut d_gamma, mut d_beta) = (vec![0f32; channels.count], vec![0f32; channels.count]);
        let (gamma_out, beta_out) = (Shared::new(&mut d_gamma), Shared::new(&mut d_beta));
        let mut dx = Filling::new(x.len());
        let dx_out = dx.shared();
        channels.for_each_block(|block| {
            for channel in block {
                // SAFETY: each channel has one slot, within the vectors.
                let (gamma, beta) = unsafe { (gamma_out.at(channel), beta_out.at(channel)) };
                simd::run(OfChannel { all: self, channel, of: of(channel), dx: dx_out, gamma, beta });
            }
        });
        // SAFETY: `for_each_block` visits all channels.
        (unsafe { dx.finish() }, d_gamma, d_beta)
    }
}

/// The gradients of one channel.
struct OfChannel<'a> {
    all: &'a Gradients<'a>,
    channel: usize,
    of: (f32, f32, f32),
    dx: Shared,
    gamma: *mut f32,
    beta: *mut f32,
}

impl SimdKernel for OfChannel<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        match self.all.result {
            Some(result) => self.with(result, |g, r| if r > 0.0 { g } else { 0.0 }),
            None => self.with(self.all.grad, |g, _| g),
        }
    }
}

impl OfChannel<'_> {
    #[inline(always)]
    fn with(&self, result: &[f32], masked: impl Fn(f32, f32) -> f32) {
        let Gradients { channels, x, grad, of_batch, .. } = *self.all;
        let ((mean, inverse, gamma), size) = (self.of, (channels.batch * channels.plane) as f64);
        let (mut total, mut product) = (0f64, 0f64);
        let maps = |start: usize| {
            let range = start..start + channels.plane;
            (&x[range.clone()], &grad[range.clone()], &result[range])
        };
        for (x, grad, result) in channels.planes(self.channel).map(maps) {
            total += f64::from(sum_of(grad, result, grad, |g, r, _| masked(g, r)));
            product += f64::from(sum_of(x, grad, result, |v, g, r| (v - mean) * masked(g, r)));
        }
        let product = product * f64::from(inverse);
        // SAFETY: the two slots belong to this channel.
        unsafe {
            *self.gamma = product as f32;
            *self.beta = total as f32;
        }
        // dx = gamma inverse (g - mean(g) - normal mean(g normal)); the second and third terms come from the
        // statistics.
        let (centre, slope) =
            if of_batch { ((total / size) as f32, (product / size) as f32 * inverse) } else { (0.0, 0.0) };
        let factor = gamma * inverse;
        for start in channels.planes(self.channel) {
            let (x, grad, result) = maps(start);
            // SAFETY: every map of this channel belongs to this call.
            let slots = unsafe { self.dx.slots(start, channels.plane) };
            for (((slot, value), grad), result) in slots.iter_mut().zip(x).zip(grad).zip(result) {
                slot.write(factor * ((masked(*grad, *result) - centre) - (value - mean) * slope));
            }
        }
    }
}

struct BatchNormOp {
    statistics: Statistics,
}

impl CustomOp3 for BatchNormOp {
    fn name(&self) -> &'static str {
        "gdrd-batch-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        gamma: &CpuStorage,
        gl: &Layout,
        beta: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, gamma, beta) = (floats(x, xl)?, floats(gamma, gl)?, floats(beta, bl)?);
        let out = scaled(&self.statistics.channels, x, |c| self.statistics.scale_shift(c, gamma[c], beta[c]));
        Ok((CpuStorage::F32(out), xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        with_floats([x, gamma, grad], |[values, gammas, grads]| {
            let Statistics { channels, mean, inverse } = &self.statistics;
            let all = Gradients { channels: *channels, x: values, grad: grads, result: None, of_batch: true };
            let (dx, d_gamma, d_beta) = all.compute(|c| (mean[c], inverse[c], gammas[c]));
            Ok((
                Some(tensor(dx, x.shape())?),
                Some(tensor(d_gamma, gamma.shape())?),
                Some(tensor(d_beta, beta.shape())?),
            ))
        })
    }
}

struct ScaleShift {
    channels: Channels,
}

impl CustomOp3 for ScaleShift {
    fn name(&self) -> &'static str {
        "gdrd-scale-shift"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        scale: &CpuStorage,
        sl: &Layout,
        shift: &CpuStorage,
        hl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, scale, shift) = (floats(x, xl)?, floats(scale, sl)?, floats(shift, hl)?);
        Ok((CpuStorage::F32(scaled(&self.channels, x, |c| (scale[c], shift[c]))), xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        scale: &Tensor,
        shift: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        with_floats([x, scale, grad], |[values, scales, grads]| {
            let all = Gradients { channels: self.channels, x: values, grad: grads, result: None, of_batch: false };
            let (dx, d_scale, d_shift) = all.compute(|c| (0.0, 1.0, scales[c]));
            Ok((
                Some(tensor(dx, x.shape())?),
                Some(tensor(d_scale, scale.shape())?),
                Some(tensor(d_shift, shift.shape())?),
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, gradients, on_each_level, random};
    use super::*;

    fn composed(v: &[Tensor], eps: f64) -> Result<Tensor> {
        let reduced: &[usize] = if v[0].rank() == 4 { &[0, 2, 3] } else { &[0] };
        let centred = v[0].broadcast_sub(&v[0].mean_keepdim(reduced)?)?;
        let normal = centred.broadcast_div(&(centred.sqr()?.mean_keepdim(reduced)? + eps)?.sqrt()?)?;
        affine(&normal, &v[1], &v[2])
    }

    fn affine(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
        let dims = if x.rank() == 4 { vec![1, scale.elem_count(), 1, 1] } else { vec![1, scale.elem_count()] };
        x.broadcast_mul(&scale.reshape(dims.clone())?)?.broadcast_add(&shift.reshape(dims)?)
    }

    #[test]
    fn batch_norm_and_its_gradients_equal_composed_operations() {
        for dims in [vec![3, 5, 7, 11], vec![2, 33, 4, 4], vec![13, 5], vec![1, 3, 5, 5]] {
            let count = dims[1];
            let x = (random(dims, 1).expect("x") + 3.0).expect("x");
            let (gamma, beta) = (random(count, 2).expect("gamma"), random(count, 3).expect("beta"));
            let theirs = gradients(&[&x, &gamma, &beta], |v| composed(v, 1e-5));
            on_each_level(|| {
                let y = |v: &[Tensor]| batch_norm_train(&v[0], &v[1], &v[2], 1e-5).map(|(y, _, _)| y);
                assert_close(&gradients(&[&x, &gamma, &beta], y), &theirs, 2e-5);
            });
        }
    }

    #[test]
    fn statistics_are_right_far_from_zero() {
        let x = (random((4, 3, 8, 8), 1).expect("x") + 1000.0).expect("x");
        let (ones, zeros) = (random(3, 2).expect("gamma"), random(3, 3).expect("beta"));
        let (_, mean, var) = batch_norm_train(&x, &ones, &zeros, 1e-5).expect("batch norm");
        let values = x.flatten_all().and_then(|x| x.to_vec1::<f32>()).expect("values");
        for channel in 0..3 {
            let of: Vec<f64> = (0..4 * 64).map(|i| f64::from(values[(i / 64 * 3 + channel) * 64 + i % 64])).collect();
            let expected = of.iter().sum::<f64>() / 256.0;
            let spread = of.iter().map(|v| (v - expected).powi(2)).sum::<f64>() / 256.0;
            let (mean, var) = (mean.to_vec1::<f32>().expect("mean"), var.to_vec1::<f32>().expect("var"));
            assert!((f64::from(mean[channel]) - expected).abs() < 1e-4);
            assert!((f64::from(var[channel]) / spread - 1.0).abs() < 1e-3, "{} {spread}", var[channel]);
        }
    }

    #[test]
    fn scale_shift_and_its_gradients_equal_composed_operations() {
        for dims in [vec![3, 5, 7, 11], vec![13, 5]] {
            let x = random(dims, 1).expect("x");
            let (scale, shift) = (random(5, 2).expect("scale"), random(5, 3).expect("shift"));
            let theirs = gradients(&[&x, &scale, &shift], |v| affine(&v[0], &v[1], &v[2]));
            on_each_level(|| {
                let ours = gradients(&[&x, &scale, &shift], |v| scale_shift(&v[0], &v[1], &v[2]));
                assert_close(&ours, &theirs, 1e-5);
            });
        }
    }
}
