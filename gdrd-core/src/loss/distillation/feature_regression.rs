//! Feature regression, Eq. (1): the student's backbone mimics the generative teacher's encoder.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::BuildContext;
use crate::error::{Error, Result};
use crate::loss::{About, LoggedScalar, Loss, LossConfig, LossInputs, LossValue, Needs, Offered, pooled};
use crate::nn::{Conv2d, ConvConfig, standardise};
use crate::plugin::Kind;

/// `|| S_b(x_lr) - T_g(x_lr) ||^2`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FeatureRegression {
    /// The teacher's name in the recipe; may be left out when only one has feature maps.
    pub teacher: Option<String>,
    /// The teacher's feature map; its own default when left out.
    pub tap: Option<String>,
    /// The student's feature map, by its name: one on the way to the backbone's, which it is when left out.
    pub student_map: Option<String>,
    /// What stands between the student's map and the teacher's.
    pub connector: Connector,
    /// Whether the larger of two maps of different height and width is averaged to the smaller one's, as where
    /// FitNets' hints are of a teacher with a larger input. Without it other sizes are an error.
    pub resize: bool,
    /// Whether each channel of the teacher's map is brought to zero mean and unit variance over the batch. The scale of a
    /// diffusion encoder's channels is arbitrary, and a student that ends in batch normalisation is far from it.
    pub standardise: bool,
    /// Sum over the map's values, as Eq. (1) reads, instead of their mean. The batch is averaged in both cases.
    pub sum: bool,
}

/// What stands between two feature maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Connector {
    /// Nothing where the shapes are equal, as the paper; a 1x1 convolution where only the channels differ.
    #[default]
    Auto,
    /// Nothing; other shapes are an error.
    None,
    /// A learned 1x1 convolution with a bias.
    Linear,
}

impl Kind for FeatureRegression {
    const NAME: &'static str = "feature-regression";
    const PURPOSE: &'static str = "the backbone's map mimics a teacher's feature map (Eq. 1)";
}

impl LossConfig for FeatureRegression {
    fn needs(&self) -> Needs {
        let needs = Needs::map_and(self.teacher.as_ref(), self.tap.as_ref());
        Needs { student_map: self.student_map.clone(), ..needs }
    }

    fn about(&self) -> About {
        About { equation: "Eq. (1): || S - T ||^2 of maps", memory: "b h w, for each channel" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let stage = cx.stage()?;
        let Offered { teacher, output, shape: target } = &stage.teachers[0];
        let map = stage.student.map;
        let linear = match self.connector {
            Connector::None => false,
            Connector::Linear => true,
            Connector::Auto => target[0] != map[0],
        };
        let sizes_fit = self.resize || target[1..] == map[1..];
        if !sizes_fit || (!linear && target[0] != map[0]) {
            return Err(Error::component(format!(
                "{output} of teacher `{teacher}` is {target:?} (channels, height, width) and the student's map is {map:?}; \
                 choose another tap, the teacher's input size, the student's channels, or `resize`"
            )));
        }
        let config = ConvConfig { bias: true, ..ConvConfig::default() };
        let connector =
            linear.then(|| Conv2d::new(map[0], target[0], 1, config, &cx.weights()?.pp("connector"))).transpose()?;
        let size = (map[1].min(target[1]), map[2].min(target[2]));
        Ok(Box::new(MapRegression { connector, size, standardise: self.standardise, sum: self.sum }))
    }
}

struct MapRegression {
    connector: Option<Conv2d>,
    /// Height and width of both maps.
    size: (usize, usize),
    standardise: bool,
    sum: bool,
}

impl Loss for MapRegression {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let given = pooled(inputs.teacher(0)?, self.size)?;
        let target = &if self.standardise { standardise(&given, 1e-8)? } else { given };
        let map = pooled(inputs.map()?, self.size)?;
        let map = match &self.connector {
            Some(connector) => connector.forward(&map)?,
            None => map,
        };
        let mean = regression(&map, target)?;
        let details = vec![("explained".into(), explained(&mean, target)?)];
        let per_face = target.elem_count() / target.dim(0)?;
        let value = if self.sum { (mean * per_face as f64)? } else { mean };
        Ok(LossValue { value, logits: None, details })
    }
}

fn regression(map: &Tensor, target: &Tensor) -> Result<Tensor> {
    Ok((map - target)?.sqr()?.mean_all()?)
}

/// The share of the target's variance about its mean that the regression explains; 1 is perfect.
fn explained(mean_square: &Tensor, target: &Tensor) -> Result<LoggedScalar> {
    let centre = target.mean_keepdim(0)?;
    let variance = target.broadcast_sub(&centre)?.sqr()?.mean_all()?;
    LoggedScalar::later(&Tensor::stack(&[mean_square.detach(), variance], 0)?, |values| {
        1.0 - f64::from(values[0]) / f64::from(values[1]).max(1e-12)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn equal_maps_cost_nothing_and_are_explained() {
        let target = Tensor::new(&[[1f32, 2.0], [3.0, 5.0]], &Device::Cpu).expect("target");
        let zero = regression(&target, &target).expect("value");
        assert_eq!(zero.to_scalar::<f32>().expect("scalar"), 0.0);
        assert_eq!(explained(&zero, &target).and_then(|share| share.read()).expect("share"), 1.0);
        let mean = target.mean_keepdim(0).and_then(|m| m.broadcast_as((2, 2))).expect("mean");
        let value = regression(&mean, &target).expect("value");
        assert!(explained(&value, &target).and_then(|share| share.read()).expect("share").abs() < 1e-6);
    }
}
