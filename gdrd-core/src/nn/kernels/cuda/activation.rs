//! Activations and pooling on the GPU.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

use super::super::channels::Channels;
use super::module::{blocks, each, function};
use super::norm::run_epilogue;
use super::storage::{no_cpu, room, tensor, view, with_floats};

/// `max(x, 0)`.
pub(in super::super) fn relu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Clamped { code: 1, gradient: "mask" })
}

/// `min(max(x, 0), 6)`.
pub(in super::super) fn relu6(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Clamped { code: 2, gradient: "mask6" })
}

/// `max(a + b, 0)`.
pub(in super::super) fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.contiguous()?.apply_op2(&b.contiguous()?, AddRelu)
}

/// `x` where it is positive, `slope [c] * x` elsewhere.
pub(in super::super) fn prelu(x: &Tensor, slope: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op2(&slope.contiguous()?, Prelu)
}

/// `x / (1 + exp(-x))`.
pub(in super::super) fn silu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Silu)
}

/// The mean over height and width.
pub(in super::super) fn global_average_pool(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(GlobalAverage)
}

/// `grad` where `result` is positive, zero elsewhere.
fn masked(grad: &Tensor, result: &Tensor) -> Result<Tensor> {
    pointwise("mask", grad, result)
}

/// A function of `layers.cu` of two tensors of one shape.
fn pointwise(name: &'static str, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    with_floats([a, b], |device, [x, y]| {
        let (f, len) = (function(device, name)?, x.len());
        let n = len as u32;
        // SAFETY: the kernel takes these arguments in this order, reads `n` values of each input and writes `n` of the output.
        let out = unsafe {
            let out = room::<f32>(device, len)?;
            f.call().arg(x).arg(y).arg(&out).arg(&n).launch(each(len)).w()?;
            out
        };
        Ok(tensor(out, a.shape(), device))
    })
}

/// An activation that the kernel `epilogue` has, and the function of `layers.cu` that makes its gradient of the result.
struct Clamped {
    code: i32,
    gradient: &'static str,
}

impl CustomOp1 for Clamped {
    fn name(&self) -> &'static str {
        "gdrd-clamped-cuda"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        no_cpu(self.name())
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        // As one map of one channel.
        let channels = Channels::new(self.name(), &Shape::from((1, 1, 1, layout.shape().elem_count())), &[])?;
        let out = run_epilogue(&x.device, &channels, &view(x, layout)?, None, None, None, (self.code, None))?;
        Ok((CudaStorage::wrap_cuda_slice(out, x.device.clone()), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        pointwise(self.gradient, grad, result).map(Some)
    }
}

struct Silu;

impl CustomOp1 for Silu {
    fn name(&self) -> &'static str {
        "gdrd-silu-cuda"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        no_cpu(self.name())
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (device, values) = (&x.device, view::<f32>(x, layout)?);
        let (f, len) = (function(device, "silu")?, values.len());
        let n = len as u32;
        // SAFETY: the kernel takes these arguments in this order, reads and writes `n` values.
        let out = unsafe {
            let out = room::<f32>(device, len)?;
            f.call().arg(&values).arg(&out).arg(&n).launch(each(len)).w()?;
            out
        };
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        pointwise("silu_gradient", x, grad).map(Some)
    }
}

struct AddRelu;

impl CustomOp2 for AddRelu {
    fn name(&self) -> &'static str {
        "gdrd-add-relu-cuda"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        no_cpu(self.name())
    }

    fn cuda_fwd(&self, a: &CudaStorage, al: &Layout, b: &CudaStorage, bl: &Layout) -> Result<(CudaStorage, Shape)> {
        let (device, x, y) = (&a.device, view::<f32>(a, al)?, view::<f32>(b, bl)?);
        let (f, len) = (function(device, "add_relu")?, x.len());
        let n = len as u32;
        // SAFETY: the kernel takes these arguments in this order, reads `n` values of each input and writes `n` of the output.
        let out = unsafe {
            let out = room::<f32>(device, len)?;
            f.call().arg(&x).arg(&y).arg(&out).arg(&n).launch(each(len)).w()?;
            out
        };
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), al.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, result: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = masked(grad, result)?;
        Ok((Some(grad.clone()), Some(grad)))
    }
}

struct Prelu;

impl CustomOp2 for Prelu {
    fn name(&self) -> &'static str {
        "gdrd-prelu-cuda"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        no_cpu(self.name())
    }

    fn cuda_fwd(&self, x: &CudaStorage, xl: &Layout, s: &CudaStorage, sl: &Layout) -> Result<(CudaStorage, Shape)> {
        let channels = Channels::new("prelu", xl.shape(), &[sl.shape()])?;
        let slope = view(s, sl)?;
        let out = run_epilogue(&x.device, &channels, &view(x, xl)?, None, None, None, (3, Some(&slope)))?;
        Ok((CudaStorage::wrap_cuda_slice(out, x.device.clone()), xl.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, slope: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let channels = Channels::new("prelu", x.shape(), &[slope.shape()])?;
        with_floats([x, grad, slope], |device, [values, grads, slopes]| {
            let f = function(device, "prelu_gradients")?;
            let sizes = [channels.batch, channels.count, channels.plane].map(|size| size as u32);
            let config = blocks(channels.count, channels.batch * channels.plane);
            // SAFETY: the kernel takes these arguments in this order; its blocks write all of both outputs.
            let (dx, ds) = unsafe {
                let (dx, ds) = (room::<f32>(device, values.len())?, room::<f32>(device, channels.count)?);
                let mut call = f.call();
                call.arg(values).arg(grads).arg(slopes).arg(&dx).arg(&ds);
                sizes.iter().for_each(|size| {
                    call.arg(size);
                });
                call.launch(config).w()?;
                (dx, ds)
            };
            Ok((Some(tensor(dx, x.shape(), device)), Some(tensor(ds, slope.shape(), device))))
        })
    }
}

struct GlobalAverage;

impl CustomOp1 for GlobalAverage {
    fn name(&self) -> &'static str {
        "gdrd-global-average-pool-cuda"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        no_cpu(self.name())
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (b, c, h, w) = layout.shape().dims4()?;
        let (device, values) = (&x.device, view::<f32>(x, layout)?);
        let (f, plane) = (function(device, "mean_of_maps")?, (h * w) as u32);
        // SAFETY: the kernel takes these arguments in this order; each of its blocks writes one mean.
        let out = unsafe {
            let out = room::<f32>(device, b * c)?;
            f.call().arg(&values).arg(&out).arg(&plane).launch(blocks(b * c, h * w)).w()?;
            out
        };
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), (b, c).into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, _, h, w) = x.dims4()?;
        with_floats([grad], |device, [grads]| {
            let (f, len) = (function(device, "mean_of_maps_gradient")?, x.elem_count());
            let (plane, n) = ((h * w) as u32, len as u32);
            // SAFETY: the kernel takes these arguments in this order, reads `n / plane` values and writes `n`.
            let out = unsafe {
                let out = room::<f32>(device, len)?;
                f.call().arg(grads).arg(&out).arg(&plane).arg(&n).launch(each(len)).w()?;
                out
            };
            Ok(Some(tensor(out, x.shape(), device)))
        })
    }
}
