//! The inference form of a network: its layers one by one, with weights that do not change any more, and memory that is kept
//! from call to call.

mod network;
#[cfg(feature = "train")]
mod onnx;
mod rooms;

pub use network::Inference;
#[cfg(feature = "train")]
pub use onnx::{OPSET, OnnxInput};

use self::network::Part;
use super::entrance::Entrance;
use super::kernels::{FrozenConv, averages, pixels, scratch};
use crate::error::{Error, Result};

/// A feature map within a [`Plan`].
#[derive(Clone, Copy, Debug)]
pub struct Map {
    at: usize,
    /// Channels, height and width.
    pub dims: [usize; 3],
    /// Those of the map that it is, if all its values are taken as channels.
    whole: Option<[usize; 3]>,
}

impl Map {
    fn values(&self) -> usize {
        self.dims.iter().product()
    }

    /// Channels, height and width as the map was made.
    fn made(&self) -> [usize; 3] {
        self.whole.unwrap_or(self.dims)
    }

    /// Values with channels side by side.
    fn pixel_values(&self, images: usize) -> usize {
        let [channels, height, width] = self.made();
        pixels::len(images, channels, height * width)
    }

    /// The dimensions of the maps of some images.
    fn of(&self, images: usize) -> (usize, usize, usize, usize) {
        let [channels, height, width] = self.dims;
        (images, channels, height, width)
    }
}

/// The layers of a network in their order, from which its [`Inference`] is made.
#[derive(Debug)]
pub struct Plan {
    input: Map,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    kind: Operation,
    x: Map,
    /// Added to the result before the activation.
    add: Option<Map>,
    y: Map,
}

#[derive(Debug)]
enum Operation {
    /// A factor and a summand.
    Affine(f32, f32),
    Conv(Box<FrozenConv>),
    /// The mean of each channel.
    Average,
    /// A factor and a summand for each channel.
    ScaleShift(Vec<f32>, Vec<f32>),
    /// Faces at the size and in the range of a network.
    Enter(Box<Entrance>),
}

impl Plan {
    /// A network whose input has these channels, height and width, and its input.
    pub fn new(dims: [usize; 3]) -> (Self, Map) {
        let input = Map { at: 0, dims, whole: None };
        (Self { input, layers: Vec::new() }, input)
    }

    /// `scale * x + shift`.
    pub fn affine(&mut self, x: Map, scale: f32, shift: f32) -> Map {
        self.push(Operation::Affine(scale, shift), x, None, x.dims)
    }

    /// `scale * x + shift` with numbers for each channel.
    pub(super) fn scale_shift(&mut self, x: Map, scale: Vec<f32>, shift: Vec<f32>) -> Map {
        self.push(Operation::ScaleShift(scale, shift), x, None, x.dims)
    }

    /// Faces as `entrance` makes a network's input of them.
    pub(super) fn enter(&mut self, x: Map, entrance: Entrance) -> Map {
        let size = entrance.size();
        self.push(Operation::Enter(Box::new(entrance)), x, None, [x.dims[0], size, size])
    }

    /// The mean of each channel, `[channels, 1, 1]`.
    pub fn average(&mut self, x: Map) -> Map {
        self.push(Operation::Average, x, None, [x.dims[0], 1, 1])
    }

    /// All values of a map, channel by channel, `[values, 1, 1]`.
    pub fn flatten(&mut self, x: Map) -> Map {
        Map { dims: [x.values(), 1, 1], whole: Some(x.made()), ..x }
    }

    /// A convolution; `add` has the size of its output.
    pub(super) fn conv(&mut self, x: Map, layer: FrozenConv, add: Option<Map>) -> Result<Map> {
        let dims = layer.output(x.of(1))?;
        if let Some(add) = add.filter(|add| add.dims != dims) {
            return Err(Error::component(format!("a map {:?} cannot be added to a map {dims:?}", add.dims)));
        }
        Ok(self.push(Operation::Conv(Box::new(layer)), x, add, dims))
    }

    fn push(&mut self, kind: Operation, x: Map, add: Option<Map>, dims: [usize; 3]) -> Map {
        let y = Map { at: self.layers.len() + 1, dims, whole: None };
        self.layers.push(Layer { kind, x, add, y });
        y
    }
}

impl Layer {
    fn run(&self, part: Part, x: &[f32], add: Option<&[f32]>, y: &mut [f32]) -> Result<()> {
        if !part.pixels {
            return self.run_maps(part.images, x, add, y);
        }
        let [channels, height, width] = self.x.dims;
        let [outputs, out_height, out_width] = self.y.dims;
        match &self.kind {
            Operation::Affine(scale, shift) if self.x.whole.is_none() => {
                x.iter().zip(y).for_each(|(x, y)| *y = x * scale + shift);
            }
            Operation::Average if self.x.whole.is_none() => {
                pixels::averages(x, channels, height * width, y);
            }
            Operation::ScaleShift(scale, shift) if self.x.whole.is_none() => {
                let pitch = pixels::pitch(channels);
                for (x, y) in x.chunks_exact(pitch).zip(y.chunks_exact_mut(pitch)) {
                    let numbers = scale.iter().zip(shift).chain(std::iter::repeat((&0.0, &0.0)));
                    x.iter().zip(y).zip(numbers).for_each(|((x, y), (scale, shift))| *y = x * scale + shift);
                }
            }
            Operation::Conv(layer)
                if self.add.is_none_or(|add| add.whole.is_none()) && (self.x.whole.is_none() || layer.is_linear()) =>
            {
                let map = (self.x.made(), self.x.whole.is_some());
                layer.write_pixels((part.images, part.batch), map, x, add, y)?;
            }
            // By maps, from maps and to maps.
            _ => {
                let maps = |map: Map, from: &[f32]| {
                    let [channels, height, width] = map.made();
                    let mut maps = scratch(part.images * map.values());
                    pixels::to_maps(from, channels, height * width, &mut maps);
                    maps
                };
                let (x, add) = (maps(self.x, x), self.add.zip(add).map(|(map, add)| maps(map, add)));
                let mut made = scratch(part.images * self.y.values());
                self.run_maps(part.images, &x, add.as_deref(), &mut made)?;
                pixels::from_maps(&made, outputs, out_height * out_width, y);
            }
        }
        Ok(())
    }

    /// The layer on maps `[images, channels, height, width]`.
    fn run_maps(&self, images: usize, x: &[f32], add: Option<&[f32]>, y: &mut [f32]) -> Result<()> {
        match &self.kind {
            Operation::Affine(scale, shift) => x.iter().zip(y).for_each(|(x, y)| *y = x * scale + shift),
            Operation::Average => averages(x, self.x.dims[1] * self.x.dims[2], y),
            Operation::ScaleShift(scale, shift) => {
                let plane = self.x.dims[1] * self.x.dims[2];
                for (at, (x, y)) in x.chunks_exact(plane).zip(y.chunks_exact_mut(plane)).enumerate() {
                    let (scale, shift) = (scale[at % scale.len()], shift[at % shift.len()]);
                    x.iter().zip(y).for_each(|(x, y)| *y = x * scale + shift);
                }
            }
            Operation::Enter(entrance) => entrance.write(x, self.x.dims[1], y),
            Operation::Conv(layer) => layer.write(self.x.of(images), x, add, y)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
