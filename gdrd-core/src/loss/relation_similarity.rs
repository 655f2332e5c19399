//! The similarities inside a batch, teacher against student.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Loss, LossConfig, LossContext, LossInputs, LossValue, Needs};
use crate::error::Result;
use crate::nn::{Weights, l2_normalise};
use crate::registry::Kind;
use crate::teacher::Output;

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
    fn teachers(&self) -> Vec<&str> {
        self.teacher.as_deref().into_iter().collect()
    }

    fn build(&self, context: &dyn LossContext, _: &Weights) -> Result<Box<dyn Loss>> {
        super::embedding_width(context)?;
        Ok(Box::new(Live { teacher: context.only_teacher(self.teacher.as_deref(), &Output::Embedding)? }))
    }
}

struct Live {
    teacher: String,
}

impl Loss for Live {
    fn needs(&self) -> Needs {
        Needs { teachers: vec![(self.teacher.clone(), Output::Embedding)], embedding: true, ..Needs::default() }
    }

    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let teacher = l2_normalise(inputs.teacher(&self.teacher, &Output::Embedding)?)?;
        let student = l2_normalise(inputs.embedding()?)?;
        let gap = (student.matmul(&student.t()?)? - teacher.matmul(&teacher.t()?)?)?;
        Ok(gap.sqr()?.mean_all()?.into())
    }
}
