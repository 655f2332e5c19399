//! Convolutions of channels-last maps as cuDNN's graph interface plans them.

use std::ffi::c_void;

use candle_core::Result;
use candle_core::cuda_backend::cudarc::cudnn::{CudnnDataType, sys};
use sys::cudnnBackendAttributeName_t as Name;
use sys::cudnnBackendAttributeType_t as Type;
use sys::cudnnBackendDescriptorType_t as Kind;

use super::super::shape::ConvShape;
use super::cudnn::{Pass, WORKSPACE};

/// Ways to compute one convolution that are looked at.
const MOST: usize = 24;

/// What the three tensors of a convolution are called inside a plan: first argument, second argument, result.
const NAMES: [i64; 3] = [1, 2, 3];

/// A descriptor of cuDNN, destroyed with it.
struct Descriptor(sys::cudnnBackendDescriptor_t);

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: it was made by `new` and is destroyed once. An error here leaves nothing to do.
        let _ = unsafe { sys::cudnnBackendDestroyDescriptor(self.0) }.result();
    }
}

impl Descriptor {
    fn new(kind: Kind) -> Result<Self> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` takes the new descriptor.
        unsafe { sys::cudnnBackendCreateDescriptor(kind, &mut raw) }.result()?;
        Ok(Self(raw))
    }

    /// Sets an attribute; `T` is what cuDNN's manual says for `kind`.
    fn set<T>(&self, name: Name, kind: Type, values: &[T]) -> Result<()> {
        let count = values.len() as i64;
        // SAFETY: the descriptor is alive, and there are `count` values.
        unsafe { sys::cudnnBackendSetAttribute(self.0, name, kind, count, values.as_ptr().cast()) }.result()?;
        Ok(())
    }

    fn integers(&self, name: Name, values: &[i64]) -> Result<()> {
        self.set(name, Type::CUDNN_TYPE_INT64, values)
    }

    fn descriptor(&self, name: Name, other: &Self) -> Result<()> {
        self.set(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &[other.0])
    }

    /// As many values of an attribute as there are, or as `values` has room for.
    fn get<T>(&self, name: Name, kind: Type, values: &mut [T]) -> Result<usize> {
        let mut found = 0;
        let (room, to) = (values.len() as i64, values.as_mut_ptr().cast());
        // SAFETY: the descriptor is alive and finished, and there is room for as many values as are asked for.
        unsafe { sys::cudnnBackendGetAttribute(self.0, name, kind, room, &mut found, to) }.result()?;
        Ok((found as usize).min(values.len()))
    }

    fn finish(self) -> Result<Self> {
        // SAFETY: the descriptor is alive.
        unsafe { sys::cudnnBackendFinalize(self.0) }.result()?;
        Ok(self)
    }
}

/// How a convolution is computed.
pub(super) struct Plan {
    plan: Descriptor,
    /// Bytes of scratch memory.
    pub(super) workspace: usize,
    /// The number of cuDNN's engine.
    pub(super) engine: i64,
    // What the plan was made from lives as long as it.
    _from: (Descriptor, Operation),
}

/// A convolution as a graph of one operation.
struct Operation {
    graph: Descriptor,
    // What the graph was made from lives as long as it.
    _from: [Descriptor; 5],
}

/// The way to compute the pass `pass` of `shape` that cuDNN's heuristics take for the fastest of those that give the same values
/// every time and need no more scratch memory than allowed. The heuristics measure nothing: the way follows from shape, pass and
/// type, the GPU and cuDNN's version.
pub(super) fn fastest<T: CudnnDataType>(
    handle: sys::cudnnHandle_t,
    shape: &ConvShape,
    pass: Pass,
) -> Result<Option<Plan>> {
    use sys::cudnnBackendHeurMode_t as Mode;
    let operation = operation::<T>(handle, shape, pass)?;
    for mode in [Mode::CUDNN_HEUR_MODE_A, Mode::CUDNN_HEUR_MODE_FALLBACK] {
        let heuristics = Descriptor::new(Kind::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?;
        heuristics.descriptor(Name::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, &operation.graph)?;
        heuristics.set(Name::CUDNN_ATTR_ENGINEHEUR_MODE, Type::CUDNN_TYPE_HEUR_MODE, &[mode])?;
        // A mode may know nothing of an operation.
        let Ok(heuristics) = heuristics.finish() else { continue };
        let made = (0..MOST).map(|_| Descriptor::new(Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
        let made = made.collect::<Result<Vec<_>>>()?;
        let mut raw: Vec<_> = made.iter().map(|descriptor| descriptor.0).collect();
        let (name, kind) = (Name::CUDNN_ATTR_ENGINEHEUR_RESULTS, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR);
        let Ok(count) = heuristics.get(name, kind, &mut raw) else { continue };
        for configuration in made.into_iter().take(count) {
            // What this GPU or these sizes do not support fails here; the next may do.
            if let Ok(Some((plan, workspace, engine))) = execution(handle, &configuration) {
                return Ok(Some(Plan { plan, workspace, engine, _from: (configuration, operation) }));
            }
        }
    }
    Ok(None)
}

/// A configuration's plan, its bytes of scratch memory and its engine, if it is one that [`fastest`] may take.
fn execution(handle: sys::cudnnHandle_t, configuration: &Descriptor) -> Result<Option<(Descriptor, usize, i64)>> {
    let engine = Descriptor::new(Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR)?;
    let mut raw = [engine.0];
    configuration.get(Name::CUDNN_ATTR_ENGINECFG_ENGINE, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &mut raw)?;
    let mut notes = [u32::MAX; 16];
    let most = sys::cudnnBackendNumericalNote_t::CUDNN_NUMERICAL_NOTE_TYPE_COUNT as usize;
    let (name, kind) = (Name::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, Type::CUDNN_TYPE_NUMERICAL_NOTE);
    let count = engine.get(name, kind, &mut notes[..most])?;
    let varies = sys::cudnnBackendNumericalNote_t::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC as u32;
    if notes[..count].contains(&varies) {
        return Ok(None);
    }
    let mut number = [0i64];
    engine.get(Name::CUDNN_ATTR_ENGINE_GLOBAL_INDEX, Type::CUDNN_TYPE_INT64, &mut number)?;
    let plan = Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?;
    plan.set(Name::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, Type::CUDNN_TYPE_HANDLE, &[handle])?;
    plan.descriptor(Name::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration)?;
    let plan = plan.finish()?;
    let mut bytes = [0i64];
    plan.get(Name::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, Type::CUDNN_TYPE_INT64, &mut bytes)?;
    let workspace = usize::try_from(bytes[0]).ok().filter(|workspace| *workspace <= WORKSPACE);
    Ok(workspace.map(|workspace| (plan, workspace, number[0])))
}

fn operation<T: CudnnDataType>(handle: sys::cudnnHandle_t, shape: &ConvShape, pass: Pass) -> Result<Operation> {
    let s = shape;
    let x = [s.batch, s.inputs, s.height, s.width];
    let w = [s.outputs, s.group_inputs(), s.kernel_h, s.kernel_w];
    let y = [s.batch, s.outputs, s.out_height(), s.out_width()];
    let [first, second, result] = match pass {
        Pass::Forward => [x, w, y],
        Pass::Input => [w, y, x],
        Pass::Weight => [x, y, w],
    };
    let first = tensor::<T>(first, NAMES[0])?;
    let second = tensor::<T>(second, NAMES[1])?;
    let result = tensor::<T>(result, NAMES[2])?;
    let convolution = Descriptor::new(Kind::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?;
    let sums = <f32 as CudnnDataType>::DATA_TYPE;
    convolution.set(Name::CUDNN_ATTR_CONVOLUTION_COMP_TYPE, Type::CUDNN_TYPE_DATA_TYPE, &[sums])?;
    let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
    convolution.set(Name::CUDNN_ATTR_CONVOLUTION_CONV_MODE, Type::CUDNN_TYPE_CONVOLUTION_MODE, &[mode])?;
    convolution.integers(Name::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, &[2])?;
    convolution.integers(Name::CUDNN_ATTR_CONVOLUTION_DILATIONS, &[1, 1])?;
    convolution.integers(Name::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, &[s.stride as i64; 2])?;
    convolution.integers(Name::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, &[s.padding as i64; 2])?;
    convolution.integers(Name::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, &[s.padding as i64; 2])?;
    let convolution = convolution.finish()?;
    let (kind, names) = match pass {
        Pass::Forward => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
            ],
        ),
        Pass::Input => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
            ],
        ),
        Pass::Weight => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
            ],
        ),
    };
    let operation = Descriptor::new(kind)?;
    operation.descriptor(names[0], &first)?;
    operation.descriptor(names[1], &second)?;
    operation.descriptor(names[2], &result)?;
    operation.descriptor(names[3], &convolution)?;
    operation.set(names[4], Type::CUDNN_TYPE_FLOAT, &[1f32])?;
    operation.set(names[5], Type::CUDNN_TYPE_FLOAT, &[0f32])?;
    let operation = operation.finish()?;
    let graph = Descriptor::new(Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?;
    graph.set(Name::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, Type::CUDNN_TYPE_HANDLE, &[handle])?;
    graph.descriptor(Name::CUDNN_ATTR_OPERATIONGRAPH_OPS, &operation)?;
    Ok(Operation { graph: graph.finish()?, _from: [first, second, result, convolution, operation] })
}

/// A tensor `[n, c, h, w]` whose channels lie side by side.
fn tensor<T: CudnnDataType>(dims: [usize; 4], name: i64) -> Result<Descriptor> {
    let [n, c, h, w] = dims.map(|size| size as i64);
    let tensor = Descriptor::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_DATA_TYPE, Type::CUDNN_TYPE_DATA_TYPE, &[T::DATA_TYPE])?;
    tensor.integers(Name::CUDNN_ATTR_TENSOR_DIMENSIONS, &[n, c, h, w])?;
    tensor.integers(Name::CUDNN_ATTR_TENSOR_STRIDES, &[h * w * c, 1, w * c, c])?;
    tensor.integers(Name::CUDNN_ATTR_TENSOR_UNIQUE_ID, &[name])?;
    tensor.integers(Name::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[16])?;
    tensor.finish()
}

impl Plan {
    /// Computes the convolution on the stream of `handle`.
    ///
    /// # Safety
    /// The pointers are those of the first argument, the second, the result and the scratch memory, on the GPU, as large as the
    /// plan's shape and `workspace` say.
    pub(super) unsafe fn run(
        &self,
        handle: sys::cudnnHandle_t,
        tensors: [*mut c_void; 3],
        scratch: *mut c_void,
    ) -> Result<()> {
        let pack = Descriptor::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?;
        pack.integers(Name::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &NAMES)?;
        pack.set(Name::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, Type::CUDNN_TYPE_VOID_PTR, &tensors)?;
        pack.set(Name::CUDNN_ATTR_VARIANT_PACK_WORKSPACE, Type::CUDNN_TYPE_VOID_PTR, &[scratch])?;
        let pack = pack.finish()?;
        // SAFETY: handle, plan and pack are alive; the rest is the caller's promise.
        unsafe { sys::cudnnBackendExecute(handle, self.plan.0, pack.0) }.result()?;
        Ok(())
    }
}
