//! Tests of frozen convolutions.

use super::super::testing::{assert_close, flat, on_each_level, random};
use super::super::{conv2d, prelu, relu, scale_shift};
use super::*;

/// Every method, with every activation, with and without an addition.
#[test]
fn it_equals_the_layers_one_by_one() {
    on_each_level(it_equals_the_layers);
}

fn it_equals_the_layers() {
    for (x, w, stride, padding, groups) in [
        ((5, 17, 8, 8), (19, 17, 3, 3), 1, 1, 1),
        ((1, 32, 8, 8), (272, 32, 3, 3), 1, 1, 1),
        ((40, 32, 16, 16), (33, 32, 3, 3), 1, 1, 1),
        ((1, 48, 4, 4), (33, 48, 3, 3), 1, 1, 1),
        ((3, 19, 9, 7), (21, 19, 3, 3), 2, 1, 1),
        ((2, 40, 7, 7), (33, 40, 1, 1), 1, 0, 1),
        ((2, 12, 8, 8), (12, 1, 3, 3), 2, 1, 12),
        ((2, 12, 9, 9), (8, 6, 3, 3), 1, 1, 2),
        ((2, 3, 16, 16), (8, 3, 3, 3), 1, 1, 1),
    ] {
        let outputs = w.0;
        let (x, w) = (random(x, 1).expect("x"), random(w, 2).expect("weight"));
        let [scale, shift, slopes] = [3, 4, 5].map(|seed| random(outputs, seed).expect("values"));
        let plain = conv2d(&x, &w, stride, padding, groups).and_then(|y| scale_shift(&y, &scale, &shift));
        let plain = plain.expect("a map");
        let other = random(plain.dims().to_vec(), 6).expect("a map");
        for add in [None, Some(&other)] {
            let sum = add.map_or(Ok(plain.clone()), |add| &plain + add).expect("a sum");
            let slope = flat(&slopes);
            for (activation, expected) in [
                (EpilogueActivation::Identity, Ok(sum.clone())),
                (EpilogueActivation::Relu, relu(&sum)),
                (EpilogueActivation::Relu6, sum.clamp(0f32, 6f32)),
                (EpilogueActivation::PRelu(&slope), prelu(&sum, &slopes)),
            ] {
                let scale_shift = Some((flat(&scale), flat(&shift)));
                let layer = FrozenConv::new(&w, (stride, padding, groups), scale_shift, activation);
                let found = layer.and_then(|layer| layer.forward(&x, add)).expect("a map");
                assert_eq!(found.dims(), plain.dims());
                assert_close(&[flat(&found)], &[flat(&expected.expect("a map"))], 0.0);
            }
        }
    }
}

/// Every method, with every activation, with and without an addition, over maps whose channels lie side by side.
#[test]
fn over_pixels_it_is_the_same_layer() {
    on_each_level(over_pixels_it_is_the_same);
}

/// The layer's output over pixels, as maps.
fn over_pixels(layer: &FrozenConv, x: &Tensor, add: Option<&Tensor>) -> Vec<f32> {
    let (images, channels, height, width) = x.dims4().expect("maps");
    let pixels = |maps: &Tensor| {
        let (images, channels, height, width) = maps.dims4().expect("maps");
        let mut to = vec![f32::NAN; pixels::len(images, channels, height * width)];
        pixels::from_maps(&flat(maps), channels, height * width, &mut to);
        to
    };
    let [outputs, out_height, out_width] = layer.output((images, channels, height, width)).expect("fits");
    let mut out = vec![f32::NAN; pixels::len(images, outputs, out_height * out_width)];
    let (map, add) = (([channels, height, width], false), add.map(pixels));
    layer.write_pixels((images, images), map, &pixels(x), add.as_deref(), &mut out).expect("a map");
    let mut maps = vec![0f32; images * outputs * out_height * out_width];
    pixels::to_maps(&out, outputs, out_height * out_width, &mut maps);
    maps
}

fn over_pixels_it_is_the_same() {
    for (x, w, stride, padding, groups) in [
        ((5, 17, 8, 8), (19, 17, 3, 3), 1, 1, 1),
        ((40, 32, 16, 16), (33, 32, 3, 3), 1, 1, 1),
        ((3, 19, 9, 7), (21, 19, 3, 3), 2, 1, 1),
        ((2, 40, 7, 7), (33, 40, 1, 1), 1, 0, 1),
        ((2, 12, 8, 8), (12, 1, 3, 3), 2, 1, 12),
        ((2, 12, 9, 9), (8, 6, 3, 3), 1, 1, 2),
        ((2, 3, 16, 16), (8, 3, 3, 3), 1, 1, 1),
        ((2, 6, 5, 5), (3, 6, 3, 3), 1, 1, 1),
    ] {
        let outputs = w.0;
        let (x, w) = (random(x, 1).expect("x"), random(w, 2).expect("weight"));
        let [scale, shift, slopes] = [3, 4, 5].map(|seed| flat(&random(outputs, seed).expect("values")));
        for activation in [
            EpilogueActivation::Identity,
            EpilogueActivation::Relu,
            EpilogueActivation::Relu6,
            EpilogueActivation::PRelu(&slopes),
        ] {
            let layer = || {
                let scale_shift = Some((scale.clone(), shift.clone()));
                FrozenConv::new(&w, (stride, padding, groups), scale_shift, activation).expect("a layer")
            };
            let other = layer().forward(&x, None).and_then(|y| random(y.dims().to_vec(), 6)).expect("a map");
            for add in [None, Some(&other)] {
                let expected = flat(&layer().forward(&x, add).expect("a map"));
                let mut held = layer();
                assert_close(&[over_pixels(&held, &x, add)], std::slice::from_ref(&expected), 2e-5);
                let (_, channels, height, width) = x.dims4().expect("maps");
                held.hold([channels, height, width], false, WeightPrecision::Float32).expect("held");
                assert_close(&[over_pixels(&held, &x, add)], std::slice::from_ref(&expected), 2e-5);
                assert_close(&[flat(&held.forward(&x, add).expect("a map"))], &[expected], 0.0);
            }
        }
    }
}

/// Weights that were rounded to bfloat16 give what rounded weights give in float32, and no precision changes those.
#[test]
fn weights_are_held_in_bfloat16() {
    on_each_level(|| {
        for (x, w, stride) in [((2, 17, 8, 8), (19, 17, 3, 3), 2), ((2, 40, 7, 7), (50, 40, 1, 1), 1)] {
            let (x, w) = (random(x, 1).expect("x"), random(w, 2).expect("weight"));
            let rounded = w.to_dtype(candle_core::DType::BF16).and_then(|w| w.to_dtype(candle_core::DType::F32));
            let (rounded, padding) = (rounded.expect("weights"), w.dims()[2] / 2);
            let layer =
                |w: &Tensor| FrozenConv::new(w, (stride, padding, 1), None, EpilogueActivation::Relu).expect("a layer");
            let (_, channels, height, width) = x.dims4().expect("maps");
            let held = |w: &Tensor, precision| {
                let mut layer = layer(w);
                layer.hold([channels, height, width], false, precision).expect("held");
                [over_pixels(&layer, &x, None), flat(&layer.forward(&x, None).expect("a map"))]
            };
            let expected =
                [over_pixels(&layer(&rounded), &x, None), flat(&layer(&rounded).forward(&x, None).expect("a map"))];
            assert_ne!(expected[0], over_pixels(&layer(&w), &x, None));
            assert_eq!(held(&w, WeightPrecision::Bfloat16), expected);
            assert_eq!(held(&rounded, WeightPrecision::Float32), expected);
            assert_eq!(held(&rounded, WeightPrecision::Bfloat16), expected);
            // 8 bits are what is asked for, whatever was held before, and stay.
            let once = held(&rounded, WeightPrecision::Int8);
            let mut layer = layer(&rounded);
            for precision in [WeightPrecision::Float32, WeightPrecision::Int8, WeightPrecision::Bfloat16] {
                layer.hold([channels, height, width], false, precision).expect("held");
            }
            assert!(once[0] != expected[0] && over_pixels(&layer, &x, None) == once[0]);
        }
    });
}

/// A wide layer takes a few images with the kernels that it holds, whatever the method, and packs no others for them.
#[test]
fn wide_layers_pack_nothing_for_a_few_images() {
    on_each_level(|| {
        let (inputs, outputs) = (272, 512);
        let w = random((outputs, inputs, 3, 3), 1).expect("weight");
        let mut layer = FrozenConv::new(&w, (1, 1, 1), None, EpilogueActivation::Relu).expect("a layer");
        layer.hold([inputs, 4, 4], false, WeightPrecision::Float32).expect("held");
        for images in [1, 9] {
            let x = random((images, inputs, 4, 4), 2).expect("x");
            let shape = ConvShape::new((images, inputs, 4, 4), (outputs, inputs, 3, 3), 1, 1, 1).expect("fits");
            let expected = flat(&conv2d(&x, &w, 1, 1, 1).and_then(|y| y.relu()).expect("a map"));
            assert_close(&[over_pixels(&layer, &x, None)], &[expected], 2e-5);
            if takes_pixels() {
                assert!(METHODS[place_for_pixels(&shape)].reads_panels(&shape), "{shape:?}");
                assert!(layer.pixels.iter().all(|packed| packed.get().is_none()), "{layer:?}");
            }
        }
    });
}

/// Kernels that lie packed for some instructions are left alone by others.
#[test]
fn one_layer_serves_all_instructions() {
    for stride in [1, 2] {
        let (x, w) = (random((2, 16, 8, 8), 1).expect("x"), random((24, 16, 3, 3), 2).expect("weight"));
        let layer = || FrozenConv::new(&w, (stride, 1, 1), None, EpilogueActivation::Relu).expect("a layer");
        let shared = layer();
        on_each_level(|| {
            let (found, expected) = (shared.forward(&x, None), layer().forward(&x, None));
            assert!(flat(&found.expect("a map")) == flat(&expected.expect("a map")));
        });
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (x, w) = (random((1, 3, 8, 8), 1).expect("x"), random((4, 3, 3, 3), 2).expect("weight"));
    assert!(FrozenConv::new(&w, (1, 1, 1), Some((vec![1.0; 4], vec![1.0; 3])), EpilogueActivation::Relu).is_err());
    assert!(FrozenConv::new(&w, (1, 1, 1), None, EpilogueActivation::PRelu(&[0.5])).is_err());
    let layer = FrozenConv::new(&w, (1, 1, 1), None, EpilogueActivation::Identity).expect("a layer");
    let other = random((1, 4, 7, 8), 3).expect("a map");
    assert!(layer.forward(&x, Some(&other)).is_err());
    assert!(layer.forward(&random((1, 4, 8, 8), 1).expect("x"), None).is_err());
    let shape = layer.shape((1, 3, 8, 8)).expect("fits");
    let mut out = vec![MaybeUninit::uninit(); shape.output_len() - 1];
    assert!(layer.run(&shape, &flat(&x), None, &mut out).is_err());
}
