//! Weights and inputs that Rust and Python make alike; `golden/formula.py` is the same formula.

use std::collections::BTreeMap;

use candle_core::{Device, Shape, Tensor};
use gdrd_core::nn::weights::Variables;

fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811C_9DC5, |state, byte| (state ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// `count` numbers in `[-1, 1)`.
fn uniform(name: &str, count: usize) -> Vec<f32> {
    let seed = fnv1a(name);
    let number = |index: usize| {
        let mut x = (index as u32).wrapping_mul(0x9E37_79B9).wrapping_add(seed);
        for (shift, factor) in [(16, 0x85EB_CA6B), (13, 0xC2B2_AE35)] {
            x = (x ^ (x >> shift)).wrapping_mul(factor);
        }
        x ^= x >> 16;
        (x >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(number).collect()
}

/// An input in `[-1, 1)`.
pub(crate) fn image(name: &str, shape: impl Into<Shape>) -> Tensor {
    let shape = shape.into();
    let values = uniform(name, shape.elem_count());
    Tensor::from_vec(values, shape, &Device::Cpu).expect("as many values as the shape holds")
}

/// The bytes of an image.
pub(crate) fn bytes(name: &str, count: usize) -> Vec<u8> {
    uniform(name, count).into_iter().map(|value| ((value + 1.0) * 128.0) as u8).collect()
}

/// The weight of this name and shape.
pub(crate) fn tensor(name: &str, dims: &[usize]) -> Tensor {
    let mut values = uniform(name, dims.iter().product());
    let fan_in: usize = dims[1..].iter().product();
    let scales = name.ends_with("weight") || name.ends_with("running_var");
    let (offset, factor) = match dims.len() {
        1 if scales => (0.75, 0.5),
        1 => (0.0, 0.125),
        _ => (0.0, (3.0 / fan_in as f64).sqrt() as f32),
    };
    values.iter_mut().for_each(|value| *value = offset + factor * *value);
    Tensor::from_vec(values, dims, &Device::Cpu).expect("as many values as the shape holds")
}

/// The formula's tensors for every name and shape of `made`, and the hash of the names and shapes.
pub(crate) fn tensors(made: &Variables) -> (BTreeMap<String, Tensor>, i64) {
    let mut tensors = made.tensors();
    let mut lines = String::new();
    for (name, weight) in &mut tensors {
        let dims = weight.dims().to_vec();
        lines += &format!("{name} {dims:?}\n");
        *weight = tensor(name, &dims);
    }
    (tensors, i64::from(fnv1a(&lines)))
}
