//! An ONNX model behind the `Teacher` trait.

use candle_core::{Device, Tensor};
use gdrd_core::digest;
use gdrd_core::error::Result;
use gdrd_core::face::FaceBatch;
use gdrd_core::teacher::{Output, Teacher, TeacherCard, View, cannot_offer};
use rayon::prelude::*;

use super::{OnnxModel, OnnxTeacher};

pub(super) fn build(config: &OnnxTeacher, device: &Device) -> Result<Box<dyn Teacher>> {
    let model = OnnxModel::open(&config.weights, config.size, config.output.as_deref())?;
    let settings = serde_json::json!({
        "file": digest::of_file(&config.weights)?, "size": config.size, "preprocessing": config.preprocessing,
        "output": config.output,
    });
    let card = TeacherCard {
        input_size: Some(config.size),
        preprocessing: config.preprocessing,
        view: View::High,
        digest: digest::of_value(&settings),
        default_map: None,
    };
    Ok(Box::new(Live { model, card, device: device.clone() }))
}

struct Live {
    model: OnnxModel,
    card: TeacherCard,
    device: Device,
}

impl Teacher for Live {
    fn card(&self) -> &TeacherCard {
        &self.card
    }

    fn shape(&self, output: &Output, _: usize) -> Result<Vec<usize>> {
        match output {
            Output::Embedding => Ok(vec![self.model.width()]),
            other => Err(cannot_offer(other, "`embedding`")),
        }
    }

    fn features(&self, faces: &FaceBatch, outputs: &[Output]) -> Result<Vec<Tensor>> {
        let images = self.card.preprocessing.apply(faces)?.flatten_from(1)?.to_vec2::<f32>()?;
        let model = &self.model;
        let rows = images.par_iter().map(|image| model.run(image)).collect::<Result<Vec<_>>>()?;
        let embedding = Tensor::from_vec(rows.concat(), (faces.len(), model.width()), &self.device)?;
        let offer = |output: &Output| match output {
            Output::Embedding => Ok(embedding.clone()),
            other => Err(cannot_offer(other, "`embedding`")),
        };
        outputs.iter().map(offer).collect()
    }
}
