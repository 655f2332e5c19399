//! Faces of nobody in particular, for a generative teacher or for distillation without labels.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decode::{Decoding, read_square};
use super::formats::{READ, is_image_name};
use super::identity_folders::{PassedOver, default_exif_orientation, fingerprint, visible};
use super::{Dataset, DatasetConfig};
use crate::error::{Error, Problem, Result};
use crate::face::Face;
use crate::recipe::RecipePath;
use crate::registry::Kind;

/// Every JPEG, PNG, BMP, WebP and GIF below the folders, without identities. Names with a dot in front are passed over.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageFolder {
    /// Folders that are searched, with all folders below them.
    pub folders: Vec<RecipePath>,
    /// Height and width that faces are brought to, in pixels; an image that is not square is cropped first.
    #[serde(default = "default_size")]
    pub size: usize,
    /// Whether images are turned as their EXIF orientation says.
    #[serde(default = "default_exif_orientation")]
    pub exif_orientation: bool,
}

fn default_size() -> usize {
    112
}

impl Kind for ImageFolder {
    const NAME: &'static str = "image-folder";
    const PURPOSE: &'static str = "faces without identities, from all images below some folders";
}

impl DatasetConfig for ImageFolder {
    fn check(&self) -> Vec<Problem> {
        let some = Problem::unless(!self.folders.is_empty(), "folders", || "expected at least one folder".into());
        [some, Problem::within("size", self.size, 4..=4096)].into_iter().flatten().collect()
    }

    fn build(&self) -> Result<Box<dyn Dataset>> {
        let (mut files, mut passed_over) = (Vec::new(), PassedOver::default());
        for folder in &self.folders {
            let before = files.len();
            collect(folder, &mut files, &mut passed_over)?;
            if files.len() == before {
                return Err(Error::data(format!("`{folder}` holds no image ({READ})")));
            }
        }
        let how = Decoding { exif_orientation: self.exif_orientation };
        let fingerprint = fingerprint(&files.iter().map(PathBuf::as_path).collect::<Vec<_>>(), self.size, how)?;
        Ok(Box::new(Opened { files, size: self.size, how, notes: passed_over.notes(), fingerprint }))
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
    size: usize,
    how: Decoding,
    notes: Vec<String>,
    fingerprint: String,
}

impl Dataset for Opened {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn identities(&self) -> usize {
        0
    }

    fn identity(&self, _: usize) -> usize {
        panic!("nobody knows who these faces are")
    }

    fn name(&self, index: usize) -> String {
        self.files[index].display().to_string()
    }

    fn find(&self, _: &str, _: usize) -> Option<usize> {
        None
    }

    fn face(&self, index: usize) -> Result<Face> {
        read_square(&self.files[index], self.size, self.how)
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_at_every_depth() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("a/b")).expect("folders");
        let image = image::RgbImage::from_pixel(9, 8, image::Rgb([7, 0, 0]));
        image.save(folder.path().join("one.png")).expect("an image");
        image.save(folder.path().join("a/b/two.jpg")).expect("an image");
        let config = ImageFolder { folders: vec![RecipePath::from(folder.path())], size: 8, exif_orientation: true };
        let data = config.build().expect("dataset");
        assert_eq!((data.len(), data.identities()), (2, 0));
        assert_eq!(data.face(1).expect("face").width(), 8);
    }
}
