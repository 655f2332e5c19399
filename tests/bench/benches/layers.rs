//! Single layers of the paper's student at 16x16, batch 96: `cargo bench -p gdrd-bench -- [FILTER]`.
//!
//! Throughput counts the multiplications and additions of the direct form of a convolution (three times as many with its
//! gradients), and the values of a map for the other layers.
#![allow(missing_docs, reason = "criterion's macros make functions without any")]

use candle_core::{Device, Result, Tensor, Var};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use gdrd_core::nn::kernels::{add_relu, batch_norm_train, conv2d, prelu, relu, scale_shift};

const BATCH: usize = 96;

/// Channels and sizes of the student's stages.
const MAPS: [(usize, usize); 3] = [(128, 16), (256, 8), (512, 4)];

/// `(name, inputs, outputs, size, kernel, stride, groups)`
const CONVOLUTIONS: [(&str, usize, usize, usize, usize, usize, usize); 10] = [
    ("3x3 3-128 at 16", 3, 128, 16, 3, 1, 1),
    ("3x3 128-128 at 16", 128, 128, 16, 3, 1, 1),
    ("3x3 256-256 at 8", 256, 256, 8, 3, 1, 1),
    ("3x3 512-512 at 4", 512, 512, 4, 3, 1, 1),
    ("3x3 stride 2 128-256 at 16", 128, 256, 16, 3, 2, 1),
    ("3x3 stride 2 256-512 at 8", 256, 512, 8, 3, 2, 1),
    ("1x1 stride 2 128-256 at 16", 128, 256, 16, 1, 2, 1),
    ("1x1 stride 2 256-512 at 8", 256, 512, 8, 1, 2, 1),
    ("1x1 512-512 at 4", 512, 512, 4, 1, 1, 1),
    ("depthwise 3x3 128 at 16", 128, 128, 16, 3, 1, 128),
];

fn random(dims: &[usize]) -> Var {
    Var::randn(0f32, 1.0, dims, &Device::Cpu).expect("random values")
}

/// Measures `layer` on detached inputs, and with the gradients of all of them.
fn both(c: &mut Criterion, name: &str, count: u64, vars: &[Var], layer: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    let still: Vec<Tensor> = vars.iter().map(|var| var.as_detached_tensor()).collect();
    group.throughput(Throughput::Elements(count));
    group.bench_function("forward", |b| b.iter(|| layer(&still).expect("output")));
    let live: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    group.throughput(Throughput::Elements(3 * count));
    let step = || layer(&live).and_then(|y| y.backward());
    group.bench_function("forward and backward", |b| b.iter(|| step().expect("gradients")));
    group.finish();
}

fn convolutions(c: &mut Criterion) {
    for (name, inputs, outputs, size, kernel, stride, groups) in CONVOLUTIONS {
        let vars = [random(&[BATCH, inputs, size, size]), random(&[outputs, inputs / groups, kernel, kernel])];
        let count = 2 * BATCH * outputs * (size / stride).pow(2) * inputs / groups * kernel * kernel;
        both(c, &format!("conv {name}"), count as u64, &vars, |v| conv2d(&v[0], &v[1], stride, kernel / 2, groups));
    }
}

fn pointwise(c: &mut Criterion) {
    for (channels, size) in MAPS {
        let (x, y) = (random(&[BATCH, channels, size, size]), random(&[BATCH, channels, size, size]));
        let (a, b) = (random(&[channels]), random(&[channels]));
        let count = x.elem_count() as u64;
        let name = |layer: &str| format!("{layer} {channels} at {size}");
        let parts = [x.clone(), a.clone(), b];
        both(c, &name("batch norm, training"), count, &parts, |v| {
            batch_norm_train(&v[0], &v[1], &v[2], 1e-5).map(|(y, _, _)| y)
        });
        both(c, &name("batch norm, evaluation"), count, &parts, |v| scale_shift(&v[0], &v[1], &v[2]));
        both(c, &name("relu"), count, std::slice::from_ref(&x), |v| relu(&v[0]));
        both(c, &name("prelu"), count, &[x.clone(), a], |v| prelu(&v[0], &v[1]));
        both(c, &name("add and relu"), count, &[x, y], |v| add_relu(&v[0], &v[1]));
    }
}

criterion_group!(layers, convolutions, pointwise);
criterion_main!(layers);
