//! Faces that a list of ours names: paths, people, boxes, attributes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::encoded::{Look, Names, Opened, Region};
use super::files::{Files, Row, Rows};
use super::identity_folders::default_exif_orientation;
use super::survey::Seen;
use super::unreadable::{Broken, Unreadable};
use super::{Dataset, DatasetConfig, composed};
use crate::context::BuildContext;
use crate::error::{Context, Error, Problem, Result};
use crate::plugin::Kind;
use crate::recipe::RecipePath;

/// Faces that a CSV list names, one a line, with commas and a header. The column `path` is an image, from the list's folder unless
/// `folder` says otherwise; `person` says who it is, and nothing is said of nobody; `x`, `y`, `width` and `height` are a box in
/// pixels of the photograph, of which the square around its middle is the face; `key` is what lists of pairs call it; all other
/// columns are attributes. So UCCS, trackers and detectors: a box is enough.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListedFaces {
    /// The list.
    pub list: RecipePath,
    /// Where its paths begin; its own folder when left out.
    #[serde(default)]
    pub folder: Option<RecipePath>,
    /// Columns by other names: `{ path = "FILE", person = "SUBJECT_ID", x = "FACE_X" }`.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// Words in the column `person` for somebody whom nobody knows, such as `-1`.
    #[serde(default)]
    pub unknown: Vec<String>,
    /// Share of a box's longer side that is added on each side.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 4.0))]
    pub margin: f64,
    /// Height and width that faces are brought to, in pixels, as in `identity-folders`; their native size when left out.
    #[serde(default)]
    #[schemars(range(min = 4, max = 4096))]
    pub size: Option<usize>,
    /// Whether images are turned as their EXIF orientation says, before a box is cut out.
    #[serde(default = "default_exif_orientation")]
    pub exif_orientation: bool,
    /// Whether the faces were photographed at low resolution: they are brought to a view's size, but not degraded.
    #[serde(default)]
    pub low_resolution: bool,
    /// What becomes of images that cannot be read, and of faces whose box does not lie in their image.
    #[serde(default)]
    pub unreadable: Unreadable,
}

impl Kind for ListedFaces {
    const NAME: &'static str = "listed";
    const PURPOSE: &'static str = "faces that a CSV list names, with people, boxes and attributes (UCCS, trackers)";
}

/// The columns that mean something.
const COLUMNS: [&str; 7] = ["path", "person", "key", "x", "y", "width", "height"];

impl DatasetConfig for ListedFaces {
    fn check(&self) -> Vec<Problem> {
        let wrong = self.columns.keys().find(|name| !COLUMNS.contains(&name.as_str()));
        let problem =
            wrong.map(|name| Problem::unless(false, "columns", || format!("expected {COLUMNS:?}, found `{name}`")));
        problem.flatten().into_iter().collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Dataset>> {
        let list = cx.file(&self.list)?.path;
        let bytes = crate::files::read(&list).map_err(|e| Error::io(&list, e))?;
        let own = RecipePath::from(self.list.as_path().parent().unwrap_or(Path::new(".")));
        let folder = self.folder.as_ref().unwrap_or(&own);
        let mut names = Names::default();
        let mut rows = self.rows(&bytes, folder.as_path(), &mut names).at(|| format!("`{}`", self.list))?;
        let look = Look { margin: self.margin, ..Look::new(self.size, self.exif_orientation, self.low_resolution) };
        let broken = self.fitting(&mut rows, folder, look, cx)?;
        let (rows, people) = Rows::new(rows, &names.people);
        Ok(Box::new(Opened::of(rows, people, look).lacking(broken)))
    }
}

impl ListedFaces {
    /// Keeps the rows whose image can be read and whose box lies in it. The others, if they may be skipped.
    fn fitting(&self, rows: &mut Vec<Row>, folder: &RecipePath, look: Look, cx: &BuildContext) -> Result<Broken> {
        let paths: BTreeSet<PathBuf> = rows.iter().map(|row| row.path.clone()).collect();
        let paths: Vec<PathBuf> = paths.into_iter().collect();
        let (mut sizes, mut broken) = (BTreeMap::new(), Broken::default());
        cx.survey(&Files(&paths), look.how, |at, seen| match seen {
            Seen::Size(width, height) => drop(sizes.insert(paths[at].clone(), (width, height))),
            Seen::Broken(why) => broken.add_file(&paths[at], &why),
        })?;
        rows.retain(|row| {
            let Some(size) = sizes.get(&row.path) else { return false };
            let fits = row.region.map_or(Ok(()), |region| region.square(*size, look.margin).map(drop));
            fits.map_err(|error| broken.add(error.at(row.place()).to_string())).is_ok()
        });
        let broken = broken.judged(rows.len(), self.unreadable)?;
        let good: Vec<PathBuf> = sizes.into_keys().collect();
        cx.note_images(folder, &good)?;
        Ok(broken)
    }

    fn rows(&self, list: &[u8], folder: &Path, names: &mut Names) -> Result<Vec<Row>> {
        let list = list.strip_prefix(b"\xef\xbb\xbf").unwrap_or(list);
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(list);
        let headers = reader.headers().map_err(failed)?.clone();
        let column = |name: &str| {
            let written = self.columns.get(name).map_or(name, String::as_str);
            headers.iter().position(|header| header == written)
        };
        let places = COLUMNS.map(column);
        let [Some(path), person, key, ..] = places else {
            let found: Vec<&str> = headers.iter().collect();
            return Err(Error::data(format!("line 1: expected a column `path`, found {found:?}")));
        };
        for name in self.columns.keys() {
            if column(name).is_none() {
                let found: Vec<&str> = headers.iter().collect();
                return Err(Error::data(format!(
                    "line 1: expected a column `{}`, found {found:?}",
                    self.columns[name]
                )));
            }
        }
        let corners = match places[3..] {
            [Some(x), Some(y), Some(width), Some(height)] => Some([x, y, width, height]),
            [None, None, None, None] => None,
            _ => {
                return Err(Error::data("line 1: expected all of the columns x, y, width and height, or none of them"));
            }
        };
        let mut rows = Vec::new();
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        for record in reader.records() {
            let record = record.map_err(failed)?;
            let line = record.position().map_or(0, csv::Position::line);
            let wrong =
                |expected: &str, found: &str| Error::data(format!("line {line}: expected {expected}, found `{found}`"));
            let cell = |at: usize| record.get(at).unwrap_or_default();
            if cell(path).is_empty() {
                return Err(wrong("a path", ""));
            }
            let who = person.map(cell).filter(|name| !name.is_empty() && !self.unknown.iter().any(|word| word == name));
            let region = match corners {
                None => None,
                Some(corners) if corners.iter().all(|at| cell(*at).is_empty()) => None,
                Some(corners) => {
                    let number = |at: usize| {
                        let number = cell(at).parse::<f64>().ok().filter(|number| number.abs() < 1e6);
                        number.ok_or_else(|| wrong("a number of pixels", cell(at)))
                    };
                    let [left, top, width, height] = corners.map(number);
                    let (width, height) = (width?, height?);
                    if width <= 0.0 || height <= 0.0 {
                        return Err(wrong("a box with width and height above 0", &format!("{width} x {height}")));
                    }
                    Some(Region { left: left?, top: top?, width, height })
                }
            };
            let who = who.map(composed);
            let stem = Path::new(cell(path)).file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let key = match key.map(cell).filter(|key| !key.is_empty()) {
                Some(key) => key.to_string(),
                None => format!("{}/{stem}", who.as_deref().unwrap_or("-")),
            };
            *count.entry(key.clone()).or_default() += 1;
            let is_attribute = |at: &usize| !places.contains(&Some(*at)) && !cell(*at).is_empty();
            let attribute = |at: usize| (headers.get(at).unwrap_or_default().to_string(), cell(at).to_string());
            let attributes = (0..headers.len()).filter(is_attribute).map(attribute).collect();
            let person = who.map(|name| names.number(&name));
            rows.push(Row { path: folder.join(cell(path)), person, key, attributes, region, line: Some(line) });
        }
        if rows.is_empty() {
            return Err(Error::data("expected at least one face below the header, found none"));
        }
        // Several faces of one photograph, or photographs of one name.
        for row in rows.iter_mut().filter(|row| count[&row.key] > 1) {
            row.key = format!("{}#{}", row.key, row.line.unwrap_or_default());
        }
        Ok(rows)
    }
}

/// What is wrong with a line.
fn failed(error: csv::Error) -> Error {
    let line = error.position().map(|position| format!("line {}", position.line()));
    let error = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            Error::data(format!("expected {expected_len} cells, as in the header, found {len}"))
        }
        csv::ErrorKind::Utf8 { .. } => Error::data("expected text in UTF-8, found other bytes"),
        _ => Error::data(error.to_string()),
    };
    match line {
        Some(line) => error.at(line),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::plugin::Workbench;

    fn opened(list: &str, options: serde_json::Value) -> Result<Box<dyn Dataset>> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("list.csv"), list).expect("a list");
        let red = |x: u32, y: u32| image::Rgb([(10 * y + x) as u8, 0, 0]);
        for name in ["a.png", "b.png"] {
            image::RgbImage::from_fn(10, 8, red).save(folder.path().join(name)).expect("an image");
        }
        std::fs::write(folder.path().join("empty.png"), "").expect("a file");
        let mut config = serde_json::json!({ "list": folder.path().join("list.csv") });
        config.as_object_mut().expect("a table").extend(options.as_object().expect("a table").clone());
        let config: ListedFaces = serde_json::from_value(config).expect("options");
        assert!(config.check().is_empty());
        let built = config.build(&BuildContext::new(&Workbench::new(Device::Cpu)))?;
        (0..built.len()).try_for_each(|index| built.face(index).at(|| built.place(index)).map(drop))?;
        Ok(built)
    }

    fn refused(list: &str) -> String {
        opened(list, serde_json::json!({})).err().expect("refused").to_string()
    }

    #[test]
    fn people_boxes_and_attributes_are_those_of_the_list() {
        let list = "path,person,x,y,width,height,light\na.png,Ann,1,2,4,4,dim\na.png,Ann,5,0,2,2,\nb.png,,,,,,dim\n";
        let data = opened(list, serde_json::json!({})).expect("a dataset");
        assert_eq!((data.len(), data.people()), (3, &["Ann".to_string()][..]));
        let keys: Vec<String> = (0..3).map(|at| data.key(at)).collect();
        assert_eq!(keys, ["Ann/a#2", "Ann/a#3", "-/b"]);
        assert_eq!(data.attributes(0), [("light".to_string(), "dim".to_string())]);
        assert!(data.attributes(1).is_empty() && data.person(2).is_none());
    }

    #[test]
    fn columns_may_have_other_names() {
        let list = "FILE,SUBJECT_ID,FACE_X,FACE_Y,FACE_WIDTH,FACE_HEIGHT\na.png,12,0,0,4,4\nb.png,-1,0,0,4,4\n";
        let columns = serde_json::json!({
            "columns": { "path": "FILE", "person": "SUBJECT_ID", "x": "FACE_X", "y": "FACE_Y", "width": "FACE_WIDTH",
                         "height": "FACE_HEIGHT" },
            "unknown": ["-1"],
        });
        let data = opened(list, columns).expect("a dataset");
        assert_eq!((data.people(), data.person(1), data.key(1)), (&["12".to_string()][..], None, "-/b".into()));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        assert!(refused("file\na.png\n").contains("line 1: expected a column `path`, found [\"file\"]"));
        assert!(refused("path,x\na.png,1\n").contains("all of the columns x, y, width and height, or none"));
        assert!(
            refused("path,x,y,width,height\na.png,1,2,z,4\n")
                .contains("line 2: expected a number of pixels, found `z`")
        );
        assert!(
            refused("path,x,y,width,height\na.png,1,2,0,4\n").contains("line 2: expected a box with width and height")
        );
        let said = refused("path,person\na.png\n");
        assert!(said.ends_with("list.csv`: line 2: expected 2 cells, as in the header, found 1"), "{said}");
        assert!(refused("path\n").contains("expected at least one face"));
        let said = refused("path,x,y,width,height\na.png,90,90,4,4\n");
        assert!(said.contains("a.png` (line 2 of the list): the box at (90, 90)"), "{said}");
        assert!(refused("path\nempty.png\n").contains("empty.png`: not a readable image: it is empty"));
        assert!(refused("path\nnowhere.png\n").contains("no such file"));
        let skipped = opened("path\nempty.png\na.png\n", serde_json::json!({ "unreadable": "skip" })).expect("one");
        assert_eq!((skipped.len(), skipped.notes().len(), skipped.left_out().len()), (1, 1, 1));
    }
}
