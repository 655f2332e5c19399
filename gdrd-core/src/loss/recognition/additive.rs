//! Additive margins, of the angle or of its cosine.

use std::f64::consts::PI;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::classes::Classes;
use super::head::{AngleHead, below, needs, positive, turned};
use crate::context::BuildContext;
use crate::error::{Problem, Result};
use crate::loss::{About, Loss, LossConfig, LossInputs, LossValue, Needs};
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
    /// Label smoothing, the weight of people with few images, and a sample of the identities.
    pub classes: Classes,
}

impl Default for ArcFace {
    fn default() -> Self {
        Self { scale: 64.0, margin: 0.5, classes: Classes::default() }
    }
}

impl Kind for ArcFace {
    const NAME: &'static str = "arcface";
    const PURPOSE: &'static str = "classification with an additive angular margin";
}

impl LossConfig for ArcFace {
    fn check(&self) -> Vec<Problem> {
        let own = [positive("scale", self.scale), below("margin", self.margin, PI / 2.0)];
        own.into_iter().flatten().chain(self.classes.check()).collect()
    }

    fn needs(&self) -> Needs {
        needs(&self.classes)
    }

    fn about(&self) -> About {
        About { equation: "CE of s cos(theta + m)", memory: "b c" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let head = AngleHead::new(&self.classes, cx)?;
        Ok(Box::new(Additive { head, margin: Margin::Angle(self.margin), scale: self.scale }))
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
    /// Label smoothing, the weight of people with few images, and a sample of the identities.
    pub classes: Classes,
}

impl Default for CosFace {
    fn default() -> Self {
        Self { scale: 64.0, margin: 0.4, classes: Classes::default() }
    }
}

impl Kind for CosFace {
    const NAME: &'static str = "cosface";
    const PURPOSE: &'static str = "classification with an additive cosine margin";
}

impl LossConfig for CosFace {
    fn check(&self) -> Vec<Problem> {
        let own = [positive("scale", self.scale), below("margin", self.margin, 1.0)];
        own.into_iter().flatten().chain(self.classes.check()).collect()
    }

    fn needs(&self) -> Needs {
        needs(&self.classes)
    }

    fn about(&self) -> About {
        About { equation: "CE of s (cos(theta) - m)", memory: "b c" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let head = AngleHead::new(&self.classes, cx)?;
        Ok(Box::new(Additive { head, margin: Margin::Cosine(self.margin), scale: self.scale }))
    }
}

enum Margin {
    Angle(f64),
    Cosine(f64),
}

struct Additive {
    head: AngleHead,
    margin: Margin,
    scale: f64,
}

impl Loss for Additive {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        self.head.compute(inputs, self.scale, |known, _| {
            let moved = match self.margin {
                Margin::Cosine(margin) => (&known.target - margin)?,
                Margin::Angle(margin) => turned(&known.target, margin)?,
            };
            known.cross_entropy(&(known.with_target(&moved)? * self.scale)?)
        })
    }
}
