//! Negatives that count more as training goes on.

use candle_core::Var;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::classes::Classes;
use super::head::{AngleHead, below, needs, positive, turned};
use crate::context::BuildContext;
use crate::error::{Problem, Result};
use crate::loss::{About, LoggedScalar, Loss, LossConfig, LossInputs, LossValue, Needs};
use crate::plugin::Kind;

/// CurricularFace: ArcFace, in which a negative whose cosine is above the target's `cos(theta + m)` becomes `cos (t +
/// cos)`, with t the running mean of the target's cosine (Huang et al., CVPR 2020): easy negatives count at first,
/// hard ones later.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CurricularFace {
    /// Factor of all logits.
    #[schemars(range(min = 1e-6, max = 1_000_000))]
    pub scale: f64,
    /// m, the angle added to the target's, in radians.
    #[schemars(range(min = 0, max = 1.57))]
    pub margin: f64,
    /// Share of a batch in t.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub momentum: f64,
    /// Label smoothing, the weight of people with few images, and a sample of the identities.
    pub classes: Classes,
}

impl Default for CurricularFace {
    fn default() -> Self {
        Self { scale: 64.0, margin: 0.5, momentum: 0.01, classes: Classes::default() }
    }
}

impl Kind for CurricularFace {
    const NAME: &'static str = "curricularface";
    const PURPOSE: &'static str = "an angular margin, and hard negatives that count more as training goes on";
}

impl LossConfig for CurricularFace {
    fn check(&self) -> Vec<Problem> {
        [
            positive("scale", self.scale),
            below("margin", self.margin, std::f64::consts::PI / 2.0),
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
        About { equation: "CE of s cos(theta + m); hard negatives s cos (t + cos)", memory: "b c" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let head = AngleHead::new(&self.classes, cx)?;
        Ok(Box::new(Curricular { head, config: self.clone(), mean: cx.weights()?.buffer("target_mean", 1, 0.0)? }))
    }
}

struct Curricular {
    head: AngleHead,
    config: CurricularFace,
    /// t.
    mean: Var,
}

impl Loss for Curricular {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let CurricularFace { scale, margin, momentum, .. } = self.config;
        self.head.compute(inputs, scale, |known, details| {
            let new = known.target.detach().mean_all()?.reshape(1)?;
            self.mean.set(&((self.mean.as_detached_tensor() * (1.0 - momentum))? + (new * momentum)?)?)?;
            let mean = self.mean.as_detached_tensor().copy()?;
            details.push(("target_mean".into(), LoggedScalar::scalar(&mean)?));
            let moved = turned(&known.target, margin)?;
            // `cos(theta + m)` without the penalty beyond pi is what negatives are compared with.
            let cosine = &known.target.detach();
            let sine = super::head::sine(cosine)?;
            let bar = ((cosine * margin.cos())? - (sine * margin.sin())?)?;
            let hard = known.cosine.detach().broadcast_gt(&bar)?;
            let weighted = (&known.cosine * known.cosine.broadcast_add(&mean)?)?;
            let others = hard.where_cond(&weighted, &known.cosine)?;
            // The target's own column is put in the place of whatever the rule made of it.
            let logits = ((&others * (1.0 - &known.own)?)? + known.own.broadcast_mul(&moved)?)?;
            known.cross_entropy(&(logits * scale)?)
        })
    }
}
