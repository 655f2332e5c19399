//! A multiplicative margin of the angle.

use candle_core::{Tensor, Var};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::classes::Classes;
use super::head::{AngleHead, needs};
use crate::context::BuildContext;
use crate::error::{Problem, Result};
use crate::loss::{About, Loss, LossConfig, LossInputs, LossValue, Needs};
use crate::plugin::Kind;

/// SphereFace: the target's logit is `|x| psi(theta)` with `psi(theta) = (-1)^k cos(m theta) - 2 k` for theta between
/// `k pi / m` and `(k + 1) pi / m`; the others' are `|x| cos(theta)` (Liu et al., CVPR 2017). As in its code, the
/// target's is blended with `cos(theta)` at first: `(lambda cos + psi) / (1 + lambda)` with lambda falling as
/// `lambda_start / (1 + lambda_decay step)` to `lambda_end`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SphereFace {
    /// m, the factor of the target's angle, 1 to 8.
    #[schemars(range(min = 1, max = 8))]
    pub margin: u32,
    /// Lambda at the first step.
    #[schemars(range(min = 0.0, max = 1e9))]
    pub lambda_start: f64,
    /// The least lambda.
    #[schemars(range(min = 0.0, max = 1e9))]
    pub lambda_end: f64,
    /// How fast lambda falls.
    #[schemars(range(min = 0.0, max = 1e9))]
    pub lambda_decay: f64,
    /// Label smoothing, the weight of people with few images, and a sample of the identities.
    pub classes: Classes,
}

impl Default for SphereFace {
    fn default() -> Self {
        let classes = Classes::default();
        Self { margin: 4, lambda_start: 1000.0, lambda_end: 5.0, lambda_decay: 0.1, classes }
    }
}

impl Kind for SphereFace {
    const NAME: &'static str = "sphereface";
    const PURPOSE: &'static str = "classification with a multiplicative angular margin";
}

impl LossConfig for SphereFace {
    fn check(&self) -> Vec<Problem> {
        [
            Problem::within("margin", self.margin, 1..=8),
            Problem::within("lambda_start", self.lambda_start, 0.0..=1e9),
            Problem::within("lambda_end", self.lambda_end, 0.0..=1e9),
            Problem::within("lambda_decay", self.lambda_decay, 0.0..=1e9),
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
        About { equation: "CE of |x| psi(theta), psi = (-1)^k cos(m theta) - 2 k", memory: "b c" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let head = AngleHead::new(&self.classes, cx)?;
        Ok(Box::new(Sphere { head, config: self.clone(), steps: cx.weights()?.buffer("steps", 1, 0.0)? }))
    }
}

struct Sphere {
    head: AngleHead,
    config: SphereFace,
    /// Steps that were made.
    steps: Var,
}

impl Loss for Sphere {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let SphereFace { margin, lambda_start, lambda_end, lambda_decay, .. } = self.config;
        let step = f64::from(self.steps.as_detached_tensor().to_vec1::<f32>()?[0]);
        self.steps.set(&(self.steps.as_detached_tensor() + 1.0)?)?;
        let lambda = (lambda_start / (1.0 + lambda_decay * step)).max(lambda_end);
        self.head.compute(inputs, 1.0, |known, details| {
            details.push(("lambda".into(), lambda.into()));
            let moved = psi(&known.target, margin)?;
            let moved = (((&known.target * lambda)? + moved)? / (1.0 + lambda))?;
            known.cross_entropy(&known.with_target(&moved)?.broadcast_mul(&known.length)?)
        })
    }
}

/// `(-1)^k cos(m theta) - 2 k` of cosines: `cos(m theta)` is Chebyshev's polynomial of the cosine.
fn psi(cosine: &Tensor, margin: u32) -> Result<Tensor> {
    let (mut before, mut multiple) = (cosine.ones_like()?, cosine.clone());
    for _ in 1..margin {
        (before, multiple) = (multiple.clone(), (((cosine * multiple)? * 2.0)? - before)?);
    }
    // k is the number of the angles pi/m, 2 pi/m, ... up to theta.
    let mut k = cosine.zeros_like()?;
    for at in 1..margin {
        let edge = (f64::from(at) * std::f64::consts::PI / f64::from(margin)).cos();
        k = (k + cosine.le(edge)?.to_dtype(cosine.dtype())?)?;
    }
    let k = k.detach();
    // 1 where k is even and -1 where it is odd.
    let sign = (&k * std::f64::consts::PI)?.cos()?.round()?;
    Ok(((sign * multiple)? - (k * 2.0)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn psi_falls_from_one_and_is_its_formula() {
        let angles: Vec<f64> = (1..60).map(|at| f64::from(at) * std::f64::consts::PI / 60.0).collect();
        for margin in [1u32, 2, 3, 4] {
            let cosines: Vec<f32> = angles.iter().map(|angle| angle.cos() as f32).collect();
            let found = psi(&Tensor::new(cosines, &Device::Cpu).expect("cosines"), margin).expect("values");
            let found = found.to_vec1::<f32>().expect("values");
            for (angle, found) in angles.iter().zip(&found) {
                let k = (angle * f64::from(margin) / std::f64::consts::PI + 1e-7).floor();
                let expected = (-1f64).powf(k) * (f64::from(margin) * angle).cos() - 2.0 * k;
                assert!((f64::from(*found) - expected).abs() < 1e-3, "{margin} {angle}: {found} {expected}");
            }
            assert!(found.is_sorted_by(|a, b| a >= b), "{margin}: {found:?}");
        }
    }
}
