//! Convolutions whose weights do not change any more: kernels are packed once, and what follows is done in the same pass.

use std::mem::MaybeUninit;
use std::sync::OnceLock;

use candle_core::{Result, Storage, Tensor, bail};

use super::buffer::{Filling, floats, supported, tensor, with_floats};
use super::convolution::{ConvWeights, Convolution};
use super::direct::{self, Direct};
use super::epilogue::{Epilogue, EpilogueActivation};
use super::instructions::Instructions;
use super::methods::{METHODS, place, place_for_pixels};
use super::pixels::{self, PixelWeights, filled_up};
use super::product::panel_here;
use super::scratch::Values;
use super::shape::ConvShape;

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
        if !Direct.applies_to_pixels(&shape, Instructions::now())
            || matches!(self.held, Held::Panels { halves: true, .. })
        {
            return Ok(());
        }
        let pack = |weight: &[f32]| {
            let halves =
                precision == WeightPrecision::Bfloat16 || weight.iter().all(|value| value.to_bits() << 16 == 0);
            (Direct.pack_pixels(&shape, weight, halves), halves)
        };
        let ((values, halves), width) = (self.plain(pack)?, panel_here());
        if takes_pixels() {
            self.held = Held::Panels { shape, values, halves, width };
        } else if let (Held::Plain(weight), true) = (&self.held, halves) {
            let rounded = direct::unpack(&shape, PixelWeights { values: &values, halves }, width);
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
            Held::Panels { shape, values, halves, width } => {
                Ok(f(&direct::unpack(shape, PixelWeights { values, halves: *halves }, *width)))
            }
        }
    }

    fn epilogue<'a>(&'a self, add: Option<&'a [f32]>) -> Epilogue<'a> {
        let scale_shift = self.scale_shift.as_ref().map(|(scale, shift)| (&scale[..], &shift[..]));
        let activation = self.slopes.as_deref().map_or(self.activation, EpilogueActivation::PRelu);
        Epilogue { scale_shift, add, activation }
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
        let place = place_for_pixels(&ConvShape { batch, ..shape });
        let (method, instructions) = (METHODS[place], Instructions::now());
        let mut run = |values: &[f32], halves| {
            method.forward_pixels(&shape, x, PixelWeights { values, halves }, self.epilogue(add), out);
        };
        match &self.held {
            Held::Panels { shape: of, values, halves, width }
                if method.name() == Direct.name() && *width == panel_here() && of.taps() == shape.taps() =>
            {
                run(values, *halves);
                return Ok(());
            }
            _ => {}
        }
        let pack = |weight: &[f32]| Packed { instructions, values: Some(method.pack_pixels(&shape, weight, false)) };
        if self.pixels[place].get().is_none() {
            self.plain(|weight| _ = self.pixels[place].get_or_init(|| pack(weight)))?;
        }
        match self.pixels[place].get() {
            Some(Packed { instructions: of, values: Some(values) }) if *of == instructions => run(values, false),
            // Packed for this call alone.
            _ => self.plain(|weight| pack(weight).values.map(|values| run(&values, false))).map(|_| ())?,
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
mod tests {
    use super::super::testing::{assert_close, flat, on_each_level, random};
    use super::super::{conv2d, prelu, relu, scale_shift};
    use super::*;

    /// Every method, with every activation, with and without an addition.
    #[test]
    fn it_equals_the_layers_one_by_one() {
        on_each_level(it_equals_the_layers);
    }

    fn it_equals_the_layers() {
        for (x, w, stride, padding, groups) in [
            ((5, 17, 8, 8), (19, 17, 3, 3), 1, 1, 1),
            ((1, 32, 8, 8), (272, 32, 3, 3), 1, 1, 1),
            ((40, 32, 16, 16), (33, 32, 3, 3), 1, 1, 1),
            ((1, 48, 4, 4), (33, 48, 3, 3), 1, 1, 1),
            ((3, 19, 9, 7), (21, 19, 3, 3), 2, 1, 1),
            ((2, 40, 7, 7), (33, 40, 1, 1), 1, 0, 1),
            ((2, 12, 8, 8), (12, 1, 3, 3), 2, 1, 12),
            ((2, 12, 9, 9), (8, 6, 3, 3), 1, 1, 2),
            ((2, 3, 16, 16), (8, 3, 3, 3), 1, 1, 1),
        ] {
            let outputs = w.0;
            let (x, w) = (random(x, 1).expect("x"), random(w, 2).expect("weight"));
            let [scale, shift, slopes] = [3, 4, 5].map(|seed| random(outputs, seed).expect("values"));
            let plain = conv2d(&x, &w, stride, padding, groups).and_then(|y| scale_shift(&y, &scale, &shift));
            let plain = plain.expect("a map");
            let other = random(plain.dims().to_vec(), 6).expect("a map");
            for add in [None, Some(&other)] {
                let sum = add.map_or(Ok(plain.clone()), |add| &plain + add).expect("a sum");
                let slope = flat(&slopes);
                for (activation, expected) in [
                    (EpilogueActivation::Identity, Ok(sum.clone())),
                    (EpilogueActivation::Relu, relu(&sum)),
                    (EpilogueActivation::Relu6, sum.clamp(0f32, 6f32)),
                    (EpilogueActivation::PRelu(&slope), prelu(&sum, &slopes)),
                ] {
                    let scale_shift = Some((flat(&scale), flat(&shift)));
                    let layer = FrozenConv::new(&w, (stride, padding, groups), scale_shift, activation);
                    let found = layer.and_then(|layer| layer.forward(&x, add)).expect("a map");
                    assert_eq!(found.dims(), plain.dims());
                    assert_close(&[flat(&found)], &[flat(&expected.expect("a map"))], 0.0);
                }
            }
        }
    }

    /// Every method, with every activation, with and without an addition, over maps whose channels lie side by side.
    #[test]
    fn over_pixels_it_is_the_same_layer() {
        on_each_level(over_pixels_it_is_the_same);
    }

    /// The layer's output over pixels, as maps.
    fn over_pixels(layer: &FrozenConv, x: &Tensor, add: Option<&Tensor>) -> Vec<f32> {
        let (images, channels, height, width) = x.dims4().expect("maps");
        let pixels = |maps: &Tensor| {
            let (images, channels, height, width) = maps.dims4().expect("maps");
            let mut to = vec![f32::NAN; pixels::len(images, channels, height * width)];
            pixels::from_maps(&flat(maps), channels, height * width, &mut to);
            to
        };
        let [outputs, out_height, out_width] = layer.output((images, channels, height, width)).expect("fits");
        let mut out = vec![f32::NAN; pixels::len(images, outputs, out_height * out_width)];
        let (map, add) = (([channels, height, width], false), add.map(pixels));
        layer.write_pixels((images, images), map, &pixels(x), add.as_deref(), &mut out).expect("a map");
        let mut maps = vec![0f32; images * outputs * out_height * out_width];
        pixels::to_maps(&out, outputs, out_height * out_width, &mut maps);
        maps
    }

    fn over_pixels_it_is_the_same() {
        for (x, w, stride, padding, groups) in [
            ((5, 17, 8, 8), (19, 17, 3, 3), 1, 1, 1),
            ((40, 32, 16, 16), (33, 32, 3, 3), 1, 1, 1),
            ((3, 19, 9, 7), (21, 19, 3, 3), 2, 1, 1),
            ((2, 40, 7, 7), (33, 40, 1, 1), 1, 0, 1),
            ((2, 12, 8, 8), (12, 1, 3, 3), 2, 1, 12),
            ((2, 12, 9, 9), (8, 6, 3, 3), 1, 1, 2),
            ((2, 3, 16, 16), (8, 3, 3, 3), 1, 1, 1),
            ((2, 6, 5, 5), (3, 6, 3, 3), 1, 1, 1),
        ] {
            let outputs = w.0;
            let (x, w) = (random(x, 1).expect("x"), random(w, 2).expect("weight"));
            let [scale, shift, slopes] = [3, 4, 5].map(|seed| flat(&random(outputs, seed).expect("values")));
            for activation in [
                EpilogueActivation::Identity,
                EpilogueActivation::Relu,
                EpilogueActivation::Relu6,
                EpilogueActivation::PRelu(&slopes),
            ] {
                let layer = || {
                    let scale_shift = Some((scale.clone(), shift.clone()));
                    FrozenConv::new(&w, (stride, padding, groups), scale_shift, activation).expect("a layer")
                };
                let other = layer().forward(&x, None).and_then(|y| random(y.dims().to_vec(), 6)).expect("a map");
                for add in [None, Some(&other)] {
                    let expected = flat(&layer().forward(&x, add).expect("a map"));
                    let mut held = layer();
                    assert_close(&[over_pixels(&held, &x, add)], std::slice::from_ref(&expected), 2e-5);
                    let (_, channels, height, width) = x.dims4().expect("maps");
                    held.hold([channels, height, width], false, WeightPrecision::Float32).expect("held");
                    assert_close(&[over_pixels(&held, &x, add)], std::slice::from_ref(&expected), 2e-5);
                    assert_close(&[flat(&held.forward(&x, add).expect("a map"))], &[expected], 0.0);
                }
            }
        }
    }

    /// Weights that were rounded to bfloat16 give what rounded weights give in float32, and no precision changes those.
    #[test]
    fn weights_are_held_in_bfloat16() {
        on_each_level(|| {
            for (x, w, stride) in [((2, 17, 8, 8), (19, 17, 3, 3), 2), ((2, 40, 7, 7), (50, 40, 1, 1), 1)] {
                let (x, w) = (random(x, 1).expect("x"), random(w, 2).expect("weight"));
                let rounded = w.to_dtype(candle_core::DType::BF16).and_then(|w| w.to_dtype(candle_core::DType::F32));
                let (rounded, padding) = (rounded.expect("weights"), w.dims()[2] / 2);
                let layer = |w: &Tensor| {
                    FrozenConv::new(w, (stride, padding, 1), None, EpilogueActivation::Relu).expect("a layer")
                };
                let (_, channels, height, width) = x.dims4().expect("maps");
                let held = |w: &Tensor, precision| {
                    let mut layer = layer(w);
                    layer.hold([channels, height, width], false, precision).expect("held");
                    [over_pixels(&layer, &x, None), flat(&layer.forward(&x, None).expect("a map"))]
                };
                let expected =
                    [over_pixels(&layer(&rounded), &x, None), flat(&layer(&rounded).forward(&x, None).expect("a map"))];
                assert_ne!(expected[0], over_pixels(&layer(&w), &x, None));
                assert_eq!(held(&w, WeightPrecision::Bfloat16), expected);
                assert_eq!(held(&rounded, WeightPrecision::Float32), expected);
                assert_eq!(held(&rounded, WeightPrecision::Bfloat16), expected);
            }
        });
    }

    /// Kernels that lie packed for some instructions are left alone by others.
    #[test]
    fn one_layer_serves_all_instructions() {
        for stride in [1, 2] {
            let (x, w) = (random((2, 16, 8, 8), 1).expect("x"), random((24, 16, 3, 3), 2).expect("weight"));
            let layer = || FrozenConv::new(&w, (stride, 1, 1), None, EpilogueActivation::Relu).expect("a layer");
            let shared = layer();
            on_each_level(|| {
                let (found, expected) = (shared.forward(&x, None), layer().forward(&x, None));
                assert!(flat(&found.expect("a map")) == flat(&expected.expect("a map")));
            });
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (x, w) = (random((1, 3, 8, 8), 1).expect("x"), random((4, 3, 3, 3), 2).expect("weight"));
        assert!(FrozenConv::new(&w, (1, 1, 1), Some((vec![1.0; 4], vec![1.0; 3])), EpilogueActivation::Relu).is_err());
        assert!(FrozenConv::new(&w, (1, 1, 1), None, EpilogueActivation::PRelu(&[0.5])).is_err());
        let layer = FrozenConv::new(&w, (1, 1, 1), None, EpilogueActivation::Identity).expect("a layer");
        let other = random((1, 4, 7, 8), 3).expect("a map");
        assert!(layer.forward(&x, Some(&other)).is_err());
        assert!(layer.forward(&random((1, 4, 8, 8), 1).expect("x"), None).is_err());
        let shape = layer.shape((1, 3, 8, 8)).expect("fits");
        let mut out = vec![MaybeUninit::uninit(); shape.output_len() - 1];
        assert!(layer.run(&shape, &flat(&x), None, &mut out).is_err());
    }
}
