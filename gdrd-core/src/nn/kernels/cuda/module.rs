//! The device, and the functions of `layers.cu` on it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaFunction, CudaStream, LaunchArgs, LaunchConfig, sys};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use candle_core::cuda_backend::{CudaDevice, DeviceId, WrapErr};
use candle_core::{Device, Error, Result};

use super::profile::{self, Span};

const SOURCE: &str = include_str!("layers.cu");

/// A null pointer, as a kernel's argument.
pub(super) const NULL: u64 = 0;

/// The GPUs that were opened, by number.
static OPEN: Mutex<BTreeMap<usize, Device>> = Mutex::new(BTreeMap::new());

/// The GPU with this number, ready for the kernels: one device and one stream for all of the program, and memory that freed
/// tensors leave is kept. Asked again, it is the same device: candle takes tensors of two devices of one GPU for each other's and
/// orders nothing between their streams.
///
/// # Errors
/// If there is no such GPU.
pub(in super::super) fn open(ordinal: usize) -> Result<Device> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = open.get(&ordinal) {
        return Ok(device.clone());
    }
    let device = Device::new_cuda_with_stream(ordinal)?;
    let cuda = device.as_cuda_device()?;
    // SAFETY: every tensor of this device is made, used and freed on its one stream, in the order of the program; uploads, which
    // have a stream of their own, order the two by events (`upload.rs`). Without this, every use of a tensor would cost two calls
    // of the driver.
    unsafe { cuda.disable_event_tracking() };
    keep_memory(cuda.cuda_stream().context())?;
    open.insert(ordinal, device.clone());
    Ok(device)
}

/// The compute capability of a GPU; none of another device.
pub(in super::super) fn compute_capability(device: &Device) -> Result<Option<(i32, i32)>> {
    let Device::Cuda(cuda) = device else { return Ok(None) };
    cuda.cuda_stream().context().compute_capability().w().map(Some)
}

/// What a GPU is called; none of another device.
pub(in super::super) fn name(device: &Device) -> Result<Option<String>> {
    let Device::Cuda(cuda) = device else { return Ok(None) };
    cuda.cuda_stream().context().name().w().map(Some)
}

/// Tells the driver not to give freed memory back whenever the host waits for the GPU.
fn keep_memory(context: &Arc<CudaContext>) -> Result<()> {
    if !context.has_async_alloc() {
        return Ok(());
    }
    context.bind_to_thread().w()?;
    let mut pool = std::ptr::null_mut();
    let mut most = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the context of this GPU is current, `pool` takes its default pool, and the attribute is a 64-bit number.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()).result().w()?;
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut most).cast()).result().w()
    }
}

/// A function of `layers.cu` on a GPU, and the stream that it runs on.
pub(super) struct Function {
    function: CudaFunction,
    stream: Arc<CudaStream>,
    _span: Option<Span>,
}

impl Function {
    /// A call of it, whose arguments are added in the order of `layers.cu`.
    pub(super) fn call(&self) -> LaunchArgs<'_> {
        self.stream.launch_builder(&self.function)
    }
}

/// What has been compiled and loaded: PTX by compute capability, functions by device and name.
#[derive(Default)]
struct Loaded {
    compiled: HashMap<(i32, i32), String>,
    functions: HashMap<(DeviceId, &'static str), CudaFunction>,
}

static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

/// The function `name` of `layers.cu`.
pub(super) fn function(device: &CudaDevice, name: &'static str) -> Result<Function> {
    let stream = device.cuda_stream();
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let Loaded { compiled, functions } = loaded.get_or_insert_default();
    let function = match functions.entry((device.id(), name)) {
        Entry::Occupied(found) => found.get().clone(),
        Entry::Vacant(free) => {
            let capability = stream.context().compute_capability().w()?;
            let ptx = match compiled.entry(capability) {
                Entry::Occupied(found) => found.into_mut(),
                Entry::Vacant(free) => free.insert(compile(capability)?),
            };
            free.insert(device.get_or_load_custom_func(name, "gdrd-layers", ptx)?.into_cuda_function()).clone()
        }
    };
    let _span = profile::span(&stream, || name.to_string());
    Ok(Function { function, stream, _span })
}

fn compile((major, minor): (i32, i32)) -> Result<String> {
    let options = CompileOptions {
        options: vec![format!("--gpu-architecture=compute_{major}{minor}")],
        name: Some("layers.cu".into()),
        ..CompileOptions::default()
    };
    let compiled = compile_ptx_with_opts(SOURCE, options)
        .map_err(|error| Error::Msg(format!("NVRTC cannot compile `layers.cu` for sm_{major}{minor}: {error}")))?;
    Ok(compiled.to_src())
}

/// A thread for each of `len` values.
pub(super) fn each(len: usize) -> LaunchConfig {
    let threads = 256;
    LaunchConfig {
        grid_dim: (len.div_ceil(threads) as u32, 1, 1),
        block_dim: (threads as u32, 1, 1),
        shared_mem_bytes: 0,
    }
}

/// `blocks` blocks, each of which sums `values` values.
pub(super) fn blocks(blocks: usize, values: usize) -> LaunchConfig {
    let threads = values.next_power_of_two().clamp(32, 1024) as u32;
    LaunchConfig { grid_dim: (blocks as u32, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 }
}

/// Adds an argument that may be missing: a null pointer then.
macro_rules! optional {
    ($call:ident, $argument:expr) => {
        match $argument {
            Some(argument) => $call.arg(argument),
            None => $call.arg(&$crate::nn::kernels::cuda::module::NULL),
        }
    };
}
pub(super) use optional;
