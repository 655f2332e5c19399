//! Pairs of faces that MATLAB lists name: QMUL-SurvFace's verification set.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::encoded::{Look, Opened};
use super::files::{Row, Rows};
use super::identity_folders::default_exif_orientation;
use super::mat::{Mat, Variable};
use super::unreadable::Unreadable;
use super::{Compared, Dataset, DatasetConfig};
use crate::context::BuildContext;
use crate::error::{Context, Error, Result};
use crate::plugin::Kind;
use crate::recipe::RecipePath;

/// Faces in one folder and pairs of them, which the protocol `verification` takes when it has no list of its own: a `.mat` file of pairs
/// that show one person, and one of pairs that show two, each with a variable of cells with two columns of file names. QMUL-SurvFace's
/// `Face_Verification_Test_Set` has `positive_pairs_names.mat` and `negative_pairs_names.mat`, and its images in `verification_images`.
/// Nobody knows who the faces are. MATLAB's versions 5 to 7.2 are read, not 7.3.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatPairs {
    /// The `.mat` file of pairs that show one person.
    pub same: RecipePath,
    /// The `.mat` file of pairs that show two people.
    pub different: RecipePath,
    /// The folder of the images.
    pub folder: RecipePath,
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
    /// What becomes of images that cannot be read: with them go their pairs.
    #[serde(default)]
    pub unreadable: Unreadable,
}

impl Kind for MatPairs {
    const NAME: &'static str = "mat-pairs";
    const PURPOSE: &'static str = "faces and pairs of them that two MATLAB lists name, as QMUL-SurvFace's";
}

impl DatasetConfig for MatPairs {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Dataset>> {
        let mut images = Images::default();
        let mut pairs: Vec<(f64, Compared)> = Vec::new();
        for (list, same) in [(&self.same, true), (&self.different, false)] {
            let path = cx.file(list)?.path;
            let bytes = crate::files::read(&path).map_err(|e| Error::io(&path, e))?;
            let named = names(&bytes).at(|| format!("`{list}`"))?;
            for (at, (left, right)) in named.iter().enumerate() {
                let place = || format!("`{list}`, pair {}", at + 1);
                let (left, right) = (images.number(left).at(place)?, images.number(right).at(place)?);
                if left == right {
                    return Err(Error::data("expected two images, found one twice").at(place()));
                }
                pairs.push((at as f64 / named.len() as f64, Compared { left, right, same }));
            }
        }
        // Folds are of neighbours, and each has pairs of both kinds.
        pairs.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let pairs: Vec<Compared> = pairs.into_iter().map(|(_, pair)| pair).collect();
        let paths: Vec<PathBuf> = images.files.iter().map(|file| self.folder.as_path().join(file)).collect();
        let broken = cx.readable(&self.folder, &paths, self.unreadable)?;
        let kept = (0..paths.len()).filter(|at| !broken.holds(&paths[*at])).collect();
        let row = |path: PathBuf| {
            let key = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Row { path, person: None, key, attributes: Vec::new(), region: None, line: None }
        };
        let (rows, people) = Rows::new(paths.into_iter().map(row).collect(), &[]);
        let look = Look::new(self.size, self.exif_orientation, self.low_resolution);
        Ok(Box::new(Opened::of(rows, people, look).without(kept, broken).with_pairs(pairs)))
    }
}

/// Files of the folder, numbered as they come.
#[derive(Default)]
struct Images {
    files: Vec<String>,
    numbers: BTreeMap<String, usize>,
}

impl Images {
    fn number(&mut self, file: &str) -> Result<usize> {
        let is_one_part = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
        if file.is_empty() || !is_one_part {
            return Err(Error::data(format!("expected the name of a file in the folder, found `{file}`")));
        }
        Ok(*self.numbers.entry(file.to_string()).or_insert_with(|| {
            self.files.push(file.to_string());
            self.files.len() - 1
        }))
    }
}

/// The two columns of the one variable of a list.
fn names(list: &[u8]) -> Result<Vec<(String, String)>> {
    let mat = Mat::read(list)?;
    let found: Vec<(&String, &Variable)> = mat.variables.iter().collect();
    // A list of a gallery has numbers of people beside its names.
    let [(_, Variable::Columns(columns))] = found[..] else {
        let found: Vec<&String> = mat.variables.keys().collect();
        return Err(Error::data(format!("expected one variable, cells of names in two columns, found {found:?}")));
    };
    let [left, right] = &columns[..] else {
        return Err(Error::data(format!("expected two columns of names, found {}", columns.len())));
    };
    Ok(left.iter().cloned().zip(right.iter().cloned()).collect())
}
