//! Convolution on the GPU, with both gradients. Float32 is computed channel by channel, as tensors lie; what tensor cores compute is
//! brought to their types pixel by pixel before, and back after, each in one pass.

use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::cudnn::CudnnDataType;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DeviceRepr, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaDType, CudaDevice, WrapErr};
use candle_core::{CpuStorage, CudaStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use half::bf16;

use super::super::precision::Precision;
use super::super::shape::ConvShape;
use super::cudnn::{Form, Pass, convolve};
use super::module::{blocks, each, function};
use super::storage::{no_cpu, room, tensor, view, with_floats};

/// The convolution of `x` with `weight`, both float32, in the precision that is set; the result is float32.
pub(in super::super) fn conv2d(x: &Tensor, weight: &Tensor, shape: ConvShape) -> Result<Tensor> {
    let (x, weight) = (aligned(x)?, aligned(weight)?);
    match Precision::now() {
        Precision::Tf32 if shape.groups == 1 => x.apply_op2(&weight, ChannelsLast::<f32>::new(shape, &x, &weight)),
        Precision::Bfloat16 if shape.groups == 1 => x.apply_op2(&weight, ChannelsLast::<bf16>::new(shape, &x, &weight)),
        // Groups of channels have too few products for tensor cores.
        _ => x.apply_op2(&weight, Planar { shape }),
    }
}

/// The tensor, contiguous, at an address that suits loads of 16 bytes.
fn aligned(x: &Tensor) -> Result<Tensor> {
    if x.layout().start_offset().is_multiple_of(4) { x.contiguous() } else { x.force_contiguous() }
}

/// The shape of the output.
fn output(s: &ConvShape) -> Shape {
    (s.batch, s.outputs, s.out_height(), s.out_width()).into()
}

type View<'a> = CudaView<'a, f32>;

struct Planar {
    shape: ConvShape,
}

impl CustomOp2 for Planar {
    fn name(&self) -> &'static str {
        "gdrd-conv2d-cuda"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        no_cpu(self.name())
    }

    fn cuda_fwd(&self, x: &CudaStorage, xl: &Layout, w: &CudaStorage, wl: &Layout) -> Result<(CudaStorage, Shape)> {
        let (s, device, xs, ws) = (&self.shape, &x.device, view(x, xl)?, view(w, wl)?);
        let out = planar(device, s, Pass::Forward, &xs, &ws)?;
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), output(s)))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (for_x, for_weight) = (x.track_op(), weight.track_op());
        with_floats([x, weight, grad], |device, [xs, ws, gs]| {
            let run = |pass, first, second| planar(device, &self.shape, pass, first, second);
            let dx = for_x.then(|| run(Pass::Input, ws, gs)).transpose()?;
            let dw = for_weight.then(|| run(Pass::Weight, xs, gs)).transpose()?;
            let dx = dx.map(|values| tensor(values, x.shape(), device));
            Ok((dx, dw.map(|values| tensor(values, weight.shape(), device))))
        })
    }
}

/// One pass of a convolution channel by channel; `first` and `second` are what [`Pass`] says.
fn planar(
    device: &CudaDevice,
    s: &ConvShape,
    pass: Pass,
    first: &View<'_>,
    second: &View<'_>,
) -> Result<CudaSlice<f32>> {
    if s.groups == s.inputs && s.outputs == s.inputs {
        depthwise(device, s, pass, first, second)
    } else {
        convolve(device, s, pass, Form::Planar, first, second)
    }
}

/// A convolution that keeps channels apart: for its gradients cuDNN has nothing that repeats itself and is fast.
fn depthwise(
    device: &CudaDevice,
    s: &ConvShape,
    pass: Pass,
    first: &View<'_>,
    second: &View<'_>,
) -> Result<CudaSlice<f32>> {
    let (x, y, weight) = (s.input_len(), s.output_len(), s.outputs * s.taps());
    let (name, needs, len) = match pass {
        Pass::Forward => ("depthwise", [x, weight], y),
        Pass::Input => ("depthwise_input", [y, weight], x),
        Pass::Weight => ("depthwise_weight", [x, y], weight),
    };
    // cuDNN takes the weight before the gradient.
    let (first, second) = if pass == Pass::Input { (second, first) } else { (first, second) };
    if [first.len(), second.len()] != needs {
        bail!("the pass {pass:?} of {s:?} needs {needs:?} values, found {} and {}", first.len(), second.len());
    }
    let (launch, n) = if pass == Pass::Weight {
        let outputs = s.batch * s.out_plane();
        let across = blocks(s.outputs, outputs.div_ceil(8));
        let down = s.taps().div_ceil(2) as u32;
        (LaunchConfig { grid_dim: (across.grid_dim.0, down, 1), ..across }, outputs)
    } else {
        (each(len), len)
    };
    let sizes =
        [s.inputs, s.height, s.width, s.out_height(), s.out_width(), s.kernel_h, s.kernel_w, s.stride, s.padding, n];
    let sizes = sizes.map(|size| size as u32);
    let f = function(device, name)?;
    // SAFETY: the kernels take these arguments in this order, read the values of both inputs, as many as the shape says, and write
    // all of the output.
    unsafe {
        let out = room::<f32>(device, len)?;
        let mut call = f.call();
        call.arg(first).arg(second).arg(&out);
        sizes.iter().for_each(|size| {
            call.arg(size);
        });
        call.launch(launch).w()?;
        Ok(out)
    }
}

/// A type that tensor cores multiply.
trait Factor: CudaDType + CudnnDataType + DeviceRepr + Send + Sync + 'static {
    /// The kernels that bring maps to this type, pixel by pixel, and back.
    const KERNELS: [&'static str; 2];

    /// Tensor cores take channels in pieces of 16 bytes.
    const CHANNELS: usize = 16 / size_of::<Self>();
}

impl Factor for f32 {
    const KERNELS: [&'static str; 2] = ["pack_float32", "unpack_float32"];
}

impl Factor for bf16 {
    const KERNELS: [&'static str; 2] = ["pack_bfloat16", "unpack_bfloat16"];
}

/// Maps, or kernels, whose channels are to lie side by side.
#[derive(Clone, Copy)]
struct Maps {
    /// How many there are, and how many places for them.
    images: [usize; 2],
    channels: [usize; 2],
    plane: usize,
}

impl Maps {
    /// Blocks for `pixels` pixels of all maps.
    fn launch(&self, pixels: usize) -> LaunchConfig {
        let (across, down) = (pixels.div_ceil(64), self.channels[1].div_ceil(64));
        LaunchConfig { grid_dim: (across as u32, down as u32, 1), block_dim: (256, 1, 1), shared_mem_bytes: 0 }
    }

    /// Pixel by pixel, zeros in places where nothing is.
    fn pack<T: Factor>(&self, device: &CudaDevice, x: &View<'_>) -> Result<CudaSlice<T>> {
        let Self { images: [images, places], channels: [channels, padded], plane } = *self;
        if x.len() != images * channels * plane {
            bail!("{images} maps of {channels} channels of {plane} pixels are not {} values", x.len());
        }
        let f = function(device, T::KERNELS[0])?;
        let sizes = [images * plane, places * plane, channels, plane, padded].map(|size| size as u32);
        // SAFETY: the kernel takes these arguments in this order, reads the values that were counted above, and writes all of the
        // output; `padded` values are a multiple of 16 bytes.
        unsafe {
            let out = room::<T>(device, places * plane * padded)?;
            let mut call = f.call();
            call.arg(x).arg(&out);
            sizes.iter().for_each(|size| {
                call.arg(size);
            });
            call.launch(self.launch(places * plane)).w()?;
            Ok(out)
        }
    }

    /// Channel by channel, without what was added.
    fn unpack<T: Factor>(&self, device: &CudaDevice, x: &CudaView<'_, T>) -> Result<CudaSlice<f32>> {
        let Self { images: [images, places], channels: [channels, padded], plane } = *self;
        if x.len() != places * padded * plane {
            bail!("{places} maps of {padded} channels of {plane} pixels are not {} values", x.len());
        }
        let f = function(device, T::KERNELS[1])?;
        let sizes = [images * plane, channels, plane, padded].map(|size| size as u32);
        // SAFETY: as above, the other way round.
        unsafe {
            let out = room::<f32>(device, images * channels * plane)?;
            let mut call = f.call();
            call.arg(x).arg(&out);
            sizes.iter().for_each(|size| {
                call.arg(size);
            });
            call.launch(self.launch(images * plane)).w()?;
            Ok(out)
        }
    }
}

/// A convolution on tensor cores.
struct ChannelsLast<T: Factor> {
    shape: ConvShape,
    /// Whether input and weight will be needed for gradients.
    keep: [bool; 2],
    /// Input and weight as the tensor cores took them.
    kept: Mutex<[Option<CudaSlice<T>>; 2]>,
}

impl<T: Factor> ChannelsLast<T> {
    fn new(shape: ConvShape, x: &Tensor, weight: &Tensor) -> Self {
        Self { shape, keep: [weight.track_op(), x.track_op()], kept: Mutex::default() }
    }

    /// The shape that is computed: with channels that are not there, so that there are as many as tensor cores take.
    fn padded(&self) -> ConvShape {
        let whole = |channels: usize| channels.next_multiple_of(T::CHANNELS);
        ConvShape { inputs: whole(self.shape.inputs), outputs: whole(self.shape.outputs), ..self.shape }
    }

    /// Input, weight and output.
    fn maps(&self) -> [Maps; 3] {
        let (s, padded) = (&self.shape, self.padded());
        let (inputs, outputs) = ([s.inputs, padded.inputs], [s.outputs, padded.outputs]);
        [
            Maps { images: [s.batch; 2], channels: inputs, plane: s.plane() },
            Maps { images: outputs, channels: inputs, plane: s.taps() },
            Maps { images: [s.batch; 2], channels: outputs, plane: s.out_plane() },
        ]
    }

    fn run(
        &self,
        device: &CudaDevice,
        pass: Pass,
        first: &CudaSlice<T>,
        second: &CudaSlice<T>,
    ) -> Result<CudaSlice<T>> {
        convolve(device, &self.padded(), pass, Form::ChannelsLast, &first.as_view(), &second.as_view())
    }

    /// Whether a pixel of the input is one piece of 16 bytes.
    fn has_few_channels(&self) -> bool {
        let s = self.padded();
        s.inputs == T::CHANNELS && s.batch * s.out_plane() * s.taps() < 1 << 31
    }

    /// The gradient of the weight, pixel by pixel, for [few channels](Self::has_few_channels): a product of few rows and columns
    /// over very many pixels, all of which cuDNN gives to a block or two. Here parts of the pixels are summed side by side, then
    /// the parts, in an order that the shape alone decides.
    fn weight_of_few(&self, device: &CudaDevice, x: &CudaSlice<T>, grads: CudaSlice<T>) -> Result<Tensor> {
        let s = self.padded();
        let (pixels, width) = (s.batch * s.out_plane(), s.taps() * s.inputs);
        if [x.len(), grads.len()] != [s.input_len(), s.output_len()] || !self.has_few_channels() {
            bail!("the gradient of the weight of {s:?} from {} and {} values", x.len(), grads.len());
        }
        let (f, n) = (function(device, "columns")?, pixels * s.taps());
        let sizes = [s.height, s.width, s.out_height(), s.out_width(), s.kernel_h, s.kernel_w, s.stride, s.padding, n];
        let sizes = sizes.map(|size| size as u32);
        // SAFETY: the kernel takes these arguments in this order, reads pixels of `x`, of which there are as many as the shape
        // says and which have 16 bytes each, and writes all of the output.
        let columns = unsafe {
            let out = room::<T>(device, pixels * width)?;
            let mut call = f.call();
            call.arg(x).arg(&out);
            sizes.iter().for_each(|size| {
                call.arg(size);
            });
            call.launch(each(n)).w()?;
            out
        };
        let parts = 1 << pixels.trailing_zeros().min(7);
        let columns = tensor(columns, (parts, pixels / parts, width), device);
        let grads = tensor(grads, (parts, pixels / parts, s.outputs), device);
        grads.transpose(1, 2)?.matmul(&columns)?.to_dtype(DType::F32)?.sum(0)
    }
}

impl<T: Factor> CustomOp2 for ChannelsLast<T> {
    fn name(&self) -> &'static str {
        "gdrd-conv2d-tensor-cores"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        no_cpu(self.name())
    }

    fn cuda_fwd(&self, x: &CudaStorage, xl: &Layout, w: &CudaStorage, wl: &Layout) -> Result<(CudaStorage, Shape)> {
        let (device, [of_x, of_weight, of_y]) = (&x.device, self.maps());
        let xs = of_x.pack::<T>(device, &view(x, xl)?)?;
        let ws = of_weight.pack::<T>(device, &view(w, wl)?)?;
        let ys = self.run(device, Pass::Forward, &xs, &ws)?;
        let out = of_y.unpack(device, &ys.as_view())?;
        let [keep_x, keep_weight] = self.keep;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = [keep_x.then_some(xs), keep_weight.then_some(ws)];
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), output(&self.shape)))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [of_x, of_weight, of_y] = self.maps();
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        with_floats([grad], |device, [grads]| {
            let grads = of_y.pack::<T>(device, grads)?;
            let dx = match (x.track_op(), &kept[1]) {
                (true, Some(ws)) => Some(of_x.unpack(device, &self.run(device, Pass::Input, ws, &grads)?.as_view())?),
                (true, None) => bail!("a convolution has lost its weight"),
                (false, _) => None,
            };
            let dw = match (weight.track_op(), &kept[0]) {
                (true, Some(xs)) if self.has_few_channels() => {
                    let sums = self.weight_of_few(device, xs, grads)?;
                    Some(with_floats([&sums], |device, [sums]| of_weight.unpack(device, sums))?)
                }
                (true, Some(xs)) => {
                    Some(of_weight.unpack(device, &self.run(device, Pass::Weight, xs, &grads)?.as_view())?)
                }
                (true, None) => bail!("a convolution has lost its input"),
                (false, _) => None,
            };
            let dx = dx.map(|values| tensor(values, x.shape(), device));
            Ok((dx, dw.map(|values| tensor(values, weight.shape(), device))))
        })
    }
}
