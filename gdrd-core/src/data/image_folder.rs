//! Faces of nobody in particular, for a generative teacher or for distillation without labels.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decode::{Decoding, read_square};
use super::formats::{READ, is_image_name};
use super::identity_folders::{PassedOver, check_size, default_exif_orientation, key, visible};
use super::{Dataset, DatasetConfig};
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
    /// cropped to its centre first.
    #[serde(default)]
    pub size: Option<usize>,
    /// Whether images are turned as their EXIF orientation says.
    #[serde(default = "default_exif_orientation")]
    pub exif_orientation: bool,
    /// Whether the faces were photographed at low resolution: they are brought to a view's size, but not degraded.
    #[serde(default)]
    pub low_resolution: bool,
}

impl Kind for ImageFolder {
    const NAME: &'static str = "image-folder";
    const PURPOSE: &'static str = "faces without identities, from all images below some folders";
}

impl DatasetConfig for ImageFolder {
    fn check(&self) -> Vec<Problem> {
        let some = Problem::unless(!self.folders.is_empty(), "folders", || "expected at least one folder".into());
        some.into_iter().chain(check_size(self.size)).collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Dataset>> {
        let (mut files, mut passed_over) = (Vec::new(), PassedOver::default());
        for folder in &self.folders {
            let before = files.len();
            collect(folder.as_path(), &mut files, &mut passed_over)?;
            if files.len() == before {
                return Err(Error::data(format!("`{folder}` holds no image ({READ})")));
            }
            cx.images(folder, &files[before..])?;
        }
        let how = Decoding { exif_orientation: self.exif_orientation };
        let notes = passed_over.notes();
        Ok(Box::new(Opened { files, size: self.size, how, notes, low_resolution: self.low_resolution }))
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>, passed_over: &mut PassedOver) -> Result<()> {
    for path in visible(folder)? {
        if path.is_dir() {
            collect(&path, files, passed_over)?;
        } else if is_image_name(&path) {
            files.push(path);
        } else {
            passed_over.add(&path);
        }
    }
    Ok(())
}

struct Opened {
    files: Vec<PathBuf>,
    size: Option<usize>,
    how: Decoding,
    notes: Vec<String>,
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

    fn face(&self, index: usize) -> Result<Face> {
        read_square(&self.files[index], self.size, self.how)
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
        let config = ImageFolder { folders, size, exif_orientation: true, low_resolution: false };
        let data = config.build(&BuildContext::new(&Workbench::new(Device::Cpu))).expect("dataset");
        assert_eq!((data.len(), data.people().len()), (2, 0));
        assert_eq!(data.face(1).expect("face").width(), 8);
    }
}
