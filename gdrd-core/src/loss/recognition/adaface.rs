//! A margin that follows the quality of the face.

use candle_core::{Tensor, Var};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::classes::Classes;
use super::head::{AngleHead, below, needs, positive, sine};
use crate::context::BuildContext;
use crate::error::{Problem, Result};
use crate::loss::{About, LoggedScalar, Loss, LossConfig, LossInputs, LossValue, Needs};
use crate::nn::Weights;
use crate::plugin::Kind;

/// AdaFace: with z the length of the embedding, normalised by running mean and deviation, times h and clamped to -1
/// .. 1, the target's logit is `s (cos(theta - m z) - m (1 + z))` (Kim et al., CVPR 2022). A long embedding, a good
/// face, has the margin where the angle is large; a short one where it is small. The length has no gradient. Angles
/// are clamped to 0.001 .. pi - 0.001 and lengths to 0.001 .. 100, as in its code.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdaFace {
    /// Factor of all logits.
    #[schemars(range(min = 1e-6, max = 1_000_000))]
    pub scale: f64,
    /// m.
    #[schemars(range(min = 0, max = 1.57))]
    pub margin: f64,
    /// h, the width of the normalised length: 0.333 puts a standard deviation at a third.
    #[schemars(range(max = 1000), extend("exclusiveMinimum" = 0))]
    pub width: f64,
    /// Share of a batch in the running mean and deviation of lengths.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub momentum: f64,
    /// Label smoothing, the weight of people with few images, and a sample of the identities.
    pub classes: Classes,
}

impl Default for AdaFace {
    fn default() -> Self {
        Self { scale: 64.0, margin: 0.4, width: 0.333, momentum: 0.01, classes: Classes::default() }
    }
}

impl Kind for AdaFace {
    const NAME: &'static str = "adaface";
    const PURPOSE: &'static str = "classification with a margin that follows the quality of the face";
}

impl LossConfig for AdaFace {
    fn check(&self) -> Vec<Problem> {
        [
            positive("scale", self.scale),
            below("margin", self.margin, 1.0),
            positive("width", self.width),
            Problem::within("momentum", self.momentum, 0.0..=1.0),
        ]
        .into_iter()
        .flatten()
        .chain(self.classes.check())
        .collect()
    }

    fn needs(&self) -> Needs {
        needs(&self.classes)
    }

    fn about(&self) -> About {
        About { equation: "CE of s (cos(theta - m z) - m (1 + z)), z = clip(h (|x| - mu) / sigma)", memory: "b c" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let head = AngleHead::new(&self.classes, cx)?;
        Ok(Box::new(Adaptive { head, config: self.clone(), lengths: Lengths::new(cx.weights()?)? }))
    }
}

/// Running mean and standard deviation of the lengths of embeddings.
struct Lengths {
    mean: Var,
    deviation: Var,
}

impl Lengths {
    /// The values that its authors begin with.
    fn new(weights: &Weights) -> Result<Self> {
        let mean = weights.buffer("length_mean", 1, 20.0)?;
        Ok(Self { mean, deviation: weights.buffer("length_deviation", 1, 100.0)? })
    }

    /// Takes note of lengths `[faces, 1]` without a gradient, and gives them normalised.
    fn normalise(&self, lengths: &Tensor, momentum: f64) -> Result<Tensor> {
        let count = lengths.dim(0)?;
        let mean = lengths.mean_all()?;
        let squares = lengths.broadcast_sub(&mean)?.sqr()?.sum_all()?;
        // A single face has no deviation.
        let deviation = (squares / (count.max(2) - 1) as f64)?.sqrt()?;
        for (var, new) in [(&self.mean, mean), (&self.deviation, deviation)] {
            var.set(&((var.as_detached_tensor() * (1.0 - momentum))? + (new.reshape(1)? * momentum)?)?)?;
        }
        let centred = lengths.broadcast_sub(&self.mean.as_detached_tensor())?;
        Ok(centred.broadcast_div(&(self.deviation.as_detached_tensor() + 1e-3)?)?)
    }
}

struct Adaptive {
    head: AngleHead,
    config: AdaFace,
    lengths: Lengths,
}

impl Loss for Adaptive {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let AdaFace { scale, margin, width, momentum, .. } = self.config;
        self.head.compute(inputs, scale, |known, details| {
            let length = known.length.detach().clamp(0.001, 100.0)?;
            details.push(("length".into(), LoggedScalar::scalar(&length.mean_all()?)?));
            let quality = (self.lengths.normalise(&length, momentum)? * width)?.clamp(-1.0, 1.0)?;
            let turned = turned(&known.target, &(&quality * -margin)?)?;
            let moved = (turned - quality.affine(margin, margin)?)?;
            known.cross_entropy(&(known.with_target(&moved)? * scale)?)
        })
    }
}

/// How near to 0 and pi an angle may come.
const EDGE: f64 = 1e-3;

/// `cos(theta + angle)` of cosines `[known, 1]` and angles between -1 and 1 of the same shape, with `theta + angle`
/// clamped to `EDGE .. pi - EDGE`.
fn turned(cosine: &Tensor, angle: &Tensor) -> Result<Tensor> {
    let turned = ((cosine * angle.cos()?)? - (sine(cosine)? * angle.sin()?)?)?;
    // theta < EDGE - angle, where that is an angle; theta > pi - EDGE - angle likewise.
    let low = angle.lt(EDGE)?.mul(&cosine.gt(&(EDGE - angle)?.cos()?)?)?;
    let high = angle.gt(-EDGE)?.mul(&cosine.lt(&(angle + EDGE)?.cos()?.neg()?)?)?;
    let edge = |value: f64| -> Result<Tensor> { Ok((cosine.zeros_like()? + value)?) };
    let turned = low.where_cond(&edge(EDGE.cos())?, &turned)?;
    Ok(high.where_cond(&edge(-EDGE.cos())?, &turned)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_angle_is_turned_and_stays_between_its_edges() {
        let thetas = [0.05f64, 0.3, 1.5, 2.9, 3.1];
        for angle in [-0.4f64, -0.2, 0.0, 0.3, 0.4] {
            let cosines: Vec<f32> = thetas.iter().map(|theta| theta.cos() as f32).collect();
            let cosines = Tensor::from_vec(cosines, (5, 1), &Device::Cpu).expect("cosines");
            let angles = Tensor::full(angle as f32, (5, 1), &Device::Cpu).expect("angles");
            let found = turned(&cosines, &angles).and_then(|t| Ok(t.flatten_all()?.to_vec1::<f32>()?)).expect("values");
            for (theta, found) in thetas.iter().zip(found) {
                let expected = (theta + angle).clamp(EDGE, std::f64::consts::PI - EDGE).cos();
                assert!((f64::from(found) - expected).abs() < 1e-4, "{theta} {angle}: {found} {expected}");
            }
        }
    }
}
