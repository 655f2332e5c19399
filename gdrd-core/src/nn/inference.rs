//! The inference form of a network: its layers one by one, with weights that do not change any more, and memory that is kept
//! from call to call.

use std::sync::{Mutex, PoisonError};

#[cfg(feature = "train")]
mod onnx;

#[cfg(feature = "train")]
pub use onnx::{OPSET, OnnxInput};

use super::entrance::Entrance;
use super::kernels::{FrozenConv, averages};
use crate::error::{Error, Result};

/// A feature map within a [`Plan`].
#[derive(Clone, Copy, Debug)]
pub struct Map {
    at: usize,
    /// Channels, height and width.
    pub dims: [usize; 3],
}

impl Map {
    fn values(&self) -> usize {
        self.dims.iter().product()
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
        let input = Map { at: 0, dims };
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
        Map { dims: [x.values(), 1, 1], ..x }
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
        let y = Map { at: self.layers.len() + 1, dims };
        self.layers.push(Layer { kind, x, add, y });
        y
    }

    /// The network that ends in `output`.
    pub fn finish(self, output: Map) -> Inference {
        let mut last = vec![0; self.layers.len() + 1];
        for (at, layer) in self.layers.iter().enumerate() {
            [Some(layer.x), layer.add].into_iter().flatten().for_each(|map| last[map.at] = at);
        }
        last[output.at] = usize::MAX;
        // Maps that nothing needs any more give their place to later ones.
        let (mut places, mut free) = (vec![0; last.len()], Vec::new());
        let mut rooms = vec![self.input.values()];
        for (at, layer) in self.layers.iter().enumerate() {
            places[layer.y.at] = free.pop().unwrap_or_else(|| {
                rooms.push(0);
                rooms.len() - 1
            });
            let room = &mut rooms[places[layer.y.at]];
            *room = layer.y.values().max(*room);
            let add = layer.add.filter(|add| add.at != layer.x.at);
            let over = [Some(layer.x), add].into_iter().flatten().filter(|map| last[map.at] == at);
            free.extend(over.map(|map| places[map.at]));
        }
        Inference { input: self.input, layers: self.layers, output, places, rooms, spare: Mutex::default() }
    }
}

/// A network in its inference form. The first call with some number of images packs the kernels and takes memory; later ones with
/// as many allocate nothing. Where threads share the work, that holds once each has had its largest task.
#[derive(Debug)]
pub struct Inference {
    input: Map,
    layers: Vec<Layer>,
    output: Map,
    /// For each map the number of its place, and for each place the values of an image that it holds.
    places: Vec<usize>,
    rooms: Vec<usize>,
    /// The places of earlier calls; calls at the same time have places of their own.
    spare: Mutex<Vec<Vec<Vec<f32>>>>,
}

impl Inference {
    /// Runs the network on `images` images: `fill` writes the input `[images, channels, height, width]`, and `read` has the
    /// output, likewise.
    ///
    /// # Errors
    /// Those of `fill`.
    pub fn run<T>(
        &self,
        images: usize,
        fill: impl FnOnce(&mut [f32]) -> Result<()>,
        read: impl FnOnce(&[f32]) -> T,
    ) -> Result<T> {
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut maps = spare().pop().unwrap_or_else(|| vec![Vec::new(); self.rooms.len()]);
        for (map, room) in maps.iter_mut().zip(&self.rooms) {
            if map.len() < images * room {
                map.resize(images * room, 0.0);
            }
        }
        fill(&mut maps[self.places[0]][..images * self.input.values()])?;
        for layer in &self.layers {
            // No layer reads the place that it writes.
            let place = self.places[layer.y.at];
            let mut y = std::mem::take(&mut maps[place]);
            layer.run(images, |map| &maps[self.places[map.at]][..images * map.values()], &mut y)?;
            maps[place] = y;
        }
        let result = read(&maps[self.places[self.output.at]][..images * self.output.values()]);
        spare().push(maps);
        Ok(result)
    }
}

impl Layer {
    fn run<'a>(&self, images: usize, map: impl Fn(Map) -> &'a [f32], y: &mut [f32]) -> Result<()> {
        let (x, y) = (map(self.x), &mut y[..images * self.y.values()]);
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
            Operation::Conv(layer) => layer.write(self.x.of(images), x, self.add.map(map), y)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::super::kernels::{EpilogueActivation, testing};
    use super::*;

    /// A block with a shortcut, whose places are used again, against the same layers with tensors; some images at a time, and
    /// fewer after more.
    #[test]
    fn it_gives_what_its_layers_give() {
        testing::on_each_level(it_gives_what_layers_give);
    }

    fn it_gives_what_layers_give() {
        let weight =
            |dims: (usize, usize, usize, usize)| Tensor::randn(0f32, 0.5, dims, &Device::Cpu).expect("a weight");
        let weights = [(8, 3, 3, 3), (12, 8, 3, 3), (12, 8, 1, 1), (12, 12, 3, 3), (5, 192, 1, 1)].map(weight);
        let layer = |at: usize, stride| {
            let padding = weights[at].dims()[2] / 2;
            FrozenConv::new(&weights[at], (stride, padding, 1), None, EpilogueActivation::Relu).expect("a layer")
        };
        let plan = |average| -> Result<Inference> {
            let (mut plan, input) = Plan::new([3, 8, 8]);
            let a = plan.affine(input, 2.0, -1.0);
            let a = plan.conv(a, layer(0, 1), None)?;
            let b = plan.conv(a, layer(2, 2), None)?;
            let c = plan.conv(a, layer(1, 2), None)?;
            let c = plan.conv(c, layer(3, 1), Some(b))?;
            let flat = plan.flatten(c);
            let output = if average { plan.average(c) } else { plan.conv(flat, layer(4, 1), None)? };
            Ok(plan.finish(output))
        };
        let (convolved, averaged) = (plan(false).expect("a network"), plan(true).expect("a network"));
        for images in [3, 1, 5] {
            let x = Tensor::rand(0f32, 1.0, (images, 3, 8, 8), &Device::Cpu).expect("images");
            let expected = || -> candle_core::Result<[Tensor; 2]> {
                let a = layer(0, 1).forward(&x.affine(2.0, -1.0)?, None)?;
                let b = layer(2, 2).forward(&a, None)?;
                let c = layer(3, 1).forward(&layer(1, 2).forward(&a, None)?, Some(&b))?;
                Ok([layer(4, 1).forward(&c.reshape((images, 192, 1, 1))?, None)?, c.mean((2, 3))?])
            };
            let flat = |t: &Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("values");
            for (network, expected) in [&convolved, &averaged].into_iter().zip(expected().expect("maps")) {
                let fill = |input: &mut [f32]| {
                    input.copy_from_slice(&flat(&x));
                    Ok(())
                };
                let found = network.run(images, fill, <[f32]>::to_vec).expect("an output");
                let expected = flat(&expected);
                assert_eq!(found.len(), expected.len());
                assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0)));
            }
        }
    }

    /// Layers of every method, with few images and with many.
    #[test]
    fn later_calls_allocate_nothing() {
        testing::on_each_level(|| testing::with_threads(1, later_calls_do_not_allocate));
    }

    fn later_calls_do_not_allocate() {
        let (mut plan, input) = Plan::new([3, 16, 16]);
        let mut x = plan.affine(input, 2.0, -1.0);
        for (outputs, inputs, side, stride, groups) in [
            (96, 3, 3, 1, 1),
            (96, 96, 3, 1, 1),
            (96, 1, 3, 1, 96),
            (48, 96, 1, 2, 1),
            (24, 48, 3, 1, 1),
            (24, 24, 3, 1, 1),
            (16, 12, 3, 2, 2),
        ] {
            let weight = Tensor::randn(0f32, 0.1, (outputs, inputs, side, side), &Device::Cpu).expect("a weight");
            let layer = FrozenConv::new(&weight, (stride, side / 2, groups), None, EpilogueActivation::Relu);
            x = plan.conv(x, layer.expect("a layer"), None).expect("fits");
        }
        let network = {
            let mean = plan.average(x);
            plan.finish(mean)
        };
        let run = |images| {
            let fill = |input: &mut [f32]| {
                input.fill(0.5);
                Ok(())
            };
            assert!(network.run(images, fill, |means| means[0].is_finite()).expect("a run"));
        };
        for images in [20, 1, 3] {
            // Methods that only this number of images takes have their first call too.
            run(images);
            assert_eq!(testing::allocations(|| run(images)), 0, "{images} images");
        }
    }

    #[test]
    fn maps_that_do_not_fit_are_refused() {
        let weight = Tensor::zeros((4, 3, 3, 3), candle_core::DType::F32, &Device::Cpu).expect("a weight");
        let layer = || FrozenConv::new(&weight, (1, 1, 1), None, EpilogueActivation::Identity).expect("a layer");
        let (mut plan, x) = Plan::new([3, 8, 8]);
        assert!(plan.conv(x, layer(), Some(x)).is_err());
        let y = plan.conv(x, layer(), None).expect("fits");
        assert!(plan.conv(y, layer(), None).is_err());
    }
}
