//! A classifier by angles, which the margin losses share.

use candle_core::{D, DType, Tensor};

use super::classes::{Classes, Drawn, Identities};
use crate::context::BuildContext;
use crate::error::{Problem, Result};
use crate::loss::{LossInputs, LossValue, Needs};
use crate::nn::{Init, l2_normalise};

/// What a margin loss needs.
pub(super) fn needs(classes: &Classes) -> Needs {
    Needs { embedding: true, labels: true, gives_logits: classes.are_whole(), ..Needs::default() }
}

/// A number that has to be above 0 and finite.
pub(super) fn positive(key: &'static str, value: f64) -> Option<Problem> {
    Problem::unless(value > 0.0 && value.is_finite(), key, || format!("expected a number above 0, found {value}"))
}

/// A number from 0 to below `most`.
pub(super) fn below(key: &'static str, value: f64, most: f64) -> Option<Problem> {
    Problem::unless((0.0..most).contains(&value), key, || format!("expected 0 to below {most:.2}, found {value}"))
}

/// One vector for each identity, of which only the direction counts, `[people, width]`.
pub(super) struct AngleHead {
    weight: Tensor,
    identities: Identities,
}

/// The faces of known people at a step, and their cosines with the identities that it classifies over.
pub(super) struct Known {
    /// `[known, classes]`.
    pub(super) cosine: Tensor,
    /// The cosine with their own person, `[known, 1]`.
    pub(super) target: Tensor,
    /// 1 at their own person and 0 elsewhere, `[known, classes]`.
    pub(super) own: Tensor,
    /// Lengths of their embeddings, `[known, 1]`.
    pub(super) length: Tensor,
    drawn: Drawn,
}

impl Known {
    /// The cosines with `moved` `[known, 1]` in the place of the target's.
    pub(super) fn with_target(&self, moved: &Tensor) -> Result<Tensor> {
        Ok((&self.cosine + self.own.broadcast_mul(&(moved - &self.target)?)?)?)
    }

    /// Cross-entropy of logits `[known, classes]`.
    pub(super) fn cross_entropy(&self, logits: &Tensor) -> Result<Tensor> {
        self.drawn.cross_entropy(logits)
    }
}

impl AngleHead {
    pub(super) fn new(classes: &Classes, cx: &BuildContext) -> Result<Self> {
        let stage = cx.stage()?;
        let shape = (stage.people, stage.embedding_width()?);
        let weight = cx.weights()?.parameter("weight", shape, Init::Normal { std: 0.01 })?;
        Ok(Self { weight, identities: Identities::new(classes, stage) })
    }

    /// What `value` makes of the known faces, 0 if there are none. `value` may add to the numbers for the log; the
    /// logits for other terms are cosines times `scale`.
    pub(super) fn compute(
        &self,
        inputs: &LossInputs,
        scale: f64,
        value: impl FnOnce(&Known, &mut super::Details) -> Result<Tensor>,
    ) -> Result<LossValue> {
        let labels = inputs.labels()?;
        let embedding = inputs.embedding()?;
        let drawn = self.identities.draw(inputs)?;
        let all = l2_normalise(embedding)?.matmul(&l2_normalise(&drawn.of(&self.weight)?)?.t()?)?;
        let logits = if self.identities.are_whole() { Some((&all * scale)?) } else { None };
        let cosine = labels.of(&all)?;
        let mut details = vec![("accuracy".into(), drawn.accuracy(&cosine, labels)?)];
        if labels.is_empty() {
            return Ok(LossValue { value: Tensor::zeros((), DType::F32, all.device())?, logits, details });
        }
        let index = drawn.known.unsqueeze(1)?;
        let target = cosine.gather(&index, 1)?;
        let ones = Tensor::ones(target.shape(), DType::F32, cosine.device())?;
        let own = Tensor::zeros(cosine.shape(), DType::F32, cosine.device())?.scatter_add(&index, &ones, 1)?;
        let length = labels.of(embedding)?.sqr()?.sum_keepdim(D::Minus1)?.affine(1.0, 1e-24)?.sqrt()?;
        let value = value(&Known { cosine, target, own, length, drawn }, &mut details)?;
        Ok(LossValue { value, logits, details })
    }
}

/// `sin` of the angles whose cosines these are; away from 0, so that its gradient is finite.
pub(super) fn sine(cosine: &Tensor) -> Result<Tensor> {
    Ok((1.0 - cosine.clamp(-1.0 + 1e-6, 1.0 - 1e-6)?.sqr()?)?.sqrt()?)
}

/// `cos(theta + margin)` of cosines. Where `theta + margin` would pass pi it is a linear penalty, so that the value
/// keeps falling with the angle.
pub(super) fn turned(cosine: &Tensor, margin: f64) -> Result<Tensor> {
    let clamped = cosine.clamp(-1.0 + 1e-6, 1.0 - 1e-6)?;
    let turned = ((clamped * margin.cos())? - (sine(cosine)? * margin.sin())?)?;
    let beyond = (cosine - margin * margin.sin())?;
    Ok(cosine.gt((std::f64::consts::PI - margin).cos())?.where_cond(&turned, &beyond)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn turned_by(cosines: &[f32], margin: f64) -> Vec<f32> {
        let cosines = Tensor::new(cosines, &Device::Cpu).expect("cosines");
        turned(&cosines, margin).and_then(|t| Ok(t.to_vec1::<f32>()?)).expect("values")
    }

    #[test]
    fn the_margin_adds_to_the_angle() {
        for theta in [0.3f64, 1.0, 2.0, 2.5] {
            let found = turned_by(&[theta.cos() as f32], 0.5);
            assert!((f64::from(found[0]) - (theta + 0.5).cos()).abs() < 1e-5, "{theta}");
        }
    }

    #[test]
    fn beyond_pi_the_value_still_falls() {
        let found = turned_by(&[-0.99, -0.95, -0.9], 0.5);
        assert!(found[0] < found[1] && found[1] < found[2], "{found:?}");
    }
}
