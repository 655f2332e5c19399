//! Two-dimensional convolution as a candle operation.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::backward::hand_over;
use super::buffer::{Filling, floats, supported, tensor, with_floats};
use super::convolution::ConvWeights;
use super::cuda;
use super::dense::{self, LinearOp};
use super::epilogue::Epilogue;
use super::methods::{method, weight_gradient_method};
use super::shape::ConvShape;

/// Cross-correlation of `x [b, c, h, w]` with `weight [o, c / groups, kh, kw]`, without bias: `[b, o, oh, ow]` with
/// `oh = (h + 2 padding - kh) / stride + 1`, and `ow` likewise. Both arguments receive gradients; that of an argument
/// that does not track operations is not computed.
///
/// # Errors
/// If the shapes do not fit.
pub fn conv2d(x: &Tensor, weight: &Tensor, stride: usize, padding: usize, groups: usize) -> Result<Tensor> {
    let shape = ConvShape::new(x.dims4()?, weight.dims4()?, stride, padding, groups)?;
    if supported(&[x, weight]) {
        return x.contiguous()?.apply_op2(&weight.contiguous()?, Conv2dOp { shape });
    }
    if cuda::supported(&[x, weight]) {
        return cuda::conv2d(x, weight, shape);
    }
    x.conv2d(weight, padding, stride, 1, groups)
}

/// `x W^T` for `x [b, c]` and `weight [o, c]`: `[b, o]`, with gradients as [`conv2d`] has them.
///
/// # Errors
/// If the shapes do not fit.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if linear_is_convolution(x, weight)? {
        let shape = ConvShape::linear(x.dims2()?, weight.dims2()?)?;
        return x.contiguous()?.apply_op2(&weight.contiguous()?, Conv2dOp { shape });
    }
    if cuda::supported(&[x, weight]) {
        return cuda::linear(x, weight);
    }
    let ((batch, inputs), (outputs, expected)) = (x.dims2()?, weight.dims2()?);
    if supported(&[x, weight]) && inputs == expected && dense::applies(batch, outputs, inputs) {
        return x.contiguous()?.apply_op2(&weight.contiguous()?, LinearOp);
    }
    x.matmul(&weight.t()?)
}

/// Whether the fastest way to `x W^T` is a convolution of maps of one pixel, rather than a product of matrices.
///
/// # Errors
/// If the shapes do not fit.
pub(in super::super) fn linear_is_convolution(x: &Tensor, weight: &Tensor) -> Result<bool> {
    Ok(supported(&[x, weight]) && method(&ConvShape::linear(x.dims2()?, weight.dims2()?)?).suits_linear())
}

/// The convolution of maps `[b, c, h, w]`, or of pixels `[b, c]`.
struct Conv2dOp {
    shape: ConvShape,
}

impl CustomOp2 for Conv2dOp {
    fn name(&self) -> &'static str {
        "gdrd-conv2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, w: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        let shape = self.shape;
        let (x, w) = (floats(x, xl)?, floats(w, wl)?);
        let weights = ConvWeights::Plain(w);
        // SAFETY: all values are written.
        let out = unsafe {
            Filling::by(shape.output_len(), |out| method(&shape).forward(&shape, x, weights, Epilogue::default(), out))
        };
        let dims = [shape.batch, shape.outputs, shape.out_height(), shape.out_width()];
        Ok((CpuStorage::F32(out), Shape::from(&dims[..xl.shape().rank()])))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let shape = self.shape;
        let (for_x, for_weight) = (x.track_op(), weight.track_op());
        with_floats([x, weight, grad], |[xs, ws, gs]| {
            let dx = for_x.then(|| method(&shape).input_gradient(&shape, ws, gs));
            let dw = for_weight.then(|| weight_gradient_method(&shape).weight_gradient(&shape, xs, gs));
            let dx = dx.map(|values| tensor(values, x.shape())).transpose()?;
            let dw = dw.map(|values| tensor(values, weight.shape())).transpose()?;
            Ok((dx, dw.and_then(|gradient| hand_over(weight, gradient))))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        CONVOLUTIONS, assert_close, convolution, flat, gradients, on_each_level, random, with_threads,
    };
    use super::*;

    #[test]
    fn the_forward_pass_follows_the_definition() {
        for (x_dims, w_dims, stride, padding, groups) in CONVOLUTIONS {
            let shape = ConvShape::new(x_dims, w_dims, stride, padding, groups).expect("fits");
            let (x, w) = (random(x_dims, 1).expect("x"), random(w_dims, 2).expect("w"));
            let expected = [convolution(&flat(&x), &flat(&w), &shape)];
            on_each_level(|| {
                let y = conv2d(&x, &w, stride, padding, groups).expect("conv");
                assert_eq!(y.dims(), [shape.batch, shape.outputs, shape.out_height(), shape.out_width()]);
                assert_close(&[flat(&y)], &expected, 2e-5);
            });
        }
    }

    #[test]
    fn gradients_equal_candles() {
        for (x_dims, w_dims, stride, padding, groups) in CONVOLUTIONS {
            if stride > 1 && (x_dims.2 != x_dims.3 || w_dims.2 != w_dims.3) {
                // Candle's backward pass takes the height for the width there.
                continue;
            }
            let (x, w) = (random(x_dims, 1).expect("x"), random(w_dims, 2).expect("w"));
            let theirs = gradients(&[&x, &w], |v| v[0].conv2d(&v[1], padding, stride, 1, groups));
            on_each_level(|| {
                let ours = gradients(&[&x, &w], |v| conv2d(&v[0], &v[1], stride, padding, groups));
                assert_close(&ours, &theirs, 2e-5);
            });
        }
    }

    /// Also where candle's own backward pass fails: a stride of two on a map that is not square.
    #[test]
    fn gradients_agree_with_finite_differences() {
        on_each_level(gradients_are_slopes);
    }

    fn gradients_are_slopes() {
        for (x_dims, stride, groups) in [((2, 16, 5, 6), 1, 1), ((2, 16, 9, 8), 2, 1), ((2, 16, 9, 8), 2, 16)] {
            let (x, w) = (random(x_dims, 1).expect("x"), random((16, 16 / groups, 3, 3), 2).expect("w"));
            let of = |x: &Tensor, w: &Tensor| {
                let y = conv2d(x, w, stride, 1, groups)?;
                (&y * random(y.dims().to_vec(), 77)?)?.sum_all()?.to_scalar::<f32>()
            };
            let exact = gradients(&[&x, &w], |v| conv2d(&v[0], &v[1], stride, 1, groups));
            for (which, at) in [(1, 0), (1, 100), (1, 959), (2, 0), (2, 74), (2, 143)] {
                let moved = |by: f32| {
                    let t = if which == 1 { &x } else { &w };
                    let mut values = t.flatten_all()?.to_vec1::<f32>()?;
                    values[at] += by;
                    let t = Tensor::from_vec(values, t.shape(), t.device())?;
                    if which == 1 { of(&t, &w) } else { of(&x, &t) }
                };
                let slope = f64::from(moved(0.5).expect("value") - moved(-0.5).expect("value"));
                let exact = f64::from(exact[which][at]);
                assert!((slope - exact).abs() < 2e-3, "{x_dims:?}, argument {which} at {at}: {slope} and {exact}");
            }
        }
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        for (x_dims, w_dims, stride) in [
            ((7, 32, 16, 16), (48, 32, 3, 3), 1),
            ((9, 128, 4, 4), (128, 128, 3, 3), 1),
            ((5, 24, 9, 9), (16, 24, 3, 3), 2),
        ] {
            let (x, w) = (random(x_dims, 1).expect("x"), random(w_dims, 2).expect("w"));
            on_each_level(|| {
                let run =
                    |threads| with_threads(threads, || gradients(&[&x, &w], |v| conv2d(&v[0], &v[1], stride, 1, 1)));
                let one = run(1);
                assert!(one == run(2) && one == run(3) && one == run(3), "{x_dims:?}");
            });
        }
    }

    #[test]
    fn linear_equals_the_product() {
        for (batch, inputs, outputs) in [(96, 256, 64), (3, 5, 7)] {
            let (x, w) = (random((batch, inputs), 1).expect("x"), random((outputs, inputs), 2).expect("w"));
            let theirs = gradients(&[&x, &w], |v| v[0].matmul(&v[1].t()?));
            on_each_level(|| assert_close(&gradients(&[&x, &w], |v| linear(&v[0], &v[1])), &theirs, 2e-5));
            assert!(linear(&x, &random((outputs, inputs + 1), 2).expect("w")).is_err());
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let (x, w) = (random((1, 3, 8, 8), 1).expect("x"), random((4, 2, 3, 3), 2).expect("w"));
        let error = conv2d(&x, &w, 1, 1, 1).expect_err("three channels against two");
        assert!(error.to_string().contains("do not fit"), "{error}");
    }
}
