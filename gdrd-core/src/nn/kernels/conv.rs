//! Two-dimensional convolution as a candle operation.

use std::mem::MaybeUninit;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::buffer::{Filling, floats, supported, tensor, with_floats};
use super::shape::ConvShape;
use super::tail::Tail;
use super::{depthwise, direct, im2col, winograd};

/// Cross-correlation of `x [b, c, h, w]` with `weight [o, c / groups, kh, kw]`, without bias: `[b, o, oh, ow]` with
/// `oh = (h + 2 padding - kh) / stride + 1`, and `ow` likewise. Both arguments receive gradients; that of an argument
/// that does not track operations is not computed.
///
/// # Errors
/// If the shapes do not fit.
pub fn conv2d(x: &Tensor, weight: &Tensor, stride: usize, padding: usize, groups: usize) -> Result<Tensor> {
    let shape = ConvShape::new(x.dims4()?, weight.dims4()?, stride, padding, groups)?;
    if supported(&[x, weight]) {
        return x.contiguous()?.apply_op2(&weight.contiguous()?, Conv2d { shape });
    }
    #[cfg(feature = "cuda")]
    if super::cuda::supported(&[x, weight]) {
        return super::cuda::conv2d(x, weight, shape);
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
        return x.contiguous()?.apply_op2(&weight.contiguous()?, Conv2d { shape });
    }
    #[cfg(feature = "cuda")]
    if super::cuda::supported(&[x, weight]) {
        return super::cuda::linear(x, weight);
    }
    x.matmul(&weight.t()?)
}

/// Whether the fastest way to `x W^T` is a convolution of maps of one pixel, rather than a product of matrices.
///
/// # Errors
/// If the shapes do not fit.
pub(in super::super) fn linear_is_convolution(x: &Tensor, weight: &Tensor) -> Result<bool> {
    #[cfg(target_arch = "x86_64")]
    if supported(&[x, weight]) {
        return Ok(amx::applies(&ConvShape::linear(x.dims2()?, weight.dims2()?)?));
    }
    Ok(false)
}

/// How a convolution is computed.
#[derive(Clone, Copy)]
pub(super) enum Method {
    Depthwise,
    #[cfg(target_arch = "x86_64")]
    Amx,
    Winograd,
    Direct,
    Im2col,
}

/// The kernels of a convolution.
#[derive(Clone, Copy)]
pub(super) enum Kernels<'a> {
    /// `[o, c / groups, kh, kw]`.
    Plain(&'a [f32]),
    /// In the form that the method's products take.
    Packed(&'a [f32]),
}

impl Method {
    /// The fastest that applies.
    pub(super) fn of(shape: &ConvShape) -> Self {
        #[cfg(target_arch = "x86_64")]
        if amx::applies(shape) {
            return Self::Amx;
        }
        Self::by_vectors(shape)
    }

    /// The fastest for the gradient of the weight.
    fn of_weight_gradient(shape: &ConvShape) -> Self {
        #[cfg(target_arch = "x86_64")]
        if amx::weight_gradient_applies(shape) {
            return Self::Amx;
        }
        Self::by_vectors(shape)
    }

    fn by_vectors(shape: &ConvShape) -> Self {
        if depthwise::applies(shape) {
            Self::Depthwise
        } else if winograd::applies(shape) {
            Self::Winograd
        } else if direct::applies(shape) {
            Self::Direct
        } else {
            Self::Im2col
        }
    }

    /// Writes all of `y [b, o, oh, ow]`, and what follows.
    pub(super) fn forward(
        self,
        shape: &ConvShape,
        x: &[f32],
        kernels: Kernels<'_>,
        tail: Tail<'_>,
        out: &mut [MaybeUninit<f32>],
    ) {
        let (Kernels::Plain(plain) | Kernels::Packed(plain)) = kernels;
        match self {
            Self::Depthwise => depthwise::forward(shape, x, plain, tail, out),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => amx::forward(shape, x, kernels, tail, out),
            Self::Winograd => winograd::forward(shape, x, kernels, tail, out),
            Self::Direct => direct::forward(shape, x, kernels, tail, out),
            Self::Im2col => im2col::forward(shape, x, plain, tail, out),
        }
    }
}

/// The convolution of maps `[b, c, h, w]`, or of pixels `[b, c]`.
struct Conv2d {
    shape: ConvShape,
}

impl CustomOp2 for Conv2d {
    fn name(&self) -> &'static str {
        "gdrd-conv2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, w: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        let shape = self.shape;
        let (x, w) = (floats(x, xl)?, floats(w, wl)?);
        let kernels = Kernels::Plain(w);
        // SAFETY: all values are written.
        let out = unsafe {
            Filling::by(shape.output_len(), |out| Method::of(&shape).forward(&shape, x, kernels, Tail::default(), out))
        };
        let dims = [shape.batch, shape.outputs, shape.out_height(), shape.out_width()];
        Ok((CpuStorage::F32(out), Shape::from(&dims[..xl.shape().rank()])))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let shape = self.shape;
        let (for_x, for_weight) = (x.track_op(), weight.track_op());
        with_floats([x, weight, grad], |[xs, ws, gs]| {
            let method = Method::of(&shape);
            let dx = for_x.then(|| match method {
                Method::Depthwise => depthwise::input_gradient(&shape, ws, gs),
                #[cfg(target_arch = "x86_64")]
                Method::Amx => amx::input_gradient(&shape, ws, gs),
                Method::Winograd => winograd::input_gradient(&shape, ws, gs),
                Method::Direct => direct::input_gradient(&shape, ws, gs),
                Method::Im2col => im2col::input_gradient(&shape, ws, gs),
            });
            let dw = for_weight.then(|| match Method::of_weight_gradient(&shape) {
                Method::Depthwise => depthwise::weight_gradient(&shape, xs, gs),
                #[cfg(target_arch = "x86_64")]
                Method::Amx => amx::weight_gradient(&shape, xs, gs),
                Method::Winograd => winograd::weight_gradient(&shape, xs, gs),
                Method::Direct => direct::weight_gradient(&shape, xs, gs),
                Method::Im2col => im2col::weight_gradient(&shape, xs, gs),
            });
            let dx = dx.map(|values| tensor(values, x.shape())).transpose()?;
            let dw = dw.map(|values| tensor(values, weight.shape())).transpose()?;
            Ok((dx, dw))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{CONVOLUTIONS, assert_close, convolution, gradients, random};
    use super::*;

    #[test]
    fn the_forward_pass_follows_the_definition() {
        for (x_dims, w_dims, stride, padding, groups) in CONVOLUTIONS {
            let shape = ConvShape::new(x_dims, w_dims, stride, padding, groups).expect("fits");
            let (x, w) = (random(x_dims, 1).expect("x"), random(w_dims, 2).expect("w"));
            let y = conv2d(&x, &w, stride, padding, groups).expect("conv");
            assert_eq!(y.dims(), [shape.batch, shape.outputs, shape.out_height(), shape.out_width()]);
            let flat = |t: &Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("values");
            assert_close(&[flat(&y)], &[convolution(&flat(&x), &flat(&w), &shape)], 2e-5);
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
            let ours = gradients(&[&x, &w], |v| conv2d(&v[0], &v[1], stride, padding, groups));
            let theirs = gradients(&[&x, &w], |v| v[0].conv2d(&v[1], padding, stride, 1, groups));
            assert_close(&ours, &theirs, 2e-5);
        }
    }

    /// Also where candle's own backward pass fails: a stride of two on a map that is not square.
    #[test]
    fn gradients_agree_with_finite_differences() {
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
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
                pool.install(|| gradients(&[&x, &w], |v| conv2d(&v[0], &v[1], stride, 1, 1)))
            };
            let one = run(1);
            assert!(one == run(2) && one == run(3) && one == run(3), "{x_dims:?}");
        }
    }

    #[test]
    fn linear_equals_the_product() {
        for (batch, inputs, outputs) in [(96, 256, 64), (3, 5, 7)] {
            let (x, w) = (random((batch, inputs), 1).expect("x"), random((outputs, inputs), 2).expect("w"));
            let ours = gradients(&[&x, &w], |v| linear(&v[0], &v[1]));
            let theirs = gradients(&[&x, &w], |v| v[0].matmul(&v[1].t()?));
            assert_close(&ours, &theirs, 2e-5);
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
