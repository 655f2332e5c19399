//! One folder for each identity, as LFW, CelebA and CASIA are laid out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decode::check_whole;
use super::{Dataset, DatasetConfig, read_face};
use crate::context::BuildContext;
use crate::error::{Error, Problem, Result};
use crate::face::Face;
use crate::plugin::Kind;
use crate::recipe::RecipePath;

/// `folder/<person>/<image>.jpg`: aligned faces. Several folders are joined.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityFolders {
    /// Folders that hold one folder for each person.
    pub folders: Vec<RecipePath>,
    /// Height and width that faces are brought to, in pixels; their native size when left out. An image that is not square is
    /// cropped to its centre first.
    #[serde(default)]
    pub size: Option<usize>,
    /// Fewest images that a person must have; someone with fewer is an error.
    #[serde(default = "default_min_images")]
    pub min_images: usize,
    /// Whether people of the same name in two folders are one person or two.
    #[serde(default)]
    pub same_name: SameName,
    /// Whether the faces were photographed at low resolution: they are brought to a view's size, but not degraded.
    #[serde(default)]
    pub low_resolution: bool,
}

/// What people of the same name in two folders or datasets are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SameName {
    /// Two people who happen to have one name.
    #[default]
    Apart,
    /// One person.
    OnePerson,
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
            check_size(self.size),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Dataset>> {
        let mut files = Vec::new();
        let mut people: Vec<String> = Vec::new();
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        let mut too_few = Vec::new();
        for root in &self.folders {
            let before = files.len();
            if self.same_name == SameName::Apart {
                numbers.clear();
            }
            for folder in sorted_entries(root.as_path())?.into_iter().filter(|path| path.is_dir()) {
                let images: Vec<PathBuf> = sorted_entries(&folder)?.into_iter().filter(|p| is_image(p)).collect();
                let name = file_name(&folder);
                if images.len() < self.min_images {
                    too_few.push(format!("`{name}` ({})", images.len()));
                }
                if !images.is_empty() {
                    let number = *numbers.entry(name.clone()).or_insert_with(|| {
                        people.push(name);
                        people.len() - 1
                    });
                    files.extend(images.into_iter().map(|path| (path, number)));
                }
            }
            if files.len() == before {
                return Err(Error::data(format!(
                    "`{root}` holds no folder with a JPEG or PNG; expected `{root}/<person>/<image>.jpg`"
                )));
            }
            let paths: Vec<PathBuf> = files[before..].iter().map(|(path, _)| path.clone()).collect();
            cx.images(root, &paths)?;
        }
        if !too_few.is_empty() {
            let shown = too_few.iter().take(20).cloned().collect::<Vec<_>>().join(", ");
            return Err(Error::data(format!(
                "{} people have fewer than min_images = {} images: {shown}",
                too_few.len(),
                self.min_images
            )));
        }
        Ok(Box::new(Opened { files, people, size: self.size, low_resolution: self.low_resolution }))
    }
}

struct Opened {
    files: Vec<(PathBuf, usize)>,
    people: Vec<String>,
    size: Option<usize>,
    low_resolution: bool,
}

impl Dataset for Opened {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn people(&self) -> &[String] {
        &self.people
    }

    fn person(&self, index: usize) -> Option<usize> {
        Some(self.files[index].1)
    }

    fn key(&self, index: usize) -> String {
        key(&self.files[index].0)
    }

    fn place(&self, index: usize) -> String {
        self.files[index].0.display().to_string()
    }

    fn is_low_resolution(&self) -> bool {
        self.low_resolution
    }

    fn face(&self, index: usize) -> Result<Face> {
        read_face(&self.files[index].0, self.size)
    }
}

/// A size of faces that is left out or makes sense.
pub(super) fn check_size(size: Option<usize>) -> Option<Problem> {
    let good = size.is_none_or(|size| (4..=4096).contains(&size));
    Problem::unless(good, "size", || format!("expected 4 to 4096 pixels, found {}", size.unwrap_or_default()))
}

impl BuildContext<'_> {
    /// Takes note of image files below `folder`, and finds those that are truncated or no images now and not in the middle of a
    /// run. Files that did not change since they were last looked at are not read again.
    ///
    /// # Errors
    /// If a file cannot be read or is no whole image.
    pub fn images(&self, folder: &RecipePath, files: &[PathBuf]) -> Result<()> {
        self.fingerprint(folder, files, &check_whole)
    }
}

/// `<person>/<image>` without the ending.
pub(super) fn key(path: &Path) -> String {
    format!("{}/{}", path.parent().map(file_name).unwrap_or_default(), stem(path))
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
