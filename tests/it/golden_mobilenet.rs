//! MobileNets answer as torchvision's; `golden/mobilenet/ORIGIN.md` says which version.

use std::rc::Rc;

use candle_core::Device;
use gdrd_core::context::Bare;
use gdrd_core::face::FaceBatch;
use gdrd_core::nn::weights::Draw;
use gdrd_core::nn::{Mode, Weights};
use gdrd_core::student::{Student, build};
use gdrd_student::networks::{HeadOptions, MobileNet, MobileNetVersion, Pool};

use crate::golden::{Golden, formula};

fn student(version: MobileNetVersion) -> Box<dyn Student> {
    let head = HeadOptions { pool: Pool::Average, ..HeadOptions::default() };
    let config = MobileNet { version, reductions: 5, embedding: 8, head, ..MobileNet::default() };
    let new = |weights: &Weights| build(&config, 32, weights, &Bare(Device::Cpu));
    let draw: Rc<Draw> = Rc::new(|_, count, _| vec![0.0; count]);
    let (_, made) = Weights::create(&Device::Cpu, draw, new).expect("a network");
    let (tensors, _) = formula::tensors(&made);
    Weights::read(tensors, &Device::Cpu, |_| false, new).expect("all tensors fit")
}

#[test]
fn mobilenet_v3() {
    let golden = Golden::read("mobilenet");
    let faces = formula::image("faces", (2, 3, 32, 32)).affine(0.5, 0.5).expect("in [0, 1]");
    let faces = FaceBatch::from_tensor(faces).expect("a batch");
    for (name, version) in [("v3-small", MobileNetVersion::V3Small), ("v3-large", MobileNetVersion::V3Large)] {
        let maps = ["blocks.0", "backbone"].map(String::from);
        let found = student(version).features(&faces, &maps, Mode::Evaluate).expect("maps");
        for (map, found) in maps.iter().zip(&found) {
            golden.compare(&format!("{name}.{map}"), found);
        }
    }
}

#[test]
fn mobilenet_v1_trains_as_in_pytorch() {
    let golden = Golden::read("mobilenet");
    let head = HeadOptions { pool: Pool::Average, ..HeadOptions::default() };
    let config = MobileNet { version: MobileNetVersion::V1, width: 0.125, embedding: 8, head, ..MobileNet::default() };
    let draw: Rc<Draw> = Rc::new(|_, count, _| vec![0.0; count]);
    let new = |weights: &Weights| build(&config, 16, weights, &Bare(Device::Cpu));
    let (student, made) = Weights::create(&Device::Cpu, draw, new).expect("a network");
    made.assign(&formula::tensors(&made).0).expect("the same names and shapes");
    let faces = formula::image("faces", (4, 3, 16, 16)).affine(0.5, 0.5).expect("in [0, 1]");
    let map = student.backbone(&FaceBatch::from_tensor(faces).expect("a batch"), Mode::Train).expect("a map");
    // Twenty-seven normalisations by the batch, one after the other.
    golden.compare_within("v1.backbone", &map, 2e-4);
    let wanted = formula::image("wanted", map.shape());
    let gradients = (map * wanted).and_then(|x| x.mean_all()).and_then(|x| x.backward()).expect("gradients");
    for (name, var) in made.parameters.iter().filter(|(name, _)| name.starts_with("backbone")) {
        golden.compare_within(&format!("v1.grad.{name}"), gradients.get(var.as_tensor()).expect("a gradient"), 2e-3);
    }
}
