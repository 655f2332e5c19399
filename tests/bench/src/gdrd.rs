//! gdrd through its public API.

use std::collections::BTreeMap;
use std::rc::Rc;

use candle_core::Device;
use gdrd_core::context::BuildContext;
use gdrd_core::face::FaceBatch;
use gdrd_core::loss::cross_entropy;
use gdrd_core::nn::kernels::{backward, put};
use gdrd_core::nn::weights::Draw;
use gdrd_core::nn::{Linear, Mode, Weights};
use gdrd_core::plugin::Workbench;
use gdrd_core::student::StudentKinds;
use gdrd_core::teacher::{Output, Teacher, TeacherConfig};
use gdrd_core::trainer::{OptimizerConfig, Sgd};
use gdrd_student::{BuiltIn, FaceEncoder};
use gdrd_teachers::{DiffusionEncoder, IresnetTeacher, MobileFaceNetTeacher};
use serde_json::json;

use crate::faces::{Inputs, weights};
use crate::{Case, Iteration, Result, Values};

/// A student through its file, a teacher through its contract.
pub(crate) fn embedding(case: &Case) -> Result<Iteration> {
    let faces = Inputs::read(case)?.faces;
    let (path, device) = (case.folder.join("weights.safetensors"), case.device()?);
    if case.network.kind == "resnet-trunk" {
        let precision = case.weights.precision();
        let encoder = FaceEncoder::open_with_kinds(path, &device, &BuiltIn)?.with_weights(precision)?;
        return Ok(Box::new(move || Ok(Values::Known(encoder.embed(&faces)?.values().to_vec()))));
    }
    let bench = Workbench::new(device.clone());
    let cx = BuildContext::new(&bench);
    let middle = Output::Map("middle_block".into());
    let (teacher, output): (Box<dyn Teacher>, Output) = match case.network.kind.as_str() {
        "iresnet" => {
            let options: IresnetTeacher = serde_json::from_value(json!({ "weights": path }))?;
            (options.build(&cx)?, Output::Embedding)
        }
        "mobilefacenet" => {
            let options: MobileFaceNetTeacher = serde_json::from_value(json!({ "weights": path }))?;
            (options.build(&cx)?, Output::Embedding)
        }
        "diffusion-encoder" => {
            let network = gdrd_core::nn::unet::UnetConfig::pgdiff_512();
            let options = json!({ "weights": path, "network": network, "input_size": case.network.size });
            (serde_json::from_value::<DiffusionEncoder>(options)?.build(&cx)?, middle)
        }
        other => return Err(format!("no network of kind `{other}`").into()),
    };
    Ok(Box::new(move || {
        let faces = FaceBatch::from_faces(&faces, &device)?;
        let found = teacher.features(&faces.into(), std::slice::from_ref(&output))?;
        Ok(Values::Known(found[0].flatten_all()?.to_vec1()?))
    }))
}

/// The step of the trainer: forward in training mode, cross-entropy, backward, stochastic gradient descent.
pub(crate) fn training(case: &Case) -> Result<Iteration> {
    let Inputs { faces, labels, .. } = Inputs::read(case)?;
    let options = if case.network.options.is_null() { json!({}) } else { case.network.options.clone() };
    let config = BuiltIn.config(&case.network.kind, &options)?;
    let (size, rate, tensors) = (case.network.size, case.rate, weights(case)?);
    let (identities, width) = tensors["classifier.weight"].dims2()?;
    let draw: Rc<Draw> = Rc::new(move |name, _, _| {
        let values = tensors[name].flatten_all().and_then(|tensor| tensor.to_vec1());
        values.expect("a tensor of float32")
    });
    let device = case.device()?;
    let bench = Workbench::new(device.clone());
    let build = |weights: &Weights| {
        let classifier = Linear::new(width, identities, true, &weights.pp("classifier"))?;
        Ok((gdrd_core::student::build(&*config, size, weights, &bench)?, classifier))
    };
    let labels = labels.to_device(&device)?;
    let ((student, classifier), variables) = Weights::create(&device, draw, build)?;
    let mut optimizer = Sgd::default().build(&BuildContext::new(&bench))?;
    Ok(Box::new(move || {
        let faces = FaceBatch::from_faces(&faces, &Device::Cpu)?;
        let faces = FaceBatch::from_tensor(put(faces.tensor(), &device)?)?;
        let map = student.backbone(&faces, Mode::Train)?;
        let logits = classifier.forward(&student.head(&map, Mode::Train)?)?;
        let loss = cross_entropy(&logits, &labels, 0.0)?;
        let found = backward(&loss)?;
        let gradient = |(name, var): (&String, &candle_core::Var)| {
            found.get(var.as_tensor()).map(|gradient| (name.clone(), gradient.detach()))
        };
        let gradients: BTreeMap<_, _> = variables.parameters.iter().filter_map(gradient).collect();
        optimizer.step(&variables.parameters, &gradients, &|_| rate)?;
        Ok(if device.is_cpu() { Values::Known(vec![loss.to_scalar()?]) } else { Values::Later(loss.detach()) })
    }))
}
