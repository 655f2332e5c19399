//! Datasets: faces and who they are.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use unicode_normalization::UnicodeNormalization;

use crate::context::BuildContext;
use crate::error::{Error, Problem, Result};
use crate::face::{Face, Kernel};

mod augment;
mod batch;
pub mod census;
mod decode;
mod degradation;
mod encode;
mod encoded;
mod files;
mod formats;
mod groups;
mod identity_folders;
mod image_folder;
mod insightface_bin;
mod joined;
mod listed;
mod loader;
mod mat;
mod mat_list;
mod mat_pairs;
mod mixup;
mod mxnet_record;
mod named_files;
mod occluded;
mod packed;
mod parquet;
mod passed_over;
mod photographs;
mod random_downscale;
mod recordio;
mod sheet;
mod subset;
mod survey;
mod synthetic;
pub mod synthetic_faces;
mod unreadable;
mod views;
mod webdataset;

pub use augment::{Augment, Drawn, Variant};
pub use batch::{Batch, Wanted};
pub use decode::{Decoding, MAX_BYTES, MAX_PIXELS, decode, read_face, read_image};
pub use degradation::{AsIs, Degradation, DegradationConfig};
pub use encode::png;
pub use files::ImageFile;
pub use formats::is_image_name;
pub use groups::Groups;
pub use identity_folders::{IdentityFolders, SameName};
pub use image_folder::ImageFolder;
pub use insightface_bin::InsightfaceBin;
pub use joined::Joined;
pub use listed::ListedFaces;
pub use loader::{LastPhaseOrder, Loader, Order};
pub use mat_list::MatList;
pub use mat_pairs::MatPairs;
pub use mixup::{Mixed, Mixup, Targets};
pub use mxnet_record::MxnetRecord;
pub use named_files::{NamedFiles, Naming};
pub use occluded::{Occluded, Occlusion};
pub use packed::{PackAs, Packed, Packing, is_packed, pack};
pub use parquet::ParquetImages;
pub use random_downscale::RandomDownscale;
pub use sheet::{tiled, write_sheet};
pub use subset::Subset;
pub(crate) use subset::some_faces;
pub use synthetic::SyntheticFaces;
pub use unreadable::{Unreadable, unreadable_lines};
pub use views::{HIGH, LOW, Views};
pub use webdataset::WebDataset;

/// A word about a sample: `session`, `camera`, `light`, and its value.
pub type Attribute = (String, String);

/// Two faces that a dataset itself says are to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The first face.
    pub left: usize,
    /// The second face.
    pub right: usize,
    /// Whether both show the same person.
    pub same: bool,
}

/// Faces by index. No order, no batches, no augmentation: those are the loader's.
///
/// Who is called when: the run asks [`len`](Dataset::len), [`people`](Dataset::people) and [`person`](Dataset::person) once,
/// and [`face`](Dataset::face) from many threads at once, for every view that is made of it.
///
/// ```
/// use gdrd_core::data::Dataset;
/// use gdrd_core::error::Result;
/// use gdrd_core::face::Face;
///
/// /// Ten grey faces: one known person, and a stranger.
/// struct Grey(Vec<String>);
///
/// impl Dataset for Grey {
///     fn len(&self) -> usize {
///         10
///     }
///     fn people(&self) -> &[String] {
///         &self.0
///     }
///     fn person(&self, index: usize) -> Option<usize> {
///         (index < 5).then_some(0)
///     }
///     fn key(&self, index: usize) -> String {
///         format!("grey/{index}")
///     }
///     fn face(&self, index: usize) -> Result<Face> {
///         Face::new(8, 8, vec![index as u8; 3 * 64])
///     }
/// }
///
/// let grey = Grey(vec!["Ann".into()]);
/// assert_eq!((grey.person(0), grey.person(9)), (Some(0), None));
/// assert_eq!(grey.face(3)?.pixels()[0], 3);
/// # Ok::<(), gdrd_core::error::Error>(())
/// ```
pub trait Dataset: Send + Sync {
    /// Number of faces.
    fn len(&self) -> usize;

    /// Whether there is no face.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the people that are known, by their numbers; empty if nobody knows who the faces are. Each name stands once, the
    /// order is the same at every call, and everybody has a face.
    fn people(&self) -> &[String];

    /// The number of the person whose face this is, below `people().len()`; none if nobody knows.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Dataset::len).
    fn person(&self, index: usize) -> Option<usize>;

    /// What lists call the face: person and image, `Ann/Ann_0001`, without folders above and without an ending.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Dataset::len).
    fn key(&self, index: usize) -> String;

    /// Where the face comes from: a path, or a description; the key unless there is more to say. Whoever asks for the face puts it
    /// in front of an error.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Dataset::len).
    fn place(&self, index: usize) -> String {
        self.key(index)
    }

    /// What else is known of the face: short names and values. None unless the dataset has them.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Dataset::len).
    fn attributes(&self, index: usize) -> Vec<Attribute> {
        let _ = index;
        Vec::new()
    }

    /// Whether the faces were photographed at low resolution. Such faces are brought to a view's size, but not degraded.
    fn is_low_resolution(&self) -> bool {
        false
    }

    /// Height and width, in pixels, at which a view that leaves faces as they are shows this one; the face's own unless the dataset
    /// says more. [`face`](Dataset::face) may give a smaller one, from which views that reduce, evaluation and the student file
    /// make theirs: enlarged and reduced again, it would be another face.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Dataset::len).
    fn size(&self, index: usize) -> Option<usize> {
        let _ = index;
        None
    }

    /// The face itself, at its native size. Called from many threads.
    ///
    /// # Errors
    /// If it cannot be read.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Dataset::len).
    fn face(&self, index: usize) -> Result<Face>;

    /// The bytes of the encoded image (JPEG, PNG ...) from whose middle [`face`](Dataset::face) is made, for whoever copies it; none
    /// if there is no such image.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Dataset::len).
    fn image(&self, index: usize) -> Option<Result<Cow<'_, [u8]>>> {
        let _ = index;
        None
    }

    /// The file of whose image the face is made, for lists of files; none if it has no file of its own, or is painted on.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Dataset::len).
    fn file(&self, index: usize) -> Option<ImageFile> {
        let _ = index;
        None
    }

    /// What about the faces no camera took, such as `drawn by gdrd`, a few words each. Reports say it beside published figures.
    fn made(&self) -> Vec<String> {
        Vec::new()
    }

    /// The pairs that the dataset itself brings, in their order; none unless it was made of pairs.
    fn pairs(&self) -> &[Compared] {
        &[]
    }

    /// The images that were left out because they cannot be read: where each is, and why.
    fn left_out(&self) -> &[String] {
        &[]
    }

    /// What whoever gave the data should know, such as which files were passed over; a sentence each.
    fn notes(&self) -> &[String] {
        &[]
    }
}

/// What a recipe says of a dataset.
///
/// ```
/// use candle_core::Device;
/// use gdrd_core::context::BuildContext;
/// use gdrd_core::data::{Dataset, DatasetConfig, Decoding, decode};
/// use gdrd_core::error::{Error, Result};
/// use gdrd_core::face::Face;
/// use gdrd_core::plugin::{Kind, Workbench};
/// use gdrd_core::recipe::RecipePath;
///
/// /// One photograph of one person.
/// #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(deny_unknown_fields)]
/// struct OneFace {
///     /// The photograph.
///     image: RecipePath,
/// }
///
/// impl Kind for OneFace {
///     const NAME: &'static str = "one-face";
///     const PURPOSE: &'static str = "a single photograph";
/// }
///
/// impl DatasetConfig for OneFace {
///     fn build(&self, cx: &BuildContext) -> Result<Box<dyn Dataset>> {
///         // What is read through `cx` is noticed when it changes.
///         let file = cx.file(&self.image)?;
///         let bytes = std::fs::read(&file.path).map_err(|e| Error::io(&file.path, e))?;
///         Ok(Box::new(Opened { people: vec!["Ann".into()], face: decode(&bytes, Decoding::default())? }))
///     }
/// }
///
/// struct Opened {
///     people: Vec<String>,
///     face: Face,
/// }
///
/// impl Dataset for Opened {
///     fn len(&self) -> usize {
///         1
///     }
///     fn people(&self) -> &[String] {
///         &self.people
///     }
///     fn person(&self, _: usize) -> Option<usize> {
///         Some(0)
///     }
///     fn key(&self, _: usize) -> String {
///         "Ann/Ann_0001".into()
///     }
///     fn face(&self, _: usize) -> Result<Face> {
///         Ok(self.face.clone())
///     }
/// }
///
/// let config: OneFace = serde_json::from_str(r#"{ "image": "nowhere.png" }"#).expect("options");
/// let bench = Workbench::new(Device::Cpu);
/// assert!(config.build(&BuildContext::new(&bench)).is_err(), "there is no such file");
/// ```
pub trait DatasetConfig: Send + Sync {
    /// What is wrong with the options, without touching the disk.
    fn check(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// Opens the dataset. Files are read through `cx`, so that changed ones are noticed.
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Dataset>>;
}

impl BuildContext<'_> {
    /// The dataset called `name` in the recipe.
    ///
    /// # Errors
    /// If there is none, or it cannot be opened.
    pub fn dataset(&self, name: &str) -> Result<Arc<dyn Dataset>> {
        self.part("dataset", name)
    }

    /// The dataset called `name` in all its views.
    ///
    /// # Errors
    /// If there is none, or it cannot be opened.
    pub fn views(&self, name: &str) -> Result<Arc<Views>> {
        self.part("views", name)
    }
}

/// A face of a dataset as a view that leaves faces as they are shows it: at the dataset's [`size`](Dataset::size).
///
/// # Errors
/// If it cannot be read.
pub fn face_as_it_is(dataset: &dyn Dataset, index: usize) -> Result<Face> {
    let face = dataset.face(index)?;
    match dataset.size(index) {
        Some(size) => face.resized(size, Kernel::Bicubic, true),
        None => Ok(face),
    }
}

/// A name with its accents composed (Unicode NFC): macOS writes them apart, most lists do not.
pub(crate) fn composed(name: &str) -> String {
    name.nfc().collect()
}

/// Faces by their keys. Two faces may have one key, where folders with people of the same name are joined.
pub struct Keys(BTreeMap<String, Vec<usize>>);

impl Keys {
    /// The keys of a dataset.
    pub fn of(dataset: &dyn Dataset) -> Self {
        let mut keys: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for index in 0..dataset.len() {
            keys.entry(composed(&dataset.key(index))).or_default().push(index);
        }
        Self(keys)
    }

    /// The face with this key, if there is one.
    ///
    /// # Errors
    /// If there are several; the error says where they are.
    pub fn find(&self, key: &str, dataset: &dyn Dataset) -> Result<Option<usize>> {
        match self.0.get(&composed(key)).map(Vec::as_slice) {
            None | Some([]) => Ok(None),
            Some([one]) => Ok(Some(*one)),
            Some(several) => {
                let places: Vec<String> = several.iter().map(|index| dataset.place(*index)).collect();
                Err(Error::data(format!(
                    "`{key}` is not one face but {}: {}; expected keys that tell them apart",
                    several.len(),
                    places.join(", ")
                )))
            }
        }
    }
}

/// Numbers for the people of several datasets: the same number for the same name.
pub fn by_name(datasets: &[&dyn Dataset]) -> BTreeMap<String, usize> {
    let names: std::collections::BTreeSet<&String> = datasets.iter().flat_map(|dataset| dataset.people()).collect();
    names.into_iter().enumerate().map(|(number, name)| (name.clone(), number)).collect()
}
