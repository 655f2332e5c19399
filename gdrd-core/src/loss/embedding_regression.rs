//! Regression of the teacher's embedding.

use candle_core::D;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Loss, LossConfig, LossInputs, LossValue, Needs, Wanted};
use crate::context::BuildContext;
use crate::error::Result;
use crate::nn::{Linear, l2_normalise};
use crate::plugin::Kind;

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
    fn needs(&self) -> Needs {
        Needs::embedding_and(self.teacher.as_ref(), Wanted::Embedding)
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let stage = cx.stage()?;
        let (width, target) = (stage.embedding_width()?, stage.teachers[0].width());
        let differ = width != target;
        let connector = differ.then(|| Linear::new(width, target, true, &cx.weights()?.pp("connector"))).transpose()?;
        Ok(Box::new(CosineRegression { connector }))
    }
}

struct CosineRegression {
    connector: Option<Linear>,
}

impl Loss for CosineRegression {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let embedding = match &self.connector {
            Some(connector) => connector.forward(inputs.embedding()?)?,
            None => inputs.embedding()?.clone(),
        };
        let target = l2_normalise(inputs.teacher(0)?)?;
        let cosine = (l2_normalise(&embedding)? * target)?.sum(D::Minus1)?;
        Ok((1.0 - cosine.mean_all()?)?.into())
    }
}
