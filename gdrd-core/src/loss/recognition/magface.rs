//! A margin that grows with the embedding's length.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::classes::Classes;
use super::head::{AngleHead, needs, positive, sine};
use crate::context::BuildContext;
use crate::error::{Problem, Result};
use crate::loss::{About, LoggedScalar, Loss, LossConfig, LossInputs, LossValue, Needs};
use crate::plugin::Kind;

/// MagFace: an additive angular margin `m(a)` that rises linearly with the length a of the embedding, and a
/// regulariser `lambda (1/a + a / u_a^2)` that pulls lengths up, so that the length of an embedding becomes the
/// quality of its face (Meng et al., CVPR 2021). a is clamped to `shortest .. longest`, the paper's l_a and u_a.
/// Without `easy_margin` angles whose margin would pass pi have ArcFace's linear penalty; with it, those beyond 90
/// degrees have no margin.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MagFace {
    /// Factor of all logits.
    #[schemars(range(min = 1e-6, max = 1_000_000))]
    pub scale: f64,
    /// l_a, the length with the least margin.
    #[schemars(range(max = 1e6), extend("exclusiveMinimum" = 0))]
    pub shortest: f64,
    /// u_a, the length with the largest margin.
    #[schemars(range(max = 1e6), extend("exclusiveMinimum" = 0))]
    pub longest: f64,
    /// l_m, the margin of the shortest, in radians.
    #[schemars(range(max = 1.57), extend("exclusiveMinimum" = 0))]
    pub least_margin: f64,
    /// u_m, the margin of the longest, in radians.
    #[schemars(range(max = 1.57), extend("exclusiveMinimum" = 0))]
    pub largest_margin: f64,
    /// lambda_g, the weight of the regulariser.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub lambda: f64,
    /// Whether angles beyond 90 degrees have no margin.
    pub easy_margin: bool,
    /// Label smoothing, the weight of people with few images, and a sample of the identities.
    pub classes: Classes,
}

impl Default for MagFace {
    fn default() -> Self {
        Self {
            scale: 64.0,
            shortest: 10.0,
            longest: 110.0,
            least_margin: 0.45,
            largest_margin: 0.8,
            lambda: 35.0,
            easy_margin: true,
            classes: Classes::default(),
        }
    }
}

impl Kind for MagFace {
    const NAME: &'static str = "magface";
    const PURPOSE: &'static str = "an angular margin that grows with the embedding's length, which becomes a quality";
}

impl LossConfig for MagFace {
    fn check(&self) -> Vec<Problem> {
        let ordered = |low: f64, high: f64| 0.0 < low && low < high && high.is_finite();
        let margins =
            ordered(self.least_margin, self.largest_margin) && self.largest_margin < std::f64::consts::PI / 2.0;
        [
            positive("scale", self.scale),
            Problem::unless(ordered(self.shortest, self.longest), "longest", || {
                format!("expected above `shortest`, which is above 0, found {} and {}", self.shortest, self.longest)
            }),
            Problem::unless(margins, "largest_margin", || {
                format!(
                    "expected above `least_margin`, which is above 0, and below pi/2, found {} and {}",
                    self.least_margin, self.largest_margin
                )
            }),
            Problem::within("lambda", self.lambda, 0.0..=1e6),
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
        About { equation: "CE of s cos(theta + m(|x|)) + lambda (1/|x| + |x| / u^2)", memory: "b c" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        Ok(Box::new(Magnitude { head: AngleHead::new(&self.classes, cx)?, config: self.clone() }))
    }
}

struct Magnitude {
    head: AngleHead,
    config: MagFace,
}

impl Loss for Magnitude {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let config = &self.config;
        self.head.compute(inputs, config.scale, |known, details| {
            details.push(("length".into(), LoggedScalar::scalar(&known.length.mean_all()?)?));
            let length = known.length.clamp(config.shortest, config.longest)?;
            let slope = (config.largest_margin - config.least_margin) / (config.longest - config.shortest);
            let margin = length.affine(slope, config.least_margin - slope * config.shortest)?;
            let moved = moved(&known.target, &margin, config.easy_margin)?;
            let value = known.cross_entropy(&(known.with_target(&moved)? * config.scale)?)?;
            let pull = (length.recip()? + (length / (config.longest * config.longest))?)?.mean_all()?;
            Ok((value + (pull * config.lambda)?)?)
        })
    }
}

/// `cos(theta + margin)` of cosines `[known, 1]` and margins of the same shape.
fn moved(cosine: &Tensor, margin: &Tensor, easy: bool) -> Result<Tensor> {
    let turned = ((cosine * margin.cos()?)? - (sine(cosine)? * margin.sin()?)?)?;
    if easy {
        return Ok(cosine.gt(0.0)?.where_cond(&turned, cosine)?);
    }
    let beyond = (cosine - (margin.sin()? * margin)?)?;
    // cos(pi - margin) is -cos(margin).
    Ok(cosine.gt(&margin.cos()?.neg()?)?.where_cond(&turned, &beyond)?)
}
