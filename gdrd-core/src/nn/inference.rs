//! The inference form of a network: its layers one by one, with weights that do not change any more, and memory that is kept
//! from call to call.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

#[cfg(feature = "train")]
mod onnx;

#[cfg(feature = "train")]
pub use onnx::{OPSET, OnnxInput};

use super::entrance::Entrance;
use super::kernels::{FrozenConv, WeightPrecision, averages, each_alone, pixels, scratch, takes_pixels, threads};
use crate::error::{Error, Result};
use crate::face::Face;

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

    /// The network that ends in `output`.
    pub fn finish(self, output: Map) -> Inference {
        let stretches = stretches(&self.layers);
        let read_by = |layer: &Layer, map: Map| [Some(layer.x), layer.add].iter().flatten().any(|x| x.at == map.at);
        let last = |map: Map| self.layers.iter().rposition(|layer| read_by(layer, map)).unwrap_or(0);
        let mut places = vec![Places::default(); self.layers.len() + 1];
        let (mut shared, mut own) = (Rooms::default(), Rooms::default());
        places[0].shared = Some(shared.take(&self.input));
        for stretch in &stretches {
            own.free_all();
            for at in stretch.layers.clone() {
                let layer = &self.layers[at];
                let outlives = layer.y.at == output.at || last(layer.y) >= stretch.layers.end;
                let y = &mut places[layer.y.at];
                y.own = stretch.by_image.then(|| own.take(&layer.y));
                y.shared = (outlives || !stretch.by_image).then(|| shared.take(&layer.y));
                // Maps that nothing needs any more give their place to later ones.
                let add = layer.add.filter(|add| add.at != layer.x.at);
                for map in [Some(layer.x), add].into_iter().flatten() {
                    let next = self.layers[at + 1..stretch.layers.end].iter().any(|layer| read_by(layer, map));
                    if let (false, Some(place)) = (next, places[map.at].own) {
                        own.free(place);
                    }
                    if !stretch.by_image && last(map) == at && map.at != output.at {
                        places[map.at].shared.into_iter().for_each(|place| shared.free(place));
                    }
                }
            }
            // Of maps that threads share, when all have passed the stretch.
            let over = |at: &usize| {
                let map = if *at == 0 { self.input } else { self.layers[*at - 1].y };
                stretch.by_image && map.at != output.at && stretch.layers.contains(&last(map))
            };
            (0..stretch.layers.end)
                .filter(over)
                .filter_map(|at| places[at].shared)
                .for_each(|place| shared.free(place));
        }
        let (shared, own) = (shared.sizes, own.sizes);
        let kept = Kept { ends: Mutex::default(), own: Mutex::default() };
        Inference { input: self.input, layers: self.layers, output, stretches, places, shared, own, kept }
    }
}

/// Layers in a row.
#[derive(Debug)]
struct Stretch {
    layers: Range<usize>,
    /// Whether a thread takes some images through all of them, instead of all threads all images through one after the other.
    by_image: bool,
}

/// Values of a layer's weight from which on all threads share the layer, since each would have to read the weight otherwise.
const SHARED: usize = 1 << 17;

/// Bytes of maps that a thread keeps in its cache while it takes images through a stretch.
const CACHED: usize = 512 << 10;

fn stretches(layers: &[Layer]) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let by_image = !matches!(&layer.kind, Operation::Conv(layer) if layer.weight_len() >= SHARED);
        match stretches.last_mut() {
            Some(last) if last.by_image == by_image => last.layers.end = at + 1,
            _ => stretches.push(Stretch { layers: at..at + 1, by_image }),
        }
    }
    stretches
}

/// Values that a map of one image takes, whichever way it lies.
fn room(map: &Map) -> usize {
    map.pixel_values(1).max(map.values())
}

/// The rooms in which a map's values lie.
#[derive(Clone, Copy, Debug, Default)]
struct Places {
    /// For all images.
    shared: Option<usize>,
    /// Of a thread, for the images that it takes through a stretch.
    own: Option<usize>,
}

/// Rooms while they are given to maps: for each the values of an image that it holds.
#[derive(Default)]
struct Rooms {
    sizes: Vec<usize>,
    free: Vec<usize>,
}

impl Rooms {
    fn take(&mut self, map: &Map) -> usize {
        let place = self.free.pop().unwrap_or_else(|| {
            self.sizes.push(0);
            self.sizes.len() - 1
        });
        self.sizes[place] = room(map).max(self.sizes[place]);
        place
    }

    fn free(&mut self, place: usize) {
        self.free.push(place);
    }

    fn free_all(&mut self) {
        self.free = (0..self.sizes.len()).collect();
    }
}

/// A network in its inference form. The first call with some number of images packs the kernels and takes memory; later ones with
/// as many allocate nothing. Where threads share the work, that holds once each has had its largest task.
#[derive(Debug)]
pub struct Inference {
    input: Map,
    layers: Vec<Layer>,
    output: Map,
    stretches: Vec<Stretch>,
    /// Those of each map.
    places: Vec<Places>,
    /// For each room the values of an image that it holds.
    shared: Vec<usize>,
    own: Vec<usize>,
    kept: Kept,
}

/// The memory of earlier calls; calls at the same time have theirs.
#[derive(Debug)]
struct Kept {
    ends: Mutex<Vec<Shared>>,
    own: Mutex<Vec<Vec<Vec<f32>>>>,
}

/// What all threads of a call share.
#[derive(Debug, Default)]
struct Shared {
    input: Vec<f32>,
    rooms: Vec<RwLock<Vec<f32>>>,
    output: Vec<f32>,
}

/// Makes room for `len` values.
fn extend(values: &mut Vec<f32>, len: usize) {
    if values.len() < len {
        values.resize(len, 0.0);
    }
}

fn lock<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reading(room: &RwLock<Vec<f32>>) -> RwLockReadGuard<'_, Vec<f32>> {
    room.read().unwrap_or_else(PoisonError::into_inner)
}

fn writing(room: &RwLock<Vec<f32>>) -> RwLockWriteGuard<'_, Vec<f32>> {
    room.write().unwrap_or_else(PoisonError::into_inner)
}

/// Some of the images of a call.
#[derive(Clone, Copy)]
struct Part {
    first: usize,
    images: usize,
    /// Those of the call, which decide on the methods.
    batch: usize,
    /// Whether channels lie side by side.
    pixels: bool,
}

impl Part {
    fn values(&self, map: Map) -> usize {
        if self.pixels { map.pixel_values(self.images) } else { self.images * map.values() }
    }

    /// Where its images lie among all.
    fn range(&self, map: Map) -> Range<usize> {
        let image = Self { images: 1, ..*self }.values(map);
        self.first * image..(self.first + self.images) * image
    }
}

impl Inference {
    /// Holds the weights once, and in this precision, in the form that a few images need; what more of them need is made when it is
    /// used for the first time.
    ///
    /// # Errors
    /// If a layer's sizes do not fit.
    pub fn hold(&mut self, precision: WeightPrecision) -> Result<()> {
        for layer in &mut self.layers {
            if let Operation::Conv(conv) = &mut layer.kind {
                conv.hold(layer.x.made(), layer.x.whole.is_some(), precision)?;
            }
        }
        Ok(())
    }

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
        let mut ends = lock(&self.kept.ends).pop().unwrap_or_default();
        let all = Part { first: 0, images, batch: images, pixels: takes_pixels() };
        ends.rooms.resize_with(self.shared.len(), RwLock::default);
        for (room, size) in ends.rooms.iter_mut().zip(&self.shared) {
            extend(room.get_mut().unwrap_or_else(PoisonError::into_inner), images * size);
        }
        extend(&mut ends.input, images * self.input.values());
        extend(&mut ends.output, images * self.output.values());
        let input = &mut ends.input[..images * self.input.values()];
        fill(input)?;
        if let Some(place) = self.places[0].shared {
            let (channels, plane) = (self.input.dims[0], self.input.dims[1] * self.input.dims[2]);
            let to = &mut writing(&ends.rooms[place])[all.range(self.input)];
            if all.pixels { pixels::from_maps(input, channels, plane, to) } else { to.copy_from_slice(input) }
        }
        self.stretches.iter().try_for_each(|stretch| self.all(stretch, all, &ends.rooms))?;
        let output = &mut ends.output[..images * self.output.values()];
        if let Some(place) = self.places[self.output.at].shared {
            let ([channels, height, width], from) =
                (self.output.made(), &reading(&ends.rooms[place])[all.range(self.output)]);
            if all.pixels {
                pixels::to_maps(from, channels, height * width, output)
            } else {
                output.copy_from_slice(from)
            }
        }
        let result = read(output);
        lock(&self.kept.ends).push(ends);
        Ok(result)
    }

    /// The outputs for faces of the size that the network takes, one after the other.
    ///
    /// # Errors
    /// If a face has another size.
    pub fn embed(&self, faces: &[Face]) -> Result<Vec<f32>> {
        let [_, size, _] = self.input.dims;
        let fill = |input: &mut [f32]| {
            let places = input.chunks_exact_mut(3 * size * size);
            faces.iter().zip(places).try_for_each(|(face, to)| face.write(size, to))
        };
        self.run(faces.len(), fill, <[f32]>::to_vec)
    }

    /// Takes all images through a stretch.
    fn all(&self, stretch: &Stretch, all: Part, rooms: &[RwLock<Vec<f32>>]) -> Result<()> {
        let threads = threads();
        // With fewer images than threads, these share each layer.
        if !(stretch.by_image && all.pixels && all.images >= threads) {
            return self.pass(stretch, all, rooms);
        }
        let image = 4 * self.own.iter().sum::<usize>().max(1);
        let size = (CACHED / image).clamp(1, all.images.div_ceil(threads));
        let failed = Mutex::new(None);
        each_alone(all.images.div_ceil(size), |at| {
            let part = Part { first: at * size, images: size.min(all.images - at * size), ..all };
            if let Err(error) = self.pass(stretch, part, rooms) {
                lock(&failed).get_or_insert(error);
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// The values of a map for some images, in a room that all share or in one of their own.
    fn values<'a>(&self, part: Part, map: Map, shared: Option<&'a Vec<f32>>, own: &'a [Vec<f32>]) -> &'a [f32] {
        match (shared, self.places[map.at].own) {
            (Some(room), _) => &room[part.range(map)],
            (None, Some(place)) => &own[place][..part.values(map)],
            (None, None) => &[],
        }
    }

    /// Takes some images through a stretch.
    fn pass(&self, stretch: &Stretch, part: Part, rooms: &[RwLock<Vec<f32>>]) -> Result<()> {
        let mut own = lock(&self.kept.own).pop().unwrap_or_default();
        own.resize_with(self.own.len(), Vec::new);
        own.iter_mut().zip(&self.own).for_each(|(room, size)| extend(room, part.images * size));
        for layer in &self.layers[stretch.layers.clone()] {
            let places = self.places[layer.y.at];
            // No layer reads the room that it writes.
            let mut here = places.own.map(|place| (place, std::mem::take(&mut own[place])));
            let mut there = if here.is_some() { None } else { places.shared.map(|place| writing(&rooms[place])) };
            let y = match (&mut here, &mut there) {
                (Some((_, room)), _) => &mut room[..part.values(layer.y)],
                (None, Some(room)) => &mut room[part.range(layer.y)],
                (None, None) => return Err(Error::component("a map has no room")),
            };
            let made_here = |map: Map| map.at > stretch.layers.start;
            let guard = |map: Map| match self.places[map.at] {
                Places { own: Some(_), .. } if made_here(map) => None,
                Places { shared, .. } => shared.map(|place| reading(&rooms[place])),
            };
            let (x, add) = (guard(layer.x), layer.add.and_then(guard));
            let from = self.values(part, layer.x, x.as_deref(), &own);
            let add_from = layer.add.map(|map| self.values(part, map, add.as_deref(), &own));
            layer.run(part, from, add_from, y)?;
            drop((x, add, there));
            if let Some((place, room)) = here {
                if let Some(place) = places.shared {
                    writing(&rooms[place])[part.range(layer.y)].copy_from_slice(&room[..part.values(layer.y)]);
                }
                own[place] = room;
            }
        }
        lock(&self.kept.own).push(own);
        Ok(())
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
                let largest = expected.iter().fold(1.0f32, |largest, value| largest.max(value.abs()));
                assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-5 * largest));
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
