//! Datasets whose file names say everything: AR, SCface, QMUL-SurvFace.

use std::collections::BTreeSet;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::encoded::{Look, Names, Opened};
use super::files::{Row, Rows};
use super::identity_folders::{default_exif_orientation, is_image};
use super::image_folder::images_below;
use super::passed_over::PassedOver;
use super::unreadable::{Broken, Unreadable};
use super::{Attribute, Dataset, DatasetConfig};
use crate::context::BuildContext;
use crate::error::{Error, Problem, Result};
use crate::plugin::Kind;
use crate::recipe::RecipePath;

/// Faces below some folders whose names follow a convention: who it is, and attributes. Files of other names are passed over,
/// counted and named.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedFiles {
    /// Folders that are searched, with all folders below them.
    pub folders: Vec<RecipePath>,
    /// The convention.
    pub naming: Naming,
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

/// How files are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Naming {
    /// AR, `M-001-08.bmp`: a man or a woman (`W`, `F`), the person, the image. `session` is 1 or 2; `scenario` is `plain`,
    /// `expression`, `illumination`, `eye-occlusion` or `mouth-occlusion`; `image` is 1 to 26.
    Ar,
    /// SCface, `001_cam1_2.jpg` and `001_frontal.jpg`: `camera` is `1` to `8`, or `mugshot`; `distance` is 1 (4.2 m) to 3 (1 m), where
    /// there is one; `pose` of a mugshot is `frontal`, `L1` ... `R4`.
    Scface,
    /// QMUL-SurvFace, `24_cam2_1.jpg` in a folder `24`: the person, `camera`. Images that `.mat` lists name are for `mat-list`.
    Survface,
}

impl Kind for NamedFiles {
    const NAME: &'static str = "named-files";
    const PURPOSE: &'static str = "faces whose file names say who and how: AR, SCface, QMUL-SurvFace";
}

impl DatasetConfig for NamedFiles {
    fn check(&self) -> Vec<Problem> {
        let some = Problem::unless(!self.folders.is_empty(), "folders", || "expected at least one folder".into());
        some.into_iter().collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Dataset>> {
        let (mut names, mut rows, mut passed_over) = (Names::default(), Vec::new(), PassedOver::default());
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let mut broken = Broken::default();
        for folder in &self.folders {
            let before = rows.len();
            let mut paths: Vec<PathBuf> = Vec::new();
            for path in images_below(folder.as_path())? {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let Some((person, attributes)) = self.naming.read(&stem).filter(|_| is_image(&path)) else {
                    passed_over.add(&path);
                    continue;
                };
                let key = format!("{person}/{stem}");
                if !seen.insert(key.clone()) {
                    return Err(Error::data(format!(
                        "`{}`: another file below `folders` is called `{stem}` too; expected each image once",
                        path.display()
                    )));
                }
                let person = Some(names.number(&person));
                paths.push(path.clone());
                rows.push(Row { path, person, key, attributes, region: None, line: None });
            }
            if rows.len() == before {
                return Err(Error::data(format!("`{folder}` holds no image named as {}", self.naming.example())));
            }
            broken.extend(cx.readable(folder, &paths, self.unreadable)?);
        }
        rows.retain(|row| !broken.holds(&row.path));
        let look = Look::new(self.size, self.exif_orientation, self.low_resolution);
        let (rows, people) = Rows::new(rows, &names.people);
        Ok(Box::new(Opened::of(rows, people, look).noted(passed_over.notes()).lacking(broken)))
    }
}

impl Naming {
    fn example(self) -> &'static str {
        match self {
            Self::Ar => "AR's, such as `M-001-08.bmp`",
            Self::Scface => "SCface's, such as `001_cam1_2.jpg` or `001_frontal.jpg`",
            Self::Survface => "QMUL-SurvFace's, such as `24_cam2_1.jpg`",
        }
    }

    /// Person and attributes of a name without its ending; none if it is not of this convention.
    pub(crate) fn read(self, stem: &str) -> Option<(String, Vec<Attribute>)> {
        let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        let pairs =
            |pairs: Vec<(&str, String)>| pairs.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        match self {
            Self::Ar => {
                let [sex, person, image] = stem.split('-').collect::<Vec<_>>()[..] else { return None };
                let sex = match sex {
                    "M" | "m" => "M",
                    "W" | "w" | "F" | "f" => "W",
                    _ => return None,
                };
                let (person, image) = (number(person)?, number(image).filter(|image| (1..=26).contains(image))?);
                let (session, of_session) = if image > 13 { (2, image - 13) } else { (1, image) };
                let scenario = match of_session {
                    1 => "plain",
                    2..=4 => "expression",
                    5..=7 => "illumination",
                    8..=10 => "eye-occlusion",
                    _ => "mouth-occlusion",
                };
                let attributes = pairs(vec![
                    ("session", session.to_string()),
                    ("scenario", scenario.to_string()),
                    ("image", image.to_string()),
                ]);
                Some((format!("{sex}-{person:03}"), attributes))
            }
            Self::Scface => {
                let words: Vec<&str> = stem.split('_').collect();
                let [person, kind, rest @ ..] = words.as_slice() else { return None };
                number(person)?;
                let camera = kind.strip_prefix("cam").and_then(number);
                let attributes = match (camera, rest) {
                    (Some(camera @ 1..=8), []) => pairs(vec![("camera", camera.to_string())]),
                    (Some(camera @ 1..=8), [distance]) => {
                        let distance = number(distance).filter(|distance| (1..=3).contains(distance))?;
                        pairs(vec![("camera", camera.to_string()), ("distance", distance.to_string())])
                    }
                    (None, []) if *kind == "frontal" || is_pose(kind) => {
                        pairs(vec![("camera", "mugshot".to_string()), ("pose", kind.to_string())])
                    }
                    _ => return None,
                };
                Some((person.to_string(), attributes))
            }
            Self::Survface => {
                let [person, camera, image] = stem.split('_').collect::<Vec<_>>()[..] else { return None };
                number(person).and(number(image))?;
                let camera = camera.strip_prefix("cam").filter(|camera| number(camera).is_some())?;
                Some((person.to_string(), pairs(vec![("camera", camera.to_string())])))
            }
        }
    }
}

/// `L1` to `R4`.
fn is_pose(word: &str) -> bool {
    matches!(word.as_bytes(), [b'L' | b'R', b'1'..=b'4'])
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::plugin::Workbench;

    fn said(naming: Naming, stem: &str) -> String {
        let (person, attributes) = naming.read(stem).expect(stem);
        let attributes: Vec<String> = attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{person} {}", attributes.join(" "))
    }

    #[test]
    fn names_say_who_and_how() {
        for (naming, stem, expected) in [
            (Naming::Ar, "M-001-01", "M-001 session=1 scenario=plain image=1"),
            (Naming::Ar, "F-061-20", "W-061 session=2 scenario=illumination image=20"),
            (Naming::Ar, "w-005-10", "W-005 session=1 scenario=eye-occlusion image=10"),
            (Naming::Ar, "m-1-26", "M-001 session=2 scenario=mouth-occlusion image=26"),
            (Naming::Scface, "001_cam3_2", "001 camera=3 distance=2"),
            (Naming::Scface, "130_cam8", "130 camera=8"),
            (Naming::Scface, "001_frontal", "001 camera=mugshot pose=frontal"),
            (Naming::Scface, "001_L2", "001 camera=mugshot pose=L2"),
            (Naming::Survface, "24_cam2_1", "24 camera=2"),
        ] {
            assert_eq!(said(naming, stem), expected);
        }
        for (naming, stem) in [
            (Naming::Ar, "M-001-27"),
            (Naming::Ar, "X-001-01"),
            (Naming::Scface, "001_cam9_1"),
            (Naming::Scface, "001_cam1_4"),
            (Naming::Survface, "24_2_1"),
        ] {
            assert!(naming.read(stem).is_none(), "{stem}");
        }
    }

    #[test]
    fn a_tree_is_read_and_other_files_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("cam1")).expect("a folder");
        for (at, name) in ["cam1/002_cam1_1.png", "001_cam1_1.png", "readme.png"].iter().enumerate() {
            let image = image::RgbImage::from_pixel(9, 8, image::Rgb([at as u8, 0, 0]));
            image.save(folder.path().join(name)).expect("an image");
        }
        let config = serde_json::json!({ "folders": [folder.path()], "naming": "scface" });
        let config: NamedFiles = serde_json::from_value(config).expect("options");
        let bench = Workbench::new(Device::Cpu);
        let data = config.build(&BuildContext::new(&bench)).expect("a dataset");
        assert_eq!((data.len(), data.people()), (2, &["001".to_string(), "002".to_string()][..]));
        assert_eq!((data.key(1), data.face(1).expect("a face").width()), ("002/002_cam1_1".into(), 8));
        assert!(data.notes()[0].contains("readme.png"), "{:?}", data.notes());
        std::fs::copy(folder.path().join("001_cam1_1.png"), folder.path().join("cam1/001_cam1_1.png")).expect("copied");
        let error = config.build(&BuildContext::new(&bench)).err().expect("twice").to_string();
        assert!(error.contains("another file below `folders` is called `001_cam1_1` too"), "{error}");
        let config = NamedFiles { naming: Naming::Ar, ..config };
        assert!(config.build(&BuildContext::new(&bench)).err().expect("none").to_string().contains("named as AR's"));
    }
}
