//! One folder for each identity, as LFW, CelebA and CASIA are laid out.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decode::{Decoding, read_bytes, read_square};
use super::files::renumbered;
use super::formats::{READ, is_image_name};
use super::passed_over::PassedOver;
use super::unreadable::{Broken, Unreadable};
use super::{Dataset, DatasetConfig, ImageFile, composed};
use crate::context::BuildContext;
use crate::error::{Error, Problem, Result};
use crate::face::Face;
use crate::plugin::Kind;
use crate::recipe::RecipePath;

/// `folder/<person>/<image>.jpg`: aligned faces, as JPEG, PNG, BMP, WebP or GIF. Several folders are joined. Names with a dot in
/// front are passed over.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityFolders {
    /// Folders that hold one folder for each person.
    pub folders: Vec<RecipePath>,
    /// Height and width that faces are brought to, in pixels; their native size when left out. An image that is not square is
    /// cropped to its centre first. A smaller face is enlarged for who sees faces as they are; one who sees a few pixels has
    /// them from its own size, in one step.
    #[serde(default)]
    #[schemars(range(min = 4, max = 4096))]
    pub size: Option<usize>,
    /// Whether images are turned as their EXIF orientation says.
    #[serde(default = "default_exif_orientation")]
    pub exif_orientation: bool,
    /// Fewest images that a person must have; someone with fewer is an error.
    #[serde(default = "default_min_images")]
    #[schemars(range(max = 1_000_000_000))]
    pub min_images: usize,
    /// Whether people of the same name in two folders are one person or two.
    #[serde(default)]
    pub same_name: SameName,
    /// Whether the faces were photographed at low resolution: they are brought to a view's size, but not degraded.
    #[serde(default)]
    pub low_resolution: bool,
    /// What becomes of images that cannot be read.
    #[serde(default)]
    pub unreadable: Unreadable,
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
        let some = Problem::unless(!self.folders.is_empty(), "folders", || "expected at least one folder".into());
        some.into_iter().collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Dataset>> {
        let mut files: Vec<(PathBuf, usize)> = Vec::new();
        let mut people: Vec<String> = Vec::new();
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        let mut too_few = Vec::new();
        let mut passed_over = PassedOver::default();
        let mut seen: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
        let mut broken = Broken::default();
        for root in &self.folders {
            let before = files.len();
            if self.same_name == SameName::Apart {
                numbers.clear();
            }
            let mut named: BTreeMap<String, PathBuf> = BTreeMap::new();
            for folder in visible(root.as_path())? {
                if !folder.is_dir() {
                    passed_over.add(&folder);
                    continue;
                }
                let (images, others): (Vec<_>, Vec<_>) =
                    visible(&folder)?.into_iter().partition(|path| !path.is_dir() && is_image(path));
                others.iter().for_each(|path| passed_over.add(path));
                let name = composed(&file_name(&folder));
                if images.is_empty() && self.min_images > 0 {
                    too_few.push(format!("`{name}` (0)"));
                }
                let itself = folder.canonicalize().map_err(|e| Error::io(&folder, e))?;
                if let Some(other) = seen.insert(itself, folder.clone()) {
                    if other == folder {
                        return Err(Error::data(format!(
                            "`folders`: `{root}` is listed twice, expected each folder once"
                        )));
                    }
                    return Err(Error::data(format!(
                        "`{}` and `{}` are one folder; expected a folder for each person, each once",
                        other.display(),
                        folder.display()
                    )));
                }
                if !images.is_empty() {
                    let other = named.insert(name.clone(), folder.clone());
                    if let Some(other) = other.filter(|_| self.same_name == SameName::Apart) {
                        return Err(Error::data(format!(
                            "`{}` and `{}` are one name as text; rename one, or make them one person with \
                             `same_name = \"one-person\"`",
                            other.display(),
                            folder.display()
                        )));
                    }
                    let number = *numbers.entry(name.clone()).or_insert_with(|| {
                        people.push(name);
                        people.len() - 1
                    });
                    files.extend(images.into_iter().map(|path| (path, number)));
                }
            }
            if files.len() == before {
                return Err(Error::data(format!(
                    "`{root}` holds no folder with an image ({READ}); expected `{root}/<person>/<image>.jpg`"
                )));
            }
            let paths: Vec<PathBuf> = files[before..].iter().map(|(path, _)| path.clone()).collect();
            broken.extend(cx.readable(root, &paths, self.unreadable)?);
        }
        let how = Decoding { exif_orientation: self.exif_orientation };
        if !broken.is_empty() {
            passed_over.say(broken.note());
            files.retain(|(path, _)| !broken.holds(path));
            people = renumbered(&people, files.iter_mut().map(|(_, person)| person));
        }
        let mut counts = vec![0; people.len()];
        files.iter().for_each(|(_, person)| counts[*person] += 1);
        let few = people.iter().zip(counts).filter(|(_, count)| *count < self.min_images);
        too_few.extend(few.map(|(name, count)| format!("`{name}` ({count})")));
        if !too_few.is_empty() {
            let shown = too_few.iter().take(20).cloned().collect::<Vec<_>>().join(", ");
            return Err(Error::data(format!(
                "{} people have fewer than min_images = {} images: {shown}",
                too_few.len(),
                self.min_images
            )));
        }
        let (notes, left_out) = (passed_over.notes(), broken.into_why());
        let low_resolution = self.low_resolution;
        Ok(Box::new(Opened { files, people, size: self.size, how, notes, left_out, low_resolution }))
    }
}

struct Opened {
    files: Vec<(PathBuf, usize)>,
    people: Vec<String>,
    size: Option<usize>,
    how: Decoding,
    notes: Vec<String>,
    left_out: Vec<String>,
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

    fn size(&self, _: usize) -> Option<usize> {
        self.size
    }

    fn face(&self, index: usize) -> Result<Face> {
        read_square(&self.files[index].0, self.size, self.how)
    }

    fn image(&self, index: usize) -> Option<Result<Cow<'_, [u8]>>> {
        (self.how == Decoding::default()).then(|| read_bytes(&self.files[index].0).map(Cow::Owned))
    }

    fn file(&self, index: usize) -> Option<ImageFile> {
        Some(ImageFile { path: self.files[index].0.clone(), region: None })
    }

    fn left_out(&self) -> &[String] {
        &self.left_out
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// Whether a path is an image by its name, and no pipe or device. A link that leads nowhere is one: reading it is the error.
pub(super) fn is_image(path: &Path) -> bool {
    is_image_name(path) && std::fs::metadata(path).map_or(true, |found| found.is_file())
}

/// `<person>/<image>` without the ending.
pub(super) fn key(path: &Path) -> String {
    format!("{}/{}", path.parent().map(file_name).unwrap_or_default(), stem(path))
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

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
