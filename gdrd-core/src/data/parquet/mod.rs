//! Parquet files of the Hugging Face Hub's image datasets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::identity_folders::default_exif_orientation;
use super::unreadable::Unreadable;
use super::{Dataset, DatasetConfig};
use crate::context::BuildContext;
use crate::error::{Problem, Result};
use crate::plugin::Kind;
use crate::recipe::RecipePath;

mod bits;
mod footer;
mod pages;
mod read;
#[cfg(test)]
mod tests;
mod thrift;
mod values;

/// Faces from the Parquet files of an image dataset, as the Hub has them and the Python package datasets writes them: a column of
/// images, `{bytes, path}`, and one of labels. The names of labels come from what datasets wrote into the file.
///
/// To read one image, the page of the file that it is in (1 MB as it is usually written) is decompressed; `gdrd data import` makes a file
/// that is read at full speed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParquetImages {
    /// Parquet files, or folders, of which every `.parquet` is read, in the order of names.
    pub files: Vec<RecipePath>,
    /// The column of images; the only one when left out.
    #[serde(default)]
    pub image: Option<String>,
    /// The column that says who it is, numbers or text; `none` if nobody knows.
    #[serde(default = "default_person")]
    pub person: String,
    /// Columns, of numbers or text, that are attributes of the face.
    #[serde(default)]
    pub attributes: Vec<String>,
    /// Height and width that faces are brought to, in pixels, as in `identity-folders`; their native size when left out.
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

fn default_person() -> String {
    "label".into()
}

impl Kind for ParquetImages {
    const NAME: &'static str = "parquet";
    const PURPOSE: &'static str = "image datasets of the Hub in Parquet files";
}

impl DatasetConfig for ParquetImages {
    fn check(&self) -> Vec<Problem> {
        Problem::unless(!self.files.is_empty(), "files", || "expected at least one file".into()).into_iter().collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Dataset>> {
        read::build(self, cx)
    }
}
