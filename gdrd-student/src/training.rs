//! The kinds of students, and trained students as teachers, for recipes.

use candle_core::{Device, Tensor};
use gdrd_core::digest;
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::face::FaceBatch;
use gdrd_core::recipe::RecipePath;
use gdrd_core::registry::{Kind, Registry};
use gdrd_core::teacher::{Output, Preprocessing, Teacher, TeacherCard, TeacherConfig, View, cannot_offer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DiffusionTrunk, DiffusionUnet, FaceEncoder, ResnetTrunk};

/// Registers everything of this crate.
///
/// # Errors
/// If a name is taken.
pub fn register(registry: &mut Registry) -> Result<()> {
    registry.students.register::<ResnetTrunk>()?;
    registry.students.register::<DiffusionUnet>()?;
    registry.students.register::<DiffusionTrunk>()?;
    registry.teachers.register::<StudentTeacher>()
}

impl Kind for ResnetTrunk {
    const NAME: &'static str = "resnet-trunk";
    const PURPOSE: &'static str = "the paper's student: ResNet-18 blocks for small faces, and a head";
}

impl Kind for DiffusionUnet {
    const NAME: &'static str = "diffusion-unet";
    const PURPOSE: &'static str = "a denoiser whose encoder becomes a generative teacher";
}

impl Kind for DiffusionTrunk {
    const NAME: &'static str = "diffusion-trunk";
    const PURPOSE: &'static str = "a diffusion encoder as backbone, and a head (ablation SR)";
}

/// A student file as a teacher: with a face size of 112, a discriminative teacher that gdrd trained itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StudentTeacher {
    /// The student file.
    pub weights: RecipePath,
}

impl Kind for StudentTeacher {
    const NAME: &'static str = "student";
    const PURPOSE: &'static str = "a student file made by gdrd";
}

impl TeacherConfig for StudentTeacher {
    fn build(&self, device: &Device) -> Result<Box<dyn Teacher>> {
        let path: &std::path::Path = &self.weights;
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let encoder = FaceEncoder::from_bytes(&bytes, device).at(|| format!("`{}`", path.display()))?;
        let card = TeacherCard {
            input_size: Some(encoder.header.card.input_size),
            preprocessing: Preprocessing::none(),
            view: View::High,
            digest: digest::of_file(path)?,
            default_map: Some("backbone".into()),
        };
        Ok(Box::new(Live { encoder, card }))
    }
}

struct Live {
    encoder: FaceEncoder,
    card: TeacherCard,
}

impl Teacher for Live {
    fn card(&self) -> &TeacherCard {
        &self.card
    }

    fn shape(&self, output: &Output, _: usize) -> Result<Vec<usize>> {
        match output {
            Output::Embedding => Ok(vec![self.encoder.width]),
            Output::Map(name) if name == "backbone" => Ok(self.encoder.header.card.map.to_vec()),
            other => Err(cannot_offer(other, "`embedding` and `map backbone`")),
        }
    }

    fn features(&self, faces: &FaceBatch, outputs: &[Output]) -> Result<Vec<Tensor>> {
        use gdrd_core::nn::Mode::Evaluate;
        let student = &self.encoder.student;
        let map = student.backbone(faces, Evaluate)?.detach();
        let offer = |output: &Output| match output {
            Output::Embedding => Ok(student.head(&map, Evaluate)?.detach()),
            Output::Map(name) if name == "backbone" => Ok(map.clone()),
            other => Err(cannot_offer(other, "`embedding` and `map backbone`")),
        };
        outputs.iter().map(offer).collect()
    }
}
