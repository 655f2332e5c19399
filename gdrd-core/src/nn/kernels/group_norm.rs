//! Group normalisation and what follows it, in one pass, for networks that are not trained.

use candle_core::{Result, Tensor, bail};

use super::buffer::{Filling, tensor, with_floats};
use super::cuda;
use super::norm::{squares_around, sum};
use super::sigmoid::sigmoid;
use super::simd::{self, Simd, SimdKernel};
use super::team::each;

/// `silu(y * scale + shift)`, or without the SiLU, where `y` is `x [b, c, h, w]` with each group of channels of each sample
/// brought to zero mean and unit variance. `scale` and `shift` are `[1, c]` or `[b, c]`. It has no gradient.
///
/// # Errors
/// If the shapes do not fit, or a tensor is neither float32 on the CPU nor on a GPU with kernels of ours.
pub fn group_norm(x: &Tensor, groups: usize, eps: f64, scale: &Tensor, shift: &Tensor, silu: bool) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let rows = scale.dims2()?.0;
    let fits = scale.dims() == [rows, channels] && shift.dims() == scale.dims() && (rows == 1 || rows == batch);
    if !fits || groups == 0 || channels % groups != 0 {
        bail!("group_norm: {:?} in {groups} groups, scale {:?}, shift {:?}", x.dims(), scale.dims(), shift.dims());
    }
    if cuda::supported(&[x, scale, shift]) {
        return cuda::group_norm(x, groups, eps, scale, shift, silu);
    }
    let (plane, count) = (height * width, channels / groups);
    let values = with_floats([x, scale, shift], |[x, scale, shift]| {
        let mut out = Filling::new(x.len());
        let target = out.shared();
        each(batch * groups, 1, |at| {
            let first = at % groups * count;
            let row = if rows == 1 { 0 } else { at / groups * channels };
            let range = at * count * plane..(at + 1) * count * plane;
            // SAFETY: each group of each sample has values of its own.
            let slots = unsafe { target.slots(range.start, range.len()) };
            let (scale, shift) = (&scale[row + first..][..count], &shift[row + first..][..count]);
            simd::run(Group { values: &x[range], scale, shift, plane, eps, silu, slots });
        });
        // SAFETY: all groups were visited.
        Ok(unsafe { out.finish() })
    })?;
    tensor(values, x.shape())
}

struct Group<'a> {
    values: &'a [f32],
    scale: &'a [f32],
    shift: &'a [f32],
    plane: usize,
    eps: f64,
    silu: bool,
    slots: &'a mut [std::mem::MaybeUninit<f32>],
}

impl SimdKernel for Group<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { values, scale, shift, plane, eps, silu, slots } = self;
        let mean = sum(values) / values.len() as f32;
        let variance = squares_around(values, mean) / values.len() as f32;
        let inverse = (1.0 / (f64::from(variance) + eps).sqrt()) as f32;
        for (channel, (values, slots)) in values.chunks_exact(plane).zip(slots.chunks_exact_mut(plane)).enumerate() {
            let scale = inverse * scale[channel];
            let shift = shift[channel];
            for (slot, value) in slots.iter_mut().zip(values) {
                let y = (value - mean) * scale + shift;
                slot.write(if silu { y * sigmoid(y) } else { y });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, on_each_level, random};
    use super::super::{batch_norm_train, silu};
    use super::*;

    #[test]
    fn it_equals_its_parts() {
        on_each_level(it_equals_parts);
    }

    fn it_equals_parts() {
        for (dims, groups, rows) in [((3, 8, 5, 7), 4, 1), ((2, 6, 16, 16), 6, 2), ((1, 4, 3, 3), 1, 1)] {
            let (batch, channels, height, width) = dims;
            let x = (random(dims, 1).expect("x") + 2.0).expect("x");
            let (scale, shift) =
                (random((rows, channels), 2).expect("scale"), random((rows, channels), 3).expect("shift"));
            let composed = || {
                let ones = Tensor::ones(batch * groups, candle_core::DType::F32, x.device())?;
                let flat = x.reshape((1, batch * groups, channels / groups * height, width))?;
                let normal = batch_norm_train(&flat, &ones, &ones.zeros_like()?, 1e-5)?.0.reshape(dims)?;
                let each = |t: &Tensor| t.reshape((rows, channels, 1, 1));
                normal.broadcast_mul(&each(&scale)?)?.broadcast_add(&each(&shift)?)
            };
            let flat = |t: Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("values");
            let expected = composed().expect("a map");
            let found = |with| group_norm(&x, groups, 1e-5, &scale, &shift, with).expect("a map");
            let bent = silu(&expected).expect("a map");
            assert_close(&[flat(found(false)), flat(found(true))], &[flat(expected), flat(bent)], 2e-6);
        }
        let x = random((1, 4, 2, 2), 1).expect("x");
        let ones = random((1, 3), 2).expect("scale");
        assert!(group_norm(&x, 2, 1e-5, &ones, &ones, true).is_err());
    }
}
