//! Faces that a MATLAB list names: TinyFace's and QMUL-SurvFace's galleries and probes.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::encoded::{Look, Names, Opened};
use super::files::{Row, Rows};
use super::identity_folders::default_exif_orientation;
use super::mat::{Mat, Variable};
use super::unreadable::Unreadable;
use super::{Dataset, DatasetConfig};
use crate::context::BuildContext;
use crate::error::{Context, Error, Result};
use crate::plugin::Kind;
use crate::recipe::RecipePath;

/// Faces in one folder, and who they are by a `.mat` file with two variables: names of files, and as many numbers of people. TinyFace
/// has `gallery_match_img_ID_pairs.mat` with `gallery_set` and `gallery_ids`, and `probe_img_ID_pairs.mat`; QMUL-SurvFace
/// `gallery_img_ID_pairs.mat` and `mated_probe_img_ID_pairs.mat`. Their training sets are `identity-folders`, and their distractors
/// and unmated probes an `image-folder`. MATLAB's versions 5 to 7.2 are read, not 7.3.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatList {
    /// The `.mat` file.
    pub list: RecipePath,
    /// The folder of the images.
    pub folder: RecipePath,
    /// The variable of names; the one that ends with `_set` when left out.
    #[serde(default)]
    pub names: Option<String>,
    /// The variable of numbers; the one that ends with `_ids` when left out.
    #[serde(default)]
    pub ids: Option<String>,
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

impl Kind for MatList {
    const NAME: &'static str = "mat-list";
    const PURPOSE: &'static str = "faces that a MATLAB list names, as TinyFace's and QMUL-SurvFace's";
}

impl DatasetConfig for MatList {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Dataset>> {
        let list = cx.file(&self.list)?.path;
        let bytes = crate::files::read(&list).map_err(|e| Error::io(&list, e))?;
        let mut names = Names::default();
        let mut rows = self.rows(&bytes, &mut names).at(|| format!("`{}`", self.list))?;
        let paths: Vec<PathBuf> = rows.iter().map(|row| row.path.clone()).collect();
        let broken = cx.readable(&self.folder, &paths, self.unreadable)?;
        rows.retain(|row| !broken.holds(&row.path));
        let look = Look::new(self.size, self.exif_orientation, self.low_resolution);
        let (rows, people) = Rows::new(rows, &names.people);
        Ok(Box::new(Opened::of(rows, people, look).lacking(broken)))
    }
}

impl MatList {
    fn rows(&self, list: &[u8], people: &mut Names) -> Result<Vec<Row>> {
        let mat = Mat::read(list)?;
        let found = |wanted: &Option<String>, ending: &str| {
            let fits = |name: &&String| match wanted {
                Some(wanted) => *name == wanted,
                None => name.ends_with(ending),
            };
            let names: Vec<&String> = mat.variables.keys().filter(fits).collect();
            match names.as_slice() {
                [one] => Ok((*one).clone()),
                _ => {
                    let wanted =
                        wanted.as_ref().map_or(format!("one that ends with `{ending}`"), |name| format!("`{name}`"));
                    let all: Vec<&String> = mat.variables.keys().collect();
                    Err(Error::data(format!("expected a variable, {wanted}, found {all:?}")))
                }
            }
        };
        let (names, ids) = (found(&self.names, "_set")?, found(&self.ids, "_ids")?);
        let (Variable::Texts(files), Variable::Numbers(numbers)) = (&mat.variables[&names], &mat.variables[&ids])
        else {
            return Err(Error::data(format!(
                "expected texts in `{names}` and numbers in `{ids}`, found something else"
            )));
        };
        if files.len() != numbers.len() || files.is_empty() {
            return Err(Error::data(format!(
                "expected as many names as numbers, found {} in `{names}` and {} in `{ids}`",
                files.len(),
                numbers.len()
            )));
        }
        let mut seen = BTreeSet::new();
        let row = |(at, (file, number)): (usize, (&String, &f64))| {
            let wrong = |what: String| Error::data(format!("`{names}` {}: {what}", at + 1));
            let path = Path::new(file);
            if file.is_empty() || path.components().any(|part| !matches!(part, Component::Normal(_))) {
                return Err(wrong(format!("expected the name of a file in the folder, found `{file}`")));
            }
            if number.fract() != 0.0 || !(0.0..1e15).contains(number) {
                return Err(wrong(format!("expected a whole number of a person, found {number}")));
            }
            if !seen.insert(file.clone()) {
                return Err(wrong(format!("`{file}` stands in the list twice")));
            }
            let id = format!("{number:.0}");
            let key = format!("{id}/{}", path.file_stem().unwrap_or_default().to_string_lossy());
            let person = Some(people.number(&id));
            let path = self.folder.as_path().join(path);
            Ok(Row { path, person, key, attributes: Vec::new(), region: None, line: Some(at as u64 + 1) })
        };
        files.iter().zip(numbers).enumerate().map(row).collect()
    }
}
