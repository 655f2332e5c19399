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

/// `d^2` for pairs of one person and `max(0, margin - d)^2` for pairs of two, the mean over all pairs of each sort in
/// the batch, added (Hadsell et al., CVPR 2006, on Euclidean distances of unit vectors).
///
/// SiameseFace (Vachhani et al., ICIIP 2023) learns from such pairs with a stream for each resolution; we have read its
/// title alone. Here a stream is a view: the stage's, and those in `streams`, whose pairs with it and each other count as
/// those within it. The means in the place of sums are ours: a batch has many more pairs of strangers.
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
            let share = shares(&people, same);
            let share = put(&Tensor::from_vec(share, values.shape(), &Device::Cpu)?, values.device())?;
            Ok((values * share.to_dtype(DType::F32)?)?.sum_all()?)
        };
        Ok((mean(&near, true)? + mean(&far, false)?)?.into())
    }
}

/// The share that each pair of the batch has in the mean over pairs of one person, or of two.
fn shares(people: &[Option<usize>], same: bool) -> Vec<f32> {
    let fits =
        |a: usize, b: usize| a != b && people[a].is_some() && people[b].is_some() && (people[a] == people[b]) == same;
    let all: Vec<bool> = (0..people.len().pow(2)).map(|at| fits(at / people.len(), at % people.len())).collect();
    let count = all.iter().filter(|fits| **fits).count().max(1) as f32;
    all.into_iter().map(|fits| if fits { 1.0 / count } else { 0.0 }).collect()
}
