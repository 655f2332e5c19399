//! Tests of networks in their inference form.

use candle_core::{Device, Tensor};

use super::super::kernels::{EpilogueActivation, testing};
use super::*;

/// A block with a shortcut, whose places are used again, against the same layers with tensors; some images at a time, and
/// fewer after more.
#[test]
fn it_gives_what_its_layers_give() {
    testing::on_each_level(it_gives_what_layers_give);
}

fn it_gives_what_layers_give() {
    let weight = |dims: (usize, usize, usize, usize)| Tensor::randn(0f32, 0.5, dims, &Device::Cpu).expect("a weight");
    let weights = [(8, 3, 3, 3), (12, 8, 3, 3), (12, 8, 1, 1), (12, 12, 3, 3), (5, 192, 1, 1)].map(weight);
    let layer = |at: usize, stride| {
        let padding = weights[at].dims()[2] / 2;
        FrozenConv::new(&weights[at], (stride, padding, 1), None, EpilogueActivation::Relu).expect("a layer")
    };
    let plan = |average| -> Result<Inference> {
        let (mut plan, input) = Plan::new([3, 8, 8]);
        let a = plan.affine(input, 2.0, -1.0);
        let a = plan.conv(a, layer(0, 1), None)?;
        let b = plan.conv(a, layer(2, 2), None)?;
        let c = plan.conv(a, layer(1, 2), None)?;
        let c = plan.conv(c, layer(3, 1), Some(b))?;
        let flat = plan.flatten(c);
        let output = if average { plan.average(c) } else { plan.conv(flat, layer(4, 1), None)? };
        Ok(plan.finish(output))
    };
    let (convolved, averaged) = (plan(false).expect("a network"), plan(true).expect("a network"));
    for images in [3, 1, 5] {
        let x = Tensor::rand(0f32, 1.0, (images, 3, 8, 8), &Device::Cpu).expect("images");
        let expected = || -> candle_core::Result<[Tensor; 2]> {
            let a = layer(0, 1).forward(&x.affine(2.0, -1.0)?, None)?;
            let b = layer(2, 2).forward(&a, None)?;
            let c = layer(3, 1).forward(&layer(1, 2).forward(&a, None)?, Some(&b))?;
            Ok([layer(4, 1).forward(&c.reshape((images, 192, 1, 1))?, None)?, c.mean((2, 3))?])
        };
        let flat = |t: &Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("values");
        for (network, expected) in [&convolved, &averaged].into_iter().zip(expected().expect("maps")) {
            let fill = |input: &mut [f32]| {
                input.copy_from_slice(&flat(&x));
                Ok(())
            };
            let found = network.run(images, fill, <[f32]>::to_vec).expect("an output");
            let expected = flat(&expected);
            assert_eq!(found.len(), expected.len());
            let largest = expected.iter().fold(1.0f32, |largest, value| largest.max(value.abs()));
            assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-5 * largest));
        }
    }
}

/// Layers of every method, with few images and with many.
#[test]
fn later_calls_allocate_nothing() {
    testing::on_each_level(|| testing::with_threads(1, later_calls_do_not_allocate));
}

fn later_calls_do_not_allocate() {
    let (mut plan, input) = Plan::new([3, 16, 16]);
    let mut x = plan.affine(input, 2.0, -1.0);
    for (outputs, inputs, side, stride, groups) in [
        (96, 3, 3, 1, 1),
        (96, 96, 3, 1, 1),
        (96, 1, 3, 1, 96),
        (48, 96, 1, 2, 1),
        (24, 48, 3, 1, 1),
        (24, 24, 3, 1, 1),
        (16, 12, 3, 2, 2),
    ] {
        let weight = Tensor::randn(0f32, 0.1, (outputs, inputs, side, side), &Device::Cpu).expect("a weight");
        let layer = FrozenConv::new(&weight, (stride, side / 2, groups), None, EpilogueActivation::Relu);
        x = plan.conv(x, layer.expect("a layer"), None).expect("fits");
    }
    let network = {
        let mean = plan.average(x);
        plan.finish(mean)
    };
    let run = |images| {
        let fill = |input: &mut [f32]| {
            input.fill(0.5);
            Ok(())
        };
        assert!(network.run(images, fill, |means| means[0].is_finite()).expect("a run"));
    };
    for images in [20, 1, 3] {
        // Methods that only this number of images takes have their first call too.
        run(images);
        assert_eq!(testing::allocations(|| run(images)), 0, "{images} images");
    }
}

#[test]
fn maps_that_do_not_fit_are_refused() {
    let weight = Tensor::zeros((4, 3, 3, 3), candle_core::DType::F32, &Device::Cpu).expect("a weight");
    let layer = || FrozenConv::new(&weight, (1, 1, 1), None, EpilogueActivation::Identity).expect("a layer");
    let (mut plan, x) = Plan::new([3, 8, 8]);
    assert!(plan.conv(x, layer(), Some(x)).is_err());
    let y = plan.conv(x, layer(), None).expect("fits");
    assert!(plan.conv(y, layer(), None).is_err());
}

/// Layers that all threads share between those that each takes some images through, with maps that outlive both; any number of threads
/// and of images.
#[test]
fn stretches_hand_their_maps_on() {
    testing::on_each_level(stretches_hand_maps_on);
}

fn stretches_hand_maps_on() {
    let weight = |dims: (usize, usize, usize, usize)| Tensor::randn(0f32, 0.05, dims, &Device::Cpu).expect("a weight");
    let weights = [
        (64, 3, 3, 3),
        (64, 64, 1, 1),
        (256, 64, 3, 3),
        (64, 256, 1, 1),
        (64, 64, 3, 3),
        (512, 64, 3, 3),
        (24, 512, 1, 1),
    ];
    let weights = weights.map(weight);
    let layer = |at: usize| {
        let padding = weights[at].dims()[2] / 2;
        FrozenConv::new(&weights[at], (1, padding, 1), None, EpilogueActivation::Relu).expect("a layer")
    };
    // Which map each layer takes, and which it adds; map 0 is the input.
    let wiring = [(0, None), (1, None), (2, None), (3, Some(2)), (4, Some(1)), (5, None), (6, None)];
    let network = {
        let (mut plan, input) = Plan::new([3, 8, 8]);
        let mut maps = vec![input];
        for (at, (x, add)) in wiring.into_iter().enumerate() {
            maps.push(plan.conv(maps[x], layer(at), add.map(|add: usize| maps[add])).expect("fits"));
        }
        let last = maps[wiring.len()];
        plan.finish(last)
    };
    for images in [1, 4, 9] {
        let x = Tensor::rand(0f32, 1.0, (images, 3, 8, 8), &Device::Cpu).expect("images");
        let flat = |t: &Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("values");
        let run = |threads| {
            testing::with_threads(threads, || {
                let fill = |input: &mut [f32]| {
                    input.copy_from_slice(&flat(&x));
                    Ok(())
                };
                network.run(images, fill, <[f32]>::to_vec).expect("an output")
            })
        };
        let mut maps = vec![x.clone()];
        for (at, (x, add)) in wiring.into_iter().enumerate() {
            let made = layer(at).forward(&maps[x], add.map(|add: usize| &maps[add]));
            maps.push(made.expect("a map"));
        }
        let (found, expected) = (run(1), flat(&maps[wiring.len()]));
        let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 2e-5 * largest));
        assert!(found == run(2) && found == run(3), "{images} images");
    }
}
