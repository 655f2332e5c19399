//! Images in files of their own, each with what a list or its name says of it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::Attribute;
use super::decode::read_bytes;
use super::encoded::{Encoded, Region};
use crate::error::Result;

/// An image in a file of its own, and where in it the face is.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageFile {
    /// The file.
    pub path: PathBuf,
    /// Left, top, width and height of the face's box, in pixels of the image; none if the face is the whole image.
    pub region: Option<[f64; 4]>,
}

/// One face.
pub(super) struct Row {
    pub(super) path: PathBuf,
    pub(super) person: Option<usize>,
    pub(super) key: String,
    pub(super) attributes: Vec<Attribute>,
    /// The part of the image that is the face.
    pub(super) region: Option<Region>,
    /// The line of the list that names it.
    pub(super) line: Option<u64>,
}

impl Row {
    /// Where the face is: file and line.
    pub(super) fn place(&self) -> String {
        let line = self.line.map(|line| format!(" (line {line} of the list)")).unwrap_or_default();
        format!("`{}`{line}", self.path.display())
    }
}

/// Image files of which nothing else is known.
pub(super) struct Files<'a>(pub(super) &'a [PathBuf]);

impl Encoded for Files<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn person(&self, _: usize) -> Option<usize> {
        None
    }

    fn key(&self, index: usize) -> String {
        self.place(index)
    }

    fn container(&self, index: usize) -> &Path {
        &self.0[index]
    }

    fn place(&self, index: usize) -> String {
        format!("`{}`", self.0[index].display())
    }

    fn image(&self, index: usize) -> Result<Cow<'_, [u8]>> {
        read_bytes(&self.0[index]).map(Cow::Owned)
    }
}

/// Faces in files that somebody has looked at.
pub(super) struct Rows(Vec<Row>);

impl Rows {
    /// The rows, and the people of whom there is one, numbered anew.
    pub(super) fn new(mut rows: Vec<Row>, people: &[String]) -> (Self, Vec<String>) {
        let left = renumbered(people, rows.iter_mut().filter_map(|row| row.person.as_mut()));
        (Self(rows), left)
    }
}

/// Leaves out people of whom there is nothing left, and numbers the others anew.
pub(super) fn renumbered<'a>(people: &[String], numbers: impl Iterator<Item = &'a mut usize>) -> Vec<String> {
    let mut new = vec![None; people.len()];
    let mut left = Vec::new();
    for person in numbers {
        let number = *new[*person].get_or_insert_with(|| {
            left.push(people[*person].clone());
            left.len() - 1
        });
        *person = number;
    }
    left
}

impl Encoded for Rows {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn person(&self, index: usize) -> Option<usize> {
        self.0[index].person
    }

    fn key(&self, index: usize) -> String {
        self.0[index].key.clone()
    }

    fn container(&self, index: usize) -> &Path {
        &self.0[index].path
    }

    fn place(&self, index: usize) -> String {
        self.0[index].place()
    }

    fn attributes(&self, index: usize) -> Vec<Attribute> {
        self.0[index].attributes.clone()
    }

    fn image(&self, index: usize) -> Result<Cow<'_, [u8]>> {
        read_bytes(&self.0[index].path).map(Cow::Owned)
    }

    fn region(&self, index: usize) -> Option<Region> {
        self.0[index].region
    }

    fn file(&self, index: usize) -> Option<ImageFile> {
        let Row { path, region, .. } = &self.0[index];
        let region = region.map(|region| [region.left, region.top, region.width, region.height]);
        Some(ImageFile { path: path.clone(), region })
    }
}
