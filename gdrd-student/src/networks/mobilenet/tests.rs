//! Tests of the student.

use std::rc::Rc;

use candle_core::{DType, Device};
use gdrd_core::context::Bare;
use gdrd_core::nn::Weights;
use gdrd_core::nn::weights::{Draw, Variables};

use super::layers::divisible;
use super::*;

fn build(config: &MobileNet, size: usize) -> (Box<dyn Student>, Variables) {
    let draw: Rc<Draw> = Rc::new(|name, count, _| match name.ends_with("running_var") {
        true => vec![1.0; count],
        false => (0..count).map(|at| ((name.len() * 31 + at * 7919) % 201) as f32 / 500.0 - 0.2).collect(),
    });
    Weights::create(&Device::Cpu, draw, |w| gdrd_core::student::build(config, size, w, &Bare(Device::Cpu)))
        .expect("student")
}

#[test]
fn the_backbones_have_as_many_parameters_as_the_published_ones() {
    use MobileNetVersion::{V1, V3Large, V3Small};
    for (version, expected) in [(V1, 3_206_976), (V3Small, 927_008), (V3Large, 2_971_952)] {
        let (_, made) = build(&MobileNet { version, ..MobileNet::default() }, 16);
        let backbone = made.parameters.iter().filter(|(name, _)| name.starts_with("backbone."));
        assert_eq!(backbone.map(|(_, var)| var.elem_count()).sum::<usize>(), expected, "{version:?}");
    }
}

#[test]
fn the_last_strides_are_kept() {
    use MobileNetVersion::{V1, V3Large, V3Small};
    for (version, channels) in [(V1, 512), (V3Small, 288), (V3Large, 480)] {
        for (reductions, pixels) in [(0, 16), (2, 4), (5, 1)] {
            let config = MobileNet { version, width: 0.5, reductions, embedding: 5, ..MobileNet::default() };
            let (student, _) = build(&config, 16);
            assert_eq!(student.card().map, [channels, pixels, pixels], "{version:?}");
            let faces = Tensor::zeros((2, 3, 16, 16), DType::F32, &Device::Cpu).expect("faces");
            let map = student.backbone(&FaceBatch::from_tensor(faces).expect("batch"), Mode::Train).expect("map");
            assert_eq!(map.dims()[1..], student.card().map);
            assert_eq!(student.head(&map, Mode::Train).expect("embedding").dims(), [2, 5]);
        }
    }
}

#[test]
fn the_inference_form_gives_the_same_embeddings() {
    let config = MobileNet { version: MobileNetVersion::V1, width: 0.25, embedding: 7, ..MobileNet::default() };
    let (_, made) = build(&config, 16);
    let new = |w: &Weights| gdrd_core::student::build(&config, 16, w, &Bare(Device::Cpu));
    let student = Weights::read(made.tensors(), &Device::Cpu, |_| false, new).expect("student");
    let network = student.inference().expect("fits").expect("a form");
    let faces = Tensor::rand(0f32, 1.0, (3, 3, 16, 16), &Device::Cpu).expect("faces");
    let input = faces.flatten_all().and_then(|faces| faces.to_vec1::<f32>()).expect("values");
    let map = student.backbone(&FaceBatch::from_tensor(faces).expect("batch"), Mode::Evaluate).expect("map");
    let expected = student.head(&map, Mode::Evaluate).and_then(|e| Ok(e.flatten_all()?.to_vec1::<f32>()?));
    let fill = |to: &mut [f32]| {
        to.copy_from_slice(&input);
        Ok(())
    };
    let (found, expected) = (network.run(3, fill, <[f32]>::to_vec).expect("embeddings"), expected.expect("those"));
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    assert!(largest > 0.0 && found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-5 * largest));
}

#[test]
fn channels_are_multiples_of_eight() {
    assert_eq!([12.0, 11.9, 3.0, 66.0, 36.0].map(divisible), [16, 16, 8, 64, 40]);
}
