//! Numbers for the log.

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};

/// A number for the log. One that follows from a tensor on a GPU is read when the log wants it, so that no step waits for it.
pub struct LoggedScalar(State);

enum State {
    Known(f64),
    Later { values: Tensor, of: Of },
}

type Of = Box<dyn Fn(&[f32]) -> f64>;

impl From<f64> for LoggedScalar {
    fn from(number: f64) -> Self {
        Self(State::Known(number))
    }
}

impl LoggedScalar {
    /// `of` the values of `tensor`, any shape, float32. In main memory they are read at once.
    ///
    /// # Errors
    /// If the tensor is not float32.
    pub fn later(tensor: &Tensor, of: impl Fn(&[f32]) -> f64 + 'static) -> Result<Self> {
        if tensor.dtype() != DType::F32 {
            return Err(Error::component(format!("a number for the log needs float32, found {:?}", tensor.dtype())));
        }
        let later = Self(State::Later { values: tensor.detach(), of: Box::new(of) });
        if tensor.device().is_cuda() { Ok(later) } else { later.read().map(Self::from) }
    }

    /// The one value of `tensor`, float32.
    ///
    /// # Errors
    /// If the tensor is not one value of float32.
    pub fn scalar(tensor: &Tensor) -> Result<Self> {
        if tensor.elem_count() != 1 {
            return Err(Error::component(format!("expected one value, found a tensor {:?}", tensor.dims())));
        }
        Self::later(tensor, |values| f64::from(values[0]))
    }

    /// The number, if it is known without waiting for a device.
    pub fn known(&self) -> Option<f64> {
        match self.0 {
            State::Known(number) => Some(number),
            State::Later { .. } => None,
        }
    }

    /// The number; waits for the device.
    pub fn read(&self) -> Result<f64> {
        match &self.0 {
            State::Known(number) => Ok(*number),
            State::Later { values, of } => Ok(of(&values.flatten_all()?.to_vec1()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn in_main_memory_it_is_known_at_once() {
        let tensor = Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu).expect("tensor");
        let sum = LoggedScalar::later(&tensor, |values| values.iter().sum::<f32>().into()).expect("a number");
        assert_eq!((sum.known(), sum.read().expect("a number")), (Some(10.0), 10.0));
        assert!(LoggedScalar::scalar(&tensor).is_err());
    }
}
