//! Teacher features on disk: each teacher runs once for a dataset, whatever number of runs use it.
//!
//! A file is named by the sha256 of everything that its values depend on: what the teacher is, the output, the views, the
//! variant (which change of the faces), the dataset, this program and the kernels that its processor runs. It is a safetensors
//! file with one half-precision tensor `features`, `[faces, ...]`, with a checksum behind it, and is read through a memory map.

use std::collections::BTreeMap;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use half::f16;
use rayon::prelude::*;

use super::{Output, Shown, Teacher, prepared};
use crate::data::{Augment, Variant, Views};
use crate::digest;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::face::{Face, FaceBatch};
use crate::files::{self, Seal};
use crate::nn::kernels;
use crate::seed::Seed;

/// Faces that a teacher sees at once while features are stored.
const BATCH: usize = 32;

/// A folder of stored features.
#[derive(Clone, Debug)]
pub struct FeatureStore {
    folder: PathBuf,
    program: String,
}

/// A teacher and what it looks at.
pub struct Source<'a> {
    /// The teacher.
    pub teacher: &'a dyn Teacher,
    /// Digest of everything that the teacher is.
    pub content: String,
    /// The faces.
    pub views: &'a Views,
    /// Random changes of the faces.
    pub augment: &'a Augment,
    /// The device that the teacher is on.
    pub device: &'a Device,
}

impl Source<'_> {
    /// Height and width of the faces that reach the teacher, in its first view.
    ///
    /// # Errors
    /// If there is no such view.
    pub fn input_size(&self) -> Result<usize> {
        let card = self.teacher.card();
        card.input_size.map_or_else(|| self.views.size(&card.views[0]), Ok)
    }

    /// Seconds that the teacher needs for a batch of `count` faces.
    ///
    /// # Errors
    /// If a face cannot be read, or the teacher fails.
    pub fn seconds(&self, count: usize, output: &Output) -> Result<f64> {
        let batches = self.batches(0..count, &[Variant::default()])?;
        let since = std::time::Instant::now();
        self.teacher.features(&batches[0], std::slice::from_ref(output))?;
        Ok(since.elapsed().as_secs_f64())
    }

    fn key(&self, output: &Output, variant: Variant, program: &str) -> Result<String> {
        let card = self.teacher.card();
        let views = card.views.iter().map(|view| self.views.content(view)).collect::<Result<Vec<_>>>()?;
        Ok(digest::of_value(&serde_json::json!({
            "store": 2,
            "program": program,
            "device": kernels::device_name(self.device)?,
            "teacher": self.content,
            "output": output.to_string(),
            "views": views,
            "input": card.input_size,
            "change": self.augment.content(variant),
            "mirrored": variant.mirrored,
        })))
    }

    /// Faces as the teacher is shown them, for each of the variants, which are of one draw: each face is read and changed once.
    fn batches(&self, indices: std::ops::Range<usize>, variants: &[Variant]) -> Result<Vec<Shown>> {
        let (card, views) = (self.teacher.card(), self.views);
        let keys: Vec<String> = indices.clone().map(|index| views.dataset().key(index)).collect();
        let mut shown: Vec<Vec<FaceBatch>> = variants.iter().map(|_| Vec::with_capacity(card.views.len())).collect();
        for view in &card.views {
            let faces = |index: usize| -> Result<Vec<Face>> {
                let draw = Variant { mirrored: false, ..variants[0] };
                let face = views.face(index, view, (self.augment, draw), &mut Seed(0).stream("unused", &[]))?;
                let side = |variant: &Variant| if variant.mirrored { face.flipped() } else { face.clone() };
                variants.iter().map(|variant| prepared(card, side(variant))).collect()
            };
            let faces = indices.clone().into_par_iter().map(faces).collect::<Result<Vec<_>>>()?;
            for (at, views) in shown.iter_mut().enumerate() {
                let faces: Vec<Face> = faces.iter().map(|of_face| of_face[at].clone()).collect();
                views.push(FaceBatch::from_faces(&faces, self.device)?);
            }
        }
        shown.into_iter().map(|views| Ok(Shown::new(views)?.with_keys(keys.clone()))).collect()
    }
}

impl FeatureStore {
    /// The store in `folder`, which is made when first written to. `program` says whose features these are: the digest of the
    /// program and its kernels.
    pub fn open(folder: impl Into<PathBuf>, program: impl Into<String>) -> Self {
        Self { folder: folder.into(), program: program.into() }
    }

    /// Where the features are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The features of every face of the source in every variant, for each output. What is not stored yet is computed, variants of
    /// one draw in one pass, as is what is damaged. `report` is told the draw and how many faces are done, and may stop the
    /// pass with an error; `warn` is told what is made again and why.
    ///
    /// # Errors
    /// If the teacher cannot offer an output, a face cannot be read, a feature is not finite in half precision,
    /// or the file cannot be written; nothing half-written stays.
    pub fn features(
        &self,
        source: &Source,
        variants: &[Variant],
        outputs: &[Output],
        report: &mut dyn FnMut(u32, usize, usize) -> Result<()>,
        warn: &mut dyn FnMut(String) -> Result<()>,
    ) -> Result<Vec<BTreeMap<Variant, Stored>>> {
        let mut found: Vec<BTreeMap<Variant, Stored>> = outputs.iter().map(|_| BTreeMap::new()).collect();
        for of_draw in variants.chunk_by(|a, b| a.draw == b.draw) {
            // What is missing: for each variant the outputs, with their files.
            let mut missing: Vec<Missing> = Vec::new();
            for &variant in of_draw {
                let mut absent = Missing { variant, outputs: Vec::new(), files: Vec::new() };
                for (at, output) in outputs.iter().enumerate() {
                    let path = self.path(source, output, variant)?;
                    match path.exists().then(|| Stored::open(&path)) {
                        Some(Ok(stored)) => {
                            found[at].insert(variant, stored);
                            continue;
                        }
                        Some(Err(error)) if error.kind() == ErrorKind::Data => {
                            warn(format!("{error}; it is made again"))?;
                        }
                        Some(Err(error)) => return Err(error),
                        None => {}
                    }
                    absent.outputs.push(output.clone());
                    absent.files.push((at, path));
                }
                if !absent.outputs.is_empty() {
                    missing.push(absent);
                }
            }
            if missing.is_empty() {
                continue;
            }
            files::make_folders(&self.folder).map_err(|e| Error::io(&self.folder, e))?;
            files::sweep(&self.folder);
            fill(source, &missing, &mut |done, total| report(of_draw[0].draw, done, total))?;
            for Missing { variant, files, .. } in missing {
                for (at, path) in files {
                    found[at].insert(variant, Stored::open(&path)?);
                }
            }
        }
        Ok(found)
    }

    fn path(&self, source: &Source, output: &Output, variant: Variant) -> Result<PathBuf> {
        Ok(self.folder.join(format!("{}.safetensors", source.key(output, variant, &self.program)?)))
    }
}

/// Outputs of one variant that are not stored.
struct Missing {
    variant: Variant,
    outputs: Vec<Output>,
    /// Which of the outputs that were asked for each is, and its file.
    files: Vec<(usize, PathBuf)>,
}

/// Makes what is missing of one draw in one pass over the faces.
fn fill(source: &Source, missing: &[Missing], report: &mut dyn FnMut(usize, usize) -> Result<()>) -> Result<()> {
    let dataset = source.views.dataset();
    let total = dataset.len();
    let writer = |output: &Output, path: &Path| {
        let mut shape = vec![total];
        shape.extend(source.teacher.shape(output, source.input_size()?)?);
        Writer::create(path, &shape)
    };
    let writers = |of: &Missing| -> Result<Vec<Writer>> {
        of.outputs.iter().zip(&of.files).map(|(output, (_, path))| writer(output, path)).collect()
    };
    let mut writers = missing.iter().map(writers).collect::<Result<Vec<_>>>()?;
    let variants: Vec<Variant> = missing.iter().map(|of| of.variant).collect();
    for start in (0..total).step_by(BATCH) {
        report(start, total)?;
        let end = (start + BATCH).min(total);
        let range = format!("`{}` to `{}`", dataset.place(start), dataset.place(end - 1));
        let batches = source.batches(start..end, &variants).at(|| format!("faces {range}"))?;
        for ((of, batch), writers) in missing.iter().zip(&batches).zip(&mut writers) {
            let place = || format!("{} {range}", if of.variant.mirrored { "mirrored faces" } else { "faces" });
            let found = source.teacher.features(batch, &of.outputs).at(place)?;
            for ((tensor, writer), output) in found.iter().zip(writers).zip(&of.outputs) {
                writer.append(tensor).at(|| output.to_string()).at(place)?;
            }
        }
    }
    writers.into_iter().flatten().try_for_each(Writer::finish)?;
    report(total, total)
}

/// A file that gets its name only when it is complete.
struct Writer {
    path: PathBuf,
    file: BufWriter<tempfile::NamedTempFile>,
    seal: Seal,
    values_left: usize,
}

impl Writer {
    fn create(path: &Path, shape: &[usize]) -> Result<Self> {
        let values: usize = shape.iter().product();
        let tensor = serde_json::json!({"features": {"dtype": "F16", "shape": shape, "data_offsets": [0, 2 * values]}});
        let mut header = tensor.to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let file = files::partial_file(path, files::Readers::All)?;
        let file = BufWriter::with_capacity(1 << 20, file);
        let mut writer = Self { path: path.to_path_buf(), file, seal: Seal::default(), values_left: values };
        writer.write(&(header.len() as u64).to_le_bytes())?;
        writer.write(&header)?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.seal.update(bytes);
        files::write_all(&mut self.file, &self.path, bytes).map_err(|e| Error::io(&self.path, e))
    }

    fn append(&mut self, tensor: &Tensor) -> Result<()> {
        let values = tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        let mut bytes = Vec::with_capacity(2 * values.len());
        for value in &values {
            let small = f16::from_f32(*value);
            if !small.is_finite() {
                return Err(Error::component(format!("the feature value {value} is not finite in half precision")));
            }
            bytes.extend_from_slice(&small.to_le_bytes());
        }
        self.values_left = self
            .values_left
            .checked_sub(values.len())
            .ok_or_else(|| Error::component("the teacher returns more values than the shape that it declares"))?;
        self.write(&bytes)
    }

    fn finish(mut self) -> Result<()> {
        if self.values_left != 0 {
            return Err(Error::component("the teacher returns fewer values than the shape that it declares"));
        }
        files::write_all(&mut self.file, &self.path, &self.seal.finish()).map_err(|e| Error::io(&self.path, e))?;
        let file = self.file.into_inner().map_err(|e| Error::io(&self.path, e.into_error()))?;
        files::sync(file.as_file(), &self.path).map_err(|e| Error::io(&self.path, e))?;
        files::persist(file, &self.path)
    }
}

/// One output of one teacher for every face of a dataset.
pub struct Stored {
    map: files::Mapped,
    start: usize,
    shape: Vec<usize>,
}

impl Stored {
    /// Opens a file of the store.
    ///
    /// # Errors
    /// If it cannot be read, or is damaged ([`ErrorKind::Data`]).
    pub fn open(path: &Path) -> Result<Self> {
        let map = files::Mapped::open(path)?;
        let broken = |what: String| Error::data(format!("stored features `{}`: {what}", path.display()));
        let (start, shape) = {
            let bytes = files::unsealed(&map).map_err(|e| broken(e.to_string()))?;
            let tensors = safetensors::SafeTensors::deserialize(bytes).map_err(|e| broken(e.to_string()))?;
            let view = tensors.tensor("features").map_err(|e| broken(e.to_string()))?;
            if view.dtype() != safetensors::Dtype::F16 || view.shape().is_empty() {
                let (dtype, shape) = (view.dtype(), view.shape());
                return Err(broken(format!("expected float16 [faces, ...], found {dtype:?} {shape:?}")));
            }
            (view.data().as_ptr() as usize - map.as_ptr() as usize, view.shape().to_vec())
        };
        Ok(Self { map, start, shape })
    }

    /// Number of faces.
    pub fn len(&self) -> usize {
        self.shape[0]
    }

    /// Whether there is no face.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape for one face.
    pub fn shape(&self) -> &[usize] {
        &self.shape[1..]
    }

    /// Copies the values of one face into `out`.
    ///
    /// # Panics
    /// If there is no such face, or `out` has another length.
    pub fn copy(&self, index: usize, out: &mut [f32]) {
        let width = out.len();
        assert_eq!(width, self.shape().iter().product::<usize>());
        let from = self.start + 2 * width * index;
        for (value, bytes) in out.iter_mut().zip(self.map[from..from + 2 * width].chunks_exact(2)) {
            *value = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
        }
    }
}

/// The features of a batch, `[batch, ...]`, float32: of each face those of the variant that it shows.
///
/// # Errors
/// If a variant was not stored.
pub fn gather(
    stored: &BTreeMap<Variant, Stored>,
    indices: &[usize],
    variants: &[Variant],
    device: &Device,
) -> Result<Tensor> {
    let Some(first) = stored.values().next() else { return Err(Error::component("no features were stored")) };
    let width: usize = first.shape().iter().product();
    let mut values = vec![0f32; width * indices.len()];
    for ((out, &index), variant) in values.chunks_exact_mut(width).zip(indices).zip(variants) {
        let of_variant = stored.get(variant);
        of_variant
            .ok_or_else(|| Error::component(format!("features of {variant:?} were not stored")))?
            .copy(index, out);
    }
    let mut shape = vec![indices.len()];
    shape.extend(first.shape());
    Ok(Tensor::from_vec(values, shape, device)?)
}
