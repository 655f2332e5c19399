//! Datasets: faces and who they are.

use crate::error::{Problem, Result};
use crate::face::Face;

mod decode;
mod degradation;
mod formats;
mod identity_folders;
mod image_folder;
mod loader;
mod sheet;
mod synthetic;
pub mod synthetic_faces;
mod views;

pub use decode::{Decoding, MAX_BYTES, MAX_PIXELS, decode, read_face, read_image};
pub use degradation::Degradation;
pub use formats::is_image_name;
pub use identity_folders::IdentityFolders;
pub use image_folder::ImageFolder;
pub use loader::{Batch, Loader, Plan, Wanted};
pub use sheet::write_sheet;
pub use synthetic::SyntheticFaces;
pub use views::{Augment, Drawn, Views};

/// Faces by index. No order, no batches, no augmentation: those are the loader's.
pub trait Dataset: Send + Sync {
    /// Number of faces.
    fn len(&self) -> usize;

    /// Whether there is no face.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of identities; zero if nobody knows who the faces are.
    fn identities(&self) -> usize;

    /// The identity of a face, below [`identities`](Dataset::identities).
    ///
    /// # Panics
    /// If `index` is not below [`len`](Dataset::len), or there are no identities.
    fn identity(&self, index: usize) -> usize;

    /// The name of a face: a path, or a description.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Dataset::len).
    fn name(&self, index: usize) -> String;

    /// The face with this number (from 1) of the person with this name, as lists of pairs call them.
    fn find(&self, person: &str, number: usize) -> Option<usize>;

    /// The face itself.
    ///
    /// # Errors
    /// If it cannot be read.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Dataset::len).
    fn face(&self, index: usize) -> Result<Face>;

    /// What whoever gave the data should know, such as which files were passed over; a sentence each.
    fn notes(&self) -> &[String] {
        &[]
    }

    /// Sha256 over everything that [`face`](Dataset::face) and [`identity`](Dataset::identity) return.
    fn fingerprint(&self) -> &str;
}

/// What a recipe says of a dataset.
pub trait DatasetConfig {
    /// What is wrong with the options, without touching the disk.
    fn check(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// Opens the dataset.
    fn build(&self) -> Result<Box<dyn Dataset>>;
}
