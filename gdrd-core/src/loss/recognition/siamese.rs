//! Pairs of faces, of which Siamese networks learn.

use candle_core::{DType, Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::BuildContext;
use crate::error::Result;
use crate::loss::{About, Loss, LossConfig, LossInputs, LossValue, Metric, Needs};
use crate::nn::kernels::put;
use crate::nn::l2_normalise;
use crate::plugin::{Kind, ViewName};

/// `d^2` for pairs of one person and `max(0, margin - d)^2` for pairs of two, added: the mean over all pairs of one person in
/// the batch, and over those of two that cost something (Hadsell et al., CVPR 2006, on Euclidean distances of unit vectors).
///
/// SiameseFace (Vachhani et al., ICIIP 2023) learns from such pairs with a stream for each resolution; we have read its
/// title alone. Here a stream is a view: the stage's, and those in `streams`, whose pairs with it and each other count as
/// those within it. The original has single pairs; a batch has many more pairs of strangers, most of which are far enough
/// apart soon, and a mean over all of them would forget the others. pytorch-metric-learning takes the same means.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Siamese {
    /// Distance beyond which two people cost nothing.
    #[schemars(range(max = 1000), extend("exclusiveMinimum" = 0))]
    pub margin: f64,
    /// Views beside the stage's in which the student sees the same faces; they have its input size.
    #[schemars(length(max = 8))]
    pub streams: Vec<ViewName>,
}

impl Default for Siamese {
    fn default() -> Self {
        Self { margin: 1.0, streams: Vec::new() }
    }
}

impl Kind for Siamese {
    const NAME: &'static str = "siamese";
    const PURPOSE: &'static str = "faces of a person are near and others far (contrastive loss on pairs)";
}

impl LossConfig for Siamese {
    fn needs(&self) -> Needs {
        let embeddings_of = self.streams.iter().map(ToString::to_string).collect();
        Needs { embedding: true, labels: true, embeddings_of, ..Needs::default() }
    }

    fn about(&self) -> About {
        About { equation: "mean d(p)^2 + mean max(0, m - d(n))^2", memory: "b^2" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        cx.stage()?.embedding_width()?;
        Ok(Box::new(Pairs { margin: self.margin }))
    }
}

struct Pairs {
    margin: f64,
}

impl Loss for Pairs {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let mut streams = vec![inputs.embedding()?];
        streams.extend(&inputs.embeddings_of);
        let people = inputs.labels()?.people().repeat(streams.len());
        let embedding = l2_normalise(&Tensor::cat(&streams, 0)?)?;
        let near = Metric::Squared.between(&embedding, &embedding)?;
        let far = (self.margin - Metric::Euclidean.between(&embedding, &embedding)?)?.relu()?.sqr()?;
        let mean = |values: &Tensor, same: bool| -> Result<Tensor> {
            let mask = pairs(&people, same);
            let all = mask.iter().sum::<f32>().max(1.0);
            let mask = Tensor::from_vec(mask, values.shape(), &Device::Cpu)?;
            let costs = (values * put(&mask, values.device())?)?;
            if same {
                return Ok((costs.sum_all()? / f64::from(all))?);
            }
            let count = costs.detach().gt(0.0)?.to_dtype(DType::F32)?.sum_all()?.clamp(1.0, f64::from(all))?;
            Ok((costs.sum_all()? / count)?)
        };
        Ok((mean(&near, true)? + mean(&far, false)?)?.into())
    }
}

/// 1 for each pair of the batch that shows one person, or two.
fn pairs(people: &[Option<usize>], same: bool) -> Vec<f32> {
    let fits =
        |a: usize, b: usize| a != b && people[a].is_some() && people[b].is_some() && (people[a] == people[b]) == same;
    (0..people.len().pow(2)).map(|at| f32::from(u8::from(fits(at / people.len(), at % people.len())))).collect()
}
