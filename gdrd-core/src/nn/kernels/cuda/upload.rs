//! Values on their way to the GPU while it computes something else.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{
    CudaEvent, CudaStream, DevicePtrMut, DeviceRepr, PinnedHostSlice, result,
};
use candle_core::cuda_backend::{CudaDType, CudaDevice, DeviceId, WrapErr};
use candle_core::{CpuStorage, Device, Result, Shape, Storage, Tensor};

use super::storage::{room, tensor};

thread_local! {
    static AT_ONCE: RefCell<HashMap<DeviceId, Staging>> = RefCell::new(HashMap::new());
}

/// A tensor on the GPU with the values of `values`, which is in main memory. The GPU waits for them, the caller does not.
pub(in super::super) fn put(values: &Tensor, device: &Device) -> Result<Tensor> {
    let id = device.as_cuda_device()?.id();
    AT_ONCE.with_borrow_mut(|all| {
        let staging = match all.entry(id) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(free) => free.insert(Staging::new(device)?),
        };
        let made = staging.put(values)?;
        staging.arrive()?;
        Ok(made)
    })
}

/// Page-locked memory that values are copied from, by a stream of their own.
pub(in super::super) struct Staging {
    device: CudaDevice,
    copies: Arc<CudaStream>,
    buffers: Vec<Buffer>,
    /// Tensors whose values may still be on their way: they must not be freed before the device's stream waits for the copies.
    underway: Vec<Tensor>,
}

/// A piece of memory, and the end of the last copy from it.
struct Buffer {
    bytes: PinnedHostSlice<u8>,
    copied: CudaEvent,
}

impl Staging {
    /// For `device`.
    pub(in super::super) fn new(device: &Device) -> Result<Self> {
        let device = device.as_cuda_device()?.clone();
        let copies = device.cuda_stream().context().new_stream().w()?;
        Ok(Self { device, copies, buffers: Vec::new(), underway: Vec::new() })
    }

    /// A tensor on the GPU with the values of `values`, which is in main memory. Nothing waits; the result may be used after
    /// the next [`arrive`](Self::arrive).
    pub(in super::super) fn put(&mut self, values: &Tensor) -> Result<Tensor> {
        let values = values.contiguous()?;
        let (storage, layout) = values.storage_and_layout();
        let made = match (&*storage, layout.contiguous_offsets()) {
            (Storage::Cpu(CpuStorage::F32(all)), Some((start, end))) => self.copy(&all[start..end], layout.shape())?,
            (Storage::Cpu(CpuStorage::U32(all)), Some((start, end))) => self.copy(&all[start..end], layout.shape())?,
            _ => return values.to_device(&Device::Cuda(self.device.clone())),
        };
        self.underway.push(made.clone());
        Ok(made)
    }

    fn copy<T: CudaDType + DeviceRepr>(&mut self, values: &[T], shape: &Shape) -> Result<Tensor> {
        let (stream, len) = (self.device.cuda_stream(), size_of_val(values));
        // SAFETY: the copy below writes all of it, and nothing reads it before `arrive`.
        let mut out = unsafe { room::<T>(&self.device, values.len())? };
        let at = self.buffer(len)?;
        let Buffer { bytes, copied } = &mut self.buffers[at];
        // What was allocated stands in the order of the device's stream.
        self.copies.join(&stream).w()?;
        {
            let (target, _written) = out.device_ptr_mut(&self.copies);
            let from = bytes.as_mut_ptr().w()?;
            // SAFETY: the buffer has room for `len` bytes, and no copy from it is under way. The values are plain numbers. The
            // copy to the GPU has as many bytes as were allocated there; the buffer stays until `copied` is over (`buffer`,
            // `drop`), and the tensor until the device's stream waits for it (`underway`).
            unsafe {
                std::ptr::copy_nonoverlapping(values.as_ptr().cast::<u8>(), from, len);
                let source = std::slice::from_raw_parts(from, len);
                result::memcpy_htod_async(target, source, self.copies.cu_stream()).w()?;
            }
        }
        copied.record(&self.copies).w()?;
        Ok(tensor(out, shape, &self.device))
    }

    /// A buffer of at least `len` bytes that no copy uses.
    fn buffer(&mut self, len: usize) -> Result<usize> {
        let fits = |buffer: &Buffer| buffer.bytes.len() >= len && buffer.copied.is_complete();
        if let Some(at) = self.buffers.iter().position(fits) {
            return Ok(at);
        }
        let context = self.device.cuda_stream().context().clone();
        // SAFETY: bytes are written before they are read.
        let bytes = unsafe { context.alloc_pinned::<u8>(len.next_power_of_two().max(1 << 16)) }.w()?;
        self.buffers.push(Buffer { bytes, copied: context.new_event(None).w()? });
        Ok(self.buffers.len() - 1)
    }

    /// From here on the device's stream has the values of all tensors that were put.
    pub(in super::super) fn arrive(&mut self) -> Result<()> {
        self.device.cuda_stream().join(&self.copies).w()?;
        self.underway.clear();
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Page-locked memory and tensors stay until the copies are over. An error here is one of the GPU, and every later call
        // reports it.
        let _ = self.copies.synchronize();
        self.underway.clear();
    }
}
