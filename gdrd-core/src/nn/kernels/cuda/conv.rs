//! Convolution on the GPU, with both gradients, by cuDNN.

use candle_core::cuda_backend::cudarc::cudnn::CudnnDataType;
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::cuda_backend::{CudaDType, CudaDevice};
use candle_core::{CpuStorage, CudaStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use half::bf16;

use super::super::precision::Precision;
use super::super::shape::ConvShape;
use super::cudnn::{Pass, Rounding, convolve};
use super::storage::{no_cpu, tensor, view, with_views};

/// The convolution of `x` with `weight`, both float32, in the precision that is set; the result is float32.
pub(in super::super) fn conv2d(x: &Tensor, weight: &Tensor, shape: ConvShape) -> Result<Tensor> {
    let (x, weight) = (aligned(x)?, aligned(weight)?);
    match Precision::now() {
        Precision::Float32 => x.apply_op2(&weight, Conv2dOp { shape, rounding: Rounding::Float32 }),
        Precision::Tf32 => x.apply_op2(&weight, Conv2dOp { shape, rounding: Rounding::TensorCores }),
        // The casts' gradients are casts, so that the weight's gradient comes back as float32.
        Precision::Bfloat16 => {
            let (x, weight) = (x.to_dtype(DType::BF16)?, weight.to_dtype(DType::BF16)?);
            x.apply_op2(&weight, Conv2dOp { shape, rounding: Rounding::TensorCores })?.to_dtype(DType::F32)
        }
    }
}

/// The tensor, contiguous, at an address that suits loads of 16 bytes.
fn aligned(x: &Tensor) -> Result<Tensor> {
    if x.layout().start_offset().is_multiple_of(4) { x.contiguous() } else { x.force_contiguous() }
}

struct Conv2dOp {
    shape: ConvShape,
    rounding: Rounding,
}

impl Conv2dOp {
    fn forward<T: CudaDType + CudnnDataType + DeviceRepr>(
        &self,
        (x, xl): (&CudaStorage, &Layout),
        (w, wl): (&CudaStorage, &Layout),
    ) -> Result<CudaStorage> {
        let (x_view, w_view) = (view::<T>(x, xl)?, view::<T>(w, wl)?);
        let out = convolve(&x.device, &self.shape, Pass::Forward, self.rounding, &x_view, &w_view)?;
        Ok(CudaStorage::wrap_cuda_slice(out, x.device.clone()))
    }

    fn backward<T: CudaDType + CudnnDataType + DeviceRepr>(
        &self,
        x: &Tensor,
        weight: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (for_x, for_weight) = (x.track_op(), weight.track_op());
        with_views::<3, T, _>([x, weight, grad], |device: &CudaDevice, [xs, ws, gs]| {
            let run = |pass, first, second| convolve(device, &self.shape, pass, self.rounding, first, second);
            let dx = for_x.then(|| run(Pass::Input, ws, gs)).transpose()?;
            let dw = for_weight.then(|| run(Pass::Weight, xs, gs)).transpose()?;
            let dx = dx.map(|values| tensor(values, x.shape(), device));
            Ok((dx, dw.map(|values| tensor(values, weight.shape(), device))))
        })
    }
}

impl CustomOp2 for Conv2dOp {
    fn name(&self) -> &'static str {
        "gdrd-conv2d-cuda"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        no_cpu(self.name())
    }

    fn cuda_fwd(&self, x: &CudaStorage, xl: &Layout, w: &CudaStorage, wl: &Layout) -> Result<(CudaStorage, Shape)> {
        let s = &self.shape;
        let out = match candle_core::backend::BackendStorage::dtype(x) {
            DType::F32 => self.forward::<f32>((x, xl), (w, wl))?,
            DType::BF16 => self.forward::<bf16>((x, xl), (w, wl))?,
            other => bail!("a convolution on the GPU needs float32 or bfloat16, found {other:?}"),
        };
        Ok((out, (s.batch, s.outputs, s.out_height(), s.out_width()).into()))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        match x.dtype() {
            DType::F32 => self.backward::<f32>(x, weight, grad),
            _ => self.backward::<bf16>(x, weight, grad),
        }
    }
}
