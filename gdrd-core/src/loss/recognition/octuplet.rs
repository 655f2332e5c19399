//! Triplets within and across resolutions.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mining::Mining;
use super::triplet::{hinge, mined};
use crate::context::BuildContext;
use crate::error::Result;
use crate::loss::{About, Loss, LossConfig, LossInputs, LossValue, Metric, Needs, Offered, Wanted};
use crate::nn::{Linear, l2_normalise};
use crate::plugin::{Kind, ViewName};

/// The octuplet loss: four batch-hard triplet losses, whose anchors are faces in high or low resolution and whose
/// positives and negatives are in high or low resolution, added (Knoche et al., FG 2023).
///
/// In the paper one network sees both resolutions: so it is with `high`, a view in which faces show more than in the
/// stage's. Without, the high-resolution embeddings are the teacher's, which do not change: of the four, high against
/// high is a constant and left out; the student learns from high-low, low-high and low-low, and where the widths differ,
/// a linear map brings the student's embedding to the teacher's. Needs several images of a person in a batch
/// (`images_per_person` of the stage).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Octuplet {
    /// The teacher's name in the recipe; may be left out when only one has embeddings.
    pub teacher: Option<String>,
    /// The view whose embeddings by the student are those in high resolution, in the place of a teacher's; it has the
    /// student's input size.
    pub high: Option<ViewName>,
    /// What a negative has to be farther away than a positive.
    #[schemars(range(max = 1000), extend("exclusiveMinimum" = 0))]
    pub margin: f64,
    /// How far two faces are apart.
    pub distance: Metric,
    /// Whether embeddings are brought to unit length first. The paper does not; teacher and student would have to
    /// agree on a length.
    pub unit_length: bool,
}

impl Default for Octuplet {
    fn default() -> Self {
        Self { teacher: None, high: None, margin: 0.5, distance: Metric::Euclidean, unit_length: true }
    }
}

impl Kind for Octuplet {
    const NAME: &'static str = "octuplet";
    const PURPOSE: &'static str = "triplets within and across resolutions";
}

impl LossConfig for Octuplet {
    fn needs(&self) -> Needs {
        match &self.high {
            Some(high) => {
                Needs { labels: true, embedding: true, embeddings_of: vec![high.to_string()], ..Needs::default() }
            }
            None => Needs { labels: true, ..Needs::embedding_and(self.teacher.as_ref(), Wanted::Embedding) },
        }
    }

    fn about(&self) -> About {
        let equation = match self.high {
            Some(_) => "triplets (a, p, n) of (H, H, H), (H, S, S), (S, H, H), (S, S, S), H = S(high)",
            None => "triplets (a, p, n) of (T, S, S), (S, T, T), (S, S, S)",
        };
        About { equation, memory: "b^2" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let stage = cx.stage()?;
        let width = stage.embedding_width()?;
        let target = stage.teachers.first().map_or(width, Offered::width);
        let differ = width != target;
        let connector = differ.then(|| Linear::new(width, target, true, &cx.weights()?.pp("connector"))).transpose()?;
        Ok(Box::new(Four { config: self.clone(), connector }))
    }
}

struct Four {
    config: Octuplet,
    connector: Option<Linear>,
}

impl Loss for Four {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let Octuplet { margin, distance, unit_length, .. } = self.config;
        let low = match &self.connector {
            Some(connector) => connector.forward(inputs.embedding()?)?,
            None => inputs.embedding()?.clone(),
        };
        let ready = |x: &Tensor| if unit_length { l2_normalise(x) } else { Ok(x.clone()) };
        let high = if self.config.high.is_some() { inputs.embedding_of(0)? } else { inputs.teacher(0)? };
        let (high, low) = (ready(high)?, ready(&low)?);
        let people = inputs.labels()?.people();
        let term = |anchors: &Tensor, others: &Tensor| {
            let distances = distance.between(anchors, others)?;
            hinge(&distances, &mined(&distances, people, Mining::BatchHard, margin)?, margin)
        };
        let three = ((term(&high, &low)? + term(&low, &high)?)? + term(&low, &low)?)?;
        Ok(if self.config.high.is_some() { (three + term(&high, &high)?)? } else { three }.into())
    }
}
