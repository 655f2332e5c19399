//! Attention transfer: where a network looks.

use candle_core::{D, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::BuildContext;
use crate::error::Result;
use crate::loss::{About, Loss, LossConfig, LossInputs, LossValue, Needs, pooled};
use crate::nn::l2_normalise;
use crate::plugin::Kind;

/// The attention map of a feature map, the mean over channels of `|x|^power` as a vector of unit length, is the teacher's
/// (Zagoruyko and Komodakis, ICLR 2017, as RepDistiller has it). The larger map is averaged to the smaller one's size first.
///
/// With `distance = "cosine"` it is the distillation term of A-SKD (Shin et al., ECCV 2022), whose attention maps are
/// those of learned CBAM modules in both networks; here they are computed from the feature maps. `reweight` is our
/// reading of ADSRAM (Tang and Sun, PRML 2023: attention distillation with sample re-weighting), of which we have read
/// no more than the title.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AttentionTransfer {
    /// The teacher's name in the recipe; may be left out when only one has feature maps.
    pub teacher: Option<String>,
    /// The teacher's feature map; its own default when left out.
    pub tap: Option<String>,
    /// The student's feature map, by its name: one on the way to the backbone's, which it is when left out.
    pub student_map: Option<String>,
    /// Power of the values before their mean over channels.
    #[schemars(range(min = 1.0, max = 16.0))]
    pub power: f64,
    /// How far two attention maps are apart.
    pub distance: AttentionDistance,
    /// A face counts in the mean by its own distance to this power: above 0 faces that are far off count more; 0 is
    /// the plain mean.
    #[schemars(range(min = 0.0, max = 16.0))]
    pub reweight: f64,
}

/// How far two attention maps are apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AttentionDistance {
    /// The mean square difference over pixels.
    #[default]
    Squared,
    /// `1 - cos`.
    Cosine,
}

impl Default for AttentionTransfer {
    fn default() -> Self {
        let distance = AttentionDistance::default();
        Self { teacher: None, tap: None, student_map: None, power: 2.0, distance, reweight: 0.0 }
    }
}

impl Kind for AttentionTransfer {
    const NAME: &'static str = "attention-transfer";
    const PURPOSE: &'static str = "the backbone's map is strong where a teacher's is";
}

impl LossConfig for AttentionTransfer {
    fn needs(&self) -> Needs {
        let needs = Needs::map_and(self.teacher.as_ref(), self.tap.as_ref());
        Needs { student_map: self.student_map.clone(), ..needs }
    }

    fn about(&self) -> About {
        About { equation: "|| a(S) - a(T) ||^2, a = unit(mean_c |x|^p)", memory: "b h w" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let stage = cx.stage()?;
        let (map, shape) = (stage.student.map, &stage.teachers[0].shape);
        let size = (map[1].min(shape[1]), map[2].min(shape[2]));
        Ok(Box::new(Attention { config: self.clone(), size }))
    }
}

struct Attention {
    config: AttentionTransfer,
    size: (usize, usize),
}

impl Attention {
    /// The attention of a map, `[batch, pixels]`, unit length.
    fn of(&self, map: &Tensor) -> Result<Tensor> {
        let map = pooled(map, self.size)?;
        let raised = if self.config.power == 2.0 { map.sqr()? } else { map.abs()?.powf(self.config.power)? };
        l2_normalise(&raised.mean(1)?.flatten_from(1)?)
    }
}

impl Loss for Attention {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let (student, teacher) = (self.of(inputs.map()?)?, self.of(inputs.teacher(0)?)?);
        let each = match self.config.distance {
            AttentionDistance::Squared => (student - teacher)?.sqr()?.mean(D::Minus1)?,
            AttentionDistance::Cosine => (1.0 - (student * teacher)?.sum(D::Minus1)?)?,
        };
        if self.config.reweight == 0.0 {
            return Ok(each.mean_all()?.into());
        }
        // Relative to the farthest face, so that no power makes all of them 0.
        let far = each.detach().relu()?;
        let far = far.broadcast_div(&(far.max(0)? + 1e-12)?)?;
        let weights = (far + 1e-12)?.powf(self.config.reweight)?;
        let weights = weights.broadcast_div(&weights.sum_all()?)?;
        Ok((each * weights)?.sum_all()?.into())
    }
}
