//! What a teacher said before, read from a file: a network that gdrd cannot run is a teacher all the same.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use gdrd_core::context::BuildContext;
use gdrd_core::data::{HIGH, read_face};
use gdrd_core::digest;
use gdrd_core::error::{Context, Error, Problem, Result};
use gdrd_core::face::Face;
use gdrd_core::nn::weights::{check_finite, read_safetensors};
use gdrd_core::plugin::Kind;
use gdrd_core::recipe::RecipePath;
use gdrd_core::recipe::diagnostic::suggest;
use gdrd_core::teacher::{Output, Preprocessing, Shown, Teacher, TeacherCard, TeacherConfig, cannot_offer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::weights::read_npy;

/// Embeddings, logits and feature maps from a file, one row for each face.
///
/// A face finds its row by the sha256 of its pixels, so neither order nor names matter, and a face that has no row is an
/// error. `gdrd features` and `gdrd embed` write these digests beside the values; for other files `images` lists the
/// image of each row. A face is met as the dataset has it: at the dataset's size, before the degradation. Mirrored
/// faces need rows of their own. Such a teacher is not measured by protocols.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Precomputed {
    /// A safetensors file with any of `embedding` `[rows, width]` (or `embeddings`), `logits` `[rows, identities]` and
    /// feature maps `[rows, channels, height, width]` under their own names, and with `faces` `[rows, 32]`, the sha256
    /// of each face's RGB bytes; or a .npy file of embeddings: float16, float32 or float64, in any order of bytes and
    /// dimensions.
    pub file: RecipePath,
    /// For a file without `faces`: a text file with the path of one image a line, in the order of the rows. Relative
    /// paths start at its folder.
    #[serde(default)]
    pub images: Option<RecipePath>,
    /// Height and width that these images are read at, in pixels: the dataset's; their native size when left out.
    #[serde(default)]
    #[schemars(range(min = 4, max = 4096))]
    pub size: Option<usize>,
    /// The feature map that is meant when a loss names none; may be left out where the file has one map.
    #[serde(default)]
    pub tap: Option<String>,
}

impl Kind for Precomputed {
    const NAME: &'static str = "precomputed";
    const PURPOSE: &'static str = "embeddings, logits and feature maps from a safetensors or .npy file";
}

fn is_npy(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "npy")
}

impl TeacherConfig for Precomputed {
    fn check(&self) -> Vec<Problem> {
        let listed = self.images.is_some() || !is_npy(self.file.as_path());
        let images = Problem::unless(listed, "file", || {
            "a .npy file does not say which faces its rows belong to; list their images with `images`".into()
        });
        images.into_iter().collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Teacher>> {
        let file = cx.file(&self.file)?.path;
        let place = || format!("`{}`", self.file);
        let mut tensors = if is_npy(self.file.as_path()) {
            let values = read_npy(&file)?;
            check_finite("embedding", &values).at(place)?;
            BTreeMap::from([("embedding".to_string(), values)])
        } else {
            read_safetensors(&file)?
        };
        let faces = match (tensors.remove("faces"), &self.images) {
            (Some(faces), None) => digests(&faces).at(place)?,
            (None, Some(list)) => listed(list, &cx.file(list)?.path, self.size, cx)?,
            (Some(_), Some(_)) => {
                return Err(Error::data("the file has `faces` of its own; leave out `images`").at(place()));
            }
            (None, None) => {
                return Err(Error::data(
                    "no tensor `faces` says which faces the rows belong to; list their images with `images`",
                )
                .at(place()));
            }
        };
        let outputs = outputs(tensors, faces.len()).at(place)?;
        let default_map = default_map(self.tap.as_deref(), &outputs).at(|| "`tap`".into())?;
        let card = TeacherCard {
            input_size: None,
            preprocessing: Preprocessing::none(),
            views: vec![HIGH.into()],
            default_map,
        };
        let rows = faces.len();
        // Equal faces share the first of their rows.
        let row_of = faces.into_iter().enumerate().rev().map(|(row, face)| (face, row as u32)).collect();
        Ok(Box::new(Rows { card, file: self.file.to_string(), rows, row_of, outputs, device: cx.device().clone() }))
    }
}

type Sha256 = [u8; 32];

/// The digests in a tensor `[rows, 32]` of bytes.
fn digests(faces: &Tensor) -> Result<Vec<Sha256>> {
    match (faces.dtype(), faces.dims()) {
        (DType::U8, [_, 32]) => {
            let bytes = faces.flatten_all()?.to_vec1::<u8>()?;
            Ok(bytes.as_chunks::<32>().0.to_vec())
        }
        (dtype, dims) => Err(Error::data(format!("expected `faces` [rows, 32] of bytes, found {dims:?} of {dtype:?}"))),
    }
}

/// The digests of the images that a file lists.
fn listed(written: &RecipePath, list: &Path, size: Option<usize>, cx: &BuildContext) -> Result<Vec<Sha256>> {
    let text = std::fs::read_to_string(list).map_err(|e| Error::io(list, e))?;
    let folder = list.parent().unwrap_or(Path::new("."));
    let images = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let images: Vec<PathBuf> = images.map(|image| folder.join(image)).collect();
    let place = || format!("`{written}`");
    cx.images(&RecipePath::from(format!("{written}, images")), &images).at(place)?;
    let digest = |image: &PathBuf| Ok(digest::of_bytes(read_face(image, size)?.pixels()));
    images.iter().map(digest).collect::<Result<_>>().at(place)
}

/// The tensors as what they offer; each must have `rows` rows.
fn outputs(tensors: BTreeMap<String, Tensor>, rows: usize) -> Result<BTreeMap<Output, Tensor>> {
    let mut outputs = BTreeMap::new();
    let mut wrong = Vec::new();
    for (name, tensor) in tensors {
        let (output, dims) = match name.as_str() {
            "embedding" | "embeddings" => (Output::Embedding, 2),
            "logits" => (Output::Logits, 2),
            _ => (Output::Map(name.clone()), 4),
        };
        let shape = tensor.dims();
        if shape.len() != dims || !tensor.dtype().is_float() {
            let expected = if dims == 2 { "[rows, values]" } else { "[rows, channels, height, width]" };
            wrong.push(format!("`{name}`: expected {expected} of floats, found {shape:?} of {:?}", tensor.dtype()));
        } else if shape[0] != rows {
            wrong.push(format!("`{name}` has {} rows for {rows} faces", shape[0]));
        } else if shape.contains(&0) {
            wrong.push(format!("`{name}` holds no values: {shape:?}"));
        }
        if outputs.insert(output, tensor).is_some() {
            wrong.push("there is both `embedding` and `embeddings`".into());
        }
    }
    if outputs.is_empty() {
        wrong.push("expected `embedding`, `logits` or a feature map, found none of them".into());
    }
    if wrong.is_empty() { Ok(outputs) } else { Err(Error::data(wrong.join("; "))) }
}

fn maps(outputs: &BTreeMap<Output, Tensor>) -> impl Iterator<Item = &str> {
    outputs.keys().filter_map(|output| match output {
        Output::Map(name) => Some(name.as_str()),
        _ => None,
    })
}

fn default_map(tap: Option<&str>, outputs: &BTreeMap<Output, Tensor>) -> Result<Option<String>> {
    let mut all = maps(outputs);
    match tap {
        Some(tap) if all.any(|map| map == tap) => Ok(Some(tap.to_string())),
        Some(tap) => {
            Err(Error::recipe(format!("the file has no feature map `{tap}`; {}", suggest(tap, maps(outputs)))))
        }
        None => Ok(all.next().filter(|_| all.next().is_none()).map(str::to_string)),
    }
}

struct Rows {
    card: TeacherCard,
    file: String,
    rows: usize,
    row_of: HashMap<Sha256, u32>,
    outputs: BTreeMap<Output, Tensor>,
    device: Device,
}

impl Rows {
    fn of(&self, output: &Output) -> Result<&Tensor> {
        let offers = || self.outputs.keys().map(|output| format!("`{output}`")).collect::<Vec<_>>().join(", ");
        self.outputs.get(output).ok_or_else(|| cannot_offer(output, &offers()))
    }
}

impl Teacher for Rows {
    fn card(&self) -> &TeacherCard {
        &self.card
    }

    fn shape(&self, output: &Output, _: usize) -> Result<Vec<usize>> {
        Ok(self.of(output)?.dims()[1..].to_vec())
    }

    fn features(&self, shown: &Shown, outputs: &[Output]) -> Result<Vec<Tensor>> {
        let faces = shown.faces().to_faces()?;
        let row = |face: &Face| self.row_of.get(&digest::of_bytes(face.pixels())).copied();
        let found: Vec<u32> = faces.iter().filter_map(row).collect();
        if found.len() < faces.len() {
            return Err(Error::data(format!(
                "{} of {} faces are none of the {} faces in `{}`. Faces are known by their pixels at the size of the \
                 dataset, here {size}x{size}; mirrored ones are other faces: `gdrd features --flip` writes both, \
                 `augment.flip = false` in the stage asks for none",
                faces.len() - found.len(),
                faces.len(),
                self.rows,
                self.file,
                size = faces[0].width(),
            )));
        }
        let rows = Tensor::new(found, &Device::Cpu)?;
        let pick = |output| {
            let picked = self.of(output)?.index_select(&rows, 0)?.to_dtype(DType::F32)?;
            Ok(picked.to_device(&self.device)?)
        };
        outputs.iter().map(pick).collect()
    }

    fn maps(&self) -> Vec<String> {
        maps(&self.outputs).map(str::to_string).collect()
    }

    fn knows_any_face(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use gdrd_core::face::FaceBatch;
    use gdrd_core::plugin::Workbench;

    use super::*;

    fn face(value: u8) -> Face {
        Face::new(4, 4, (0..48).map(|i| i * value).collect()).expect("48 bytes")
    }

    fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
        Tensor::from_slice(values, shape, &Device::Cpu).expect("a tensor")
    }

    /// Three rows: faces 1 and 2, and face 1 again.
    fn tensors() -> BTreeMap<String, Tensor> {
        let faces: Vec<u8> = [1, 2, 1].into_iter().flat_map(|value| digest::of_bytes(face(value).pixels())).collect();
        BTreeMap::from([
            ("faces".to_string(), Tensor::from_vec(faces, (3, 32), &Device::Cpu).expect("digests")),
            ("embedding".to_string(), tensor(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[3, 2])),
            ("deep".to_string(), tensor(&[7.0, 8.0, 9.0], &[3, 1, 1, 1])),
        ])
    }

    fn build(tensors: &BTreeMap<String, Tensor>, change: impl FnOnce(&mut Precomputed)) -> Result<Box<dyn Teacher>> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("rows.safetensors");
        candle_core::safetensors::save(&tensors.clone().into_iter().collect(), &file).expect("written");
        let mut config = Precomputed { file: file.into(), images: None, size: Some(4), tap: None };
        change(&mut config);
        assert!(config.check().is_empty());
        config.build(&BuildContext::new(&Workbench::new(Device::Cpu)))
    }

    fn fails(change: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> String {
        let mut tensors = tensors();
        change(&mut tensors);
        build(&tensors, |_| ()).err().expect("a bad file").to_string()
    }

    #[test]
    fn faces_find_their_rows_in_any_order() {
        let teacher = build(&tensors(), |_| ()).expect("a teacher");
        assert_eq!(teacher.card().default_map.as_deref(), Some("deep"));
        assert_eq!(teacher.shape(&Output::Map("deep".into()), 4).expect("a shape"), [1, 1, 1]);
        let batch = FaceBatch::from_faces(&[face(2), face(1)], &Device::Cpu).expect("a batch");
        let found =
            teacher.features(&batch.clone().into(), &[Output::Embedding, Output::Map("deep".into())]).expect("rows");
        assert_eq!(found[0].to_vec2::<f32>().expect("rows"), [[3.0, 4.0], [1.0, 2.0]]);
        assert_eq!(found[1].dims(), [2, 1, 1, 1]);
        let error = teacher.features(&batch.clone().into(), &[Output::Logits]).expect_err("no logits").to_string();
        assert!(error.contains("cannot offer `logits`; it offers `embedding`, `map deep`"), "{error}");
    }

    #[test]
    fn a_face_without_a_row_is_an_error() {
        let teacher = build(&tensors(), |_| ()).expect("a teacher");
        for other in [face(3), face(1).flipped()] {
            let batch = FaceBatch::from_faces(&[face(1), other], &Device::Cpu).expect("a batch");
            let error = teacher.features(&batch.clone().into(), &[Output::Embedding]).expect_err("no row").to_string();
            assert!(error.contains("1 of 2 faces are none of the 3 faces in `"), "{error}");
        }
    }

    #[test]
    fn files_that_do_not_fit_are_refused() {
        let text = fails(|t| drop(t.insert("logits".into(), tensor(&[0.0; 4], &[2, 2]))));
        assert!(text.contains("rows.safetensors`: `logits` has 2 rows for 3 faces"), "{text}");
        let text = fails(|t| drop(t.insert("flat".into(), tensor(&[0.0; 3], &[3, 1]))));
        assert!(text.contains("`flat`: expected [rows, channels, height, width] of floats, found [3, 1]"), "{text}");
        let text = fails(|t| drop(t.remove("faces")));
        assert!(text.contains("no tensor `faces`"), "{text}");
        let text = fails(|t| drop(t.insert("faces".into(), tensor(&[0.0; 96], &[3, 32]))));
        assert!(text.contains("expected `faces` [rows, 32] of bytes, found [3, 32] of F32"), "{text}");
        let text = fails(|t| t.retain(|name, _| name == "faces"));
        assert!(text.contains("found none of them"), "{text}");
        let text = fails(|t| drop(t.insert("embedding".into(), tensor(&[0.0, 1.0, 2.0, f32::NAN, 4.0, 5.0], &[3, 2]))));
        assert!(text.contains("rows.safetensors`: `embedding` at [1, 1] is NaN; expected finite numbers"), "{text}");
        let text = fails(|t| drop(t.insert("embedding".into(), tensor(&[], &[3, 0]))));
        assert!(text.contains("`embedding` holds no values: [3, 0]"), "{text}");
        let text = build(&tensors(), |config| config.tap = Some("depe".into())).err().expect("no such map").to_string();
        assert!(text.contains("no feature map `depe`; did you mean `deep`?"), "{text}");
        let npy = Precomputed { file: "rows.npy".into(), images: None, size: Some(4), tap: None };
        assert_eq!(npy.check()[0].key, "file");
    }
}
