//! The closed form is scikit-learn's ridge regression; `golden/closed_form/ORIGIN.md` says how the reference was made.

use candle_core::{Device, Tensor};
use gdrd_core::closed_form::Moments;

use crate::golden::{Golden, formula};

#[test]
fn the_map_is_that_of_ridge_regression() {
    let golden = Golden::read("closed_form");
    for (name, rows, inputs, ridge) in [("tall", 400, 90, 1.0), ("wide", 150, 700, 0.1)] {
        let x = (formula::image(&format!("{name}.x"), (rows, inputs)) + 0.5).expect("features");
        let scale = Tensor::arange(1f32, 7.0, &Device::Cpu).expect("six factors");
        let scaled = x.narrow(1, 0, 6).and_then(|x| x.broadcast_mul(&scale)).expect("scaled");
        let y = (scaled + formula::image(&format!("{name}.y"), (rows, 6))).and_then(|y| y - 2.0).expect("targets");
        let mut moments = Moments::new(inputs, 6, &Device::Cpu).expect("sums");
        for from in (0..rows).step_by(70) {
            let batch = |t: &Tensor| t.narrow(0, from, 70.min(rows - from)).expect("some rows");
            moments.add(&batch(&x), &batch(&y)).expect("added");
        }
        let solved = moments.solve(ridge, &mut |_, _| Ok(())).expect("solved");
        golden.compare_within(&format!("{name}.weight"), &solved.weight, 1e-4);
        golden.compare_within(&format!("{name}.bias"), &solved.bias, 1e-4);
        let explained = Tensor::new(&[solved.explained.expect("targets vary") as f32], &Device::Cpu).expect("a number");
        golden.compare_within(&format!("{name}.explained"), &explained, 1e-4);
        let whitened = solved.whitened(0.25).and_then(|solved| solved.apply(&x)).expect("whitened");
        golden.compare_within(&format!("{name}.whitened"), &whitened, 1e-4);
    }
}
