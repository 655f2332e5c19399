//! Convolutions whose weights do not change any more: kernels are packed once, and what follows is done in the same pass.

use std::mem::MaybeUninit;
use std::sync::OnceLock;

use candle_core::{Result, Storage, Tensor, bail};

use super::buffer::{Filling, floats, supported, tensor, with_floats};
use super::convolution::{ConvWeights, Convolution};
use super::epilogue::{Epilogue, EpilogueActivation};
use super::instructions::Instructions;
use super::methods::{METHODS, place};
use super::scratch::Values;
use super::shape::ConvShape;

/// `activation(scale * conv2d(x, weight) + shift + add)`, without gradients; to the bit what its parts give.
pub struct FrozenConv {
    weight: Tensor,
    stride: usize,
    padding: usize,
    groups: usize,
    /// A factor and a summand for each output channel.
    scale_shift: Option<(Vec<f32>, Vec<f32>)>,
    activation: EpilogueActivation<'static>,
    /// Those of a PReLU, which takes the place of `activation`.
    slopes: Option<Vec<f32>>,
    /// Kernels in the form of each of [`METHODS`], made when it is used for the first time: the batch decides on the method.
    packed: [OnceLock<Packed>; METHODS.len()],
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
        let weight = weight.detach().contiguous()?;
        Ok(Self {
            weight,
            stride,
            padding,
            groups,
            scale_shift,
            activation,
            slopes,
            packed: [const { OnceLock::new() }; METHODS.len()],
        })
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
        let (outputs, inputs, height, width) = self.weight.dims4()?;
        Ok(ConvParts {
            dims: [outputs, inputs, height, width],
            weight: self.weight.flatten_all()?.to_vec1()?,
            stride: self.stride,
            padding: self.padding,
            groups: self.groups,
            scale_shift: self.scale_shift.as_ref().map(|(scale, shift)| (&scale[..], &shift[..])),
            activation: self.slopes.as_deref().map_or(self.activation, EpilogueActivation::PRelu),
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
        ConvShape::new(x, self.weight.dims4()?, self.stride, self.padding, self.groups)
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
        let (storage, layout) = self.weight.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else { bail!("a kernel needs a tensor in main memory") };
        let weight = floats(storage, layout)?;
        let (place, instructions) = (place(shape), Instructions::now());
        let method = METHODS[place];
        // One thread alone makes the packed form: one that waited for others could meanwhile begin another task that
        // waits for this.
        let packed = self.packed[place].get_or_init(|| Packed { instructions, values: method.pack(shape, weight) });
        let weights = match &packed.values {
            Some(values) if packed.instructions == instructions => ConvWeights::Packed(values),
            // To the bit the same, and packed for this call alone.
            _ => ConvWeights::Plain(weight),
        };
        let scale_shift = self.scale_shift.as_ref().map(|(scale, shift)| (&scale[..], &shift[..]));
        let activation = self.slopes.as_deref().map_or(self.activation, EpilogueActivation::PRelu);
        method.forward(shape, x, weights, Epilogue { scale_shift, add, activation }, out);
        Ok(())
    }
}

impl std::fmt::Debug for FrozenConv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The methods whose form there is, and the bytes that it takes.
        let form = |(method, packed): (&&dyn Convolution, &OnceLock<Packed>)| {
            Some((method.name(), 4 * packed.get()?.values.as_ref()?.len()))
        };
        let packed: Vec<_> = METHODS.iter().zip(&self.packed).filter_map(form).collect();
        f.debug_struct("FrozenConv")
            .field("weight", &self.weight.shape())
            .field("packed", &packed)
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
