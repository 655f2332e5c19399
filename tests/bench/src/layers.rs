//! Single layers of gdrd, and the most that the machine's cores can do.

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::{Device, Tensor, Var};
use gdrd_core::nn::kernels::{WeightPrecision, backward, conv2d, linear};
use gdrd_core::nn::{Activation, Conv2d, ConvConfig, Inference, Linear, Plan, Weights};
use gemm::Parallelism;
use serde::{Deserialize, Serialize};

use crate::Result;

/// Copies of a layer that are timed together, each with weights of its own: they come from memory, as in a network, and entering and
/// leaving the network's layout of maps weighs little.
const COPIES: usize = 8;

/// A layer of `files.py`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Layer {
    kind: Kind,
    inputs: usize,
    outputs: usize,
    size: usize,
    kernel: usize,
    stride: usize,
    groups: usize,
    batch: usize,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Conv,
    Linear,
}

/// What a layer takes. GFLOP count the multiplications and additions of the direct form, whatever the kernel does.
#[derive(Serialize)]
pub(crate) struct Speed {
    gflop: f64,
    /// In the form of a network that embeds.
    forward_seconds: f64,
    /// Forward and backward, with both gradients.
    training_seconds: f64,
}

/// The speed of each layer, with weights held in `precision`.
pub(crate) fn measure(layers: &[Layer], precision: WeightPrecision) -> Result<Vec<Speed>> {
    layers.iter().map(|layer| layer.speed(precision)).collect()
}

impl Layer {
    fn speed(&self, precision: WeightPrecision) -> Result<Speed> {
        let &Self { inputs, outputs, size, kernel, stride, groups, batch, .. } = self;
        let padding = if kernel == 7 { 0 } else { kernel / 2 };
        let random = |dims: &[usize]| Var::randn(0f32, 1.0, dims, &Device::Cpu);
        let (x, w) = match self.kind {
            Kind::Conv => (random(&[batch, inputs, size, size])?, random(&[outputs, inputs / groups, kernel, kernel])?),
            Kind::Linear => (random(&[batch, inputs])?, random(&[outputs, inputs])?),
        };
        let layer = |x: &Tensor, w: &Tensor| match self.kind {
            Kind::Conv => conv2d(x, w, stride, padding, groups),
            Kind::Linear => linear(x, w),
        };
        let out = (size + 2 * padding - kernel) / stride + 1;
        let multiplications = batch * outputs * out * out * inputs / groups * kernel * kernel;
        let network = self.network(&w.as_detached_tensor(), precision)?;
        let values = x.as_detached_tensor().flatten_all()?.to_vec1::<f32>()?;
        let forward = || {
            let fill = |input: &mut [f32]| {
                input.copy_from_slice(&values);
                Ok(())
            };
            Ok(network.run(batch, fill, |_| ())?)
        };
        Ok(Speed {
            gflop: 2e-9 * multiplications as f64,
            forward_seconds: median(forward)? / COPIES as f64,
            training_seconds: median(|| Ok(backward(&layer(&x, &w)?)?))?,
        })
    }

    /// Copies of the layer, all of which read the input.
    fn network(&self, weight: &Tensor, precision: WeightPrecision) -> Result<Inference> {
        let &Self { inputs, outputs, size, kernel, stride, groups, .. } = self;
        let tensors = BTreeMap::from([("weight".to_string(), weight.clone())]);
        let mut network = Weights::read(
            tensors,
            &Device::Cpu,
            |_| false,
            |weights| {
                let config =
                    ConvConfig { stride, padding: if kernel == 7 { 0 } else { kernel / 2 }, groups, bias: false };
                let (mut plan, x) = Plan::new([inputs, size, size]);
                let mut y = x;
                for _ in 0..COPIES {
                    y = match self.kind {
                        Kind::Conv => Conv2d::new(inputs, outputs, kernel, config, weights)?.plan(
                            &mut plan,
                            x,
                            None,
                            &Activation::Identity,
                        )?,
                        Kind::Linear => Linear::new(inputs, outputs, false, weights)?.plan(
                            &mut plan,
                            x,
                            None,
                            &Activation::Identity,
                        )?,
                    };
                }
                Ok(plan.finish(y))
            },
        )?;
        network.hold(precision)?;
        Ok(network)
    }
}

/// GFLOP/s of the fastest product of 512x512 matrices of float32, on one thread and on all.
#[derive(Serialize)]
pub(crate) struct Peaks {
    one_thread: f64,
    all_threads: f64,
}

/// The machine's peaks.
pub(crate) fn peaks(threads: usize) -> Result<Peaks> {
    Ok(Peaks { one_thread: peak(Parallelism::None)?, all_threads: peak(Parallelism::Rayon(threads))? })
}

fn peak(parallelism: Parallelism) -> Result<f64> {
    const SIDE: usize = 512;
    let matrix = || Tensor::randn(0f32, 1.0, (SIDE, SIDE), &Device::Cpu)?.to_vec2::<f32>();
    let (left, right) = (matrix()?.concat(), matrix()?.concat());
    let mut product = vec![0f32; SIDE * SIDE];
    let stride = SIDE as isize;
    let seconds = timed(|| {
        #[allow(unsafe_code, reason = "gemm takes pointers")]
        // SAFETY: the three matrices are SIDE x SIDE, row by row.
        unsafe {
            let (to, left, right) = (product.as_mut_ptr(), left.as_ptr(), right.as_ptr());
            gemm::gemm(
                SIDE,
                SIDE,
                SIDE,
                to,
                1,
                stride,
                false,
                left,
                1,
                stride,
                right,
                1,
                stride,
                0.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
        Ok(())
    })?;
    Ok(2e-9 * (SIDE * SIDE * SIDE) as f64 / seconds[0])
}

/// The seconds of at least five runs and about half a second, after one that does not count; the fastest first.
fn timed<T>(mut run: impl FnMut() -> Result<T>) -> Result<Vec<f64>> {
    run()?;
    let (start, mut seconds) = (Instant::now(), Vec::new());
    while seconds.len() < 5 || start.elapsed().as_secs_f64() < 0.5 {
        let start = Instant::now();
        run()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds)
}

fn median<T>(run: impl FnMut() -> Result<T>) -> Result<f64> {
    let seconds = timed(run)?;
    Ok(seconds[seconds.len() / 2])
}
