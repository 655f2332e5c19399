//! Pooling.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::buffer::{floats, supported, tensor, with_floats};
use super::cuda;
use super::team::each_chunk;

/// The mean over height and width: `[b, c, h, w]` to `[b, c]`.
///
/// # Errors
/// If `x` does not have four dimensions.
pub fn global_average_pool(x: &Tensor) -> Result<Tensor> {
    x.dims4()?;
    if !supported(&[x]) {
        if cuda::supported(&[x]) {
            return cuda::global_average_pool(x);
        }
        return x.mean((2, 3));
    }
    x.contiguous()?.apply_op1(GlobalAverage)
}

/// The means of maps of `plane` values.
pub(in super::super) fn averages(x: &[f32], plane: usize, out: &mut [f32]) {
    each_chunk(out, 1, 64, |at, out| out[0] = super::norm::sum(&x[at * plane..(at + 1) * plane]) / plane as f32);
}

struct GlobalAverage;

impl CustomOp1 for GlobalAverage {
    fn name(&self) -> &'static str {
        "gdrd-global-average-pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (b, c, h, w) = layout.shape().dims4()?;
        let x = floats(x, layout)?;
        let mut out = vec![0f32; b * c];
        if h * w > 0 {
            averages(x, h * w, &mut out);
        }
        Ok((CpuStorage::F32(out), (b, c).into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, _, h, w) = x.dims4()?;
        with_floats([grad], |[grad]| {
            let mut out = vec![0f32; grad.len() * h * w];
            if h * w > 0 {
                each_chunk(&mut out, h * w, 64, |at, map| map.fill(grad[at] / (h * w) as f32));
            }
            tensor(out, x.shape()).map(Some)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, gradients, random};
    use super::*;

    #[test]
    fn pooling_and_its_gradient_equal_candles() {
        let x = random((3, 5, 7, 11), 1).expect("x");
        let ours = gradients(&[&x], |v| global_average_pool(&v[0]));
        let theirs = gradients(&[&x], |v| v[0].mean((2, 3)));
        assert_close(&ours, &theirs, 1e-6);
    }
}
