//! What a student is asked to get right.

use candle_core::Tensor;

use crate::context::BuildContext;
use crate::error::{Error, Problem, Result};
use crate::face::FaceBatch;
use crate::seed::Stream;
use crate::student::Student;

mod denoising;
mod distance;
mod distillation;
mod logged;
mod maps;
mod needs;
mod pairwise;
mod queue;
mod recognition;
#[cfg(test)]
mod testing;

pub use denoising::Denoising;
pub use distance::{Distance, smooth_l1, softplus};
pub use distillation::{
    AttentionDistance, AttentionTransfer, ClassifierReuse, Compared, Connector, Crd, EmbeddingDistance,
    EmbeddingRegression, EvolvingTeacher, FeatureRegression, HybridOrder, LogitDistillation, MapSimilarity, MkMmd,
    Negatives, PixelRegression, Pkt, RelationSimilarity, RelationalContrastive, Rkd, SelectiveRegression,
    SimilarityPreserving, TeacherLogits, WaveletSimilarity,
};
pub use logged::LoggedScalar;
pub use maps::pooled;
pub use needs::{Labels, Needs, Offered, StageFacts, TeacherNeed, Wanted};
pub use pairwise::{Metric, root, squared_distances};
pub use queue::{Held, Queue};
pub use recognition::{
    AdaFace, ArcFace, Classes, CosFace, CrossEntropy, CurricularFace, MagFace, Mining, Octuplet, RivalPenalised,
    Siamese, SphereFace, Triplet, cross_entropy,
};

/// What there is at a step: exactly what [`Needs`] asked for. The rest is an error.
#[derive(Default)]
pub struct LossInputs<'a> {
    /// Teachers' outputs, detached, in the order of [`Needs::teachers`].
    pub teachers: Vec<&'a Tensor>,
    /// The student's feature map.
    pub map: Option<&'a Tensor>,
    /// The student's embedding.
    pub embedding: Option<&'a Tensor>,
    /// Who the faces are.
    pub labels: Option<&'a Labels>,
    /// Mean embeddings of the people.
    pub centres: Option<&'a Tensor>,
    /// Logits of another term.
    pub logits: Option<&'a Tensor>,
    /// The student's view, and the student.
    pub denoiser: Option<(&'a FaceBatch, &'a dyn Student)>,
    /// The faces in other views, in the order of [`Needs::views`].
    pub views: Vec<&'a FaceBatch>,
    /// The student's embeddings of other views, in the order of [`Needs::embeddings_of`].
    pub embeddings_of: Vec<&'a Tensor>,
    /// Random numbers of this term and step.
    pub stream: Option<Stream>,
}

impl<'a> LossInputs<'a> {
    /// The output of a teacher that was the need number `at`.
    pub fn teacher(&self, at: usize) -> Result<&'a Tensor> {
        self.teachers.get(at).copied().ok_or_else(|| missing("the output of a teacher"))
    }

    /// The student's embedding, `[batch, width]`, not normalised.
    pub fn embedding(&self) -> Result<&'a Tensor> {
        self.embedding.ok_or_else(|| missing("the student's embedding"))
    }

    /// The student's feature map, `[batch, channels, height, width]`.
    pub fn map(&self) -> Result<&'a Tensor> {
        self.map.ok_or_else(|| missing("the student's feature map"))
    }

    /// Who the faces are.
    pub fn labels(&self) -> Result<&'a Labels> {
        self.labels.ok_or_else(|| missing("the labels"))
    }

    /// Unit-length mean embeddings of the people of the stage's data, `[people, width]`.
    pub fn centres(&self) -> Result<&'a Tensor> {
        self.centres.ok_or_else(|| missing("the people's mean embeddings"))
    }

    /// The logits of another term, `[batch, people]`.
    pub fn logits(&self) -> Result<&'a Tensor> {
        self.logits.ok_or_else(|| missing("the logits of another term"))
    }

    /// The student's view of the faces, and the student as a denoiser.
    pub fn denoiser(&self) -> Result<(&'a FaceBatch, &'a dyn Student)> {
        self.denoiser.ok_or_else(|| missing("the denoiser"))
    }

    /// The faces in the view that was the need number `at`.
    pub fn view(&self, at: usize) -> Result<&'a FaceBatch> {
        self.views.get(at).copied().ok_or_else(|| missing("the faces in another view"))
    }

    /// The student's embedding of the view that was the need number `at`, `[batch, width]`, not normalised.
    pub fn embedding_of(&self, at: usize) -> Result<&'a Tensor> {
        self.embeddings_of.get(at).copied().ok_or_else(|| missing("the student's embedding of another view"))
    }

    /// Random numbers of this term and step.
    pub fn stream(&self) -> Result<Stream> {
        self.stream.clone().ok_or_else(|| missing("a stream of random numbers"))
    }
}

fn missing(what: &str) -> Error {
    Error::component(format!("{what}: used at a step, but not asked for in `needs`"))
}

/// A loss at one step.
pub struct LossValue {
    /// What is minimised, a scalar.
    pub value: Tensor,
    /// Logits `[batch, people]`, from a loss that gives them.
    pub logits: Option<Tensor>,
    /// Numbers for the log, by name.
    pub details: Vec<(String, LoggedScalar)>,
}

impl From<Tensor> for LossValue {
    fn from(value: Tensor) -> Self {
        Self { value, logits: None, details: Vec::new() }
    }
}

/// A term of a stage's objective. Its own variables live under `loss.<stage>.<name>`; they are trained and saved in
/// checkpoints, but not in the student file.
///
/// Who is called when: [`LossConfig::needs`] before anything is built, [`LossConfig::build`] before the first step of
/// the run, [`compute`](Loss::compute) at every step, in the recipe's order but for terms that use another's logits,
/// which come last.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use gdrd_core::error::Result;
/// use gdrd_core::loss::{Loss, LossInputs, LossValue};
///
/// /// The embedding's mean square.
/// struct Small;
///
/// impl Loss for Small {
///     fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
///         Ok(inputs.embedding()?.sqr()?.mean_all()?.into())
///     }
/// }
///
/// let embedding = Tensor::new(&[[1f32, 2.0]], &Device::Cpu)?;
/// let inputs = LossInputs { embedding: Some(&embedding), ..LossInputs::default() };
/// assert_eq!(Small.compute(&inputs)?.value.to_scalar::<f32>()?, 2.5);
/// assert!(Small.compute(&LossInputs::default()).is_err());
/// # Ok::<(), gdrd_core::error::Error>(())
/// ```
pub trait Loss {
    /// Its value.
    ///
    /// # Errors
    /// If it uses what it did not ask for, or the tensors do not fit.
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue>;
}

/// What a list of all losses says of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The equation, in a line; S and T are the student's and the teacher's embeddings or maps.
    pub equation: &'static str,
    /// How many numbers a step holds in memory beyond what it is given, with b faces, embeddings of w values, c
    /// people, maps of h w pixels, p pairs and a queue of q faces.
    pub memory: &'static str,
}

/// What a recipe says of a loss.
///
/// ```
/// use gdrd_core::context::BuildContext;
/// use gdrd_core::error::{Problem, Result};
/// use gdrd_core::loss::{Loss, LossConfig, LossInputs, LossValue, Needs, Wanted};
/// use gdrd_core::plugin::Kind;
///
/// /// Mean absolute difference of the student's and a teacher's embedding, times a factor.
/// #[derive(Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(deny_unknown_fields)]
/// struct Absolute {
///     /// The factor.
///     factor: f64,
/// }
///
/// impl Kind for Absolute {
///     const NAME: &'static str = "absolute";
///     const PURPOSE: &'static str = "mean absolute difference of embeddings";
/// }
///
/// impl LossConfig for Absolute {
///     fn check(&self) -> Vec<Problem> {
///         Problem::within("factor", self.factor, 0.0..=1e6).into_iter().collect()
///     }
///     fn needs(&self) -> Needs {
///         Needs::embedding_and(None, Wanted::Embedding)
///     }
///     fn build(&self, _: &BuildContext) -> Result<Box<dyn Loss>> {
///         Ok(Box::new(self.clone()))
///     }
/// }
///
/// impl Loss for Absolute {
///     fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
///         let gap = (inputs.embedding()? - inputs.teacher(0)?)?;
///         Ok((gap.abs()?.mean_all()? * self.factor)?.into())
///     }
/// }
///
/// assert_eq!(Absolute { factor: -1.0 }.check()[0].key, "factor");
/// ```
pub trait LossConfig: Send + Sync {
    /// What is wrong with the options.
    fn check(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// What the loss has to be given; by the options alone.
    fn needs(&self) -> Needs;

    /// What a list of all losses says of it, with the options as they are.
    fn about(&self) -> About {
        About::default()
    }

    /// The loss, with its variables in `cx.weights()`, for the stage `cx.stage()`.
    ///
    /// # Errors
    /// If it does not fit its teachers, the student or the data.
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>>;
}

/// The share of rows whose largest logit is the label's, of the faces of known people.
fn accuracy(logits: &Tensor, labels: &Labels) -> Result<LoggedScalar> {
    // Numbers of people are far below 2^24, up to which float32 has every whole number.
    let best = logits.detach().argmax(candle_core::D::Minus1)?.to_dtype(candle_core::DType::F32)?;
    let people = labels.people().to_vec();
    LoggedScalar::later(&best, move |best| {
        let known = best.iter().zip(&people).filter_map(|(found, person)| Some((*found as usize, (*person)?)));
        let (hits, all) =
            known.fold((0, 0), |(hits, all), (found, person)| (hits + usize::from(found == person), all + 1));
        hits as f64 / f64::from(all.max(1))
    })
}
