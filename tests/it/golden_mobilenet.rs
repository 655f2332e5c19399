//! MobileNets answer as torchvision's; `golden/mobilenet/ORIGIN.md` says which version.

use std::rc::Rc;

use candle_core::Device;
use gdrd_core::context::Bare;
use gdrd_core::face::FaceBatch;
use gdrd_core::nn::weights::Draw;
use gdrd_core::nn::{Mode, Weights};
use gdrd_core::student::{Student, build};
use gdrd_student::{HeadOptions, MobileNet, MobileNetVersion, Pool};

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
