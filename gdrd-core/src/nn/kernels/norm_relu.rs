//! Batch normalisation in training with the addition and the ReLU that follow it, in the same passes.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::activation::masked;
use super::buffer::{Filling, floats, supported, tensor, with_floats};
use super::channels::Channels;
use super::cuda;
use super::norm::{Gradients, Statistics, batch_norm_train};
use super::{add_relu, relu};

/// As [`batch_norm_train`], with `relu(y)` or `relu(add + y)` in the place of `y`; `add` receives a gradient too.
///
/// # Errors
/// If the shapes do not fit.
pub fn batch_norm_relu_train(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    add: Option<&Tensor>,
    eps: f64,
) -> Result<(Tensor, Tensor, Tensor)> {
    let channels = Channels::new("batch_norm_relu_train", x.shape(), &[gamma.shape(), beta.shape()])?;
    if let Some(add) = add.filter(|add| add.dims() != x.dims()) {
        bail!("batch_norm_relu_train: shapes {:?} and {:?} differ", x.dims(), add.dims());
    }
    if !supported(&[x, gamma, beta, add.unwrap_or(x)]) {
        if cuda::supported(&[x, gamma, beta, add.unwrap_or(x)]) {
            return cuda::batch_norm_relu_train(x, gamma, beta, add, channels, eps);
        }
        let (y, mean, var) = batch_norm_train(x, gamma, beta, eps)?;
        return Ok((add.map_or_else(|| relu(&y), |add| add_relu(add, &y))?, mean, var));
    }
    let x = x.contiguous()?;
    let (statistics, mean, var) = Statistics::of(&x, channels, eps)?;
    let parameters = Tensor::stack(&[gamma, beta], 0)?;
    let operation = NormRelu { statistics };
    let y = match add {
        None => x.apply_op2(&parameters, operation)?,
        Some(add) => x.apply_op3(&parameters, &add.contiguous()?, operation)?,
    };
    Ok((y, mean, var))
}

struct NormRelu {
    statistics: Statistics,
}

impl Statistics {
    /// `relu(normal(x) * gamma + beta + add)`.
    pub(super) fn relu(&self, x: &[f32], (gammas, betas): (&[f32], &[f32]), add: Option<&[f32]>) -> Vec<f32> {
        let mut out = Filling::new(x.len());
        let target = out.shared();
        self.channels.for_each_plane(|channel, start, len| {
            let (scale, shift) = self.scale_shift(channel, gammas[channel], betas[channel]);
            // SAFETY: every map is visited by one call.
            let slots = unsafe { target.slots(start, len) };
            let positive = |y: f32| if y > 0.0 { y } else { 0.0 };
            match add {
                None => {
                    for (slot, value) in slots.iter_mut().zip(&x[start..start + len]) {
                        slot.write(positive(value * scale + shift));
                    }
                }
                Some(add) => {
                    for ((slot, value), add) in slots.iter_mut().zip(&x[start..start + len]).zip(&add[start..]) {
                        slot.write(positive(add + (value * scale + shift)));
                    }
                }
            }
        });
        // SAFETY: `for_each_plane` visits all maps.
        unsafe { out.finish() }
    }
}

impl NormRelu {
    /// `relu(normal(x) + add)`; `parameters` are all of gamma, then all of beta.
    fn forward(&self, x: &[f32], parameters: &[f32], add: Option<&[f32]>) -> Vec<f32> {
        self.statistics.relu(x, parameters.split_at(self.statistics.channels.count), add)
    }

    /// The gradients of `x` and of the parameters; `result`, if there is one, masks the gradient.
    fn backward(&self, x: &Tensor, parameters: &Tensor, grad: &Tensor, result: Option<&Tensor>) -> Result<[Tensor; 2]> {
        let Statistics { channels, mean, inverse } = &self.statistics;
        with_floats([x, parameters, grad, result.unwrap_or(grad)], |[values, gammas, grads, results]| {
            let result = result.map(|_| results);
            let all = Gradients { channels: *channels, x: values, grad: grads, result, of_batch: true };
            let (dx, d_gamma, d_beta) = all.compute(|c| (mean[c], inverse[c], gammas[c]));
            Ok([tensor(dx, x.shape())?, tensor([d_gamma, d_beta].concat(), parameters.shape())?])
        })
    }
}

impl CustomOp2 for NormRelu {
    fn name(&self) -> &'static str {
        "gdrd-batch-norm-relu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, p: &CpuStorage, pl: &Layout) -> Result<(CpuStorage, Shape)> {
        let out = self.forward(floats(x, xl)?, floats(p, pl)?, None);
        Ok((CpuStorage::F32(out), xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        parameters: &Tensor,
        result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [dx, d_parameters] = self.backward(x, parameters, grad, Some(result))?;
        Ok((Some(dx), Some(d_parameters)))
    }
}

impl CustomOp3 for NormRelu {
    fn name(&self) -> &'static str {
        "gdrd-batch-norm-add-relu"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        p: &CpuStorage,
        pl: &Layout,
        add: &CpuStorage,
        al: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let out = self.forward(floats(x, xl)?, floats(p, pl)?, Some(floats(add, al)?));
        Ok((CpuStorage::F32(out), xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        parameters: &Tensor,
        _: &Tensor,
        result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = with_floats([grad, result], |[grad, result]| tensor(masked(grad, result), x.shape()))?;
        let [dx, d_parameters] = self.backward(x, parameters, &grad, None)?;
        Ok((Some(dx), Some(d_parameters), Some(grad)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, gradients, on_each_level, random};
    use super::*;

    /// To the bit, so that a run is the same whichever form it takes.
    #[test]
    fn it_equals_its_parts() {
        on_each_level(it_equals_parts);
    }

    fn it_equals_parts() {
        for dims in [vec![3, 5, 7, 11], vec![2, 33, 4, 4], vec![13, 5]] {
            let (x, add) = (random(dims.clone(), 1).expect("x"), random(dims.clone(), 4).expect("add"));
            let (gamma, beta) = (random(dims[1], 2).expect("gamma"), random(dims[1], 3).expect("beta"));
            let ours = gradients(&[&x, &gamma, &beta], |v| {
                batch_norm_relu_train(&v[0], &v[1], &v[2], None, 1e-5).map(|(y, _, _)| y)
            });
            let parts = gradients(&[&x, &gamma, &beta], |v| relu(&batch_norm_train(&v[0], &v[1], &v[2], 1e-5)?.0));
            assert_close(&ours, &parts, 0.0);
            let ours = gradients(&[&x, &gamma, &beta, &add], |v| {
                batch_norm_relu_train(&v[0], &v[1], &v[2], Some(&v[3]), 1e-5).map(|(y, _, _)| y)
            });
            let parts = gradients(&[&x, &gamma, &beta, &add], |v| {
                add_relu(&v[3], &batch_norm_train(&v[0], &v[1], &v[2], 1e-5)?.0)
            });
            assert_close(&ours, &parts, 0.0);
        }
    }
}
