//! One folder for each identity, as LFW, CelebA and CASIA are laid out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::decode::check_whole;
use super::{Dataset, DatasetConfig, read_face};
use crate::error::{Error, Problem, Result};
use crate::face::Face;
use crate::recipe::RecipePath;
use crate::registry::Kind;

/// `folder/<person>/<image>.jpg`: JPEG or PNG, aligned faces. Several folders are joined; people of the same
/// name in two of them are two identities.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityFolders {
    /// Folders that hold one folder for each person.
    pub folders: Vec<RecipePath>,
    /// Height and width that faces are brought to, in pixels.
    #[serde(default = "default_size")]
    pub size: usize,
    /// Fewest images that a person must have; someone with fewer is an error.
    #[serde(default = "default_min_images")]
    pub min_images: usize,
}

fn default_size() -> usize {
    112
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
            Problem::unless(self.size >= 4, "size", || format!("expected at least 4 pixels, found {}", self.size)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn build(&self) -> Result<Box<dyn Dataset>> {
        let mut files = Vec::new();
        let mut people = Vec::new();
        let mut too_few = Vec::new();
        for root in &self.folders {
            let root: &Path = root;
            for folder in sorted_entries(root)?.into_iter().filter(|path| path.is_dir()) {
                let images: Vec<PathBuf> = sorted_entries(&folder)?.into_iter().filter(|p| is_image(p)).collect();
                let name = file_name(&folder);
                if images.len() < self.min_images {
                    too_few.push(format!("`{name}` ({})", images.len()));
                }
                if !images.is_empty() {
                    files.extend(images.into_iter().map(|path| (path, people.len())));
                    people.push(name);
                }
            }
            if files.is_empty() {
                return Err(Error::data(format!(
                    "`{}` holds no folder with a JPEG or PNG; expected `{}/<person>/<image>.jpg`",
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
        let fingerprint = fingerprint(&paths, self.size)?;
        let by_stem = files.iter().enumerate().map(|(at, (path, _))| (stem(path), at)).collect();
        Ok(Box::new(Opened { files, people: people.len(), size: self.size, by_stem, fingerprint }))
    }
}

struct Opened {
    files: Vec<(PathBuf, usize)>,
    people: usize,
    size: usize,
    by_stem: BTreeMap<String, usize>,
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
        read_face(&self.files[index].0, self.size)
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// The entries of a folder in the order of their names.
pub(super) fn sorted_entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let mut paths =
        entries.map(|entry| entry.map(|e| e.path()).map_err(|e| Error::io(folder, e))).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

pub(super) fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    matches!(extension.as_str(), "jpg" | "jpeg" | "png")
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Sha256 over the names (person and file), the bytes of all images and the size they are brought to.
pub(super) fn fingerprint(paths: &[&Path], size: usize) -> Result<String> {
    let digests = paths
        .par_iter()
        .map(|path| {
            let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
            // All bytes are here once; a truncated file is better found now than in the middle of a run.
            check_whole(path, &bytes)?;
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
    hash.update((size as u64).to_le_bytes());
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
        IdentityFolders { folders: vec![RecipePath::from(folder)], size: 8, min_images }
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
