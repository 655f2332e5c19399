//! The kinds of students, and trained students as teachers, for recipes.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use gdrd_core::context::BuildContext;
use gdrd_core::data::HIGH;
use gdrd_core::error::{Error, Result};
use gdrd_core::face::{FaceBatch, Kernel};
use gdrd_core::nn::Mode;
use gdrd_core::plugin::Kind;
use gdrd_core::recipe::RecipePath;
use gdrd_core::registry::Registry;
use gdrd_core::student::{BACKBONE, Student, StudentFile, StudentHeader};
use gdrd_core::teacher::{
    Output, Preprocessing, Shown, Teacher, TeacherCard, TeacherConfig, TeacherWeights, cannot_offer,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::networks::{
    DiffusionTrunk, DiffusionUnet, IresnetStudent, MobileFaceNetStudent, MobileNet, ResnetTrunk, SuperResolution,
};

/// Registers everything of this crate.
///
/// # Errors
/// If a name is taken.
pub fn register(registry: &mut Registry) -> Result<()> {
    registry.students.register::<ResnetTrunk>()?;
    registry.students.register::<DiffusionUnet>()?;
    registry.students.register::<DiffusionTrunk>()?;
    registry.students.register::<MobileFaceNetStudent>()?;
    registry.students.register::<IresnetStudent>()?;
    registry.students.register::<MobileNet>()?;
    registry.students.register::<SuperResolution>()?;
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

impl Kind for MobileFaceNetStudent {
    const NAME: &'static str = "mobilefacenet";
    const PURPOSE: &'static str = "MobileFaceNet on small faces blown up; it may start from a teacher";
}

impl Kind for SuperResolution {
    const NAME: &'static str = "super-resolution";
    const PURPOSE: &'static str = "a network that restores the large face, before a recogniser that may be a teacher's";
}

impl Kind for MobileNet {
    const NAME: &'static str = "mobilenet";
    const PURPOSE: &'static str = "MobileNetV1 and V3 for small faces";
}

impl Kind for IresnetStudent {
    const NAME: &'static str = "iresnet";
    const PURPOSE: &'static str = "ArcFace's iresnet on small faces blown up; it may start from a teacher";
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
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Teacher>> {
        let StudentFile { header, student, tensors } = cx.student_file(&self.weights)?;
        let prepare = &header.prepare;
        let usual = prepare.kernel == Kernel::Bicubic && prepare.antialias;
        let card = TeacherCard {
            // What is prepared for every teacher of that size is what the file says; another filter it applies by itself.
            input_size: usual.then_some(prepare.size),
            preprocessing: Preprocessing::none(),
            views: vec![HIGH.into()],
            default_map: Some(BACKBONE.into()),
        };
        let blank =
            FaceBatch::from_tensor(Tensor::zeros((1, 3, prepare.size, prepare.size), DType::F32, cx.device())?)?;
        let names = student.maps();
        let shapes = student.features(&blank, &names, Mode::Evaluate)?.into_iter().map(|map| map.dims()[1..].to_vec());
        let maps = names.into_iter().zip(shapes).collect();
        Ok(Box::new(Frozen { header, student, tensors, card, maps }))
    }
}

struct Frozen {
    header: StudentHeader,
    student: Box<dyn Student>,
    tensors: BTreeMap<String, Tensor>,
    card: TeacherCard,
    /// The names and shapes of its maps, in their order.
    maps: Vec<(String, Vec<usize>)>,
}

impl Frozen {
    fn cannot(&self, output: &Output) -> Error {
        let maps: Vec<String> = self.maps.iter().map(|(name, _)| format!("`map {name}`")).collect();
        let embedding = self.header.card.embedding.map_or("", |_| "`embedding`, ");
        cannot_offer(output, &format!("{embedding}{}", maps.join(", ")))
    }
}

impl Teacher for Frozen {
    fn card(&self) -> &TeacherCard {
        &self.card
    }

    fn shape(&self, output: &Output, _: usize) -> Result<Vec<usize>> {
        match output {
            Output::Embedding => self.header.card.embedding.map(|width| vec![width]).ok_or_else(|| self.cannot(output)),
            Output::Map(name) => {
                let found = self.maps.iter().find(|(of, _)| of == name).map(|(_, shape)| shape.clone());
                found.ok_or_else(|| self.cannot(output))
            }
            other => Err(self.cannot(other)),
        }
    }

    fn weights(&self) -> Result<TeacherWeights> {
        Ok(TeacherWeights { tensors: self.tensors.clone(), preprocessing: self.student.preprocessing() })
    }

    fn features(&self, shown: &Shown, outputs: &[Output]) -> Result<Vec<Tensor>> {
        let student = &self.student;
        // As the file says that faces are prepared.
        let faces = shown.faces().to_faces()?;
        let small = faces.iter().map(|face| self.header.prepare.apply(face)).collect::<Result<Vec<_>>>()?;
        let faces = FaceBatch::from_faces(&small, shown.faces().tensor().device())?;
        let name = |output: &Output| match output {
            Output::Map(name) => Some(name.clone()),
            _ => None,
        };
        let mut names: Vec<String> = outputs.iter().filter_map(name).collect();
        // The embedding is made of the backbone's map.
        names.push(BACKBONE.to_string());
        let maps = student.features(&faces, &names, Mode::Evaluate)?;
        let mut asked = maps.iter();
        let offer = |output: &Output| match output {
            Output::Embedding => Ok(student.head(&maps[names.len() - 1], Mode::Evaluate)?.detach()),
            Output::Map(_) => asked.next().map(Tensor::detach).ok_or_else(|| self.cannot(output)),
            other => Err(self.cannot(other)),
        };
        outputs.iter().map(offer).collect()
    }

    fn maps(&self) -> Vec<String> {
        self.maps.iter().map(|(name, _)| name.clone()).collect()
    }
}
