//! A network that runs: its layers, and the rooms that their maps lie in.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::super::kernels::{WeightPrecision, each_alone, pixels, takes_pixels, threads};
use super::rooms::{CACHED, Places, Stretch, arranged};
use super::{Layer, Map, Operation, Plan};
use crate::error::{Error, Result};
use crate::face::Face;

impl Plan {
    /// The network that ends in `output`.
    pub fn finish(self, output: Map) -> Inference {
        let (stretches, places, [shared, own]) = arranged(self.input, &self.layers, output);
        let kept = Kept { ends: Mutex::default(), own: Mutex::default() };
        Inference { input: self.input, layers: self.layers, output, stretches, places, shared, own, kept }
    }
}

/// A network in its inference form. The first call with some number of images packs the kernels and takes memory; later ones with
/// as many allocate nothing. Where threads share the work, that holds once each has had its largest task.
#[derive(Debug)]
pub struct Inference {
    pub(super) input: Map,
    pub(super) layers: Vec<Layer>,
    pub(super) output: Map,
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
pub(super) struct Part {
    first: usize,
    pub(super) images: usize,
    /// Those of the call, which decide on the methods.
    pub(super) batch: usize,
    /// Whether channels lie side by side.
    pub(super) pixels: bool,
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
