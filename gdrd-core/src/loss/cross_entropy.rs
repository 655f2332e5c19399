//! Classification of the training identities, L_cls of Eq. (3).

use candle_core::{D, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Loss, LossConfig, LossInputs, LossValue, Needs};
use crate::context::BuildContext;
use crate::error::Result;
use crate::nn::Linear;
use crate::plugin::Kind;

/// Softmax cross-entropy over a linear classifier on the embedding.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CrossEntropy {
    /// Share of the target that is spread over all identities, 0 to below 1.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub label_smoothing: f64,
}

impl Kind for CrossEntropy {
    const NAME: &'static str = "cross-entropy";
    const PURPOSE: &'static str = "classification of the training identities (L_cls of Eq. 3)";
}

impl LossConfig for CrossEntropy {
    fn needs(&self) -> Needs {
        Needs { embedding: true, labels: true, gives_logits: true, ..Needs::default() }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let stage = cx.stage()?;
        let classifier = Linear::new(stage.embedding_width()?, stage.people, true, cx.weights()?)?;
        Ok(Box::new(Classifier { classifier, smoothing: self.label_smoothing }))
    }
}

struct Classifier {
    classifier: Linear,
    smoothing: f64,
}

impl Loss for Classifier {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let logits = self.classifier.forward(inputs.embedding()?)?;
        let labels = inputs.labels()?;
        let value = match labels.is_empty() {
            true => Tensor::zeros((), logits.dtype(), logits.device())?,
            false => cross_entropy(&labels.of(&logits)?, labels.known(), self.smoothing)?,
        };
        let details = vec![("accuracy".into(), super::accuracy(&logits, labels)?)];
        Ok(LossValue { value, logits: Some(logits), details })
    }
}

/// The mean over the batch of `-log softmax(logits)[label]`, with `smoothing` of the target spread evenly.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, smoothing: f64) -> Result<Tensor> {
    let log = candle_nn::ops::log_softmax(logits, D::Minus1)?;
    let hit = log.gather(&labels.unsqueeze(1)?, 1)?.mean_all()?;
    let value = if smoothing == 0.0 { hit } else { ((hit * (1.0 - smoothing))? + (log.mean_all()? * smoothing)?)? };
    Ok(value.neg()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn values_by_hand() {
        let logits = Tensor::new(&[[1f32, 2.0, 3.0], [0.0, 0.0, 0.0]], &Device::Cpu).expect("logits");
        let labels = Tensor::new(&[2u32, 1], &Device::Cpu).expect("labels");
        let value = |s| cross_entropy(&logits, &labels, s).and_then(|t| Ok(t.to_scalar::<f32>()?)).expect("value");
        // log-sum-exp(1,2,3) = 3.4076059; (0.4076059 + ln 3) / 2.
        assert!((value(0.0) - 0.753_109).abs() < 1e-5);
        // With s: (1-s) * above + s * mean(-log p) = 0.9 * 0.753109 + 0.1 * (1.4076059 + 1.0986123) / 2.
        assert!((value(0.1) - 0.803_109).abs() < 1e-5, "{}", value(0.1));
    }
}
