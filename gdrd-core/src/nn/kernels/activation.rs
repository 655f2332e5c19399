//! Activations, each one pass forward and one pass back.

use std::mem::MaybeUninit;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::buffer::{Filling, Shared, floats, supported, tensor, with_floats};
use super::channels::Channels;
use super::cuda;
use super::sigmoid::sigmoid;
use super::simd::{self, Simd, SimdKernel};
use super::team::each_chunk;

/// Values a thread takes at a time.
const CHUNK: usize = 1 << 14;

/// `max(x, 0)`, any shape.
///
/// # Errors
/// None of its own.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    if !supported(&[x]) {
        if cuda::supported(&[x]) {
            return cuda::relu(x);
        }
        return x.relu();
    }
    x.contiguous()?.apply_op1(Relu)
}

/// `min(max(x, 0), 6)`, any shape; its gradient is that of what lies between 0 and 6, and zero at both.
///
/// # Errors
/// None of its own.
pub fn relu6(x: &Tensor) -> Result<Tensor> {
    if !supported(&[x]) {
        if cuda::supported(&[x]) {
            return cuda::relu6(x);
        }
        return x.clamp(0f32, 6f32);
    }
    x.contiguous()?.apply_op1(Relu6)
}

/// `max(a + b, 0)` for two tensors of one shape.
///
/// # Errors
/// If the shapes differ.
pub fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.dims() != b.dims() {
        bail!("add_relu: shapes {:?} and {:?} differ", a.dims(), b.dims());
    }
    if !supported(&[a, b]) {
        if cuda::supported(&[a, b]) {
            return cuda::add_relu(a, b);
        }
        return (a + b)?.relu();
    }
    a.contiguous()?.apply_op2(&b.contiguous()?, AddRelu)
}

/// `x` where it is positive, `slope [c] * x` elsewhere, for `x [b, c, h, w]` or `[b, c]`.
///
/// # Errors
/// If `slope` does not have one value per channel.
pub fn prelu(x: &Tensor, slope: &Tensor) -> Result<Tensor> {
    let channels = Channels::new("prelu", x.shape(), &[slope.shape()])?;
    if !supported(&[x, slope]) {
        if cuda::supported(&[x, slope]) {
            return cuda::prelu(x, slope);
        }
        let slope = channels.broadcastable(slope)?;
        return x.relu()? - x.neg()?.relu()?.broadcast_mul(&slope)?;
    }
    x.contiguous()?.apply_op2(&slope.contiguous()?, Prelu)
}

/// `x / (1 + exp(-x))`, any shape.
///
/// # Errors
/// None of its own.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    if !supported(&[x]) {
        if cuda::supported(&[x]) {
            return cuda::silu(x);
        }
        return x.silu();
    }
    x.contiguous()?.apply_op1(Silu)
}

/// `out[i] = of(i)` for chunks of `len` values; `fill` writes the chunk that starts where its first argument says.
fn filled(len: usize, fill: impl Fn(usize, &mut [MaybeUninit<f32>]) + Sync) -> Vec<f32> {
    let mut out = Filling::new(len);
    each_chunk(out.slots(), CHUNK, 1, |at, slots| fill(at * CHUNK, slots));
    // SAFETY: every caller's `fill` writes all slots that it is given.
    unsafe { out.finish() }
}

/// `grad` where `result` is positive, zero elsewhere.
pub(super) fn masked(grad: &[f32], result: &[f32]) -> Vec<f32> {
    filled(grad.len(), |start, slots| {
        for ((slot, g), r) in slots.iter_mut().zip(&grad[start..]).zip(&result[start..]) {
            slot.write(if *r > 0.0 { *g } else { 0.0 });
        }
    })
}

struct Relu;

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "gdrd-relu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = floats(x, layout)?;
        let out = filled(x.len(), |start, slots| {
            for (slot, value) in slots.iter_mut().zip(&x[start..]) {
                slot.write(if *value > 0.0 { *value } else { 0.0 });
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        with_floats([grad, result], |[grad, result]| tensor(masked(grad, result), x.shape()).map(Some))
    }
}

struct Relu6;

impl CustomOp1 for Relu6 {
    fn name(&self) -> &'static str {
        "gdrd-relu6"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = floats(x, layout)?;
        let out = filled(x.len(), |start, slots| {
            for (slot, value) in slots.iter_mut().zip(&x[start..]) {
                slot.write(value.clamp(0.0, 6.0));
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        with_floats([grad, result], |[grad, result]| {
            let for_x = filled(grad.len(), |start, slots| {
                for ((slot, g), r) in slots.iter_mut().zip(&grad[start..]).zip(&result[start..]) {
                    slot.write(if *r > 0.0 && *r < 6.0 { *g } else { 0.0 });
                }
            });
            tensor(for_x, x.shape()).map(Some)
        })
    }
}

struct Silu;

impl CustomOp1 for Silu {
    fn name(&self) -> &'static str {
        "gdrd-silu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = floats(x, layout)?;
        let out = filled(x.len(), |start, slots| {
            simd::run(WriteSilu { values: &x[start..], slots });
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        with_floats([x, grad], |[values, grads]| {
            let out = filled(values.len(), |start, slots| {
                simd::run(WriteSiluGradient { values: &values[start..], grads: &grads[start..], slots });
            });
            tensor(out, x.shape()).map(Some)
        })
    }
}

struct WriteSilu<'a> {
    values: &'a [f32],
    slots: &'a mut [MaybeUninit<f32>],
}

impl SimdKernel for WriteSilu<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (slot, value) in self.slots.iter_mut().zip(self.values) {
            slot.write(value * sigmoid(*value));
        }
    }
}

struct WriteSiluGradient<'a> {
    values: &'a [f32],
    grads: &'a [f32],
    slots: &'a mut [MaybeUninit<f32>],
}

impl SimdKernel for WriteSiluGradient<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for ((slot, value), grad) in self.slots.iter_mut().zip(self.values).zip(self.grads) {
            let sigmoid = sigmoid(*value);
            slot.write(grad * sigmoid * (1.0 + value * (1.0 - sigmoid)));
        }
    }
}

struct AddRelu;

impl CustomOp2 for AddRelu {
    fn name(&self) -> &'static str {
        "gdrd-add-relu"
    }

    fn cpu_fwd(&self, a: &CpuStorage, al: &Layout, b: &CpuStorage, bl: &Layout) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (floats(a, al)?, floats(b, bl)?);
        let out = filled(a.len(), |start, slots| {
            for ((slot, a), b) in slots.iter_mut().zip(&a[start..]).zip(&b[start..]) {
                let sum = a + b;
                slot.write(if sum > 0.0 { sum } else { 0.0 });
            }
        });
        Ok((CpuStorage::F32(out), al.shape().clone()))
    }

    fn bwd(&self, a: &Tensor, _: &Tensor, result: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = with_floats([grad, result], |[grad, result]| tensor(masked(grad, result), a.shape()))?;
        Ok((Some(grad.clone()), Some(grad)))
    }
}

struct Prelu;

impl CustomOp2 for Prelu {
    fn name(&self) -> &'static str {
        "gdrd-prelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, s: &CpuStorage, sl: &Layout) -> Result<(CpuStorage, Shape)> {
        let channels = Channels::new("prelu", xl.shape(), &[sl.shape()])?;
        let (x, slopes) = (floats(x, xl)?, floats(s, sl)?);
        let mut out = Filling::new(x.len());
        let target = out.shared();
        channels.for_each_plane(|channel, start, len| {
            let slope = slopes[channel];
            // SAFETY: every map is visited by one call.
            let slots = unsafe { target.slots(start, len) };
            for (slot, value) in slots.iter_mut().zip(&x[start..]) {
                slot.write(if *value > 0.0 { *value } else { slope * value });
            }
        });
        // SAFETY: `for_each_plane` visits all maps.
        Ok((CpuStorage::F32(unsafe { out.finish() }), xl.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, slope: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let channels = Channels::new("prelu", x.shape(), &[slope.shape()])?;
        with_floats([x, slope, grad], |[values, slopes, grads]| {
            let (mut dx, mut ds) = (Filling::new(values.len()), vec![0f32; slopes.len()]);
            let (target, sums) = (dx.shared(), Shared::new(&mut ds));
            channels.for_each_block(|block| {
                for channel in block.clone() {
                    let slope = slopes[channel];
                    let mut sum = 0f64;
                    for start in channels.planes(channel) {
                        let maps = values[start..start + channels.plane].iter().zip(&grads[start..]);
                        // SAFETY: every map of this channel belongs to this call.
                        let slots = unsafe { target.slots(start, channels.plane) };
                        let mut partial = 0f32;
                        for (slot, (value, grad)) in slots.iter_mut().zip(maps) {
                            slot.write(if *value > 0.0 { *grad } else { slope * grad });
                            partial += value.min(0.0) * grad;
                        }
                        sum += f64::from(partial);
                    }
                    // SAFETY: each channel has one sum, within the vector.
                    unsafe { *sums.at(channel) = sum as f32 };
                }
            });
            // SAFETY: `for_each_block` visits all channels.
            let dx = tensor(unsafe { dx.finish() }, x.shape())?;
            Ok((Some(dx), Some(tensor(ds, slope.shape())?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, gradients, on_each_level, random};
    use super::*;

    #[test]
    fn relu_and_its_gradient_equal_candles() {
        let x = random((3, 5, 7, 11), 1).expect("x");
        let ours = gradients(&[&x], |v| relu(&v[0]));
        let theirs = gradients(&[&x], |v| v[0].relu());
        assert_close(&ours, &theirs, 0.0);
    }

    #[test]
    fn relu6_and_its_gradient_equal_composed_operations() {
        let x = (random((3, 5, 7, 11), 1).expect("x") * 8.0).expect("x");
        let ours = gradients(&[&x], |v| relu6(&v[0]));
        let theirs = gradients(&[&x], |v| v[0].relu()? - (&v[0] - 6.0)?.relu()?);
        assert_close(&ours, &theirs, 1e-6);
    }

    #[test]
    fn silu_and_its_gradient_equal_candles() {
        let x = random((3, 5, 7, 11), 1).expect("x");
        let theirs = gradients(&[&x], |v| v[0].silu());
        on_each_level(|| assert_close(&gradients(&[&x], |v| silu(&v[0])), &theirs, 1e-6));
    }

    #[test]
    fn add_relu_and_its_gradients_equal_candles() {
        let (a, b) = (random((2, 3, 5, 5), 1).expect("a"), random((2, 3, 5, 5), 2).expect("b"));
        let ours = gradients(&[&a, &b], |v| add_relu(&v[0], &v[1]));
        let theirs = gradients(&[&a, &b], |v| (&v[0] + &v[1])?.relu());
        assert_close(&ours, &theirs, 0.0);
    }

    #[test]
    fn prelu_and_its_gradients_equal_composed_operations() {
        for dims in [vec![3, 5, 7, 11], vec![13, 5]] {
            let (x, slope) = (random(dims.clone(), 1).expect("x"), random(5, 2).expect("slope"));
            let ours = gradients(&[&x, &slope], |v| prelu(&v[0], &v[1]));
            let theirs = gradients(&[&x, &slope], |v| {
                let slope = if dims.len() == 4 { v[1].reshape((1, 5, 1, 1))? } else { v[1].clone() };
                v[0].relu()? - v[0].neg()?.relu()?.broadcast_mul(&slope)?
            });
            assert_close(&ours, &theirs, 1e-6);
        }
    }

    #[test]
    fn a_strided_argument_is_taken() {
        let x = random((4, 6), 1).and_then(|x| x.t()).expect("x");
        let ours = gradients(&[&x], |v| relu(&v[0].t()?));
        let theirs = gradients(&[&x], |v| v[0].t()?.relu());
        assert_close(&ours, &theirs, 0.0);
    }
}
