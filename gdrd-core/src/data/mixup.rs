//! Mixtures of two faces (Zhang et al., ICLR 2018), and what teachers say of them (Beyer et al., CVPR 2022).

use candle_core::Tensor;
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::face::Face;
use crate::seed::Stream;

/// Some faces of a batch are mixed with the one half a batch on: `s a + (1 - s) b`, with s from the distribution Beta(alpha,
/// alpha). Nobody knows who a mixture is: terms that use labels pass over it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mixup {
    /// Share of the faces that are mixed, above 0 to 1.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub faces: f64,
    /// Parameter of the distribution, 0.05 to 1: 1 takes every s as likely, small ones leave most faces nearly whole.
    #[schemars(range(min = 0.05, max = 1))]
    pub alpha: f64,
    /// What the student learns of a mixture.
    pub targets: Targets,
}

/// What a student learns of a mixture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Targets {
    /// The teacher's answer to the mixture; teachers run at every step.
    #[default]
    Teacher,
    /// The mixture of the teacher's answers to the two faces, which may be stored.
    Mixed,
}

impl Default for Mixup {
    fn default() -> Self {
        Self { faces: 0.5, alpha: 1.0, targets: Targets::Teacher }
    }
}

impl Mixup {
    /// The share of a face in what is shown of it: 1 if it is not mixed. (Jöhnk's method for Beta, Metrika 1964.)
    pub(super) fn draw(&self, stream: &mut Stream) -> f32 {
        if stream.random::<f64>() >= self.faces {
            return 1.0;
        }
        loop {
            let mut power = || stream.random::<f64>().powf(1.0 / self.alpha);
            let (x, y) = (power(), power());
            if x + y > 0.0 && x + y <= 1.0 {
                return (x / (x + y)) as f32;
            }
        }
    }
}

/// How a batch's faces are mixed: each with the one half a batch on, round about.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixed {
    /// The share of each face; 1 where it is not mixed.
    pub shares: Vec<f32>,
    /// What the student learns of a mixture.
    pub targets: Targets,
}

impl Mixed {
    /// The place of the face that the one at `at` is mixed with.
    pub(super) fn partner(&self, at: usize) -> usize {
        (at + self.shares.len() / 2) % self.shares.len()
    }

    /// The rows of `x` `[batch, ...]`, on any device, mixed as the faces are.
    ///
    /// # Errors
    /// If there are not as many rows.
    pub fn rows(&self, x: &Tensor) -> Result<Tensor> {
        let count = self.shares.len();
        if x.dim(0)? != count {
            return Err(Error::component(format!("expected {count} rows to mix, found {:?}", x.dims())));
        }
        let mut shape = vec![1; x.rank()];
        shape[0] = count;
        let shares = Tensor::from_slice(&self.shares, shape, x.device())?;
        let half = count / 2;
        let other = Tensor::cat(&[x.narrow(0, half, count - half)?, x.narrow(0, 0, half)?], 0)?;
        Ok((x.broadcast_mul(&shares)? + other.broadcast_mul(&(1.0 - shares)?)?)?)
    }
}

impl Face {
    /// `share` of this face and the rest of another, value by value.
    ///
    /// # Errors
    /// If they differ in size.
    pub fn mixed(&self, other: &Self, share: f32) -> Result<Self> {
        if (self.width(), self.height()) != (other.width(), other.height()) {
            return Err(Error::data(format!(
                "faces of {}x{} and {}x{} pixels cannot be mixed; expected faces of one size",
                self.width(),
                self.height(),
                other.width(),
                other.height()
            )));
        }
        let value = |(a, b): (&u8, &u8)| (share * f32::from(*a) + (1.0 - share) * f32::from(*b)).round() as u8;
        Self::new(self.width(), self.height(), self.pixels().iter().zip(other.pixels()).map(value).collect())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::seed::Seed;

    fn drawn(mixup: &Mixup, count: u64) -> Vec<f64> {
        (0..count).map(|number| f64::from(mixup.draw(&mut Seed(7).stream("test", &[number])))).collect()
    }

    #[test]
    fn shares_have_the_distributions_mean_and_variance() {
        for alpha in [1.0, 0.2] {
            let shares = drawn(&Mixup { faces: 1.0, alpha, ..Mixup::default() }, 4000);
            let mean = shares.iter().sum::<f64>() / 4000.0;
            let variance = shares.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / 4000.0;
            // Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2 a + 1)).
            assert!((mean - 0.5).abs() < 0.03, "{mean}");
            assert!((variance * 4.0 * (2.0 * alpha + 1.0) - 1.0).abs() < 0.06, "{alpha}: {variance}");
        }
        let whole = drawn(&Mixup { faces: 0.25, ..Mixup::default() }, 4000).iter().filter(|s| **s == 1.0).count();
        assert!((2890..=3110).contains(&whole), "{whole}");
    }

    #[test]
    fn rows_and_faces_are_mixed_alike() {
        let mixed = Mixed { shares: vec![0.25, 1.0, 0.5], targets: Targets::Mixed };
        let x = Tensor::new(&[[0f32, 8.0], [4.0, 16.0], [2.0, 0.0]], &Device::Cpu).expect("rows");
        let rows = mixed.rows(&x).and_then(|x| Ok(x.to_vec2::<f32>()?)).expect("rows");
        assert_eq!(rows, [[3.0, 14.0], [4.0, 16.0], [1.0, 4.0]]);
        assert!(mixed.rows(&x.narrow(0, 0, 2).expect("two")).is_err());
        let face = |value| Face::new(1, 1, vec![value; 3]).expect("a pixel");
        assert_eq!(face(0).mixed(&face(4), 0.25).expect("mixed"), face(3));
        assert!(face(0).mixed(&Face::new(2, 1, vec![0; 6]).expect("two pixels"), 0.5).is_err());
        assert_eq!((mixed.partner(0), mixed.partner(2)), (1, 0), "three faces: the next one");
        let four = Mixed { shares: vec![0.5; 4], ..mixed };
        assert_eq!([0, 1, 2, 3].map(|at| four.partner(at)), [2, 3, 0, 1]);
    }

    #[test]
    fn options_out_of_bounds_are_named() {
        let problems = Mixup { faces: 0.0, alpha: 2.0, targets: Targets::Mixed }.check();
        assert!(problems[0].message.starts_with("`mixup.faces`") && problems[1].message.starts_with("`mixup.alpha`"));
        assert!(Mixup::default().check().is_empty());
    }
}
