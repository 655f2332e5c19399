//! Faces of nobody in particular, for a generative teacher or for distillation without labels.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decode::{Decoding, read_bytes, read_square};
use super::formats::READ;
use super::identity_folders::{default_exif_orientation, is_image, key, visible};
use super::passed_over::PassedOver;
use super::unreadable::{Broken, Unreadable};
use super::{Dataset, DatasetConfig, ImageFile};
use crate::context::BuildContext;
use crate::error::{Error, Problem, Result};
use crate::face::Face;
use crate::plugin::Kind;
use crate::recipe::RecipePath;

/// Every JPEG, PNG, BMP, WebP and GIF below the folders, without identities. Names with a dot in front are passed over.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageFolder {
    /// Folders that are searched, with all folders below them.
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
    /// Whether the faces were photographed at low resolution: they are brought to a view's size, but not degraded.
    #[serde(default)]
    pub low_resolution: bool,
    /// What becomes of images that cannot be read.
    #[serde(default)]
    pub unreadable: Unreadable,
}

impl Kind for ImageFolder {
    const NAME: &'static str = "image-folder";
    const PURPOSE: &'static str = "faces without identities, from all images below some folders";
}

impl DatasetConfig for ImageFolder {
    fn check(&self) -> Vec<Problem> {
        let some = Problem::unless(!self.folders.is_empty(), "folders", || "expected at least one folder".into());
        some.into_iter().collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Dataset>> {
        let (mut files, mut passed_over, mut seen) = (Vec::new(), PassedOver::default(), Seen::default());
        let mut broken = Broken::default();
        for folder in &self.folders {
            let before = files.len();
            let is_new = collect(folder.as_path(), &mut files, &mut passed_over, &mut seen)?;
            if files.len() == before && is_new {
                return Err(Error::data(format!("`{folder}` holds no image ({READ})")));
            }
            // One that is listed twice has said already what its images are.
            if is_new {
                broken.extend(cx.readable(folder, &files[before..], self.unreadable)?);
            }
        }
        files.retain(|path| !broken.holds(path));
        let how = Decoding { exif_orientation: self.exif_orientation };
        let skipped = (!broken.is_empty()).then(|| broken.note());
        let notes = passed_over.notes().into_iter().chain(seen.notes()).chain(skipped).collect();
        let (left_out, low_resolution) = (broken.into_why(), self.low_resolution);
        Ok(Box::new(Opened { files, size: self.size, how, notes, left_out, low_resolution }))
    }
}

/// Every image below a folder, each once.
pub(super) fn images_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    collect(folder, &mut files, &mut PassedOver::default(), &mut Seen::default())?;
    Ok(files)
}

/// All images below a folder; false if it has been looked through already.
fn collect(folder: &Path, files: &mut Vec<PathBuf>, passed_over: &mut PassedOver, seen: &mut Seen) -> Result<bool> {
    if !seen.is_new(folder)? {
        return Ok(false);
    }
    for path in visible(folder)? {
        if path.is_dir() {
            collect(&path, files, passed_over, seen)?;
        } else if is_image(&path) {
            files.push(path);
        } else {
            passed_over.add(&path);
        }
    }
    Ok(true)
}

/// The folders that were looked through, by what they are and not by what they are called: a link may lead to any of them.
#[derive(Default)]
struct Seen {
    folders: BTreeSet<PathBuf>,
    again: Vec<String>,
}

impl Seen {
    fn is_new(&mut self, folder: &Path) -> Result<bool> {
        let is_new = self.folders.insert(folder.canonicalize().map_err(|e| Error::io(folder, e))?);
        if !is_new {
            self.again.push(format!("`{}`", folder.display()));
        }
        Ok(is_new)
    }

    fn notes(self) -> Option<String> {
        let shown = self.again.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        let more = if self.again.len() > 5 { ", ..." } else { "" };
        (!self.again.is_empty())
            .then(|| format!("passed over, other names of folders that were read: {}: {shown}{more}", self.again.len()))
    }
}

struct Opened {
    files: Vec<PathBuf>,
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
        &[]
    }

    fn person(&self, _: usize) -> Option<usize> {
        None
    }

    fn key(&self, index: usize) -> String {
        key(&self.files[index])
    }

    fn place(&self, index: usize) -> String {
        self.files[index].display().to_string()
    }

    fn is_low_resolution(&self) -> bool {
        self.low_resolution
    }

    fn size(&self, _: usize) -> Option<usize> {
        self.size
    }

    fn face(&self, index: usize) -> Result<Face> {
        read_square(&self.files[index], self.size, self.how)
    }

    fn image(&self, index: usize) -> Option<Result<Cow<'_, [u8]>>> {
        (self.how == Decoding::default()).then(|| read_bytes(&self.files[index]).map(Cow::Owned))
    }

    fn file(&self, index: usize) -> Option<ImageFile> {
        Some(ImageFile { path: self.files[index].clone(), region: None })
    }

    fn left_out(&self) -> &[String] {
        &self.left_out
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::plugin::Workbench;

    #[test]
    fn images_are_found_at_every_depth() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("a/b")).expect("folders");
        let image = image::RgbImage::from_pixel(9, 8, image::Rgb([7, 0, 0]));
        image.save(folder.path().join("one.png")).expect("an image");
        image.save(folder.path().join("a/b/two.jpg")).expect("an image");
        let (folders, size) = (vec![RecipePath::from(folder.path())], Some(8));
        let config = ImageFolder {
            folders,
            size,
            exif_orientation: true,
            low_resolution: false,
            unreadable: Unreadable::Refuse,
        };
        let data = config.build(&BuildContext::new(&Workbench::new(Device::Cpu))).expect("dataset");
        assert_eq!((data.len(), data.people().len()), (2, 0));
        assert_eq!(data.face(1).expect("face").width(), 8);
    }

    #[cfg(unix)]
    #[test]
    fn each_folder_is_read_once_whatever_leads_to_it() {
        let folder = tempfile::tempdir().expect("a folder");
        for place in ["a", "a/deep"] {
            std::fs::create_dir(folder.path().join(place)).expect("a folder");
            image::RgbImage::new(8, 8).save(folder.path().join(place).join("1.png")).expect("an image");
        }
        std::os::unix::fs::symlink("..", folder.path().join("a/deep/up")).expect("a link");
        std::os::unix::fs::symlink("a", folder.path().join("b")).expect("a link");
        let pipe = folder.path().join("a/pipe.png");
        assert!(std::process::Command::new("mkfifo").arg(pipe).status().expect("mkfifo").success());
        let config = ImageFolder {
            folders: vec![RecipePath::from(folder.path()), RecipePath::from(folder.path().join("a"))],
            size: None,
            exif_orientation: true,
            low_resolution: false,
            unreadable: Unreadable::Refuse,
        };
        let data = config.build(&BuildContext::new(&Workbench::new(Device::Cpu))).expect("data");
        assert_eq!(data.len(), 2);
        let [pipe, again] = data.notes() else { panic!("{:?}", data.notes()) };
        assert!(pipe.contains(": 1: ") && pipe.contains("pipe.png"), "{pipe}");
        assert!(again.starts_with("passed over, other names of folders that were read: 3: "), "{again}");
    }
}
