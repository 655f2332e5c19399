//! A penalty for the strongest wrong class.

use candle_core::{D, DType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::classes::Classes;
use super::head::{AngleHead, below, needs, positive, turned};
use crate::context::BuildContext;
use crate::error::{Problem, Result};
use crate::loss::{About, LoggedScalar, Loss, LossConfig, LossInputs, LossValue, Needs};
use crate::plugin::Kind;

/// Deep rival-penalised competitive learning, RPCL (Li et al., Neural Networks 2022): beside the target's margin, the
/// largest logit of another person, the rival's, is raised, so that the face is pushed away from it.
///
/// What the description of its code says: the rival is the largest non-target logit and is de-learnt; it is combined with
/// CosFace, ArcFace and MagFace; the released models have f = 0.5 and a threshold of 0.7. How the two enter the
/// equation it does not say. Here the rival's cosine is raised by `rival_margin` = f times the target's margin where
/// it is above `threshold` times the target's cosine.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RivalPenalised {
    /// Factor of all logits.
    #[schemars(range(min = 1e-6, max = 1_000_000))]
    pub scale: f64,
    /// The target's margin: a cosine, or an angle in radians with `angular`.
    #[schemars(range(min = 0, max = 10))]
    pub margin: f64,
    /// Whether the target has ArcFace's margin in the place of CosFace's.
    pub angular: bool,
    /// f, the rival's share of the margin.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub rival_margin: f64,
    /// The share of the target's cosine above which the rival is penalised.
    #[schemars(range(min = -10.0, max = 10.0))]
    pub threshold: f64,
    /// Label smoothing, the weight of people with few images, and a sample of the identities.
    pub classes: Classes,
}

impl Default for RivalPenalised {
    fn default() -> Self {
        let classes = Classes::default();
        Self { scale: 64.0, margin: 0.4, angular: false, rival_margin: 0.5, threshold: 0.7, classes }
    }
}

impl Kind for RivalPenalised {
    const NAME: &'static str = "rival-penalised";
    const PURPOSE: &'static str = "classification with a margin, and a penalty for the strongest wrong class (RPCL)";
}

impl LossConfig for RivalPenalised {
    fn check(&self) -> Vec<Problem> {
        [
            positive("scale", self.scale),
            below("margin", self.margin, 1.0),
            Problem::within("rival_margin", self.rival_margin, 0.0..=10.0),
            Problem::within("threshold", self.threshold, -10.0..=10.0),
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
        About { equation: "CE of s (cos - m); the largest other s (cos + f m)", memory: "b c" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        Ok(Box::new(Rival { head: AngleHead::new(&self.classes, cx)?, config: self.clone() }))
    }
}

struct Rival {
    head: AngleHead,
    config: RivalPenalised,
}

impl Loss for Rival {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let RivalPenalised { scale, margin, angular, rival_margin, threshold, .. } = self.config;
        self.head.compute(inputs, scale, |known, details| {
            let (cosine, target) = (known.cosine.detach(), known.target.detach());
            // The target's own cosine is out of the way below all others.
            let index = (&cosine - (&known.own * 4.0)?)?.argmax_keepdim(D::Minus1)?;
            let strong = cosine.gather(&index, 1)?.gt(&(target * threshold)?)?.to_dtype(DType::F32)?;
            details.push(("rivals".into(), LoggedScalar::scalar(&strong.mean_all()?)?));
            let raised = (strong * (rival_margin * margin))?;
            let rivals = cosine.zeros_like()?.scatter_add(&index, &raised, 1)?;
            let moved = if angular { turned(&known.target, margin)? } else { (&known.target - margin)? };
            known.cross_entropy(&((known.with_target(&moved)? + rivals)? * scale)?)
        })
    }
}
