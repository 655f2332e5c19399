//! Margin losses, with which discriminative teachers are trained.

use std::f64::consts::PI;

use candle_core::{DType, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Loss, LossConfig, LossInputs, LossValue, Needs, cross_entropy};
use crate::context::BuildContext;
use crate::error::Result;
use crate::nn::{Init, l2_normalise};
use crate::plugin::Kind;

/// ArcFace: the target's logit is `scale * cos(theta + margin)` (Deng et al., CVPR 2019).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ArcFace {
    /// Factor of all logits.
    #[schemars(range(min = 1e-6, max = 1_000_000))]
    pub scale: f64,
    /// Angle added to the target's, in radians.
    #[schemars(range(min = 0, max = 1.57))]
    pub margin: f64,
}

impl Default for ArcFace {
    fn default() -> Self {
        Self { scale: 64.0, margin: 0.5 }
    }
}

impl Kind for ArcFace {
    const NAME: &'static str = "arcface";
    const PURPOSE: &'static str = "classification with an additive angular margin";
}

impl LossConfig for ArcFace {
    fn needs(&self) -> Needs {
        needs()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        Head::build(Margin::Angle(self.margin), self.scale, cx)
    }
}

/// CosFace: the target's logit is `scale * (cos(theta) - margin)` (Wang et al., CVPR 2018).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CosFace {
    /// Factor of all logits.
    #[schemars(range(min = 1e-6, max = 1_000_000))]
    pub scale: f64,
    /// Cosine taken off the target's.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub margin: f64,
}

impl Default for CosFace {
    fn default() -> Self {
        Self { scale: 64.0, margin: 0.4 }
    }
}

impl Kind for CosFace {
    const NAME: &'static str = "cosface";
    const PURPOSE: &'static str = "classification with an additive cosine margin";
}

impl LossConfig for CosFace {
    fn needs(&self) -> Needs {
        needs()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        Head::build(Margin::Cosine(self.margin), self.scale, cx)
    }
}

enum Margin {
    Angle(f64),
    Cosine(f64),
}

fn needs() -> Needs {
    Needs { embedding: true, labels: true, gives_logits: true, ..Needs::default() }
}

/// A classifier of unit-length weights, `[people, width]`.
struct Head {
    weight: Tensor,
    margin: Margin,
    scale: f64,
}

impl Head {
    fn build(margin: Margin, scale: f64, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let stage = cx.stage()?;
        let shape = (stage.people, stage.embedding_width()?);
        let weight = cx.weights()?.parameter("weight", shape, Init::Normal { std: 0.01 })?;
        Ok(Box::new(Self { weight, margin, scale }))
    }
}

impl Loss for Head {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let labels = inputs.labels()?;
        let all = l2_normalise(inputs.embedding()?)?.matmul(&l2_normalise(&self.weight)?.t()?)?;
        let details = vec![("accuracy".into(), super::accuracy(&all, labels)?)];
        if labels.is_empty() {
            let value = Tensor::zeros((), all.dtype(), all.device())?;
            return Ok(LossValue { value, logits: Some((all * self.scale)?), details });
        }
        let cosine = labels.of(&all)?;
        let known = labels.known().unsqueeze(1)?;
        let target = cosine.gather(&known, 1)?;
        let moved = with_margin(&target, &self.margin)?;
        // The target's column gets the difference; all others stay.
        let gap = (moved - &target)?;
        let hot = Tensor::zeros(cosine.shape(), DType::F32, cosine.device())?;
        let hot = hot.scatter_add(&known, &Tensor::ones(target.shape(), DType::F32, cosine.device())?, 1)?;
        let logits = ((&cosine + hot.broadcast_mul(&gap)?)? * self.scale)?;
        let value = cross_entropy(&logits, labels.known(), 0.0)?;
        Ok(LossValue { value, logits: Some((all * self.scale)?), details })
    }
}

/// The target's cosine with its margin. Where `theta + margin` would pass pi the angle margin becomes a linear
/// penalty, so that the logit keeps falling with the angle.
fn with_margin(cosine: &Tensor, margin: &Margin) -> Result<Tensor> {
    match *margin {
        Margin::Cosine(margin) => Ok((cosine - margin)?),
        Margin::Angle(margin) => {
            let clamped = cosine.clamp(-1.0 + 1e-6, 1.0 - 1e-6)?;
            let sine = (1.0 - clamped.sqr()?)?.sqrt()?;
            let turned = ((clamped * margin.cos())? - (sine * margin.sin())?)?;
            let beyond = (cosine - margin * margin.sin())?;
            Ok(cosine.gt((PI - margin).cos())?.where_cond(&turned, &beyond)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_angle_margin_adds_to_the_angle() {
        for theta in [0.3f64, 1.0, 2.0, 2.5] {
            let cosine = Tensor::new(&[theta.cos() as f32], &Device::Cpu).expect("cosine");
            let found =
                with_margin(&cosine, &Margin::Angle(0.5)).and_then(|t| Ok(t.to_vec1::<f32>()?)).expect("margin");
            assert!((f64::from(found[0]) - (theta + 0.5).cos()).abs() < 1e-5, "{theta}");
        }
    }

    #[test]
    fn beyond_pi_the_logit_still_falls() {
        let cosines = Tensor::new(&[-0.99f32, -0.95, -0.9], &Device::Cpu).expect("cosines");
        let found = with_margin(&cosines, &Margin::Angle(0.5)).and_then(|t| Ok(t.to_vec1::<f32>()?)).expect("margin");
        assert!(found[0] < found[1] && found[1] < found[2], "{found:?}");
    }
}
