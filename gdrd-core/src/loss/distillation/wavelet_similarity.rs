//! Feature maps that are similar in each band of a wavelet transform.

use candle_core::{D, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::BuildContext;
use crate::error::{Error, Result};
use crate::loss::maps::MapPair;
use crate::loss::{About, LoggedScalar, Loss, LossConfig, LossInputs, LossValue, Needs};
use crate::nn::l2_normalise;
use crate::plugin::Kind;

/// The wavelet similarity loss of identity-preserving distillation with WaveResNet (Lu and Ebrahimi, VCIP 2023): the
/// student's map and the teacher's are similar in each band of their wavelet transform.
///
/// We have read its abstract alone, which says that the identity is in the low frequencies. Here the transform is one
/// level of Haar's, each of its four bands (low, horizontal, vertical, diagonal) costs `1 - cos` of what is flattened,
/// and the low band and the mean of the other three have a weight each. Maps are brought to one size, which has to be
/// even, and to the teacher's channels by a learned 1x1 convolution.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WaveletSimilarity {
    /// The teacher's name in the recipe; may be left out when only one has feature maps.
    pub teacher: Option<String>,
    /// The teacher's feature map; its own default when left out.
    pub tap: Option<String>,
    /// The student's feature map, by its name: one on the way to the backbone's, which it is when left out.
    pub student_map: Option<String>,
    /// Weight of the low band.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub low: f64,
    /// Weight of the mean of the three other bands.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub high: f64,
}

impl Default for WaveletSimilarity {
    fn default() -> Self {
        Self { teacher: None, tap: None, student_map: None, low: 1.0, high: 0.25 }
    }
}

impl Kind for WaveletSimilarity {
    const NAME: &'static str = "wavelet-similarity";
    const PURPOSE: &'static str = "the backbone's map is similar to a teacher's in each wavelet band (WaveResNet)";
}

impl LossConfig for WaveletSimilarity {
    fn needs(&self) -> Needs {
        let needs = Needs::map_and(self.teacher.as_ref(), self.tap.as_ref());
        Needs { student_map: self.student_map.clone(), ..needs }
    }

    fn about(&self) -> About {
        About { equation: "sum over Haar's bands of 1 - cos(band(S), band(T))", memory: "b h w" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let pair = MapPair::new(cx)?;
        let (height, width) = pair.size();
        if height % 2 != 0 || width % 2 != 0 {
            return Err(Error::component(format!(
                "Haar's transform needs maps of even height and width, found {height}x{width}; choose another tap"
            )));
        }
        Ok(Box::new(Bands { pair, low: self.low, high: self.high }))
    }
}

struct Bands {
    pair: MapPair,
    low: f64,
    high: f64,
}

impl Loss for Bands {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let (student, teacher) = self.pair.of(inputs)?;
        let (student, teacher) = (haar(&student)?, haar(&teacher)?);
        let mut apart = Vec::new();
        for (one, other) in student.iter().zip(&teacher) {
            let flat = |x: &Tensor| l2_normalise(&x.flatten_from(1)?);
            apart.push((1.0 - (flat(one)? * flat(other)?)?.sum(D::Minus1)?.mean_all()?)?);
        }
        let high = (((&apart[1] + &apart[2])? + &apart[3])? / 3.0)?;
        let details =
            vec![("low".into(), LoggedScalar::scalar(&apart[0])?), ("high".into(), LoggedScalar::scalar(&high)?)];
        let value = ((&apart[0] * self.low)? + (high * self.high)?)?;
        Ok(LossValue { value, logits: None, details })
    }
}

/// The low, horizontal, vertical and diagonal band of maps `[batch, channels, h, w]`, each `[batch, channels, h / 2,
/// w / 2]`.
fn haar(map: &Tensor) -> Result<[Tensor; 4]> {
    let (batch, channels, height, width) = map.dims4()?;
    let blocks = map.reshape((batch * channels, height / 2, 2, width / 2, 2))?;
    let at = |row: usize, column: usize| -> Result<Tensor> {
        let pixel = blocks.narrow(2, row, 1)?.narrow(4, column, 1)?.contiguous()?;
        Ok(pixel.reshape((batch, channels, height / 2, width / 2))?)
    };
    let (a, b, c, d) = (at(0, 0)?, at(0, 1)?, at(1, 0)?, at(1, 1)?);
    let (top, bottom) = ((&a + &b)?, (&c + &d)?);
    let (top_gap, bottom_gap) = ((a - b)?, (c - d)?);
    Ok([
        ((&top + &bottom)? * 0.5)?,
        ((top - bottom)? * 0.5)?,
        ((&top_gap + &bottom_gap)? * 0.5)?,
        ((top_gap - bottom_gap)? * 0.5)?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn bands_by_hand() {
        let map = Tensor::new(&[[[[1f32, 2.0, 5.0, 5.0], [3.0, 4.0, 5.0, 5.0]]]], &Device::Cpu).expect("a map");
        let bands = haar(&map).expect("bands");
        let values = |t: &Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("values");
        assert_eq!(values(&bands[0]), [5.0, 10.0]);
        assert_eq!(values(&bands[1]), [-2.0, 0.0]);
        assert_eq!(values(&bands[2]), [-1.0, 0.0]);
        assert_eq!(values(&bands[3]), [0.0, 0.0]);
    }
}
