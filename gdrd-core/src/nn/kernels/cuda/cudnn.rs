//! cuDNN: a handle for each thread, and for each convolution that it has seen its descriptors and its algorithm.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::cudnn::{CudnnDataType, result, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, CudaView, DevicePtr, DevicePtrMut, DeviceRepr};
use candle_core::cuda_backend::{CudaDevice, DeviceId, WrapErr};
use candle_core::{Result, bail};

use super::super::shape::ConvShape;
use super::storage::room;
use super::{graph, profile};

/// Bytes of scratch memory that an algorithm may ask for.
pub(super) const WORKSPACE: usize = 1 << 30;

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pass {
    /// The output, from input and weight.
    Forward,
    /// The gradient of the input, from weight and the output's gradient.
    Input,
    /// The gradient of the weight, from input and the output's gradient.
    Weight,
}

/// How maps lie in memory, and what their values may be rounded to inside products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// Channel by channel; float32 alone.
    Planar,
    /// Pixel by pixel, weights too; what the tensor cores take for the type of the values.
    ChannelsLast,
}

type Key = (ConvShape, Pass, Form, u32);

thread_local! {
    // A handle may be used by one thread at a time.
    static HANDLES: RefCell<HashMap<DeviceId, Handle>> = RefCell::new(HashMap::new());
}

struct Handle {
    raw: sys::cudnnHandle_t,
    stream: Arc<CudaStream>,
    plans: HashMap<Key, Way>,
}

/// How a convolution is computed.
enum Way {
    /// Channel by channel, by an algorithm of cuDNN's first interface.
    Algorithm(CudnnPlan),
    /// Pixel by pixel.
    Graph(graph::Plan),
}

impl Handle {
    fn new(stream: Arc<CudaStream>) -> Result<Self> {
        let raw = result::create_handle()?;
        let handle = Self { raw, stream, plans: HashMap::new() };
        // SAFETY: the handle was just made, and the stream lives as long as it does.
        unsafe { result::set_stream(raw, handle.stream.cu_stream().cast()) }?;
        Ok(handle)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.plans.clear();
        // At the end of a thread: nobody is there who could do anything about an error.
        // SAFETY: the handle is destroyed once, and nothing uses it any more.
        let _ = unsafe { result::destroy_handle(self.raw) };
    }
}

/// Descriptors, destroyed with it.
struct CudnnPlan {
    x: sys::cudnnTensorDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    w: sys::cudnnFilterDescriptor_t,
    conv: sys::cudnnConvolutionDescriptor_t,
    algorithm: Algorithm,
    workspace: usize,
}

#[derive(Clone, Copy, Debug)]
enum Algorithm {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    Input(sys::cudnnConvolutionBwdDataAlgo_t),
    Weight(sys::cudnnConvolutionBwdFilterAlgo_t),
}

impl Drop for CudnnPlan {
    fn drop(&mut self) {
        // SAFETY: each descriptor was made by `CudnnPlan::new` (those that were not are null) and is destroyed once.
        unsafe {
            let _ = (!self.x.is_null()).then(|| result::destroy_tensor_descriptor(self.x));
            let _ = (!self.y.is_null()).then(|| result::destroy_tensor_descriptor(self.y));
            let _ = (!self.w.is_null()).then(|| result::destroy_filter_descriptor(self.w));
            let _ = (!self.conv.is_null()).then(|| result::destroy_convolution_descriptor(self.conv));
        }
    }
}

/// The first algorithm that cuDNN's heuristics list, fastest first, which works, gives the same values every time, keeps to
/// float32, and needs no more scratch memory than allowed.
macro_rules! choose {
    ($ask:path, $perf:ty, $most:literal, $($argument:expr),+) => {{
        let mut count = 0;
        // SAFETY: plain numbers and enumerations, for all of which zero is a value.
        let mut found: [$perf; $most] = unsafe { std::mem::zeroed() };
        // SAFETY: handle and descriptors are alive, and there is room for as many answers as are asked for.
        unsafe { $ask($($argument),+, $most, &mut count, found.as_mut_ptr()) }?;
        let fits = |perf: &&$perf| {
            perf.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                && perf.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC
                && perf.memory <= WORKSPACE
                && !needs_tensor_cores(perf.mathType)
        };
        found.iter().take(count as usize).find(fits).map(|perf| perf.algo)
    }};
}

fn needs_tensor_cores(math: sys::cudnnMathType_t) -> bool {
    use sys::cudnnMathType_t as Math;
    matches!(math, Math::CUDNN_TENSOR_OP_MATH | Math::CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION)
}

impl CudnnPlan {
    fn new(handle: sys::cudnnHandle_t, shape: &ConvShape, pass: Pass) -> Result<Self> {
        let int = |size: usize| i32::try_from(size).map_err(candle_core::Error::wrap);
        let all = |sizes: [usize; 4]| -> Result<[i32; 4]> {
            Ok([int(sizes[0])?, int(sizes[1])?, int(sizes[2])?, int(sizes[3])?])
        };
        let s = shape;
        let x_dims = all([s.batch, s.inputs, s.height, s.width])?;
        let y_dims = all([s.batch, s.outputs, s.out_height(), s.out_width()])?;
        let w_dims = all([s.outputs, s.group_inputs(), s.kernel_h, s.kernel_w])?;
        let (padding, stride, groups) = (int(s.padding)?, int(s.stride)?, int(s.groups)?);
        let null = std::ptr::null_mut();
        // Whatever fails below, what was made before is destroyed with the plan.
        let mut plan = Self {
            x: null,
            y: null.cast(),
            w: null.cast(),
            conv: null.cast(),
            algorithm: Algorithm::Forward(sys::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM),
            workspace: 0,
        };
        plan.x = result::create_tensor_descriptor()?;
        plan.y = result::create_tensor_descriptor()?;
        plan.w = result::create_filter_descriptor()?;
        plan.conv = result::create_convolution_descriptor()?;
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let (format, math) = (sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW, sys::cudnnMathType_t::CUDNN_FMA_MATH);
        let float = <f32 as CudnnDataType>::DATA_TYPE;
        // SAFETY: the descriptors were just made.
        unsafe {
            result::set_tensor4d_descriptor(plan.x, format, float, x_dims)?;
            result::set_tensor4d_descriptor(plan.y, format, float, y_dims)?;
            result::set_filter4d_descriptor(plan.w, float, format, w_dims)?;
            result::set_convolution2d_descriptor(plan.conv, padding, padding, stride, stride, 1, 1, mode, float)?;
            result::set_convolution_group_count(plan.conv, groups)?;
            result::set_convolution_math_type(plan.conv, math)?;
        }
        let Self { x, y, w, conv, .. } = plan;
        let found = match pass {
            Pass::Forward => choose!(
                result::get_convolution_forward_algorithm,
                sys::cudnnConvolutionFwdAlgoPerf_t,
                8,
                handle,
                x,
                w,
                conv,
                y
            )
            .map(Algorithm::Forward),
            Pass::Input => choose!(
                result::get_convolution_backward_data_algorithm,
                sys::cudnnConvolutionBwdDataAlgoPerf_t,
                6,
                handle,
                w,
                y,
                conv,
                x
            )
            .map(Algorithm::Input),
            Pass::Weight => choose!(
                result::get_convolution_backward_filter_algorithm,
                sys::cudnnConvolutionBwdFilterAlgoPerf_t,
                7,
                handle,
                x,
                y,
                conv,
                w
            )
            .map(Algorithm::Weight),
        };
        let Some(algorithm) = found else {
            bail!("cuDNN offers no deterministic algorithm for the pass {pass:?} of {shape:?} in float32");
        };
        plan.algorithm = algorithm;
        // SAFETY: handle and descriptors are alive.
        plan.workspace = unsafe {
            match algorithm {
                Algorithm::Forward(a) => result::get_convolution_forward_workspace_size(handle, x, w, conv, y, a)?,
                Algorithm::Input(a) => result::get_convolution_backward_data_workspace_size(handle, w, y, conv, x, a)?,
                Algorithm::Weight(a) => {
                    result::get_convolution_backward_filter_workspace_size(handle, x, y, conv, w, a)?
                }
            }
        };
        Ok(plan)
    }
}

/// One pass of a convolution; `first` and `second` are what [`Pass`] says, in the form `form`.
pub(super) fn convolve<T: CudnnDataType + DeviceRepr>(
    device: &CudaDevice,
    shape: &ConvShape,
    pass: Pass,
    form: Form,
    first: &CudaView<'_, T>,
    second: &CudaView<'_, T>,
) -> Result<CudaSlice<T>> {
    let stream = device.cuda_stream();
    stream.context().bind_to_thread().w()?;
    let weight_len = shape.outputs * shape.group_inputs() * shape.taps();
    let (needs, len) = match pass {
        Pass::Forward => ([shape.input_len(), weight_len], shape.output_len()),
        Pass::Input => ([weight_len, shape.output_len()], shape.input_len()),
        Pass::Weight => ([shape.input_len(), shape.output_len()], weight_len),
    };
    if [first, second].map(CudaView::len) != needs {
        bail!("the pass {pass:?} of {shape:?} needs {needs:?} values");
    }
    HANDLES.with_borrow_mut(|handles| {
        let handle = match handles.entry(device.id()) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(free) => free.insert(Handle::new(stream.clone())?),
        };
        // SAFETY: what runs below writes all of it.
        let mut out = unsafe { room::<T>(device, len)? };
        let (a, _a) = first.device_ptr(&stream);
        let (b, _b) = second.device_ptr(&stream);
        let (o, _o) = out.device_ptr_mut(&stream);
        let tensors = [a, b, o].map(|pointer| pointer as *mut c_void);
        let key = (*shape, pass, form, T::DATA_TYPE as u32);
        let way = match handle.plans.entry(key) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(free) => free.insert(Way::of::<T>(handle.raw, shape, pass, form)?),
        };
        let _span = profile::span(&stream, || way.name::<T>(shape, pass));
        way.run(handle.raw, device, tensors)?;
        drop((_a, _b, _o));
        Ok(out)
    })
}

impl Way {
    fn of<T: CudnnDataType>(handle: sys::cudnnHandle_t, shape: &ConvShape, pass: Pass, form: Form) -> Result<Self> {
        if form == Form::Planar {
            return Ok(Self::Algorithm(CudnnPlan::new(handle, shape, pass)?));
        }
        match graph::fastest::<T>(handle, shape, pass)? {
            Some(plan) => Ok(Self::Graph(plan)),
            None => bail!("cuDNN has no way that repeats itself for the pass {pass:?} of {shape:?}"),
        }
    }

    fn name<T: CudnnDataType>(&self, s: &ConvShape, pass: Pass) -> String {
        let how = match self {
            Self::Algorithm(plan) => format!("{:?}", plan.algorithm),
            Self::Graph(plan) => format!("engine {}", plan.engine),
        };
        format!(
            "convolution {pass:?} {:?} [{}, {}, {}, {}] to {} by {}x{}, stride {}, groups {}: {how}",
            T::DATA_TYPE,
            s.batch,
            s.inputs,
            s.height,
            s.width,
            s.outputs,
            s.kernel_h,
            s.kernel_w,
            s.stride,
            s.groups
        )
    }

    /// Runs it on first argument, second argument and result, whose sizes were checked.
    fn run(&self, handle: sys::cudnnHandle_t, device: &CudaDevice, tensors: [*mut c_void; 3]) -> Result<()> {
        let stream = device.cuda_stream();
        let workspace = match self {
            Self::Algorithm(plan) => plan.workspace,
            Self::Graph(plan) => plan.workspace,
        };
        // SAFETY: cuDNN reads nothing of the scratch memory that it has not written.
        let mut scratch = unsafe { room::<u8>(device, workspace.max(1))? };
        let (s, _s) = scratch.device_ptr_mut(&stream);
        let s = s as *mut c_void;
        let [a, b, o] = tensors;
        let (one, zero) = (&raw const ONE, &raw const ZERO);
        let (one, zero) = (one.cast(), zero.cast());
        // SAFETY: handle and descriptors are alive, the memory has the sizes that they say (`convolve` checks), and the output
        // overlaps nothing. All of it is ordered by the one stream.
        unsafe {
            match self {
                Self::Graph(plan) => plan.run(handle, tensors, s)?,
                Self::Algorithm(CudnnPlan { x, y, w, conv, algorithm, .. }) => {
                    let (x, y, w, conv) = (*x, *y, *w, *conv);
                    match *algorithm {
                        Algorithm::Forward(way) => {
                            result::convolution_forward(handle, one, x, a, w, b, conv, way, s, workspace, zero, y, o)?
                        }
                        Algorithm::Input(way) => result::convolution_backward_data(
                            handle, one, w, a, y, b, conv, way, s, workspace, zero, x, o,
                        )?,
                        Algorithm::Weight(way) => result::convolution_backward_filter(
                            handle, one, x, a, y, b, conv, way, s, workspace, zero, w, o,
                        )?,
                    }
                }
            }
        }
        Ok(())
    }
}

/// Factors of result and of what stood there before; float32 for both types.
static ONE: f32 = 1.0;
static ZERO: f32 = 0.0;
