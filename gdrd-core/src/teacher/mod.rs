//! Teachers: frozen networks that a student learns from.

use std::fmt;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::embedder::{Embedder, Embeddings};
use crate::error::{Error, Problem, Result};
use crate::face::{Face, FaceBatch, Kernel};

mod centres;
mod preprocessing;
mod store;

pub use centres::class_centres;
pub use preprocessing::{Alignment, Colour, Preprocessing};
pub use store::{FeatureStore, Source, Stored, gather};

/// One thing that a teacher can offer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// The identity embedding, `[batch, width]`, not normalised.
    Embedding,
    /// Logits over the teacher's own identities, `[batch, identities]`.
    Logits,
    /// The feature map of this name, `[batch, channels, height, width]`.
    Map(String),
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedding => f.write_str("embedding"),
            Self::Logits => f.write_str("logits"),
            Self::Map(name) => write!(f, "map {name}"),
        }
    }
}

/// Which form of a face a teacher is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// The face as the dataset has it.
    High,
    /// The face behind the recipe's degradation.
    Low,
}

/// What a teacher is.
#[derive(Clone, Debug, Serialize)]
pub struct TeacherCard {
    /// Height and width of its input in pixels; none if it takes any size.
    pub input_size: Option<usize>,
    /// What else it expects of its input, and does to the faces that it is given.
    pub preprocessing: Preprocessing,
    /// Which form of a face it is shown unless the recipe says otherwise.
    pub view: View,
    /// Sha256 of its weights and of whatever else changes its outputs.
    pub digest: String,
    /// The feature map that is meant when a loss names none.
    pub default_map: Option<String>,
}

/// A frozen network. It takes `[batch, 3, size, size]` in `[0, 1]`, RGB, and normalises by its own contract;
/// what it returns is detached from every graph.
pub trait Teacher {
    /// What it is.
    fn card(&self) -> &TeacherCard;

    /// The shape of an output for one face at `input` pixels, without the batch.
    ///
    /// # Errors
    /// If the teacher cannot offer this; the error says what it can.
    fn shape(&self, output: &Output, input: usize) -> Result<Vec<usize>>;

    /// The outputs of a batch, in the order asked for.
    fn features(&self, faces: &FaceBatch, outputs: &[Output]) -> Result<Vec<Tensor>>;

    /// The names of its feature maps, for those who want all of them; only the default map unless it says more.
    fn maps(&self) -> Vec<String> {
        self.card().default_map.iter().cloned().collect()
    }

    /// Whether it answers for any face. One that only repeats what was computed before is not measured by protocols.
    fn knows_any_face(&self) -> bool {
        true
    }
}

/// What a recipe says of a teacher.
pub trait TeacherConfig {
    /// What is wrong with the options, without touching disk or device.
    fn check(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// Loads the teacher onto `device`.
    fn build(&self, device: &candle_core::Device) -> Result<Box<dyn Teacher>>;
}

/// The error of a teacher that is asked for what it has not.
pub fn cannot_offer(output: &Output, offers: &str) -> Error {
    Error::component(format!("the teacher cannot offer `{output}`; it offers {offers}"))
}

/// Brings a face to the size that a teacher takes, by the bicubic filter.
pub fn prepared(card: &TeacherCard, face: Face) -> Result<Face> {
    match card.input_size {
        Some(size) => face.resized(size, Kernel::Bicubic, true),
        None => Ok(face),
    }
}

/// A teacher's embedding as an [`Embedder`].
pub struct TeacherEmbedder<'a> {
    name: String,
    teacher: &'a dyn Teacher,
    width: usize,
    device: candle_core::Device,
}

impl<'a> TeacherEmbedder<'a> {
    /// The embedder of a teacher called `name`.
    ///
    /// # Errors
    /// If the teacher has no embedding.
    pub fn new(name: &str, teacher: &'a dyn Teacher, device: &candle_core::Device) -> Result<Self> {
        let size = teacher.card().input_size.unwrap_or(112);
        let width = teacher.shape(&Output::Embedding, size)?.iter().product();
        Ok(Self { name: name.to_string(), teacher, width, device: device.clone() })
    }

    /// Embeddings of [`prepared`] faces; `change` is done to each batch before the teacher sees it.
    pub(crate) fn embed_prepared(
        &self,
        faces: &[Face],
        change: impl Fn(FaceBatch) -> Result<FaceBatch>,
    ) -> Result<Embeddings> {
        let pixels = faces.first().map_or(1, |face| face.width() * face.height());
        let mut values = Vec::with_capacity(self.width * faces.len());
        for batch in faces.chunks((PIXELS / pixels).max(1)) {
            let batch = change(FaceBatch::from_faces(batch, &self.device)?)?;
            let found = self.teacher.features(&batch, &[Output::Embedding])?;
            values.extend(found[0].flatten_all()?.to_vec1::<f32>()?);
        }
        Embeddings::from_rows(self.width, values)
    }
}

/// Pixels that a teacher sees at once, so that its maps need no more memory than training does: 32 faces at 112x112.
const PIXELS: usize = 32 * 112 * 112;

impl Embedder for TeacherEmbedder<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn width(&self) -> usize {
        self.width
    }

    fn embed(&self, faces: &[Face]) -> Result<Embeddings> {
        let faces = faces.iter().map(|face| prepared(self.teacher.card(), face.clone()));
        self.embed_prepared(&faces.collect::<Result<Vec<_>>>()?, Ok)
    }
}
