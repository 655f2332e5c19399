//! The layers and the student `resnet-trunk` are PyTorch's, forward and backward; `golden/layers/ORIGIN.md` says how.

use candle_core::{Tensor, Var};
use gdrd_core::context::Bare;
use gdrd_core::error::Result;
use gdrd_core::face::FaceBatch;
use gdrd_core::nn::kernels::Instructions;
use gdrd_core::nn::{BatchNorm, Conv2d, ConvConfig, GroupNorm, Linear, Mode, PRelu, Weights};
use gdrd_student::networks::{HeadOptions, Pool, ResnetTrunk};

use crate::golden::{Golden, formula, trainable};

/// Compares the output, the gradients of the input and of every parameter, and the running statistics afterwards.
fn layer<L>(
    golden: &Golden,
    name: &str,
    shape: &[usize],
    new: impl Fn(&Weights) -> Result<L>,
    forward: impl Fn(&L, &Tensor) -> Result<Tensor>,
) {
    on_each_level(|| compare_layer(golden, name, shape, &new, &forward));
}

fn compare_layer<L>(
    golden: &Golden,
    name: &str,
    shape: &[usize],
    new: impl Fn(&Weights) -> Result<L>,
    forward: impl Fn(&L, &Tensor) -> Result<Tensor>,
) {
    let (layer, made) = trainable(golden, name, new);
    let x = Var::from_tensor(&formula::image(&format!("{name}.x"), shape)).expect("a variable");
    let y = forward(&layer, &x).expect("an output");
    golden.compare(&format!("{name}.y"), &y);
    let gradients = probe(name, &[&y]).backward().expect("gradients");
    golden.compare(&format!("{name}.d_x"), gradients.get(&x).expect("a gradient of the input"));
    golden.compare_gradients(name, &made, &gradients);
    for (buffer, var) in &made.buffers {
        golden.compare(&format!("{name}.after.{buffer}"), var);
    }
}

/// Runs `check` with every level of instructions that this machine has.
fn on_each_level(check: impl Fn()) {
    for level in Instructions::available() {
        level.scope(&check).expect("the machine has it");
    }
}

/// The sum of all answers, each weighted by formula-made numbers.
fn probe(name: &str, answers: &[&Tensor]) -> Tensor {
    let weighted = |(at, answer): (usize, &&Tensor)| {
        let weights = formula::image(&format!("{name}.probe{at}"), answer.shape());
        (*answer * weights).and_then(|product| product.sum_all()).expect("a sum")
    };
    answers.iter().enumerate().map(weighted).reduce(|sum, next| (sum + next).expect("a sum")).expect("an answer")
}

#[test]
fn normalisation() {
    let golden = Golden::read("layers");
    for (name, shape, mode) in [
        ("bn_maps", [3, 5, 4, 6].as_slice(), Mode::Train),
        ("bn_maps_used", &[3, 5, 4, 6], Mode::Evaluate),
        ("bn_rows", &[4, 7], Mode::Train),
        ("bn_rows_used", &[4, 7], Mode::Evaluate),
        ("bn_wide", &[2, 33, 3, 3], Mode::Train),
    ] {
        layer(&golden, name, shape, |weights| BatchNorm::new(shape[1], weights), |norm, x| norm.forward(x, mode));
    }
    for (name, shape, groups) in [("group_norm", [2, 12, 3, 5], 4), ("group_norm_one", [2, 6, 4, 4], 1)] {
        layer(&golden, name, &shape, |weights| GroupNorm::new(groups, shape[1], weights), |norm, x| norm.forward(x));
    }
}

#[test]
fn linear_maps_and_activations() {
    let golden = Golden::read("layers");
    for (name, bias) in [("linear", true), ("linear_plain", false)] {
        layer(&golden, name, &[3, 9], |weights| Linear::new(9, 5, bias, weights), Linear::forward);
    }
    layer(&golden, "prelu", &[2, 5, 3, 4], |weights| PRelu::new(5, weights), PRelu::forward);
}

#[test]
fn convolutions() {
    let golden = Golden::read("layers");
    let config = |stride, padding, groups, bias| ConvConfig { stride, padding, groups, bias };
    for (name, shape, outputs, kernel, config) in [
        ("conv_same", [2, 16, 8, 8], 24, 3, config(1, 1, 1, false)),
        ("conv_same_odd", [3, 5, 7, 9], 6, 3, config(1, 1, 1, true)),
        ("conv_four", [2, 32, 4, 4], 32, 3, config(1, 1, 1, false)),
        ("conv_strided", [2, 6, 9, 8], 10, 3, config(2, 1, 1, true)),
        ("conv_point", [2, 12, 5, 5], 7, 1, config(1, 0, 1, true)),
        ("conv_point_strided", [2, 12, 8, 8], 7, 1, config(2, 0, 1, false)),
        ("conv_valid", [2, 4, 7, 7], 6, 3, config(1, 0, 1, true)),
        ("conv_five", [1, 3, 11, 11], 4, 5, config(2, 2, 1, true)),
        ("conv_groups", [2, 12, 6, 6], 8, 3, config(1, 1, 4, true)),
        ("conv_depthwise", [2, 10, 7, 7], 10, 3, config(1, 1, 10, true)),
        ("conv_depthwise_strided", [2, 10, 8, 8], 10, 3, config(2, 1, 10, false)),
        ("conv_depthwise_whole", [2, 6, 7, 7], 6, 7, config(1, 0, 6, false)),
    ] {
        let new = |weights: &Weights| Conv2d::new(shape[1], outputs, kernel, config, weights);
        layer(&golden, name, &shape, new, Conv2d::forward);
    }
}

fn compare_student(name: &str, size: usize, config: &ResnetTrunk) {
    let golden = Golden::read("layers");
    on_each_level(|| compare_student_now(&golden, name, size, config));
}

fn compare_student_now(golden: &Golden, name: &str, size: usize, config: &ResnetTrunk) {
    let (student, made) = trainable(golden, name, |weights| {
        gdrd_core::student::build(config, size, weights, &Bare(candle_core::Device::Cpu))
    });
    let x = formula::image(&format!("{name}.x"), (4, 3, size, size)).affine(0.5, 0.5).expect("faces");
    let x = Var::from_tensor(&x).expect("a variable");
    let faces = FaceBatch::from_tensor(x.as_tensor().clone()).expect("a batch");
    let map = student.backbone(&faces, Mode::Train).expect("a map");
    let embedding = student.head(&map, Mode::Train).expect("an embedding");
    golden.compare(&format!("{name}.map"), &map);
    golden.compare(&format!("{name}.embedding"), &embedding);
    let gradients = probe(name, &[&map, &embedding]).backward().expect("gradients");
    golden.compare(&format!("{name}.d_x"), gradients.get(&x).expect("a gradient of the faces"));
    golden.compare_gradients(name, &made, &gradients);
    for (buffer, var) in &made.buffers {
        golden.compare(&format!("{name}.after.{buffer}"), var);
    }
    let map = student.backbone(&faces, Mode::Evaluate).expect("a map");
    golden.compare(&format!("{name}.used"), &student.head(&map, Mode::Evaluate).expect("an embedding"));
}

#[test]
fn resnet_trunk() {
    let config =
        ResnetTrunk { channels: vec![6, 8, 12], blocks: vec![2, 1, 2], embedding: 5, ..ResnetTrunk::default() };
    compare_student("student", 16, &config);
}

#[test]
fn resnet_trunk_with_other_options() {
    let config = ResnetTrunk {
        channels: vec![8, 6],
        blocks: vec![1, 2],
        strides: vec![2, 2],
        last_relu: false,
        embedding: 5,
        head: HeadOptions { pool: Pool::Average, hidden: vec![7], normalise: true, ..HeadOptions::default() },
        ..ResnetTrunk::default()
    };
    compare_student("student_other", 9, &config);
}

#[test]
fn the_default_student_has_every_parameter() {
    let golden = Golden::read("layers");
    let (_, made) = trainable(&golden, "default", |weights| {
        gdrd_core::student::build(&ResnetTrunk::default(), 16, weights, &Bare(candle_core::Device::Cpu))
    });
    let count: usize = made.parameters.values().map(|var| var.elem_count()).sum();
    assert_eq!(count as i64, golden.number("default.parameters"));
}
