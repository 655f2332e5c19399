//! A penalty for the strongest wrong class.

use candle_core::{D, DType, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::classes::Classes;
use super::head::{AngleHead, needs, turned};
use crate::context::BuildContext;
use crate::error::Result;
use crate::loss::{About, LoggedScalar, Loss, LossConfig, LossInputs, LossValue, Needs};
use crate::plugin::Kind;

/// Deep rival-penalised competitive learning, RPCL (Li et al., Neural Networks 2022): beside the target's margin, the
/// largest logit of another person, the rival's, is raised where it is high, so that the face is pushed away from it.
///
/// From the authors' code: the rival is the largest non-target logit; where its cosine is above `threshold` its angle is
/// lessened by `rival_margin` = f times the margin (f = 0.5, threshold 0.7 in the released models); the target has its margin
/// only where its cosine is above 0. There the margin is MagFace's, and f is of its least; here it is ArcFace's with `angular`. Our
/// inference: with CosFace's margin the rival's cosine is raised by f times it. The code has a factor of 0.2 on that
/// sum, which lowers the rival, against the text.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RivalPenalised {
    /// Factor of all logits.
    #[schemars(range(min = 1e-6, max = 1_000_000))]
    pub scale: f64,
    /// The target's margin: a cosine, or an angle in radians with `angular`.
    #[schemars(range(min = 0, max = 1.57))]
    pub margin: f64,
    /// Whether margins are ArcFace's, of the angle, in the place of CosFace's.
    pub angular: bool,
    /// f, the rival's share of the margin.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub rival_margin: f64,
    /// The cosine above which the rival is penalised.
    #[schemars(range(min = -1.0, max = 1.0))]
    pub threshold: f64,
    /// Whether targets beyond 90 degrees have no margin.
    pub easy_margin: bool,
    /// Label smoothing, the weight of people with few images, and a sample of the identities.
    pub classes: Classes,
}

impl Default for RivalPenalised {
    fn default() -> Self {
        let classes = Classes::default();
        let (scale, margin, rival_margin, threshold) = (32.0, 0.2, 0.5, 0.7);
        Self { scale, margin, angular: false, rival_margin, threshold, easy_margin: true, classes }
    }
}

impl Kind for RivalPenalised {
    const NAME: &'static str = "rival-penalised";
    const PURPOSE: &'static str = "classification with a margin, and a penalty for the strongest wrong class (RPCL)";
}

impl LossConfig for RivalPenalised {
    fn needs(&self) -> Needs {
        needs(&self.classes)
    }

    fn about(&self) -> About {
        About { equation: "CE of s (cos - m); the largest other above t s (cos + f m)", memory: "b c" }
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
        let RivalPenalised { scale, margin, angular, rival_margin, threshold, easy_margin, .. } = self.config;
        let moved = |cosine: &Tensor, margin: f64| match angular {
            true => turned(cosine, margin),
            false => Ok((cosine - margin)?),
        };
        self.head.compute(inputs, scale, |known, details| {
            // The target's own cosine is out of the way below all others.
            let index = (known.cosine.detach() - (&known.own * 4.0)?)?.argmax_keepdim(D::Minus1)?;
            let rival = known.cosine.gather(&index, 1)?;
            let strong = rival.gt(threshold)?;
            details.push(("rivals".into(), LoggedScalar::scalar(&strong.to_dtype(DType::F32)?.mean_all()?)?));
            let raised = strong.where_cond(&moved(&rival, -rival_margin * margin)?, &rival)?;
            // A mask, since candle has no gradient for a `scatter_add` whose source is narrower than its target.
            let place = known.cosine.zeros_like()?.scatter_add(&index, &rival.ones_like()?, 1)?;
            let rivals = place.broadcast_mul(&(raised - &rival)?)?;
            let mut target = moved(&known.target, margin)?;
            if easy_margin {
                target = known.target.gt(0.0)?.where_cond(&target, &known.target)?;
            }
            known.cross_entropy(&((known.with_target(&target)? + rivals)? * scale)?)
        })
    }
}
