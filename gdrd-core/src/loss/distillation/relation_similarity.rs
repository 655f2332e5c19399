//! The similarities of a batch's faces, teacher against student.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::BuildContext;
use crate::error::{Problem, Result};
use crate::loss::{About, Distance, Loss, LossConfig, LossInputs, LossValue, Needs, Queue, Wanted};
use crate::nn::l2_normalise;
use crate::plugin::Kind;

/// The mean distance between the two matrices of cosine similarities, the teacher's and the student's, of a batch
/// with itself and with a queue of faces before it (second-order relations; not in the paper, for comparison with its
/// learned relations). What the queue holds of the student is what it gave then, without a gradient.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RelationSimilarity {
    /// The teacher's name in the recipe; may be left out when only one has embeddings.
    pub teacher: Option<String>,
    /// What a difference of two cosines costs.
    pub distance: Distance,
    /// Where smooth L1 becomes a straight line.
    #[schemars(range(min = 1e-6, max = 1e6))]
    pub beta: f64,
    /// Faces of earlier batches that every face is compared with too; at most 65536.
    #[schemars(range(min = 0, max = 1 << 16))]
    pub queue: usize,
}

impl Default for RelationSimilarity {
    fn default() -> Self {
        Self { teacher: None, distance: Distance::Squared, beta: 1.0, queue: 0 }
    }
}

impl Kind for RelationSimilarity {
    const NAME: &'static str = "relation-similarity";
    const PURPOSE: &'static str = "the similarities of a batch's faces are the teacher's";
}

impl LossConfig for RelationSimilarity {
    fn check(&self) -> Vec<Problem> {
        let beta = Problem::within("beta", self.beta, 1e-6..=1e6);
        beta.into_iter().chain(Problem::within("queue", self.queue, 0..=1 << 16)).collect()
    }

    fn needs(&self) -> Needs {
        Needs::embedding_and(self.teacher.as_ref(), Wanted::Embedding)
    }

    fn about(&self) -> About {
        About { equation: "|| S S' - T T' ||^2 of unit vectors", memory: "b (b + q)" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let stage = cx.stage()?;
        let widths = [("teacher", stage.teachers[0].width()), ("student", stage.embedding_width()?)];
        let queue = (self.queue > 0).then(|| Queue::new(self.queue, &widths, cx.weights()?)).transpose()?;
        Ok(Box::new(Similarities { distance: self.distance, beta: self.beta, queue }))
    }
}

struct Similarities {
    distance: Distance,
    beta: f64,
    queue: Option<Queue>,
}

impl Loss for Similarities {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let teacher = l2_normalise(inputs.teacher(0)?)?;
        let student = l2_normalise(inputs.embedding()?)?;
        let with_queue = |of_batch: &Tensor, held: &Tensor| Tensor::cat(&[of_batch, held], 0);
        let (other_teacher, other_student) = match &self.queue {
            None => (teacher.clone(), student.clone()),
            Some(queue) => {
                let held = queue.held()?.rows;
                (with_queue(&teacher, &held[0])?, with_queue(&student, &held[1])?)
            }
        };
        let gap = (student.matmul(&other_student.t()?)? - teacher.matmul(&other_teacher.t()?)?)?;
        if let Some(queue) = &self.queue {
            queue.push(&[&teacher, &student], &vec![None; teacher.dim(0)?])?;
        }
        Ok(self.distance.of(&gap, self.beta)?.mean_all()?.into())
    }
}
