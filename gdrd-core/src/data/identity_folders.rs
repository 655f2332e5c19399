//! One folder for each identity, as LFW, CelebA and CASIA are laid out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::decode::{Decoding, check_whole, read_bytes, read_square};
use super::formats::{READ, is_image_name};
use super::{Dataset, DatasetConfig};
use crate::error::{Context, Error, Problem, Result};
use crate::face::Face;
use crate::recipe::RecipePath;
use crate::registry::Kind;

/// `folder/<person>/<image>.jpg`: aligned faces, as JPEG, PNG, BMP, WebP or GIF. Several folders are joined; people of the same
/// name in two of them are two identities. Names with a dot in front are passed over.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityFolders {
    /// Folders that hold one folder for each person.
    pub folders: Vec<RecipePath>,
    /// Height and width that faces are brought to, in pixels.
    #[serde(default = "default_size")]
    pub size: usize,
    /// Whether images are turned as their EXIF orientation says.
    #[serde(default = "default_exif_orientation")]
    pub exif_orientation: bool,
    /// Fewest images that a person must have; someone with fewer is an error.
    #[serde(default = "default_min_images")]
    pub min_images: usize,
}

fn default_size() -> usize {
    112
}

pub(super) fn default_exif_orientation() -> bool {
    Decoding::default().exif_orientation
}

fn default_min_images() -> usize {
    1
}

impl Kind for IdentityFolders {
    const NAME: &'static str = "identity-folders";
    const PURPOSE: &'static str = "aligned faces in one folder for each person";
}

impl DatasetConfig for IdentityFolders {
    fn check(&self) -> Vec<Problem> {
        [
            Problem::unless(!self.folders.is_empty(), "folders", || "expected at least one folder".into()),
            Problem::within("size", self.size, 4..=4096),
            Problem::within("min_images", self.min_images, 0..=1_000_000_000),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn build(&self) -> Result<Box<dyn Dataset>> {
        let mut files = Vec::new();
        let mut people = Vec::new();
        let mut too_few = Vec::new();
        let mut passed_over = PassedOver::default();
        for root in &self.folders {
            let root: &Path = root;
            let before = files.len();
            for folder in visible(root)? {
                if !folder.is_dir() {
                    passed_over.add(&folder);
                    continue;
                }
                let (images, others): (Vec<_>, Vec<_>) =
                    visible(&folder)?.into_iter().partition(|path| !path.is_dir() && is_image_name(path));
                others.iter().for_each(|path| passed_over.add(path));
                let name = file_name(&folder);
                if images.len() < self.min_images {
                    too_few.push(format!("`{name}` ({})", images.len()));
                }
                if !images.is_empty() {
                    files.extend(images.into_iter().map(|path| (path, people.len())));
                    people.push(name);
                }
            }
            if files.len() == before {
                return Err(Error::data(format!(
                    "`{}` holds no folder with an image ({READ}); expected `{}/<person>/<image>.jpg`",
                    root.display(),
                    root.display()
                )));
            }
        }
        if !too_few.is_empty() {
            let shown = too_few.iter().take(20).cloned().collect::<Vec<_>>().join(", ");
            return Err(Error::data(format!(
                "{} people have fewer than min_images = {} images: {shown}",
                too_few.len(),
                self.min_images
            )));
        }
        let paths: Vec<&Path> = files.iter().map(|(path, _)| path.as_path()).collect();
        let how = Decoding { exif_orientation: self.exif_orientation };
        let fingerprint = fingerprint(&paths, self.size, how)?;
        let notes = passed_over.notes();
        let by_stem = files.iter().enumerate().map(|(at, (path, _))| (stem(path), at)).collect();
        Ok(Box::new(Opened { files, people: people.len(), size: self.size, how, by_stem, notes, fingerprint }))
    }
}

struct Opened {
    files: Vec<(PathBuf, usize)>,
    people: usize,
    size: usize,
    how: Decoding,
    by_stem: BTreeMap<String, usize>,
    notes: Vec<String>,
    fingerprint: String,
}

impl Dataset for Opened {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn identities(&self) -> usize {
        self.people
    }

    fn identity(&self, index: usize) -> usize {
        self.files[index].1
    }

    fn name(&self, index: usize) -> String {
        self.files[index].0.display().to_string()
    }

    fn find(&self, person: &str, number: usize) -> Option<usize> {
        self.by_stem.get(&format!("{person}_{number:04}")).copied()
    }

    fn face(&self, index: usize) -> Result<Face> {
        read_square(&self.files[index].0, self.size, self.how)
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// The entries of a folder in the order of their names, without what systems and programs keep for themselves: names with a
/// dot in front (`._Ann_0001.jpg`, `.ipynb_checkpoints`), and `__MACOSX`.
pub(super) fn visible(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let mut paths =
        entries.map(|entry| entry.map(|e| e.path()).map_err(|e| Error::io(folder, e))).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| !file_name(path).starts_with('.') && file_name(path) != "__MACOSX");
    paths.sort();
    Ok(paths)
}

/// What was found beside images.
#[derive(Default)]
pub(super) struct PassedOver {
    count: usize,
    first: Vec<String>,
}

impl PassedOver {
    pub(super) fn add(&mut self, path: &Path) {
        self.count += 1;
        if self.first.len() < 5 {
            self.first.push(format!("`{}`", path.display()));
        }
    }

    pub(super) fn notes(&self) -> Vec<String> {
        let more = if self.count > self.first.len() { ", ..." } else { "" };
        let note =
            || format!("passed over, no image by name ({READ}): {}: {}{more}", self.count, self.first.join(", "));
        (self.count > 0).then(note).into_iter().collect()
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The way from bytes to pixels; another one is another dataset.
const DECODER: u64 = 2;

/// Sha256 over the names (person and file), the bytes of all images, the size they are brought to and how they are read.
pub(super) fn fingerprint(paths: &[&Path], size: usize, how: Decoding) -> Result<String> {
    let digests = paths
        .par_iter()
        .map(|path| {
            let bytes = read_bytes(path)?;
            // All bytes are here once; a truncated file is better found now than in the middle of a run.
            check_whole(&bytes).at(|| format!("`{}`", path.display()))?;
            let mut hash = Sha256::new();
            hash.update(path.parent().map(file_name).unwrap_or_default().as_bytes());
            hash.update(b"/");
            hash.update(file_name(path).as_bytes());
            hash.update(b"\0");
            hash.update(&bytes);
            Ok(hash.finalize().into())
        })
        .collect::<Result<Vec<[u8; 32]>>>()?;
    let mut hash = Sha256::new();
    for number in [DECODER, size as u64, u64::from(how.exif_orientation)] {
        hash.update(number.to_le_bytes());
    }
    digests.iter().for_each(|digest| hash.update(digest));
    Ok(crate::digest::hex(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(people: &[(&str, usize)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (person, count) in people {
            let home = folder.path().join(person);
            std::fs::create_dir(&home).expect("a person");
            for number in 1..=*count {
                let image = image::RgbImage::from_pixel(8, 8, image::Rgb([number as u8, 0, 0]));
                image.save(home.join(format!("{person}_{number:04}.png"))).expect("an image");
            }
        }
        folder
    }

    fn config(folder: &Path, min_images: usize) -> IdentityFolders {
        IdentityFolders { folders: vec![RecipePath::from(folder)], size: 8, exif_orientation: true, min_images }
    }

    #[test]
    fn people_are_identities_and_pairs_are_found_by_name() {
        let folder = tree(&[("Ann", 2), ("Bob_Lee", 1)]);
        let data = config(folder.path(), 1).build().expect("dataset");
        assert_eq!((data.len(), data.identities()), (3, 2));
        assert_eq!(data.find("Bob_Lee", 1), Some(2));
        assert_eq!(data.find("Bob_Lee", 2), None);
        assert_eq!(data.face(1).expect("face").pixels()[0], 2);
    }

    #[test]
    fn someone_with_too_few_images_is_named() {
        let folder = tree(&[("Ann", 2), ("Bob", 1)]);
        let error = config(folder.path(), 2).build().err().expect("one image").to_string();
        assert!(error.contains("`Bob` (1)"), "{error}");
    }

    #[test]
    fn what_is_no_image_is_passed_over_and_counted() {
        let folder = tree(&[("Ann", 1), ("Bob", 1)]);
        let write = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("inside")).expect("a folder");
            std::fs::write(path, "no image").expect("written");
        };
        let image = std::fs::read(folder.path().join("Ann/Ann_0001.png")).expect("an image");
        for name in ["Ann_0002.JFIF", "Ann_0003.jpe", "Ann_0004.webp"] {
            std::fs::write(folder.path().join("Ann").join(name), &image).expect("written");
        }
        for hidden in ["Ann/._Ann_0001.jpg", ".DS_Store", ".ipynb_checkpoints/x.jpg", "__MACOSX/y.jpg", "Bob/.z.png"] {
            write(hidden);
        }
        let quiet = config(folder.path(), 1).build().expect("dataset");
        assert_eq!((quiet.len(), quiet.identities(), quiet.notes().len()), (5, 2, 0), "{:?}", quiet.notes());
        ["list.txt", "Ann/a.avif", "Bob/deep/b.jpg", "Bob/c.tif"].iter().for_each(|name| write(name));
        let data = config(folder.path(), 1).build().expect("dataset");
        assert_eq!(data.len(), 5);
        let [note] = data.notes() else { panic!("{:?}", data.notes()) };
        assert!(note.contains(": 4: ") && note.contains("a.avif`") && note.contains("deep`"), "{note}");
    }

    #[test]
    fn an_empty_folder_and_a_missing_one_are_errors() {
        let folder = tree(&[]);
        assert!(config(folder.path(), 1).build().is_err());
        let error = config(&folder.path().join("gone"), 1).build().err().expect("missing").to_string();
        assert!(error.contains("gone"), "{error}");
    }

    #[test]
    fn the_fingerprint_follows_the_bytes() {
        let (a, b) = (tree(&[("Ann", 2)]), tree(&[("Ann", 2)]));
        let print =
            |folder: &tempfile::TempDir| config(folder.path(), 1).build().expect("data").fingerprint().to_string();
        assert_eq!(print(&a), print(&b));
        std::fs::copy(a.path().join("Ann/Ann_0001.png"), a.path().join("Ann/Ann_0002.png")).expect("copy");
        assert_ne!(print(&a), print(&b));
    }
}
