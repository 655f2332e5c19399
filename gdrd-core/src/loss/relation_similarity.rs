//! The similarities inside a batch, teacher against student.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Loss, LossConfig, LossInputs, LossValue, Needs, Wanted};
use crate::context::BuildContext;
use crate::error::Result;
use crate::nn::l2_normalise;
use crate::plugin::Kind;

/// The mean square difference of the two matrices of cosine similarities of a batch (second-order relations; not in
/// the paper, for comparison with its learned relations).
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RelationSimilarity {
    /// The teacher's name in the recipe; may be left out when only one has embeddings.
    pub teacher: Option<String>,
}

impl Kind for RelationSimilarity {
    const NAME: &'static str = "relation-similarity";
    const PURPOSE: &'static str = "the similarities of a batch's faces are the teacher's";
}

impl LossConfig for RelationSimilarity {
    fn needs(&self) -> Needs {
        Needs::embedding_and(self.teacher.as_ref(), Wanted::Embedding)
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        cx.stage()?.embedding_width()?;
        Ok(Box::new(Similarities {}))
    }
}

struct Similarities {}

impl Loss for Similarities {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let teacher = l2_normalise(inputs.teacher(0)?)?;
        let student = l2_normalise(inputs.embedding()?)?;
        let gap = (student.matmul(&student.t()?)? - teacher.matmul(&teacher.t()?)?)?;
        Ok(gap.sqr()?.mean_all()?.into())
    }
}
