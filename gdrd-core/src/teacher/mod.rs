//! Teachers: frozen networks that a student learns from.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use candle_core::Tensor;
use serde::Serialize;

use crate::context::BuildContext;
use crate::degrade::Downscale;
use crate::embedder::{Embedder, Embeddings};
use crate::error::{Error, Problem, Result};
use crate::face::{Face, FaceBatch, Kernel};

mod centres;
mod store;
mod transformed;
mod whitening;

pub use crate::nn::{Alignment, Colour, Preprocessing};
pub use centres::class_centres;
pub use store::{FeatureStore, Source, Stored, gather};
pub use transformed::Transformed;
pub(crate) use whitening::symmetric_power;

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

/// What a teacher is.
#[derive(Clone, Debug, Serialize)]
pub struct TeacherCard {
    /// Height and width of its input in pixels; none if it takes any size.
    pub input_size: Option<usize>,
    /// What else it expects of its input, and does to the faces that it is given.
    pub preprocessing: Preprocessing,
    /// The views of a face that it is shown, by their names in the recipe; at least one.
    pub views: Vec<String>,
    /// The feature map that is meant when a loss names none.
    pub default_map: Option<String>,
}

/// What a teacher is shown: a batch in each of its views, and which samples these are.
pub struct Shown {
    views: Vec<FaceBatch>,
    keys: Vec<String>,
}

impl Shown {
    /// Faces of which nobody knows where they are from, in the order of the card's views. Every batch has as many.
    ///
    /// # Errors
    /// If there is no view, or their numbers of faces differ.
    pub fn new(views: Vec<FaceBatch>) -> Result<Self> {
        let counts: Vec<usize> = views.iter().map(FaceBatch::len).collect();
        if counts.is_empty() || counts.iter().any(|count| *count != counts[0]) {
            return Err(Error::component(format!("expected views of equally many faces, found {counts:?}")));
        }
        Ok(Self { views, keys: Vec::new() })
    }

    /// The same, as samples of a dataset, whose keys these are.
    #[must_use]
    pub fn with_keys(self, keys: Vec<String>) -> Self {
        Self { keys, ..self }
    }

    /// The first view, which most teachers have alone: `[batch, 3, size, size]` in `[0, 1]`.
    pub fn faces(&self) -> &FaceBatch {
        &self.views[0]
    }

    /// The mirror images of the same samples.
    ///
    /// # Errors
    /// If the device fails.
    pub fn mirrored(&self) -> Result<Self> {
        let mirrored = |faces: &FaceBatch| FaceBatch::from_tensor(faces.tensor().flip(&[3])?);
        Ok(Self { views: self.views.iter().map(mirrored).collect::<Result<_>>()?, keys: self.keys.clone() })
    }

    /// All views, in the order of the card's.
    pub fn views(&self) -> &[FaceBatch] {
        &self.views
    }

    /// The samples' keys: none for faces of no dataset, and an empty one for a mixture of two samples.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// The samples from `start` on, `count` of them.
    ///
    /// # Errors
    /// If there are not so many.
    pub(crate) fn part(&self, start: usize, count: usize) -> Result<Self> {
        let of = |view: &FaceBatch| FaceBatch::from_tensor(view.tensor().narrow(0, start, count)?.contiguous()?);
        let views = self.views.iter().map(of).collect::<Result<_>>()?;
        Ok(Self { views, keys: self.keys.iter().skip(start).take(count).cloned().collect() })
    }
}

impl From<FaceBatch> for Shown {
    fn from(faces: FaceBatch) -> Self {
        Self { views: vec![faces], keys: Vec::new() }
    }
}

/// A frozen network. It takes `[batch, 3, size, size]` in `[0, 1]`, RGB, and normalises by its own contract;
/// what it returns is detached from every graph.
///
/// Who is called when: losses name outputs, the run asks for their [`shape`](Teacher::shape), and then for the
/// [`features`](Teacher::features) of every sample once, which are stored, or of every batch, where views are random.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use gdrd_core::error::Result;
/// use gdrd_core::face::{Face, FaceBatch};
/// use gdrd_core::teacher::{Output, Preprocessing, Shown, Teacher, TeacherCard, cannot_offer};
///
/// /// The mean colour of a face.
/// struct Mean(TeacherCard);
///
/// impl Teacher for Mean {
///     fn card(&self) -> &TeacherCard {
///         &self.0
///     }
///     fn shape(&self, output: &Output, _: usize) -> Result<Vec<usize>> {
///         match output {
///             Output::Embedding => Ok(vec![3]),
///             other => Err(cannot_offer(other, "`embedding`")),
///         }
///     }
///     fn features(&self, shown: &Shown, outputs: &[Output]) -> Result<Vec<Tensor>> {
///         outputs.iter().map(|_| Ok(shown.faces().tensor().mean((2, 3))?)).collect()
///     }
/// }
///
/// let views = vec!["high".to_string()];
/// let card = TeacherCard { input_size: None, preprocessing: Preprocessing::none(), views, default_map: None };
/// let white = FaceBatch::from_faces(&[Face::new(4, 4, vec![255; 48])?], &Device::Cpu)?;
/// let found = Mean(card).features(&white.into(), &[Output::Embedding])?;
/// assert_eq!(found[0].to_vec2::<f32>()?, [[1.0, 1.0, 1.0]]);
/// # Ok::<(), gdrd_core::error::Error>(())
/// ```
pub trait Teacher: Send + Sync {
    /// What it is.
    fn card(&self) -> &TeacherCard;

    /// The shape of an output for one face at `input` pixels (in the first view), without the batch.
    ///
    /// # Errors
    /// If the teacher cannot offer this; the error says what it can.
    fn shape(&self, output: &Output, input: usize) -> Result<Vec<usize>>;

    /// The outputs of a batch, in the order asked for.
    ///
    /// # Errors
    /// If the teacher cannot offer one, or the network fails.
    fn features(&self, shown: &Shown, outputs: &[Output]) -> Result<Vec<Tensor>>;

    /// The names of its feature maps, for those who want all of them; only the default map unless it says more.
    fn maps(&self) -> Vec<String> {
        self.card().default_map.iter().cloned().collect()
    }

    /// Its tensors, for a student that starts from it.
    ///
    /// # Errors
    /// If it has none to give.
    fn weights(&self) -> Result<TeacherWeights> {
        Err(Error::component("its kind gives no student its weights"))
    }

    /// Whether it answers for any face. One that only repeats what was computed before is not measured by protocols.
    fn knows_any_face(&self) -> bool {
        true
    }
}

/// What a student starts with that starts from a teacher.
#[derive(Clone, Debug)]
pub struct TeacherWeights {
    /// Parameters and running statistics, by the names that the network's own layout has for them.
    pub tensors: BTreeMap<String, Tensor>,
    /// What the network expects of its input; none if that is no option of it.
    pub preprocessing: Option<Preprocessing>,
}

/// What a recipe says of a teacher.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use gdrd_core::context::{Bare, BuildContext};
/// use gdrd_core::error::{Problem, Result};
/// use gdrd_core::plugin::{Kind, ViewName};
/// use gdrd_core::teacher::{Output, Preprocessing, Shown, Teacher, TeacherCard, TeacherConfig, cannot_offer};
///
/// /// The face's pixels as its embedding.
/// #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(deny_unknown_fields)]
/// struct Pixels {
///     /// Height and width to which faces are brought, in pixels.
///     size: usize,
///     /// The view that it is shown.
///     view: ViewName,
/// }
///
/// impl Kind for Pixels {
///     const NAME: &'static str = "pixels";
///     const PURPOSE: &'static str = "a face's pixels";
/// }
///
/// impl TeacherConfig for Pixels {
///     fn check(&self) -> Vec<Problem> {
///         Problem::within("size", self.size, 1..=64).into_iter().collect()
///     }
///     fn build(&self, _: &BuildContext) -> Result<Box<dyn Teacher>> {
///         let views = vec![self.view.to_string()];
///         let (input_size, preprocessing) = (Some(self.size), Preprocessing::none());
///         Ok(Box::new(Ready(TeacherCard { input_size, preprocessing, views, default_map: None })))
///     }
/// }
///
/// struct Ready(TeacherCard);
///
/// impl Teacher for Ready {
///     fn card(&self) -> &TeacherCard {
///         &self.0
///     }
///     fn shape(&self, output: &Output, input: usize) -> Result<Vec<usize>> {
///         match output {
///             Output::Embedding => Ok(vec![3 * input * input]),
///             other => Err(cannot_offer(other, "`embedding`")),
///         }
///     }
///     fn features(&self, shown: &Shown, outputs: &[Output]) -> Result<Vec<Tensor>> {
///         outputs.iter().map(|_| Ok(shown.faces().tensor().flatten_from(1)?.detach())).collect()
///     }
/// }
///
/// let config: Pixels = serde_json::from_str(r#"{ "size": 8, "view": "low" }"#).expect("options");
/// let teacher = config.build(&BuildContext::new(&Bare(Device::Cpu)))?;
/// assert_eq!(teacher.shape(&Output::Embedding, 8)?, [192]);
/// # Ok::<(), gdrd_core::error::Error>(())
/// ```
pub trait TeacherConfig: Send + Sync {
    /// What is wrong with the options, without touching disk or device.
    fn check(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// Loads the teacher onto the context's device. Weights are read through `cx`, so that changed ones are noticed.
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Teacher>>;
}

impl BuildContext<'_> {
    /// The teacher called `name` in the recipe.
    ///
    /// # Errors
    /// If there is none, or it cannot be loaded.
    pub fn teacher(&self, name: &str) -> Result<Arc<dyn Teacher>> {
        self.part("teacher", name)
    }
}

/// The error of a teacher that is asked for what it has not.
pub fn cannot_offer(output: &Output, offers: &str) -> Error {
    Error::component(format!("the teacher cannot offer `{output}`; it offers {offers}"))
}

/// Brings a face to the size that a teacher takes, by the bicubic filter.
///
/// # Errors
/// If the face is not square.
pub fn prepared(card: &TeacherCard, face: Face) -> Result<Face> {
    match card.input_size {
        Some(size) => face.square()?.resized(size, Kernel::Bicubic, true),
        None => Ok(face),
    }
}

/// A teacher's embedding as an [`Embedder`].
pub struct TeacherEmbedder<'a> {
    name: String,
    teacher: &'a dyn Teacher,
    /// What each of the teacher's views does to a face.
    views: Vec<Option<Downscale>>,
    width: usize,
    device: candle_core::Device,
}

impl<'a> TeacherEmbedder<'a> {
    /// The embedder of a teacher called `name`, to which every view shows a face as it is given.
    ///
    /// # Errors
    /// If the teacher has no embedding.
    pub fn new(name: &str, teacher: &'a dyn Teacher, device: &candle_core::Device) -> Result<Self> {
        let views = vec![None; teacher.card().views.len()];
        let width = embedding_width(teacher)?;
        Ok(Self { name: name.to_string(), teacher, views, width, device: device.clone() })
    }

    /// The same, with what each view of a teacher of several views does to a face.
    #[must_use]
    pub fn with_views(self, views: Vec<Option<Downscale>>) -> Self {
        Self { views, ..self }
    }

    /// Embeddings of [`prepared`] faces; `change` is done to each batch before the teacher sees it.
    pub(crate) fn embed_prepared(
        &self,
        faces: &[Face],
        change: impl Fn(FaceBatch) -> Result<FaceBatch>,
    ) -> Result<Embeddings> {
        let mut values = Vec::with_capacity(self.width * faces.len());
        // A teacher of any size may be given faces of several.
        let alike = faces.chunk_by(|a, b| a.width() == b.width());
        for batch in alike.flat_map(|faces| faces.chunks((PIXELS / faces[0].width().pow(2)).max(1))) {
            let view = |downscale: &Option<Downscale>| {
                let small = |face: &Face| {
                    let face = downscale.as_ref().map_or_else(|| Ok(face.clone()), |small| small.apply(face))?;
                    prepared(self.teacher.card(), face)
                };
                let faces = batch.iter().map(small).collect::<Result<Vec<_>>>()?;
                change(FaceBatch::from_faces(&faces, &self.device)?)
            };
            let shown = Shown::new(self.views.iter().map(view).collect::<Result<_>>()?)?;
            let found = self.teacher.features(&shown, &[Output::Embedding])?;
            values.extend(found[0].flatten_all()?.to_vec1::<f32>()?);
        }
        Embeddings::from_rows(self.width, values)
    }
}

/// Pixels that a teacher sees at once, so that its maps need no more memory than training does: 32 faces at 112x112.
const PIXELS: usize = 32 * 112 * 112;

/// Height and width at which the shape of an embedding is asked for, where a teacher takes any size; embeddings do not depend
/// on it.
const ANY_SIZE: usize = 112;

/// Values in a teacher's embedding.
///
/// # Errors
/// If it has none.
pub fn embedding_width(teacher: &dyn Teacher) -> Result<usize> {
    let size = teacher.card().input_size.unwrap_or(ANY_SIZE);
    Ok(teacher.shape(&Output::Embedding, size)?.iter().product())
}

impl Embedder for TeacherEmbedder<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn width(&self) -> usize {
        self.width
    }

    fn embed(&self, faces: &[Face]) -> Result<Embeddings> {
        if self.views.len() == 1 && self.views[0].is_none() {
            let faces = faces.iter().map(|face| prepared(self.teacher.card(), face.clone()));
            return self.embed_prepared(&faces.collect::<Result<Vec<_>>>()?, Ok);
        }
        self.embed_prepared(faces, Ok)
    }
}
