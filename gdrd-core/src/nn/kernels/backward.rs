//! Gradients of variables that candle does not add to zeros.
//!
//! Candle's backward pass adds each gradient that an operation returns to zeros: for a weight, two more passes over memory and pages that
//! are new to the process. While [`backward`] runs, the operations of this module hand over the gradients of variables instead.

use std::cell::RefCell;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};

/// A variable and a gradient of it.
type Handed = (Tensor, Tensor);

thread_local! {
    /// What was handed over; none where nobody takes it.
    static HANDED: RefCell<Option<Vec<Handed>>> = const { RefCell::new(None) };
}

/// What [`Tensor::backward`] of a `loss` gives, in less time where weights are large.
///
/// # Errors
/// If the backward pass fails.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    /// Also where an operation panics, nobody takes any more.
    struct Taking(Option<Vec<Handed>>);
    impl Drop for Taking {
        fn drop(&mut self) {
            HANDED.set(self.0.take());
        }
    }
    let taking = Taking(HANDED.replace(Some(Vec::new())));
    let mut found = loss.backward()?;
    let handed = HANDED.take().unwrap_or_default();
    drop(taking);
    for (variable, gradient) in handed {
        let sum = match found.get(&variable) {
            Some(other) => (other + gradient)?,
            None => gradient,
        };
        found.insert(&variable, sum);
    }
    Ok(found)
}

/// Hands over the `gradient` of a variable where [`backward`] runs on this thread; else returns it, for candle.
pub(super) fn hand_over(tensor: &Tensor, gradient: Tensor) -> Option<Tensor> {
    if !tensor.is_variable() {
        return Some(gradient);
    }
    HANDED.with_borrow_mut(|handed| match handed {
        Some(handed) => {
            handed.push((tensor.clone(), gradient));
            None
        }
        None => Some(gradient),
    })
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::super::testing::random;
    use super::super::{conv2d, linear};
    use super::*;

    /// A weight that two layers share, one that a product of candle's has too, and one that is no variable.
    #[test]
    fn gradients_are_those_of_candle() {
        let var =
            |dims: &[usize], seed| Var::from_tensor(&random(dims.to_vec(), seed).expect("values")).expect("a variable");
        let (x, kernel) = (var(&[20, 16, 6, 6], 1), var(&[16, 16, 3, 3], 2));
        let (weight, scale) = (var(&[16, 16], 3), var(&[16, 16], 4));
        let loss = || {
            let map = conv2d(&conv2d(&x, &kernel, 1, 1, 1)?, &kernel, 2, 1, 1)?;
            let map = map.mean((2, 3))?;
            let there = linear(&linear(&map, &weight)?, &(scale.as_tensor() * 2.0)?)?;
            (there + map.matmul(weight.as_tensor())?)?.sqr()?.mean_all()
        };
        let ours = loss().and_then(|loss| backward(&loss)).expect("ours");
        let theirs = loss().and_then(|loss| loss.backward()).expect("theirs");
        for variable in [&x, &kernel, &weight, &scale] {
            let [ours, theirs] = [&ours, &theirs].map(|found| {
                let gradient = found.get(variable.as_tensor()).expect("a gradient");
                gradient.flatten_all().and_then(|values| values.to_vec1::<f32>()).expect("values")
            });
            let most = theirs.iter().fold(0f32, |most, value| most.max(value.abs()));
            assert!(most > 0.0 && ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() <= 1e-6 * most));
        }
        assert!(HANDED.take().is_none(), "nobody takes any more");
    }
}
