//! Relational knowledge distillation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::relations::{angle_term, distance_term};
use crate::context::BuildContext;
use crate::error::{Problem, Result};
use crate::loss::{About, LoggedScalar, Loss, LossConfig, LossInputs, LossValue, Needs, Wanted};
use crate::plugin::Kind;

/// Distances of pairs, over their mean in the batch, and angles of triplets are the teacher's, by smooth L1 (RKD,
/// Park et al., CVPR 2019; the weights are RepDistiller's). Embeddings are taken as they are, without a projection to
/// unit length. Angles take the cube of the batch in memory.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rkd {
    /// The teacher's name in the recipe; may be left out when only one has embeddings.
    pub teacher: Option<String>,
    /// Weight of distances.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub distance: f64,
    /// Weight of angles; with 0 they are not computed.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub angle: f64,
}

impl Default for Rkd {
    fn default() -> Self {
        Self { teacher: None, distance: 25.0, angle: 50.0 }
    }
}

impl Kind for Rkd {
    const NAME: &'static str = "rkd";
    const PURPOSE: &'static str = "distances of pairs and angles of triplets are the teacher's";
}

impl LossConfig for Rkd {
    fn check(&self) -> Vec<Problem> {
        let distance = Problem::within("distance", self.distance, 0.0..=1e6);
        distance.into_iter().chain(Problem::within("angle", self.angle, 0.0..=1e6)).collect()
    }

    fn needs(&self) -> Needs {
        Needs::embedding_and(self.teacher.as_ref(), Wanted::Embedding)
    }

    fn about(&self) -> About {
        let memory = if self.angle > 0.0 { "b^2 w + b^3" } else { "b^2" };
        About { equation: "25 L1(d_ij(S), d_ij(T)) + 50 L1(angle_ijk(S), angle_ijk(T))", memory }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        cx.stage()?.embedding_width()?;
        Ok(Box::new(Relational { distance: self.distance, angle: self.angle }))
    }
}

struct Relational {
    distance: f64,
    angle: f64,
}

impl Loss for Relational {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let (student, teacher) = (inputs.embedding()?, inputs.teacher(0)?);
        let distance = distance_term(student, teacher)?;
        let mut details = vec![("distance".into(), LoggedScalar::scalar(&distance)?)];
        let mut value = (distance * self.distance)?;
        if self.angle > 0.0 {
            let angle = angle_term(student, teacher)?;
            details.push(("angle".into(), LoggedScalar::scalar(&angle)?));
            value = (value + (angle * self.angle)?)?;
        }
        Ok(LossValue { value, logits: None, details })
    }
}
