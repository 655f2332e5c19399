//! Tensors on the GPU as memory that kernels read, and new ones from what kernels wrote.

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, CudaDevice};
use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, CudaStorage, Layout, Result, Shape, Storage, Tensor, bail};

/// The values of a contiguous tensor.
pub(super) fn view<'a, T: CudaDType + DeviceRepr>(
    storage: &'a CudaStorage,
    layout: &Layout,
) -> Result<CudaView<'a, T>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(storage.as_cuda_slice::<T>()?.slice(start..end)),
        None => bail!("a kernel needs a contiguous tensor, found {layout:?}"),
    }
}

/// Runs `kernel` on the values of `tensors`, which are made contiguous where they are not.
pub(super) fn with_views<const N: usize, T: CudaDType + DeviceRepr, R>(
    tensors: [&Tensor; N],
    kernel: impl FnOnce(&CudaDevice, [&CudaView<'_, T>; N]) -> Result<R>,
) -> Result<R> {
    let device = tensors[0].device().as_cuda_device()?;
    let contiguous = tensors.iter().map(|tensor| tensor.contiguous()).collect::<Result<Vec<_>>>()?;
    let guards: Vec<_> = contiguous.iter().map(Tensor::storage_and_layout).collect();
    let mut views = Vec::with_capacity(N);
    for (storage, layout) in &guards {
        let Storage::Cuda(storage) = &**storage else {
            bail!("a kernel needs a tensor on the GPU");
        };
        views.push(view::<T>(storage, layout)?);
    }
    kernel(device, std::array::from_fn(|at| &views[at]))
}

/// [`with_views`] of float32.
pub(super) fn with_floats<const N: usize, R>(
    tensors: [&Tensor; N],
    kernel: impl FnOnce(&CudaDevice, [&CudaView<'_, f32>; N]) -> Result<R>,
) -> Result<R> {
    with_views::<N, f32, R>(tensors, kernel)
}

/// Room for `len` values.
///
/// # Safety
/// A kernel writes all of them before anything reads them.
pub(super) unsafe fn room<T: DeviceRepr>(device: &CudaDevice, len: usize) -> Result<CudaSlice<T>> {
    // SAFETY: the caller's promise.
    unsafe { device.alloc::<T>(len) }
}

/// A tensor from its values.
pub(super) fn tensor<T: CudaDType>(values: CudaSlice<T>, shape: impl Into<Shape>, device: &CudaDevice) -> Tensor {
    let storage = CudaStorage::wrap_cuda_slice(values, device.clone());
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}

/// What an operation of this module says on the CPU, which it never sees.
pub(super) fn no_cpu(operation: &str) -> Result<(CpuStorage, Shape)> {
    bail!("{operation} is the GPU's form of an operation and was called on the CPU")
}
