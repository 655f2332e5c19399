//! Classification of the training identities, L_cls of Eq. (3).

use candle_core::{D, Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::classes::{Classes, Identities};
use crate::context::BuildContext;
use crate::error::Result;
use crate::loss::{About, Loss, LossConfig, LossInputs, LossValue, Needs, StageFacts};
use crate::nn::kernels::put;
use crate::nn::{Init, Weights};
use crate::plugin::Kind;

/// Softmax cross-entropy over a linear classifier on the embedding.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CrossEntropy {
    /// Label smoothing, the weight of people with few images, and a sample of the identities.
    pub classes: Classes,
}

impl Kind for CrossEntropy {
    const NAME: &'static str = "cross-entropy";
    const PURPOSE: &'static str = "classification of the training identities (L_cls of Eq. 3)";
}

impl LossConfig for CrossEntropy {
    fn needs(&self) -> Needs {
        Needs { embedding: true, labels: true, gives_logits: self.classes.are_whole(), ..Needs::default() }
    }

    fn about(&self) -> About {
        About { equation: "-log softmax(W S + b)[person]", memory: "b c" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let stage = cx.stage()?;
        let identities = Identities::new(&self.classes, stage);
        Ok(Box::new(Classifier::new(stage.embedding_width()?, stage.people, identities, cx.weights()?)?))
    }
}

/// A linear classifier over the identities.
pub(in crate::loss) struct Classifier {
    weight: Tensor,
    bias: Tensor,
    identities: Identities,
}

impl Classifier {
    /// Of embeddings of `width` values, over all identities of the stage alike.
    pub(in crate::loss) fn plain(width: usize, stage: &StageFacts, weights: &Weights) -> Result<Self> {
        Self::new(width, stage.people, Identities::new(&Classes::default(), stage), weights)
    }

    fn new(width: usize, people: usize, identities: Identities, weights: &Weights) -> Result<Self> {
        let init = Init::Uniform { bound: 1.0 / (width as f32).sqrt() };
        let weight = weights.parameter("weight", (people, width), init)?;
        let bias = weights.parameter("bias", people, init)?;
        Ok(Self { weight, bias, identities })
    }
}

impl Loss for Classifier {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let labels = inputs.labels()?;
        let drawn = self.identities.draw(inputs)?;
        let (weight, bias) = (drawn.of(&self.weight)?, drawn.of(&self.bias)?);
        let logits = crate::nn::kernels::linear(inputs.embedding()?, &weight)?.broadcast_add(&bias)?;
        let known = labels.of(&logits)?;
        let value = match labels.is_empty() {
            true => Tensor::zeros((), logits.dtype(), logits.device())?,
            false => drawn.cross_entropy(&known)?,
        };
        let details = vec![("accuracy".into(), drawn.accuracy(&known, labels)?)];
        Ok(LossValue { value, logits: self.identities.are_whole().then_some(logits), details })
    }
}

/// The mean over the batch of `-log softmax(logits)[label]`, with `smoothing` of the target spread evenly.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, smoothing: f64) -> Result<Tensor> {
    weighted_cross_entropy(logits, labels, smoothing, None)
}

/// The same as a weighted mean; 0 where all weights are.
pub(super) fn weighted_cross_entropy(
    logits: &Tensor,
    labels: &Tensor,
    smoothing: f64,
    weights: Option<&[f32]>,
) -> Result<Tensor> {
    let log = candle_nn::ops::log_softmax(logits, D::Minus1)?;
    let hit = log.gather(&labels.unsqueeze(1)?, 1)?;
    let mean = |values: Tensor| -> Result<Tensor> {
        let Some(weights) = weights else { return Ok(values.mean_all()?) };
        let sum: f32 = weights.iter().sum();
        let shares = weights.iter().map(|weight| if sum > 0.0 { weight / sum } else { 0.0 }).collect();
        let shares = put(&Tensor::from_vec(shares, (weights.len(), 1), &Device::Cpu)?, values.device())?;
        Ok((values * shares)?.sum_all()?)
    };
    if smoothing == 0.0 {
        return Ok(mean(hit)?.neg()?);
    }
    let spread = log.mean_keepdim(D::Minus1)?;
    Ok(((mean(hit)? * (1.0 - smoothing))? + (mean(spread)? * smoothing)?)?.neg()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(smoothing: f64, weights: Option<&[f32]>) -> f32 {
        let logits = Tensor::new(&[[1f32, 2.0, 3.0], [0.0, 0.0, 0.0]], &Device::Cpu).expect("logits");
        let labels = Tensor::new(&[2u32, 1], &Device::Cpu).expect("labels");
        let value = weighted_cross_entropy(&logits, &labels, smoothing, weights);
        value.and_then(|t| Ok(t.to_scalar::<f32>()?)).expect("value")
    }

    #[test]
    fn values_by_hand() {
        // log-sum-exp(1,2,3) = 3.4076059; (0.4076059 + ln 3) / 2.
        assert!((value(0.0, None) - 0.753_109).abs() < 1e-5);
        // With s: (1-s) * above + s * mean(-log p) = 0.9 * 0.753109 + 0.1 * (1.4076059 + 1.0986123) / 2.
        assert!((value(0.1, None) - 0.803_109).abs() < 1e-5, "{}", value(0.1, None));
    }

    #[test]
    fn weights_make_a_weighted_mean() {
        assert!((value(0.1, Some(&[1.0, 1.0])) - value(0.1, None)).abs() < 1e-6);
        assert!((value(0.0, Some(&[0.0, 0.3])) - 3f32.ln()).abs() < 1e-6);
        // (0.4076059 + 0.5 ln 3) / 1.5.
        assert!((value(0.0, Some(&[1.0, 0.5])) - 0.637_941).abs() < 1e-5, "{}", value(0.0, Some(&[1.0, 0.5])));
        assert_eq!(value(0.0, Some(&[0.0, 0.0])), 0.0);
    }
}
