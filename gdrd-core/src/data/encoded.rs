//! Datasets of encoded images, wherever their bytes lie: what readers of formats share.

use std::borrow::Cow;
use std::path::Path;

use super::decode::{Decoding, decode, squared};
use super::photographs::Photographs;
use super::survey::Seen;
use super::unreadable::{Broken, Unreadable};
use super::{Attribute, Compared, Dataset, ImageFile};
use crate::context::BuildContext;
use crate::error::{Error, Result};
use crate::face::Face;

/// Where the bytes of images are, and what is known of them.
pub(super) trait Encoded: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;
    /// The number of the person; none if nobody knows.
    fn person(&self, index: usize) -> Option<usize>;
    /// What lists call the image.
    fn key(&self, index: usize) -> String;
    /// The file that the image is in, or is.
    fn container(&self, index: usize) -> &Path;
    /// What decides which bytes an image is, beside its container and its place.
    fn about(&self) -> &str {
        ""
    }
    /// Where the image is: file, record, byte.
    fn place(&self, index: usize) -> String;
    /// What else is known.
    fn attributes(&self, _: usize) -> Vec<Attribute> {
        Vec::new()
    }
    /// The bytes of the image.
    ///
    /// # Errors
    /// If they cannot be read.
    fn image(&self, index: usize) -> Result<Cow<'_, [u8]>>;
    /// The part of the image that is the face, if it is a part.
    fn region(&self, _: usize) -> Option<Region> {
        None
    }
    /// The image's file, if it has one of its own.
    fn file(&self, _: usize) -> Option<ImageFile> {
        None
    }
}

/// A box in an image, in pixels from its upper left corner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Region {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Region {
    /// Left, top and side of the square around the box's middle whose side is the longer side and `margin` of it on each side more.
    ///
    /// # Errors
    /// If nothing of it lies in an image of `width` x `height` pixels, or it is much larger than the image.
    pub(super) fn square(&self, (width, height): (usize, usize), margin: f64) -> Result<(i64, i64, usize)> {
        let side = (self.width.max(self.height) * (1.0 + 2.0 * margin)).round().max(1.0);
        let corner = |start: f64, length: f64| (start + length / 2.0 - side / 2.0).round() as i64;
        let (left, top, side) = (corner(self.left, self.width), corner(self.top, self.height), side as usize);
        let ((x0, x1), (y0, y1)) = (inside(left, side, width), inside(top, side, height));
        if x0 == x1 || y0 == y1 || side > 4 * width.max(height) {
            return Err(Error::data(format!(
                "the box at ({}, {}) of {}x{} pixels does not lie in the image of {width}x{height}",
                self.left, self.top, self.width, self.height
            )));
        }
        Ok((left, top, side))
    }

    /// That square of the image. What lies outside of the image is black.
    pub(super) fn cut(&self, image: &Face, margin: f64) -> Result<Face> {
        let (left, top, side) = self.square((image.width(), image.height()), margin)?;
        let ((x0, x1), (y0, y1)) = (inside(left, side, image.width()), inside(top, side, image.height()));
        let width = image.width() as i64;
        let mut pixels = vec![0; 3 * side * side];
        for y in y0..y1 {
            let from = &image.pixels()[3 * (y * width + x0) as usize..3 * (y * width + x1) as usize];
            let to = 3 * ((y - top) as usize * side + (x0 - left) as usize);
            pixels[to..to + from.len()].copy_from_slice(from);
        }
        Face::new(side, side, pixels)
    }
}

/// Where a part from `start` on of `side` pixels begins and ends in a row or column of `length`.
fn inside(start: i64, side: usize, length: usize) -> (i64, i64) {
    let length = length as i64;
    (start.clamp(0, length), (start + side as i64).clamp(0, length))
}

/// How images become faces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Height and width at most, in pixels.
    pub(super) size: Option<usize>,
    pub(super) how: Decoding,
    pub(super) low_resolution: bool,
    /// Share of a box's side that is added on each side.
    pub(super) margin: f64,
}

impl Look {
    pub(super) fn new(size: Option<usize>, exif_orientation: bool, low_resolution: bool) -> Self {
        Self { size, how: Decoding { exif_orientation }, low_resolution, margin: 0.0 }
    }
}

/// A dataset of encoded images.
pub(super) struct Opened<E> {
    images: E,
    /// The images that are faces of the dataset, where some are left out.
    kept: Option<Vec<usize>>,
    people: Vec<String>,
    /// The number of each person of `images` in `people`, where some are left out.
    numbers: Option<Vec<Option<usize>>>,
    pairs: Vec<Compared>,
    look: Look,
    notes: Vec<String>,
    /// Images that cannot be read: where, and why.
    left_out: Vec<String>,
    /// Those of which faces are parts.
    photographs: Photographs,
}

impl<E: Encoded> Opened<E> {
    /// The images that can be read, by the choice of the recipe.
    ///
    /// # Errors
    /// If some cannot be read and may not be skipped, or none is there.
    pub(super) fn checked(
        cx: &BuildContext,
        images: E,
        people: Vec<String>,
        look: Look,
        unreadable: Unreadable,
    ) -> Result<Self> {
        let (mut kept, mut broken) = (Vec::with_capacity(images.len()), Broken::default());
        cx.survey(&images, look.how, |index, seen| match seen {
            Seen::Size(..) => kept.push(index),
            Seen::Broken(why) => broken.add(format!("{}: {why}", images.place(index))),
        })?;
        let broken = broken.judged(kept.len(), unreadable)?;
        Ok(Self::of(images, people, look).without(kept, broken))
    }

    /// All images, which somebody has looked at.
    pub(super) fn of(images: E, people: Vec<String>, look: Look) -> Self {
        let (pairs, notes, left_out) = (Vec::new(), Vec::new(), Vec::new());
        let photographs = Photographs::default();
        Self { images, kept: None, people, numbers: None, pairs, look, notes, left_out, photographs }
    }

    /// The same with pairs that are to be compared.
    pub(super) fn with_pairs(mut self, pairs: Vec<Compared>) -> Self {
        let places: std::collections::BTreeMap<usize, usize> =
            self.kept.iter().flatten().enumerate().map(|(now, then)| (*then, now)).collect();
        let place = |index: usize| if self.kept.is_some() { places.get(&index).copied() } else { Some(index) };
        let here = |pair: Compared| Some(Compared { left: place(pair.left)?, right: place(pair.right)?, ..pair });
        let count = pairs.len();
        self.pairs = pairs.into_iter().filter_map(here).collect();
        if self.pairs.len() < count {
            self.notes.push(format!("left out, pairs of images that are left out: {}", count - self.pairs.len()));
        }
        self
    }

    /// The same with something to say.
    pub(super) fn noted(mut self, notes: impl IntoIterator<Item = String>) -> Self {
        self.notes.extend(notes);
        self
    }

    /// The same, saying which images cannot be read and are not among these.
    pub(super) fn lacking(mut self, broken: Broken) -> Self {
        if !broken.is_empty() {
            self.notes.push(broken.note());
            self.left_out = broken.into_why();
        }
        self
    }

    /// The same without the images that are not kept, which are broken.
    pub(super) fn without(mut self, kept: Vec<usize>, broken: Broken) -> Self {
        if broken.is_empty() {
            return self;
        }
        self = self.lacking(broken);
        let mut numbers = vec![None; self.people.len()];
        let mut people = Vec::new();
        for person in kept.iter().filter_map(|index| self.images.person(*index)) {
            numbers[person].get_or_insert_with(|| {
                people.push(self.people[person].clone());
                people.len() - 1
            });
        }
        self.people = people;
        self.numbers = Some(numbers);
        self.kept = Some(kept);
        self
    }

    fn place_of(&self, index: usize) -> usize {
        self.kept.as_ref().map_or(index, |kept| kept[index])
    }
}

impl<E: Encoded> Dataset for Opened<E> {
    fn len(&self) -> usize {
        self.kept.as_ref().map_or_else(|| self.images.len(), Vec::len)
    }

    fn people(&self) -> &[String] {
        &self.people
    }

    fn person(&self, index: usize) -> Option<usize> {
        let person = self.images.person(self.place_of(index))?;
        self.numbers.as_ref().map_or(Some(person), |numbers| numbers[person])
    }

    fn key(&self, index: usize) -> String {
        self.images.key(self.place_of(index))
    }

    fn place(&self, index: usize) -> String {
        self.images.place(self.place_of(index))
    }

    fn attributes(&self, index: usize) -> Vec<Attribute> {
        self.images.attributes(self.place_of(index))
    }

    fn is_low_resolution(&self) -> bool {
        self.look.low_resolution
    }

    fn size(&self, _: usize) -> Option<usize> {
        self.look.size
    }

    fn face(&self, index: usize) -> Result<Face> {
        let at = self.place_of(index);
        let whole = || decode(&self.images.image(at)?, self.look.how);
        let Some(region) = self.images.region(at) else { return squared(whole()?, self.look.size) };
        // Several faces of one photograph mostly follow each other.
        let face = match self.images.file(at) {
            Some(file) => region.cut(&*self.photographs.get(&file.path, whole)?, self.look.margin),
            None => region.cut(&whole()?, self.look.margin),
        };
        squared(face?, self.look.size)
    }

    fn image(&self, index: usize) -> Option<Result<Cow<'_, [u8]>>> {
        let at = self.place_of(index);
        // A box, or a turn that is not made, is lost in the image's own bytes.
        (self.images.region(at).is_none() && self.look.how == Decoding::default()).then(|| self.images.image(at))
    }

    fn file(&self, index: usize) -> Option<ImageFile> {
        self.images.file(self.place_of(index))
    }

    fn pairs(&self) -> &[Compared] {
        &self.pairs
    }

    fn left_out(&self) -> &[String] {
        &self.left_out
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// People by name, numbered as they come.
#[derive(Default)]
pub(super) struct Names {
    numbers: std::collections::BTreeMap<String, usize>,
    pub(super) people: Vec<String>,
}

impl Names {
    /// The number of the person of this name, which may be new.
    pub(super) fn number(&mut self, name: &str) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        self.numbers.insert(name.to_string(), self.people.len());
        self.people.push(name.to_string());
        self.people.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_cut_square_and_black_outside() {
        let pixels: Vec<u8> = (0..12).flat_map(|at| [at + 1, 0, 0]).collect();
        let image = Face::new(4, 3, pixels).expect("an image");
        let cut = |left, top, width, height, margin| Region { left, top, width, height }.cut(&image, margin);
        let red = |face: &Face| face.pixels().iter().step_by(3).copied().collect::<Vec<u8>>();
        assert_eq!(red(&cut(1.0, 1.0, 2.0, 2.0, 0.0).expect("inside")), [6, 7, 10, 11]);
        assert_eq!(red(&cut(-1.0, -1.0, 2.0, 2.0, 0.0).expect("a corner")), [0, 0, 0, 1]);
        assert_eq!(red(&cut(2.0, 1.0, 1.0, 1.0, 0.5).expect("wider")), [7, 8, 11, 12]);
        let error = cut(9.0, 0.0, 2.0, 2.0, 0.0).expect_err("outside").to_string();
        assert!(error.contains("the box at (9, 0) of 2x2 pixels does not lie in the image of 4x3"), "{error}");
        assert!(cut(0.0, 0.0, 1e9, 1.0, 0.0).is_err(), "a box that would fill the memory");
    }
}
