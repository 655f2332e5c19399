//! Access to tensors as slices, and outputs that several threads fill.

use std::mem::MaybeUninit;

use candle_core::{CpuStorage, DType, Device, Layout, Result, Shape, Tensor, bail};

/// Whether the kernels can take these tensors: float32 in main memory.
pub(super) fn supported(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|t| matches!(t.device(), Device::Cpu) && t.dtype() == DType::F32)
}

/// The values of a contiguous tensor.
pub(super) fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        (_, None) => bail!("a kernel needs a contiguous tensor, found {layout:?}"),
        (other, _) => bail!("a kernel needs float32, found {:?}", candle_core::backend::BackendStorage::dtype(other)),
    }
}

/// Runs `kernel` on the values of `tensors`, which are made contiguous where they are not.
pub(super) fn with_floats<const N: usize, T>(
    tensors: [&Tensor; N],
    kernel: impl FnOnce([&[f32]; N]) -> Result<T>,
) -> Result<T> {
    let mut contiguous = Vec::with_capacity(N);
    for tensor in tensors {
        contiguous.push(tensor.contiguous()?);
    }
    let guards: Vec<_> = contiguous.iter().map(Tensor::storage_and_layout).collect();
    let mut slices = [&[][..]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        let candle_core::Storage::Cpu(storage) = &**storage else {
            bail!("a kernel needs a tensor in main memory");
        };
        *slice = floats(storage, layout)?;
    }
    kernel(slices)
}

/// A tensor on the CPU from its values.
pub(super) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &Device::Cpu)
}

/// An output of known length that is written piece by piece and never zeroed first.
pub(super) struct Filling {
    values: Vec<f32>,
    len: usize,
}

impl Filling {
    /// Room for `len` values.
    pub(super) fn new(len: usize) -> Self {
        Self { values: Vec::with_capacity(len), len }
    }

    /// All of it, to be written.
    pub(super) fn slots(&mut self) -> &mut [MaybeUninit<f32>] {
        &mut self.values.spare_capacity_mut()[..self.len]
    }

    /// A pointer that threads may share.
    pub(super) fn shared(&mut self) -> Shared {
        Shared(self.values.as_mut_ptr())
    }

    /// The values that `write` writes.
    ///
    /// # Safety
    /// It writes all of them.
    pub(super) unsafe fn by(len: usize, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
        let mut filling = Self::new(len);
        write(filling.slots());
        // SAFETY: the caller's promise.
        unsafe { filling.finish() }
    }

    /// The values.
    ///
    /// # Safety
    /// Every one of the `len` values has been written.
    pub(super) unsafe fn finish(mut self) -> Vec<f32> {
        // SAFETY: the capacity is at least `len`, and the caller wrote `len` values.
        unsafe { self.values.set_len(self.len) };
        self.values
    }
}

/// Unwritten values as zeros.
pub(super) fn zeros(values: &mut [MaybeUninit<f32>]) -> &mut [f32] {
    values.fill(MaybeUninit::new(0.0));
    // SAFETY: all of them were just written, and the types have one layout.
    unsafe { &mut *(values as *mut [MaybeUninit<f32>] as *mut [f32]) }
}

/// Values that are to be written.
pub(super) fn unwritten(values: &mut [f32]) -> &mut [MaybeUninit<f32>] {
    // SAFETY: the types have one layout, and whoever takes unwritten values writes values.
    unsafe { &mut *(values as *mut [f32] as *mut [MaybeUninit<f32>]) }
}

/// A pointer into memory of which each thread writes a part of its own.
#[derive(Clone, Copy)]
pub(super) struct Shared(*mut f32);

// SAFETY: the pointer is only used through the unsafe methods below, whose callers keep the parts disjoint.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// A pointer to the first of `values`.
    pub(super) fn new(values: &mut [f32]) -> Self {
        Self(values.as_mut_ptr())
    }

    /// A pointer to the first of values that are yet to be written.
    pub(super) fn unwritten(values: &mut [MaybeUninit<f32>]) -> Self {
        Self(values.as_mut_ptr().cast())
    }

    /// The pointer moved by `offset` values.
    ///
    /// # Safety
    /// The result stays within the allocation.
    pub(super) unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }

    /// `len` values from `start`, to be written.
    ///
    /// # Safety
    /// The range lies within the allocation, which outlives the slice, and nobody else touches it meanwhile.
    pub(super) unsafe fn slots<'a>(self, start: usize, len: usize) -> &'a mut [MaybeUninit<f32>] {
        // SAFETY: the caller's promise; `MaybeUninit` needs no initialised memory.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start).cast(), len) }
    }
}
