//! Regression of the teacher's embedding.

use candle_core::D;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Loss, LossConfig, LossContext, LossInputs, LossValue, Needs};
use crate::error::Result;
use crate::nn::{Linear, Weights, l2_normalise};
use crate::registry::Kind;
use crate::teacher::Output;

/// `1 - cos(S(x_lr), T_d(x))`. Not in the paper; the plainest form of cross-resolution distillation, for comparison.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddingRegression {
    /// The teacher's name in the recipe; may be left out when only one has embeddings.
    pub teacher: Option<String>,
}

impl Kind for EmbeddingRegression {
    const NAME: &'static str = "embedding-regression";
    const PURPOSE: &'static str = "the embedding points where the teacher's does (cosine)";
}

impl LossConfig for EmbeddingRegression {
    fn teachers(&self) -> Vec<&str> {
        self.teacher.as_deref().into_iter().collect()
    }

    fn build(&self, context: &dyn LossContext, weights: &Weights) -> Result<Box<dyn Loss>> {
        let teacher = context.only_teacher(self.teacher.as_deref(), &Output::Embedding)?;
        let width = super::embedding_width(context)?;
        let target: usize = context.teacher_shape(&teacher, &Output::Embedding)?.iter().product();
        let differ = width != target;
        let connector = differ.then(|| Linear::new(width, target, true, &weights.pp("connector"))).transpose()?;
        Ok(Box::new(Live { teacher, connector }))
    }
}

struct Live {
    teacher: String,
    connector: Option<Linear>,
}

impl Loss for Live {
    fn needs(&self) -> Needs {
        Needs { teachers: vec![(self.teacher.clone(), Output::Embedding)], embedding: true, ..Needs::default() }
    }

    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let embedding = match &self.connector {
            Some(connector) => connector.forward(inputs.embedding()?)?,
            None => inputs.embedding()?.clone(),
        };
        let target = l2_normalise(inputs.teacher(&self.teacher, &Output::Embedding)?)?;
        let cosine = (l2_normalise(&embedding)? * target)?.sum(D::Minus1)?;
        Ok((1.0 - cosine.mean_all()?)?.into())
    }
}
