//! Triplets of faces, of which FaceNet learns.

use candle_core::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::head::positive;
use super::mining::{Mining, Triplet as Three};
use crate::context::BuildContext;
use crate::error::{Problem, Result};
use crate::loss::{About, Loss, LossConfig, LossInputs, LossValue, Metric, Needs};
use crate::nn::kernels::put;
use crate::nn::l2_normalise;
use crate::plugin::Kind;

/// `max(0, d(anchor, positive) - d(anchor, negative) + margin)`, the mean over triplets of the batch (Schroff et al.,
/// CVPR 2015, with the square of the Euclidean distance between unit vectors and a margin of 0.2). The paper mines
/// over batches of thousands of faces; here a batch is one batch of the stage, so `images_per_person` of the stage
/// should be set, or few faces have a positive.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Triplet {
    /// What a negative has to be farther away than a positive.
    #[schemars(range(max = 1000), extend("exclusiveMinimum" = 0))]
    pub margin: f64,
    /// Which triplets count.
    pub mining: Mining,
    /// How far two faces are apart.
    pub distance: Metric,
    /// Whether embeddings are brought to unit length first.
    pub unit_length: bool,
}

impl Default for Triplet {
    fn default() -> Self {
        Self { margin: 0.2, mining: Mining::SemiHard, distance: Metric::Squared, unit_length: true }
    }
}

impl Kind for Triplet {
    const NAME: &'static str = "triplet";
    const PURPOSE: &'static str = "faces of a person are nearer to each other than to others (FaceNet)";
}

impl LossConfig for Triplet {
    fn check(&self) -> Vec<Problem> {
        positive("margin", self.margin).into_iter().collect()
    }

    fn needs(&self) -> Needs {
        Needs { embedding: true, labels: true, ..Needs::default() }
    }

    fn about(&self) -> About {
        About { equation: "max(0, d(a, p) - d(a, n) + m)", memory: "b^2" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        cx.stage()?.embedding_width()?;
        Ok(Box::new(Triplets(self.clone())))
    }
}

struct Triplets(Triplet);

impl Loss for Triplets {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let Triplet { margin, mining, distance, unit_length } = self.0;
        let embedding = if unit_length { l2_normalise(inputs.embedding()?)? } else { inputs.embedding()?.clone() };
        let distances = distance.between(&embedding, &embedding)?;
        let triplets = mined(&distances, inputs.labels()?.people(), mining, margin)?;
        let value = hinge(&distances, &triplets, margin)?;
        let details = vec![("triplets".into(), (triplets.len() as f64).into())];
        Ok(LossValue { value, logits: None, details })
    }
}

/// The triplets of `distances` `[batch, batch]`, by their values on the CPU.
pub(super) fn mined(distances: &Tensor, people: &[Option<usize>], mining: Mining, margin: f64) -> Result<Vec<Three>> {
    Ok(mining.triplets(&distances.detach().to_vec2::<f32>()?, people, margin))
}

/// `max(0, d(anchor, positive) - d(anchor, negative) + margin)`, the mean over triplets; 0 if there are none.
pub(super) fn hinge(distances: &Tensor, triplets: &[Three], margin: f64) -> Result<Tensor> {
    if triplets.is_empty() {
        return Ok(Tensor::zeros((), distances.dtype(), distances.device())?);
    }
    let (columns, flat) = (distances.dim(1)?, distances.flatten_all()?);
    let of = |column: fn(&Three) -> usize| -> Result<Tensor> {
        let places: Vec<u32> = triplets.iter().map(|three| (three[0] * columns + column(three)) as u32).collect();
        Ok(flat.index_select(&put(&Tensor::new(places, &Device::Cpu)?, distances.device())?, 0)?)
    };
    Ok((of(|three| three[1])? - of(|three| three[2])?)?.affine(1.0, margin)?.relu()?.mean_all()?)
}
