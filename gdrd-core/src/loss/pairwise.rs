//! Distances of all pairs of rows.

use candle_core::{D, DType, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::nn::l2_normalise;

/// How far two embeddings are apart, where a loss compares many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Euclidean.
    #[default]
    Euclidean,
    /// The square of the Euclidean distance.
    Squared,
    /// `1 - cos`.
    Cosine,
}

impl Metric {
    /// The distances of the rows of `a` `[n, width]` from those of `b` `[m, width]`, `[n, m]`.
    ///
    /// # Errors
    /// If the widths differ, or the device fails.
    pub fn between(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        match self {
            Self::Euclidean => Ok(root(&squared_distances(a, b)?)?),
            Self::Squared => squared_distances(a, b),
            Self::Cosine => Ok((1.0 - l2_normalise(a)?.matmul(&l2_normalise(b)?.t()?)?)?),
        }
    }
}

/// The squares of the Euclidean distances of the rows of `a` `[n, width]` from those of `b` `[m, width]`, `[n, m]`,
/// none below 0.
///
/// # Errors
/// If the widths differ, or the device fails.
pub fn squared_distances(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a_square, b_square) = (a.sqr()?.sum_keepdim(D::Minus1)?, b.sqr()?.sum_keepdim(D::Minus1)?);
    let product = (a.matmul(&b.t()?)? * 2.0)?;
    Ok(a_square.broadcast_add(&b_square.t()?)?.sub(&product)?.relu()?)
}

/// The square root, with a gradient of 0 where a number is 0 (or too small for its root to have one).
///
/// # Errors
/// If the device fails.
pub fn root(squares: &Tensor) -> Result<Tensor> {
    let tiny = squares.le(1e-12)?.to_dtype(DType::F32)?;
    let safe = (squares + &tiny)?.sqrt()?;
    Ok((safe * (1.0 - tiny)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn values_by_hand_and_a_finite_gradient_at_zero() {
        let x = Tensor::new(&[[3f32, 0.0], [0.0, 4.0], [3.0, 0.0]], &Device::Cpu).expect("rows");
        let x = Var::from_tensor(&x).expect("a variable");
        let of = |metric: Metric| metric.between(x.as_tensor(), x.as_tensor()).expect("distances");
        let values = |t: &Tensor| t.to_vec2::<f32>().expect("values");
        assert_eq!(values(&of(Metric::Squared))[0], [0.0, 25.0, 0.0]);
        assert_eq!(values(&of(Metric::Euclidean))[1], [5.0, 0.0, 5.0]);
        assert!((values(&of(Metric::Cosine))[0][1] - 1.0).abs() < 1e-6);
        let gradients = of(Metric::Euclidean).sum_all().and_then(|sum| sum.backward()).expect("gradients");
        let gradient = values(gradients.get(&x).expect("a gradient"));
        assert!(gradient.iter().flatten().all(|value| value.is_finite()), "{gradient:?}");
    }
}
