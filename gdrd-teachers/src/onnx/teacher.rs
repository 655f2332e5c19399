//! An ONNX model behind the `Teacher` trait.

use candle_core::{Device, Tensor};
use gdrd_core::context::BuildContext;
use gdrd_core::data::HIGH;
use gdrd_core::error::Result;
use gdrd_core::teacher::{Output, Shown, Teacher, TeacherCard, cannot_offer};
use rayon::prelude::*;

use super::{OnnxModel, OnnxTeacher};

pub(super) fn build(config: &OnnxTeacher, cx: &BuildContext) -> Result<Box<dyn Teacher>> {
    let model = OnnxModel::open(&cx.file(&config.weights)?.path, config.size, config.output.as_deref())?;
    let card = TeacherCard {
        input_size: Some(config.size),
        preprocessing: config.preprocessing,
        views: vec![HIGH.into()],
        default_map: None,
    };
    Ok(Box::new(OnnxRecogniser { model, card, device: cx.device().clone() }))
}

struct OnnxRecogniser {
    model: OnnxModel,
    card: TeacherCard,
    device: Device,
}

impl Teacher for OnnxRecogniser {
    fn card(&self) -> &TeacherCard {
        &self.card
    }

    fn shape(&self, output: &Output, _: usize) -> Result<Vec<usize>> {
        match output {
            Output::Embedding => Ok(vec![self.model.width()]),
            other => Err(cannot_offer(other, "`embedding`")),
        }
    }

    fn features(&self, shown: &Shown, outputs: &[Output]) -> Result<Vec<Tensor>> {
        let images = self.card.preprocessing.apply(shown.faces())?.flatten_from(1)?.to_vec2::<f32>()?;
        let model = &self.model;
        let rows = images.par_iter().map(|image| model.run(image)).collect::<Result<Vec<_>>>()?;
        let embedding = Tensor::from_vec(rows.concat(), (shown.faces().len(), model.width()), &self.device)?;
        let offer = |output: &Output| match output {
            Output::Embedding => Ok(embedding.clone()),
            other => Err(cannot_offer(other, "`embedding`")),
        };
        outputs.iter().map(offer).collect()
    }
}
