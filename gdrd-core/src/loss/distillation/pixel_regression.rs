//! The restored face is the large one.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::BuildContext;
use crate::error::{Error, Result};
use crate::loss::{About, Loss, LossConfig, LossInputs, LossValue, Needs};
use crate::plugin::{Kind, ViewName};

/// The mean absolute difference between the student's map, a face that it has restored, and the same face in another view: the pixel
/// loss of EDSR (Lim et al., CVPRW 2017) and of identity-aware super-resolution. For students whose map is a face
/// (`super-resolution`).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PixelRegression {
    /// The view that is restored; it has the size of the student's map.
    pub view: ViewName,
}

impl Default for PixelRegression {
    fn default() -> Self {
        Self { view: "high".into() }
    }
}

impl Kind for PixelRegression {
    const NAME: &'static str = "pixel-regression";
    const PURPOSE: &'static str = "the face that the student restores is the large one (IASR, EDSR)";
}

impl LossConfig for PixelRegression {
    fn needs(&self) -> Needs {
        Needs { map: true, views: vec![self.view.to_string()], ..Needs::default() }
    }

    fn about(&self) -> About {
        About { equation: "mean | S - x(view) | of faces", memory: "b 3 h w" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let stage = cx.stage()?;
        let (map, size) = (stage.student.map, stage.views[0]);
        if map != [3, size, size] {
            return Err(Error::component(format!(
                "the student's map is {map:?} (channels, height, width) and the view `{}` has {size} pixels; expected a map that is a \
                 face of that size, [3, {size}, {size}], as of a student of kind `super-resolution`",
                self.view
            )));
        }
        Ok(Box::new(Pixels))
    }
}

struct Pixels;

impl Loss for Pixels {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        Ok(apart(inputs.map()?, inputs.view(0)?.tensor())?.into())
    }
}

fn apart(restored: &Tensor, whole: &Tensor) -> Result<Tensor> {
    Ok((restored - whole)?.abs()?.mean_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_value_by_hand() {
        let of = |values: &[f32]| Tensor::new(values, &Device::Cpu).expect("a tensor");
        let value = apart(&of(&[0.0, 0.5, 1.0, 0.25]), &of(&[0.5, 0.0, 1.0, 0.5])).expect("a value");
        assert_eq!(value.to_scalar::<f32>().expect("a number"), 0.3125);
    }
}
