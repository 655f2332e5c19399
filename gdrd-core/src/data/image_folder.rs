//! Faces of nobody in particular, for a generative teacher or for distillation without labels.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::identity_folders::{fingerprint, is_image, sorted_entries};
use super::{Dataset, DatasetConfig, read_face};
use crate::error::{Error, Problem, Result};
use crate::face::Face;
use crate::recipe::RecipePath;
use crate::registry::Kind;

/// Every JPEG and PNG below the folders, without identities.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageFolder {
    /// Folders that are searched, with all folders below them.
    pub folders: Vec<RecipePath>,
    /// Height and width that faces are brought to, in pixels; an image that is not square is cropped first.
    #[serde(default = "default_size")]
    pub size: usize,
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
        let some = !self.folders.is_empty();
        Problem::unless(some, "folders", || "expected at least one folder".into()).into_iter().collect()
    }

    fn build(&self) -> Result<Box<dyn Dataset>> {
        let mut files = Vec::new();
        for folder in &self.folders {
            let before = files.len();
            collect(folder, &mut files)?;
            if files.len() == before {
                return Err(Error::data(format!("`{}` holds no JPEG or PNG", folder)));
            }
        }
        let fingerprint = fingerprint(&files.iter().map(PathBuf::as_path).collect::<Vec<_>>(), self.size)?;
        Ok(Box::new(Opened { files, size: self.size, fingerprint }))
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for path in sorted_entries(folder)? {
        if path.is_dir() {
            collect(&path, files)?;
        } else if is_image(&path) {
            files.push(path);
        }
    }
    Ok(())
}

struct Opened {
    files: Vec<PathBuf>,
    size: usize,
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
        read_face(&self.files[index], self.size)
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
        let config = ImageFolder { folders: vec![RecipePath::from(folder.path())], size: 8 };
        let data = config.build().expect("dataset");
        assert_eq!((data.len(), data.identities()), (2, 0));
        assert_eq!(data.face(1).expect("face").width(), 8);
    }
}
