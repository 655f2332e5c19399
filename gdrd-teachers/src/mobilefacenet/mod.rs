//! MobileFaceNet as a discriminative teacher (Chen et al., CCBR 2018).

use candle_core::{Device, Tensor};
use gdrd_core::digest;
use gdrd_core::error::{Context, Result};
use gdrd_core::face::FaceBatch;
use gdrd_core::nn::weights::read_safetensors;
use gdrd_core::recipe::RecipePath;
use gdrd_core::registry::Kind;
use gdrd_core::teacher::{Output, Teacher, TeacherCard, TeacherConfig, View, cannot_offer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod network;

pub use network::{Layout, MobileFaceNet};

/// A MobileFaceNet in one of the layouts that are published: foamliu's (128 values, ImageNet normalisation) or
/// insightface's `mbf` (512 values, inputs in `[-1, 1]`). The names in the file tell which.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MobileFaceNetTeacher {
    /// The weights, a safetensors file.
    pub weights: RecipePath,
}

impl Kind for MobileFaceNetTeacher {
    const NAME: &'static str = "mobilefacenet";
    const PURPOSE: &'static str = "MobileFaceNet at 112x112, in foamliu's and insightface's layouts";
}

/// Height and width of the input in pixels.
const SIZE: usize = 112;

impl TeacherConfig for MobileFaceNetTeacher {
    fn build(&self, device: &Device) -> Result<Box<dyn Teacher>> {
        let network =
            MobileFaceNet::read(read_safetensors(&self.weights)?, device).at(|| format!("`{}`", self.weights))?;
        let card = TeacherCard {
            input_size: Some(SIZE),
            view: View::High,
            digest: digest::of_file(&self.weights)?,
            default_map: None,
        };
        let (mean, std) = match network.layout() {
            Layout::Foamliu => ([0.485f32, 0.456, 0.406], [0.229f32, 0.224, 0.225]),
            Layout::Insightface { .. } => ([0.5; 3], [0.5; 3]),
        };
        let constant = |values: [f32; 3]| Tensor::new(&values, device)?.reshape((1, 3, 1, 1));
        Ok(Box::new(Live { network, card, mean: constant(mean)?, std: constant(std)? }))
    }
}

struct Live {
    network: MobileFaceNet,
    card: TeacherCard,
    mean: Tensor,
    std: Tensor,
}

impl Teacher for Live {
    fn card(&self) -> &TeacherCard {
        &self.card
    }

    fn shape(&self, output: &Output, _: usize) -> Result<Vec<usize>> {
        match output {
            Output::Embedding => Ok(vec![self.network.layout().embedding()]),
            other => Err(cannot_offer(other, "`embedding`")),
        }
    }

    fn features(&self, faces: &FaceBatch, outputs: &[Output]) -> Result<Vec<Tensor>> {
        let x = faces.tensor().broadcast_sub(&self.mean)?.broadcast_div(&self.std)?;
        let embedding = self.network.forward(&x)?.detach();
        let offer = |output: &Output| match output {
            Output::Embedding => Ok(embedding.clone()),
            other => Err(cannot_offer(other, "`embedding`")),
        };
        outputs.iter().map(offer).collect()
    }
}
