//! Dropout (Srivastava et al., JMLR 2014): while a network is trained, values are left out at random.
//!
//! What is left out is a function of the step's [`Pass`] and of the layer's name, not of what ran before, so that a resumed run
//! leaves out the same.

use candle_core::Tensor;

use super::Mode;
use super::pass::{LeaveOut, Pass};
use crate::error::{Error, Result};

/// Leaves out each value with the same probability and divides the others by `1 - rate`, in [`Mode::Train`] alone.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use gdrd_core::nn::{Dropout, Mode, Pass};
///
/// let x = Tensor::ones((4, 100), DType::F32, &Device::Cpu)?;
/// let dropout = Dropout::new(0.4, "head");
/// let _pass = Pass::step(7).set();
/// let kept = dropout.forward(&x, Mode::Train)?.to_vec2::<f32>()?;
/// assert_eq!(kept, dropout.forward(&x, Mode::Train)?.to_vec2::<f32>()?);
/// assert!(kept[0].contains(&0.0));
/// # Ok::<(), gdrd_core::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Dropout {
    rate: f64,
    layer: u64,
}

impl Dropout {
    /// `rate` is the share that is left out, 0 to below 1; layers with different names leave out apart.
    pub fn new(rate: f64, name: &str) -> Self {
        // FNV-1a: any fixed function of the name would do.
        let mixed = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self { rate, layer: name.bytes().fold(0xcbf2_9ce4_8422_2325, mixed) }
    }

    /// `x`, any shape, with values left out.
    ///
    /// # Errors
    /// If it is trained on a thread to which nobody has said what pass this is.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        if mode == Mode::Evaluate || self.rate == 0.0 {
            return Ok(x.clone());
        }
        let key = match Pass::now().dropout {
            LeaveOut::By(key) => key,
            LeaveOut::Nothing => return Ok(x.clone()),
            LeaveOut::Unknown => {
                return Err(Error::component(
                    "dropout in training needs a step: hold `Pass::step(key).set()` meanwhile",
                ));
            }
        };
        let start = mix(key ^ self.layer);
        let factor = (1.0 / (1.0 - self.rate)) as f32;
        // 53 bits: as many as a share between 0 and 1 has.
        let least = (self.rate * (1u64 << 53) as f64) as u64;
        let kept = |at: u64| mix(start.wrapping_add(at.wrapping_mul(STEP))) >> 11 >= least;
        let mask: Vec<f32> = (0..x.elem_count() as u64).map(|at| if kept(at) { factor } else { 0.0 }).collect();
        Ok((x * Tensor::from_vec(mask, x.shape(), x.device())?)?)
    }
}

/// SplitMix64 (Steele et al., OOPSLA 2014): its step and its mixing function, which make number `at` of a stream without those
/// before it.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;

    fn values(dropout: &Dropout, key: u64) -> Vec<f32> {
        let _pass = Pass::step(key).set();
        let x = Tensor::ones((64, 500), DType::F32, &Device::Cpu).expect("x");
        dropout.forward(&x, Mode::Train).and_then(|y| Ok(y.flatten_all()?.to_vec1()?)).expect("y")
    }

    #[test]
    fn the_asked_share_is_left_out_and_the_mean_stays() {
        let found = values(&Dropout::new(0.4, "a"), 7);
        let zeros = found.iter().filter(|v| **v == 0.0).count() as f64 / found.len() as f64;
        let mean = found.iter().sum::<f32>() / found.len() as f32;
        // Four standard deviations of 32,000 draws are 0.011 and 0.018.
        assert!((zeros - 0.4).abs() < 0.011 && (mean - 1.0).abs() < 0.018, "{zeros} {mean}");
        // No column is left out more often than chance has it: 64 draws each, so 6 deviations are 23.5 around 25.6.
        let of_column = |column: usize| found.iter().skip(column).step_by(500).filter(|v| **v == 0.0).count();
        assert!((0..500).all(|column| (2..=49).contains(&of_column(column))));
    }

    #[test]
    fn it_depends_on_key_and_name_alone() {
        let a = Dropout::new(0.5, "a");
        assert_eq!(values(&a, 7), values(&a.clone(), 7));
        assert_ne!(values(&a, 7), values(&a, 8));
        assert_ne!(values(&a, 7), values(&Dropout::new(0.5, "b"), 7));
    }

    #[test]
    fn evaluation_changes_nothing_and_training_without_random_numbers_is_an_error() {
        let x = Tensor::ones(5, DType::F32, &Device::Cpu).expect("x");
        let dropout = Dropout::new(0.9, "a");
        let used = dropout.forward(&x, Mode::Evaluate).and_then(|y| Ok(y.to_vec1::<f32>()?)).expect("y");
        assert_eq!(used, [1.0; 5]);
        assert!(dropout.forward(&x, Mode::Train).is_err());
        let _pass = Pass::statistics(0).set();
        let estimated = dropout.forward(&x, Mode::Train).and_then(|y| Ok(y.to_vec1::<f32>()?)).expect("y");
        assert_eq!(estimated, [1.0; 5], "statistics are those of a network that is used");
    }

    #[test]
    fn gradients_go_where_values_went() {
        let x = Var::ones((3, 20), DType::F32, &Device::Cpu).expect("x");
        let _pass = Pass::step(3).set();
        let y = Dropout::new(0.3, "a").forward(x.as_tensor(), Mode::Train).expect("y");
        let gradients = y.sum_all().and_then(|y| y.backward()).expect("gradients");
        let gradient = gradients.get(&x).expect("one").to_vec2::<f32>().expect("values");
        assert_eq!(gradient, y.to_vec2::<f32>().expect("values"));
    }
}
