//! A softmax layer on embeddings that stay as they are, trained until nothing changes.

use candle_core::{D, Tensor};

use crate::context::BuildContext;
use crate::error::Result;
use crate::loss::cross_entropy;

/// How a layer is trained.
#[derive(Clone, Copy, Debug)]
pub(super) struct Training {
    /// Penalty on the weights, without the bias: `l2 / 2` times the sum of their squares is added to the mean cross-entropy.
    /// scikit-learn's `C` is `1 / (l2 * faces)`.
    pub(super) l2: f64,
    /// The largest element of the gradient at which it is done.
    pub(super) tolerance: f64,
    /// The most steps.
    pub(super) steps: usize,
}

/// A trained layer.
pub(super) struct Softmax {
    /// Weights and, as the last column, bias: `[people, width + 1]`.
    layer: Tensor,
    /// Mean cross-entropy on the training faces with the penalty.
    pub(super) loss: f64,
    /// Steps that were made.
    pub(super) steps: usize,
    /// Whether the gradient came below the tolerance.
    pub(super) converged: bool,
}

impl Softmax {
    /// The layer for `embeddings` `[faces, width]` of unit length whose people are `people` `[faces]`, below `count`.
    ///
    /// The objective is convex, so it has one minimum and no seed: accelerated gradient descent over all faces (Nesterov's, begun
    /// anew where it overshoots, O'Donoghue and Candes 2015) from zeros, at the step that the objective's curvature allows.
    ///
    /// # Errors
    /// If the device fails, or the user stops.
    pub(super) fn train(
        embeddings: &Tensor,
        people: &[u32],
        count: usize,
        training: Training,
        cx: &BuildContext,
    ) -> Result<Self> {
        let (faces, width) = embeddings.dims2()?;
        let inputs = with_one(embeddings)?;
        let device = embeddings.device();
        let labels = Tensor::new(people, device)?;
        let mut targets = vec![0f32; faces * count];
        people.iter().enumerate().for_each(|(face, person)| targets[face * count + *person as usize] = 1.0);
        let targets = Tensor::from_vec(targets, (faces, count), device)?;
        let mut penalty = vec![training.l2 as f32; width];
        penalty.push(0.0);
        let penalty = Tensor::from_vec(penalty, (1, width + 1), device)?;
        // The softmax's curvature is at most 1/2 in any direction; Frobenius's norm bounds the largest eigenvalue.
        let moments = (inputs.t()?.matmul(&inputs)? / faces as f64)?;
        let curvature = 0.5 * f64::from(moments.sqr()?.sum_all()?.to_scalar::<f32>()?).sqrt() + training.l2;

        let mut layer = Tensor::zeros((count, width + 1), candle_core::DType::F32, device)?;
        let mut ahead = layer.clone();
        let (mut pace, mut converged, mut step) = (1f64, false, 0);
        while step < training.steps && !converged {
            cx.report("softmax layer", step, training.steps)?;
            let probabilities = candle_nn::ops::softmax(&inputs.matmul(&ahead.t()?)?, D::Minus1)?;
            let gradient = ((probabilities - &targets)?.t()?.matmul(&inputs)? / faces as f64)?;
            let gradient = (gradient + ahead.broadcast_mul(&penalty)?)?;
            let next = (&ahead - (&gradient / curvature)?)?;
            let moved = (&next - &layer)?;
            let uphill = (&gradient * &moved)?.sum_all()?.to_scalar::<f32>()? > 0.0;
            let later = if uphill { 1.0 } else { (1.0 + (1.0 + 4.0 * pace * pace).sqrt()) / 2.0 };
            let momentum = if uphill { 0.0 } else { (pace - 1.0) / later };
            converged = f64::from(gradient.abs()?.max_all()?.to_scalar::<f32>()?) <= training.tolerance;
            ahead = (&next + (moved * momentum)?)?;
            (layer, pace) = (next, later);
            step += 1;
        }
        cx.report("softmax layer", step, step)?;
        let weights = layer.sqr()?.broadcast_mul(&penalty)?.sum_all()?.to_scalar::<f32>()?;
        let entropy = cross_entropy(&inputs.matmul(&layer.t()?)?, &labels, 0.0)?.to_scalar::<f32>()?;
        let loss = f64::from(entropy) + f64::from(weights) / 2.0;
        Ok(Self { layer, loss, steps: step, converged })
    }

    /// The logits of `embeddings` `[faces, width]`: `[faces, people]`.
    ///
    /// # Errors
    /// If the device fails.
    pub(super) fn logits(&self, embeddings: &Tensor) -> Result<Tensor> {
        Ok(with_one(embeddings)?.matmul(&self.layer.t()?)?)
    }
}

/// A column of ones behind the others, for the bias.
fn with_one(embeddings: &Tensor) -> Result<Tensor> {
    let ones = Tensor::ones((embeddings.dim(0)?, 1), embeddings.dtype(), embeddings.device())?;
    Ok(Tensor::cat(&[embeddings, &ones], 1)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::context::Bare;

    fn trained(steps: usize) -> Softmax {
        let bare = Bare(Device::Cpu);
        let rows = [[1f32, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]];
        let training = Training { l2: 0.1, tolerance: 1e-6, steps };
        let embeddings = Tensor::new(&rows, &Device::Cpu).expect("rows");
        Softmax::train(&embeddings, &[0, 0, 1, 1], 2, training, &BuildContext::new(&bare)).expect("a layer")
    }

    #[test]
    fn the_minimum_of_two_people_is_that_of_the_logistic_function() {
        let layer = trained(10_000);
        assert!(layer.converged && layer.steps < 500, "{} steps", layer.steps);
        // By symmetry the rows are w and -w: the same as a logistic regression on 2 w, whose gradient is zero here.
        let values = layer.layer.to_vec2::<f32>().expect("values");
        let w: Vec<f64> = values[0].iter().map(|v| f64::from(*v)).collect();
        assert!(values[0].iter().zip(&values[1]).all(|(a, b)| (a + b).abs() < 1e-4), "{values:?}");
        let faces = [([1.0, 0.0], 1.0), ([0.8, 0.6], 1.0), ([0.0, 1.0], 0.0), ([-0.6, 0.8], 0.0)];
        let mut gradient = [0.1 * w[0], 0.1 * w[1], 0.0];
        for (x, y) in faces {
            let p = 1.0 / (1.0 + (-2.0 * (w[0] * x[0] + w[1] * x[1] + w[2])).exp());
            for (sum, x) in gradient.iter_mut().zip([x[0], x[1], 1.0]) {
                *sum += (p - y) * x / 4.0;
            }
        }
        assert!(gradient.iter().all(|g| g.abs() < 1e-4), "{gradient:?}");
    }

    #[test]
    fn too_few_steps_are_admitted() {
        let layer = trained(2);
        assert!(!layer.converged && layer.steps == 2);
    }
}
