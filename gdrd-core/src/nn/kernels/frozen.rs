//! Convolutions whose weights do not change any more: kernels are packed once, and what follows is done in the same pass.

use std::mem::MaybeUninit;
use std::sync::OnceLock;

use candle_core::{Result, Storage, Tensor, bail};

use super::buffer::{Filling, floats, supported, tensor, with_floats};
use super::bytes::{self, ByteKernels};
use super::convolution::{ConvWeights, Convolution};
use super::direct::{self, Direct};
use super::epilogue::{Epilogue, EpilogueActivation};
use super::instructions::Instructions;
use super::methods::{METHODS, place, place_for_pixels};
use super::pixels::{self, PixelForm, PixelWeights, filled_up};
use super::product::panel_here;
use super::scratch::Values;
use super::shape::ConvShape;
use super::simd::ByteUnit;

/// `activation(scale * conv2d(x, weight) + shift + add)`, without gradients; over tensors, to the bit what its parts give.
pub struct FrozenConv {
    held: Held,
    /// Of the weight: outputs, inputs of a group, height, width.
    dims: [usize; 4],
    stride: usize,
    padding: usize,
    groups: usize,
    /// A factor and a summand for each output channel, filled up to whole vectors.
    scale_shift: Option<(Vec<f32>, Vec<f32>)>,
    activation: EpilogueActivation<'static>,
    /// Those of a PReLU, which takes the place of `activation`; filled up likewise.
    slopes: Option<Vec<f32>>,
    /// Kernels in the form of each of [`METHODS`], made when it is used for the first time: the batch decides on the method.
    packed: [OnceLock<Packed>; METHODS.len()],
    /// The same for maps whose channels lie side by side.
    pixels: [OnceLock<Packed>; METHODS.len()],
}

/// What a layer's weights are held as, once.
enum Held {
    Plain(Tensor),
    /// As [`Direct`] takes them for a convolution of these sizes.
    Panels {
        shape: ConvShape,
        values: Values,
        halves: bool,
        width: usize,
    },
    /// Rounded to 8 bits for a convolution of these sizes.
    Bytes {
        shape: ConvShape,
        kernels: ByteKernels,
    },
}

/// What the weights of a network's inference form are held in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightPrecision {
    /// All 24 bits.
    #[default]
    Float32,
    /// The upper half of each value, which has 8 of its bits, rounded to the nearest; products and sums are float32. Kernels of single
    /// channels stay float32, which are a few thousand values.
    Bfloat16,
    /// 8 bits with a factor for each output channel. What a layer reads is rounded to 8 bits too, with a factor for each image, and
    /// sums of their products are exact. Layers of single channels, and those that read few, as the first one does, stay
    /// float32. With tiles ([`Instructions::Amx`]) weights are rounded, and computed with as the others are.
    Int8,
}

/// What a [`FrozenConv`] is made of, for other programs.
#[cfg(feature = "train")]
pub(in super::super) struct ConvParts<'a> {
    /// Of the weight: outputs, inputs of a group, height, width.
    pub(in super::super) dims: [usize; 4],
    pub(in super::super) weight: Vec<f32>,
    pub(in super::super) stride: usize,
    pub(in super::super) padding: usize,
    pub(in super::super) groups: usize,
    pub(in super::super) scale_shift: Option<(&'a [f32], &'a [f32])>,
    pub(in super::super) activation: EpilogueActivation<'a>,
}

/// Kernels packed for some instructions; none where a method takes them as they are.
struct Packed {
    instructions: Instructions,
    values: Option<Values>,
}

impl FrozenConv {
    /// The convolution of [`conv2d`](super::conv2d), with a factor and a summand for each output channel, and an activation.
    ///
    /// # Errors
    /// If `weight` is not `[o, c / groups, kh, kw]` in float32 on the CPU, or another argument does not have `o` values.
    pub fn new(
        weight: &Tensor,
        (stride, padding, groups): (usize, usize, usize),
        scale_shift: Option<(Vec<f32>, Vec<f32>)>,
        activation: EpilogueActivation<'_>,
    ) -> Result<Self> {
        let outputs = weight.dims4()?.0;
        if !supported(&[weight]) {
            bail!("a frozen convolution needs float32 on the CPU");
        }
        if scale_shift.as_ref().is_some_and(|(scale, shift)| scale.len() != outputs || shift.len() != outputs) {
            bail!("a frozen convolution with {outputs} outputs needs as many factors and shifts");
        }
        let (activation, slopes) = match activation {
            EpilogueActivation::Identity => (EpilogueActivation::Identity, None),
            EpilogueActivation::Relu => (EpilogueActivation::Relu, None),
            EpilogueActivation::Relu6 => (EpilogueActivation::Relu6, None),
            EpilogueActivation::PRelu(slopes) if slopes.len() == outputs => {
                (EpilogueActivation::Identity, Some(slopes.to_vec()))
            }
            EpilogueActivation::PRelu(slopes) => bail!("expected {outputs} slopes, found {}", slopes.len()),
        };
        let (outputs, inputs, height, width) = weight.dims4()?;
        Ok(Self {
            held: Held::Plain(weight.detach().contiguous()?),
            dims: [outputs, inputs, height, width],
            stride,
            padding,
            groups,
            scale_shift: scale_shift.map(|(scale, shift)| (filled_up(scale), filled_up(shift))),
            activation,
            slopes: slopes.map(filled_up),
            packed: [const { OnceLock::new() }; METHODS.len()],
            pixels: [const { OnceLock::new() }; METHODS.len()],
        })
    }

    /// Holds the weights of a layer whose input has these channels, height and width, `flat` if all values of it are taken as channels:
    /// once, in the form that one image needs, where the instructions take maps with channels side by side. Weights that have no more
    /// bits than bfloat16 are held in that, whatever the precision.
    ///
    /// # Errors
    /// If the sizes do not fit.
    pub(in super::super) fn hold(&mut self, map: [usize; 3], flat: bool, precision: WeightPrecision) -> Result<()> {
        if flat && !self.is_linear() {
            return Ok(());
        }
        let shape = self.pixel_shape(1, map, flat)?;
        if !Direct.applies_to_pixels(&shape, Instructions::now()) || matches!(self.held, Held::Bytes { .. }) {
            return Ok(());
        }
        if precision == WeightPrecision::Int8 && bytes::applies(&shape) {
            let kernels = self.plain(|weight| ByteKernels::pack(ByteUnit::now(), &shape, weight))?;
            self.held = match takes_pixels() {
                true => Held::Bytes { shape, kernels },
                false => Held::Plain(tensor(kernels.unpack(&shape), self.dims.to_vec())?),
            };
            return Ok(());
        }
        if matches!(self.held, Held::Panels { halves: true, .. }) {
            return Ok(());
        }
        let pack = |weight: &[f32]| {
            let halves =
                precision == WeightPrecision::Bfloat16 || weight.iter().all(|value| value.to_bits() << 16 == 0);
            (direct::panels(&shape, weight, halves), halves)
        };
        let ((values, halves), width) = (self.plain(pack)?, panel_here());
        if takes_pixels() {
            self.held = Held::Panels { shape, values, halves, width };
        } else if let (Held::Plain(weight), true) = (&self.held, halves) {
            let rounded = direct::unpack(&shape, &values, halves, width);
            self.held = Held::Plain(tensor(rounded, weight.dims())?);
        }
        Ok(())
    }

    /// The layer's output for `x [b, c, h, w]`: `[b, o, oh, ow]`. `add`, where there is one, has the same shape.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward(&self, x: &Tensor, add: Option<&Tensor>) -> Result<Tensor> {
        let shape = self.shape(x.dims4()?)?;
        let dims = (shape.batch, shape.outputs, shape.out_height(), shape.out_width());
        if let Some(add) = add.filter(|add| add.dims4().ok() != Some(dims)) {
            bail!("a convolution to {dims:?} cannot be added to {:?}", add.dims());
        }
        let run = |x: &[f32], add: Option<&[f32]>| {
            let mut out = Filling::new(shape.output_len());
            self.run(&shape, x, add, out.slots())?;
            // SAFETY: all values were written.
            Ok(unsafe { out.finish() })
        };
        let out = match add {
            None => with_floats([x], |[x]| run(x, None)),
            Some(add) => with_floats([x, add], |[x, add]| run(x, Some(add))),
        };
        tensor(out?, dims)
    }

    /// What it is made of.
    ///
    /// # Errors
    /// If the weight cannot be read.
    #[cfg(feature = "train")]
    pub(in super::super) fn parts(&self) -> Result<ConvParts<'_>> {
        let outputs = self.dims[0];
        Ok(ConvParts {
            dims: self.dims,
            weight: self.plain(<[f32]>::to_vec)?,
            stride: self.stride,
            padding: self.padding,
            groups: self.groups,
            scale_shift: self.scale_shift.as_ref().map(|(scale, shift)| (&scale[..outputs], &shift[..outputs])),
            activation: self
                .slopes
                .as_deref()
                .map_or(self.activation, |all| EpilogueActivation::PRelu(&all[..outputs])),
        })
    }

    /// Channels, height and width of the output for an input `[b, c, h, w]`.
    ///
    /// # Errors
    /// If it does not fit.
    pub(in super::super) fn output(&self, x: (usize, usize, usize, usize)) -> Result<[usize; 3]> {
        let shape = self.shape(x)?;
        Ok([shape.outputs, shape.out_height(), shape.out_width()])
    }

    fn shape(&self, x: (usize, usize, usize, usize)) -> Result<ConvShape> {
        ConvShape::new(x, self.dims.into(), self.stride, self.padding, self.groups)
    }

    /// Whether it is a fully connected layer where its input has one pixel.
    pub(in super::super) fn is_linear(&self) -> bool {
        self.dims[2..] == [1, 1] && (self.stride, self.padding, self.groups) == (1, 0, 1)
    }

    /// The convolution of maps of these channels, height and width. One of all their values as channels is one with a kernel of their
    /// size, whose weights lie in the same order.
    fn pixel_shape(&self, images: usize, map: [usize; 3], flat: bool) -> Result<ConvShape> {
        let [channels, height, width] = map;
        if !flat {
            return self.shape((images, channels, height, width));
        }
        if self.dims[1] != channels * height * width || !self.is_linear() {
            bail!("a layer with kernels {:?} cannot take all values of a map {map:?}", self.dims);
        }
        ConvShape::new((images, channels, height, width), (self.dims[0], channels, height, width), 1, 0, 1)
    }

    /// What `f` makes of the weight `[o, c / groups, kh, kw]`.
    fn plain<T>(&self, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
        match &self.held {
            Held::Plain(weight) => {
                let (storage, layout) = weight.storage_and_layout();
                let Storage::Cpu(storage) = &*storage else { bail!("a kernel needs a tensor in main memory") };
                Ok(f(floats(storage, layout)?))
            }
            Held::Panels { shape, values, halves, width } => Ok(f(&direct::unpack(shape, values, *halves, *width))),
            Held::Bytes { shape, kernels } => Ok(f(&kernels.unpack(shape))),
        }
    }

    fn epilogue<'a>(&'a self, add: Option<&'a [f32]>) -> Epilogue<'a> {
        let scale_shift = self.scale_shift.as_ref().map(|(scale, shift)| (&scale[..], &shift[..]));
        let activation = self.slopes.as_deref().map_or(self.activation, EpilogueActivation::PRelu);
        Epilogue { scale_shift, add, activation, ..Epilogue::default() }
    }

    /// Values of the weight.
    pub(in super::super) fn weight_len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Writes all of the output for maps whose channels lie side by side (see `pixels`); `add` likewise. The method is that for
    /// `batch` images, of which these are `images`.
    ///
    /// # Errors
    /// If the sizes do not fit.
    pub(in super::super) fn write_pixels(
        &self,
        (images, batch): (usize, usize),
        (map, flat): ([usize; 3], bool),
        x: &[f32],
        add: Option<&[f32]>,
        out: &mut [f32],
    ) -> Result<()> {
        let shape = self.pixel_shape(images, map, flat)?;
        let room = |channels, plane| pixels::len(images, channels, plane);
        let expected = (room(shape.inputs, shape.plane()), room(shape.outputs, shape.out_plane()));
        let found = (x.len(), out.len(), add.map_or(out.len(), <[f32]>::len));
        if found != (expected.0, expected.1, expected.1) {
            bail!("{shape:?} cannot have inputs, outputs and additions of {found:?} values");
        }
        let of_batch = ConvShape { batch, ..shape };
        let place = place_for_pixels(&of_batch);
        let (method, instructions) = (METHODS[place], Instructions::now());
        let mut run = |values: &[f32], form| {
            method.forward_pixels(&shape, x, PixelWeights { values, form }, self.epilogue(add), out);
        };
        match &self.held {
            Held::Panels { shape: of, values, halves, width }
                if method.reads_panels(&of_batch) && *width == panel_here() && of.taps() == shape.taps() =>
            {
                run(values, PixelForm::Panels { halves: *halves });
                return Ok(());
            }
            Held::Bytes { shape: of, kernels } if of.taps() == shape.taps() => {
                let unit = ByteUnit::now();
                // Others are packed for this call alone.
                let other = (kernels.unit() != unit).then(|| ByteKernels::pack(unit, of, &kernels.unpack(of)));
                bytes::forward(&shape, x, other.as_ref().unwrap_or(kernels), self.epilogue(add), out);
                return Ok(());
            }
            _ => {}
        }
        let pack = |weight: &[f32]| Packed { instructions, values: Some(method.pack_pixels(&shape, weight)) };
        if self.pixels[place].get().is_none() {
            self.plain(|weight| _ = self.pixels[place].get_or_init(|| pack(weight)))?;
        }
        match self.pixels[place].get() {
            Some(Packed { instructions: of, values: Some(values) }) if *of == instructions => {
                run(values, PixelForm::Packed)
            }
            // Packed for this call alone.
            _ => self.plain(|weight| pack(weight).values.map(|values| run(&values, PixelForm::Packed))).map(|_| ())?,
        }
        Ok(())
    }

    /// As [`run`](Self::run), over values that are there already, for an input of these dimensions.
    ///
    /// # Errors
    /// If the sizes do not fit.
    pub(in super::super) fn write(
        &self,
        dims: (usize, usize, usize, usize),
        x: &[f32],
        add: Option<&[f32]>,
        out: &mut [f32],
    ) -> Result<()> {
        // SAFETY: `run` writes values and nothing else.
        let out = unsafe { std::slice::from_raw_parts_mut(out.as_mut_ptr().cast(), out.len()) };
        self.run(&self.shape(dims)?, x, add, out)
    }

    /// Writes all of the output for `x`; `add`, where there is one, has as many values.
    ///
    /// # Errors
    /// If there is not a value for each place of the `shape`.
    fn run(&self, shape: &ConvShape, x: &[f32], add: Option<&[f32]>, out: &mut [MaybeUninit<f32>]) -> Result<()> {
        let found = (x.len(), add.map_or(out.len(), <[f32]>::len), out.len());
        if found != (shape.input_len(), shape.output_len(), shape.output_len()) {
            bail!("{shape:?} cannot have inputs, additions and outputs of {found:?} values");
        }
        let (place, instructions) = (place(shape), Instructions::now());
        let method = METHODS[place];
        self.plain(|weight| {
            // One thread alone makes the packed form: one that waited for others could meanwhile begin another task that
            // waits for this.
            let packed = self.packed[place].get_or_init(|| Packed { instructions, values: method.pack(shape, weight) });
            let weights = match &packed.values {
                Some(values) if packed.instructions == instructions => ConvWeights::Packed(values),
                // To the bit the same, and packed for this call alone.
                _ => ConvWeights::Plain(weight),
            };
            method.forward(shape, x, weights, self.epilogue(add), out);
        })
    }
}

/// Whether a network's maps have their channels side by side with the instructions of this thread: tiles have a layout of their own.
pub(in super::super) fn takes_pixels() -> bool {
    Instructions::now() < Instructions::Amx
}

impl std::fmt::Debug for FrozenConv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The methods whose form there is, and the bytes that it takes.
        let form = |(method, packed): (&&dyn Convolution, &OnceLock<Packed>)| {
            Some((method.name(), 4 * packed.get()?.values.as_ref()?.len()))
        };
        let forms = |packed| METHODS.iter().zip(packed).filter_map(form).collect::<Vec<_>>();
        f.debug_struct("FrozenConv")
            .field("weight", &self.dims)
            .field("packed", &forms(&self.packed))
            .field("pixels", &forms(&self.pixels))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
