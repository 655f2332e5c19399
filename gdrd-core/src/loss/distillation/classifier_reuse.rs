//! The teacher's classifier, reused by the student.

use candle_core::{D, DType, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::BuildContext;
use crate::error::{Problem, Result};
use crate::loss::{About, LoggedScalar, Loss, LossConfig, LossInputs, LossValue, Needs, Wanted, cross_entropy};
use crate::nn::{Linear, l2_normalise};
use crate::plugin::Kind;

/// CCFace (Saadabadi et al., IJCB 2023): the classifier that was learnt on high-resolution faces is given to the
/// student as it is, and the student's embeddings are classified by it, with an angular penalty that adapts to the
/// face, so that the student does not overfit poor ones.
///
/// We have read its abstract alone, and the equations are ours: the classifier is the mean embedding of each person by
/// the teacher, and the target's logit is `s (cos - m a)`. With `adaptive`, a is the cosine between the student's and
/// the teacher's embedding of the face, 0 where it is below 0, without a gradient; else it is 1. So a face that the
/// student cannot read yet has a small penalty. Where the widths differ, a linear map stands between. Its asymmetric
/// learning from two augmentations is left out.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClassifierReuse {
    /// The teacher's name in the recipe; may be left out when only one has embeddings.
    pub teacher: Option<String>,
    /// Factor of all logits.
    #[schemars(range(min = 1e-3, max = 1e6))]
    pub scale: f64,
    /// m, the largest cosine taken off the target's.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub margin: f64,
    /// Whether the penalty adapts to the face.
    pub adaptive: bool,
}

impl Default for ClassifierReuse {
    fn default() -> Self {
        Self { teacher: None, scale: 64.0, margin: 0.4, adaptive: true }
    }
}

impl Kind for ClassifierReuse {
    const NAME: &'static str = "classifier-reuse";
    const PURPOSE: &'static str = "the teacher's classifier names the student's embeddings (CCFace)";
}

impl LossConfig for ClassifierReuse {
    fn check(&self) -> Vec<Problem> {
        let scale = Problem::within("scale", self.scale, 1e-3..=1e6);
        scale.into_iter().chain(Problem::within("margin", self.margin, 0.0..=1.0)).collect()
    }

    fn needs(&self) -> Needs {
        Needs {
            labels: true,
            centres: true,
            gives_logits: true,
            ..Needs::embedding_and(self.teacher.as_ref(), Wanted::Embedding)
        }
    }

    fn about(&self) -> About {
        About { equation: "CE of s (cos(S, centre) - m cos(S, T))", memory: "b c" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let stage = cx.stage()?;
        let (width, target) = (stage.embedding_width()?, stage.teachers[0].width());
        let differ = width != target;
        let connector = differ.then(|| Linear::new(width, target, true, &cx.weights()?.pp("connector"))).transpose()?;
        Ok(Box::new(Reuse { config: self.clone(), connector }))
    }
}

struct Reuse {
    config: ClassifierReuse,
    connector: Option<Linear>,
}

impl Loss for Reuse {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let ClassifierReuse { scale, margin, adaptive, .. } = self.config;
        let student = match &self.connector {
            Some(connector) => l2_normalise(&connector.forward(inputs.embedding()?)?)?,
            None => l2_normalise(inputs.embedding()?)?,
        };
        let labels = inputs.labels()?;
        let cosines = student.matmul(&inputs.centres()?.t()?)?;
        let mut details = vec![("accuracy".into(), crate::loss::accuracy(&cosines, labels)?)];
        let logits = Some((&cosines * scale)?);
        if labels.is_empty() {
            return Ok(LossValue { value: Tensor::zeros((), DType::F32, cosines.device())?, logits, details });
        }
        let read = (student.detach() * l2_normalise(inputs.teacher(0)?)?)?.sum_keepdim(D::Minus1)?.relu()?;
        details.push(("readable".into(), LoggedScalar::scalar(&read.mean_all()?)?));
        let read = if adaptive { labels.of(&read)? } else { labels.of(&read.ones_like()?)? };
        let known = labels.of(&cosines)?;
        let penalty = known.zeros_like()?.scatter_add(&labels.known().unsqueeze(1)?, &(read * margin)?, 1)?;
        let value = cross_entropy(&((known - penalty)? * scale)?, labels.known(), 0.0)?;
        Ok(LossValue { value, logits, details })
    }
}
