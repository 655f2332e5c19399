//! How far two numbers are apart.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// What a difference d costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Distance {
    /// `d^2`.
    #[default]
    Squared,
    /// `d^2 / (2 beta)` up to beta, `|d| - beta / 2` beyond.
    SmoothL1,
}

impl Distance {
    /// The cost of each difference in `gap`, any shape; `beta` is above 0.
    ///
    /// # Errors
    /// If the device fails.
    pub fn of(self, gap: &Tensor, beta: f64) -> Result<Tensor> {
        match self {
            Self::Squared => Ok(gap.sqr()?),
            Self::SmoothL1 => smooth_l1(gap, beta),
        }
    }
}

/// `d^2 / (2 beta)` up to beta, `|d| - beta / 2` beyond, for each d in `gap`.
///
/// # Errors
/// If the device fails.
pub fn smooth_l1(gap: &Tensor, beta: f64) -> Result<Tensor> {
    let gap = gap.abs()?;
    let near = gap.minimum(beta)?;
    // With n = min(|d|, beta) both branches are n (|d| - n / 2) / beta.
    Ok(((&near * (gap - (&near * 0.5)?)?)? / beta)?)
}

/// `ln(1 + e^x)` for each x, for numbers of any size.
///
/// # Errors
/// If the device fails.
pub fn softplus(x: &Tensor) -> Result<Tensor> {
    Ok((x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn values_by_hand() {
        let gap = Tensor::new(&[0.25f32, -0.5, -3.0], &Device::Cpu).expect("tensor");
        let of = |distance: Distance, beta| distance.of(&gap, beta).and_then(|t| Ok(t.to_vec1::<f32>()?)).expect("v");
        assert_eq!(of(Distance::Squared, 1.0), [0.0625, 0.25, 9.0]);
        assert_eq!(of(Distance::SmoothL1, 1.0), [0.03125, 0.125, 2.5]);
        assert_eq!(of(Distance::SmoothL1, 0.5), [0.0625, 0.25, 2.75]);
        let x = Tensor::new(&[-200f32, 0.0, 1.0, 200.0], &Device::Cpu).expect("tensor");
        let found = softplus(&x).and_then(|t| Ok(t.to_vec1::<f32>()?)).expect("values");
        let expected = [0.0, 2f32.ln(), 1f32.exp().ln_1p(), 200.0];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}");
    }
}
