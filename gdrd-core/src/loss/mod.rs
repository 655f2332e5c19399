//! What a student is asked to get right.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use crate::error::{Problem, Result};
use crate::face::FaceBatch;
use crate::nn::Weights;
use crate::seed::Stream;
use crate::student::{Student, StudentCard};
use crate::teacher::Output;

mod cross_entropy;
mod denoising;
mod embedding_regression;
mod feature_regression;
mod logit_distillation;
mod margin;
mod number;
mod relation_similarity;
mod relational_contrastive;

pub use cross_entropy::{CrossEntropy, cross_entropy};
pub use denoising::Denoising;
pub use embedding_regression::EmbeddingRegression;
pub use feature_regression::{Connector, FeatureRegression};
pub use logit_distillation::{LogitDistillation, TeacherLogits};
pub use margin::{ArcFace, CosFace};
pub use number::Number;
pub use relation_similarity::RelationSimilarity;
pub use relational_contrastive::RelationalContrastive;

/// What a loss has to be given at every step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Outputs of teachers, by the teacher's name in the recipe.
    pub teachers: Vec<(String, Output)>,
    /// The student's feature map.
    pub map: bool,
    /// The student's embedding.
    pub embedding: bool,
    /// Identities of the faces.
    pub labels: bool,
    /// Logits of another term of the same stage, by its name.
    pub logits_of: Option<String>,
}

/// What is there when a loss is built.
pub trait LossContext {
    /// The sizes of the student.
    fn student(&self) -> &StudentCard;

    /// The shape of a teacher's output for one face.
    ///
    /// # Errors
    /// If there is no such teacher, or it cannot offer this.
    fn teacher_shape(&self, teacher: &str, output: &Output) -> Result<Vec<usize>>;

    /// The feature map that `teacher` means when none is named.
    fn default_map(&self, teacher: &str) -> Result<Output>;

    /// The only teacher with an output like `output`, for losses that name none.
    fn only_teacher(&self, named: Option<&str>, output: &Output) -> Result<String>;

    /// Number of identities in the stage's dataset.
    ///
    /// # Errors
    /// If the dataset knows no identities.
    fn identities(&self) -> Result<usize>;

    /// Unit-length mean embeddings of the training identities, `[identities, width]`.
    fn class_centres(&self, teacher: &str) -> Result<Tensor>;

    /// Names of the stage's other terms that give logits.
    fn classifiers(&self) -> Vec<String>;

    /// The device of the run.
    fn device(&self) -> &Device;
}

/// What is there at every step. What a loss did not ask for may be missing.
pub struct LossInputs<'a> {
    /// The student's feature map, `[batch, channels, height, width]`.
    pub map: Option<&'a Tensor>,
    /// The student's embedding, `[batch, width]`, not normalised.
    pub embedding: Option<&'a Tensor>,
    /// Teachers' outputs, detached.
    pub teachers: &'a BTreeMap<(String, Output), Tensor>,
    /// Identities, `[batch]`, u32.
    pub labels: Option<&'a Tensor>,
    /// The same identities as numbers.
    pub identities: &'a [usize],
    /// The student's view of the faces.
    pub faces: &'a FaceBatch,
    /// The student itself.
    pub student: &'a dyn Student,
    /// Logits of terms computed before.
    pub logits: &'a BTreeMap<String, Tensor>,
    /// Random numbers of this term and step.
    pub stream: Stream,
}

impl LossInputs<'_> {
    /// A tensor that [`Needs`] asked for.
    pub fn teacher(&self, teacher: &str, output: &Output) -> Result<&Tensor> {
        let key = (teacher.to_string(), output.clone());
        self.teachers.get(&key).ok_or_else(|| missing(&format!("{output} of teacher `{teacher}`")))
    }

    /// The embedding, which must have been asked for.
    pub fn embedding(&self) -> Result<&Tensor> {
        self.embedding.ok_or_else(|| missing("the student's embedding"))
    }

    /// The feature map, which must have been asked for.
    pub fn map(&self) -> Result<&Tensor> {
        self.map.ok_or_else(|| missing("the student's feature map"))
    }

    /// The labels, which must have been asked for.
    pub fn labels(&self) -> Result<&Tensor> {
        self.labels.ok_or_else(|| missing("the labels"))
    }
}

fn missing(what: &str) -> crate::error::Error {
    crate::error::Error::component(format!("{what} is used at a step but was not asked for in `needs`"))
}

/// A loss at one step.
pub struct LossValue {
    /// What is minimised, a scalar.
    pub value: Tensor,
    /// Identity logits `[batch, identities]`, from a loss that classifies.
    pub logits: Option<Tensor>,
    /// Numbers for the log, by name.
    pub details: Vec<(String, Number)>,
}

impl From<Tensor> for LossValue {
    fn from(value: Tensor) -> Self {
        Self { value, logits: None, details: Vec::new() }
    }
}

/// A term of a stage's objective. Its own variables live under `loss.<stage>.<name>`; they are trained and saved in
/// checkpoints, but not in the student file.
pub trait Loss {
    /// What it has to be given.
    fn needs(&self) -> Needs;

    /// Its value.
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue>;
}

/// What a recipe says of a loss.
pub trait LossConfig {
    /// What is wrong with the options.
    fn check(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// Names of teachers that the options mention, for checks before anything is built.
    fn teachers(&self) -> Vec<&str> {
        Vec::new()
    }

    /// Whether the loss gives logits that another term may use.
    fn classifies(&self) -> bool {
        false
    }

    /// Whether identities are needed.
    fn needs_labels(&self) -> bool {
        self.classifies()
    }

    /// The live loss, with its variables in `weights`.
    fn build(&self, context: &dyn LossContext, weights: &Weights) -> Result<Box<dyn Loss>>;
}

/// The student's embedding width.
///
/// # Errors
/// If the student has none.
pub fn embedding_width(context: &dyn LossContext) -> Result<usize> {
    context.student().embedding.ok_or_else(|| {
        crate::error::Error::component("this loss needs a student with an embedding; the student only denoises")
    })
}

/// The share of rows whose largest logit is the label's.
fn accuracy(logits: &Tensor, labels: &[usize]) -> Result<Number> {
    // Numbers of identities are far below 2^24, up to which float32 has every whole number.
    let best = logits.detach().argmax(candle_core::D::Minus1)?.to_dtype(candle_core::DType::F32)?;
    let labels = labels.to_vec();
    Number::later(&best, move |best| {
        let hits = best.iter().zip(&labels).filter(|(found, label)| **found as usize == **label).count();
        hits as f64 / labels.len() as f64
    })
}
