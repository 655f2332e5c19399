//! How much each term of the objective pulls at the student, and whether terms pull the same way.

use candle_core::{Tensor, Var};

use super::numbers::Numbers;
use crate::error::Result;
use crate::loss::LoggedScalar;
use crate::nn::kernels::backward;

/// Logs `TERM.gradient`, the Euclidean length of each weighted term's gradient over some variables, and `TERM.cosine.OTHER`, the
/// cosine of each two; 0 where a gradient is zero.
pub(super) fn measure(terms: &[(&str, Tensor)], variables: &[&Var], numbers: &mut Numbers) -> Result<()> {
    let mut gradients: Vec<Vec<Option<Tensor>>> = Vec::with_capacity(terms.len());
    for (_, term) in terms {
        // A term of nothing but what is frozen has no graph.
        let found = if term.track_op() { Some(backward(term)?) } else { None };
        let of = |var: &&Var| found.as_ref().and_then(|found| found.get(var.as_tensor())).map(Tensor::detach);
        gradients.push(variables.iter().map(of).collect());
    }
    let product = |a: usize, b: usize| -> Result<Option<Tensor>> {
        let mut sum: Option<Tensor> = None;
        for (a, b) in gradients[a].iter().zip(&gradients[b]) {
            let (Some(a), Some(b)) = (a, b) else { continue };
            let here = (a * b)?.sum_all()?;
            sum = Some(match sum {
                Some(sum) => (sum + here)?,
                None => here,
            });
        }
        Ok(sum)
    };
    for (at, (name, _)) in terms.iter().enumerate() {
        let own = product(at, at)?;
        let length = match &own {
            Some(own) => LoggedScalar::later(own, |squares| f64::from(squares[0]).sqrt())?,
            None => 0.0.into(),
        };
        numbers.detail(format!("{name}.gradient"), length);
        for (other, (other_name, _)) in terms.iter().enumerate().skip(at + 1) {
            let cosine = match (&own, product(other, other)?, product(at, other)?) {
                (Some(own), Some(others), Some(both)) => {
                    LoggedScalar::later(&Tensor::stack(&[own, &others, &both], 0)?, |products| {
                        let [own, others, both] = [0, 1, 2].map(|at| f64::from(products[at]));
                        both / (own * others).sqrt().max(f64::MIN_POSITIVE)
                    })?
                }
                _ => 0.0.into(),
            };
            numbers.detail(format!("{name}.cosine.{other_name}"), cosine);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use candle_core::Device;

    use super::*;

    #[test]
    fn lengths_and_cosines_by_hand() {
        let var = |values: &[f32]| Var::new(values, &Device::Cpu).expect("a variable");
        let (a, b, loss) = (var(&[1.0, 2.0]), var(&[3.0]), var(&[5.0]));
        let scaled = |var: &Var, factor: f64| (var.as_tensor() * factor).and_then(|t| t.sum_all()).expect("a term");
        // Gradients (3, 3; 0), (0, 0; 4) and (-1, -1; 1), and one that is of the loss's own variable.
        let first = (scaled(&a, 3.0) + scaled(&loss, 7.0)).expect("a term");
        let third = (scaled(&b, 1.0) - scaled(&a, 1.0)).expect("a term");
        let terms = [("x", first), ("y", scaled(&b, 4.0)), ("z", third), ("w", scaled(&loss, 1.0))];
        let mut numbers = Numbers::new(0);
        measure(&terms, &[&a, &b], &mut numbers).expect("measured");
        numbers.gradients(&BTreeMap::new(), 1).expect("none");
        let found: BTreeMap<String, f64> = numbers.read(0).expect("numbers").terms.into_iter().collect();
        let expected = [
            ("x.gradient", 18f64.sqrt()),
            ("y.gradient", 4.0),
            ("z.gradient", 3f64.sqrt()),
            ("w.gradient", 0.0),
            ("x.cosine.y", 0.0),
            ("x.cosine.z", -6.0 / 54f64.sqrt()),
            ("y.cosine.z", 1.0 / 3f64.sqrt()),
            ("x.cosine.w", 0.0),
        ];
        for (name, value) in expected {
            assert!((found[name] - value).abs() < 1e-6, "{name}: {} for {value}", found[name]);
        }
    }
}
