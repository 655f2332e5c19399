//! The embedding API for other people's programs.

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use gdrd_core::embedder::{Embedder, Embeddings};
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::face::{Face, FaceBatch};
use gdrd_core::files::Mapped;
use gdrd_core::nn::kernels::{WeightPrecision, keep_awake};
use gdrd_core::nn::{Inference, Mode};
use gdrd_core::student::{
    QualityModel, Student, StudentConfig, StudentFile, StudentHeader, StudentKinds, student_digest,
};
use serde::de::DeserializeOwned;

use crate::embedding::Embedding;
use crate::front_end::AsFace;
use crate::networks::{
    DiffusionTrunk, DiffusionUnet, IresnetStudent, MobileFaceNetStudent, MobileNet, ResnetTrunk, SuperResolution,
};

/// A trained student, ready to embed faces. Threads may share it.
///
/// ```
/// use gdrd_student::{Face, FaceEncoder};
///
/// # fn main() -> Result<(), gdrd_student::Error> {
/// # let student = "../tests/files/student-format-1.safetensors";
/// let encoder = FaceEncoder::open(student)?;
/// let aligned = Face::new(112, 112, vec![127; 3 * 112 * 112])?;
/// let embeddings = encoder.embed(&[aligned.clone(), aligned.flipped()])?;
/// // It is as grey from both sides.
/// assert!(embeddings.similarity(0, 1)? > 0.999);
/// # Ok(())
/// # }
/// ```
pub struct FaceEncoder {
    name: String,
    header: StudentHeader,
    digest: Arc<str>,
    network: Network,
    pub(crate) width: usize,
    device: Device,
}

/// What embeds: on the CPU the form that is fastest, where the student has one. Then no other holds the weights.
enum Network {
    Fast(Box<Inference>),
    Layers(Box<dyn Student>),
}

/// Faces that go through the network at once; more are cut into batches of this size.
const BATCH: usize = 96;

impl FaceEncoder {
    /// Opens a student file on the CPU.
    ///
    /// # Errors
    /// If the file cannot be read, is not a complete student file, or was made by another version of gdrd.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with_kinds(path, &Device::Cpu, &BuiltIn)
    }

    /// Opens a student file on `device`, of the kinds that a program has registered.
    ///
    /// # Errors
    /// As [`open`](FaceEncoder::open).
    pub fn open_with_kinds(path: impl AsRef<Path>, device: &Device, kinds: &dyn StudentKinds) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let open = || {
            let found = (StudentFile::open(&bytes, device, kinds)?, student_digest(&bytes)?);
            // The bytes are gone before the weights take the form that they are held in.
            drop(bytes);
            Self::of(found.0, found.1, device)
        };
        open().at(|| format!("`{}`", path.display()))
    }

    /// Opens a student file on the CPU through a memory map, so that the file's bytes need no memory of the program's own beside the
    /// weights. The map is gone when this returns. Nobody may cut the file short meanwhile: the system ends a program that reads
    /// past its end. [`open`](FaceEncoder::open) has no such condition. For another device or other kinds, give a [`Mapped`] to
    /// [`with_kinds`](FaceEncoder::with_kinds).
    ///
    /// ```
    /// # fn main() -> Result<(), gdrd_student::Error> {
    /// # let student = "../tests/files/student-format-1.safetensors";
    /// let encoder = gdrd_student::FaceEncoder::open_mapped(student)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`open`](FaceEncoder::open).
    pub fn open_mapped(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_bytes(&Mapped::open(path)?, &Device::Cpu).at(|| format!("`{}`", path.display()))
    }

    /// A student from the bytes of its file, on `device`, of the kinds that this crate has.
    ///
    /// # Errors
    /// As [`open`](FaceEncoder::open).
    pub fn from_bytes(bytes: &[u8], device: &Device) -> Result<Self> {
        Self::with_kinds(bytes, device, &BuiltIn)
    }

    /// A student from the bytes of its file, on `device`, of the kinds that a program has registered.
    ///
    /// # Errors
    /// As [`open`](FaceEncoder::open).
    pub fn with_kinds(bytes: &[u8], device: &Device, kinds: &dyn StudentKinds) -> Result<Self> {
        Self::of(StudentFile::open(bytes, device, kinds)?, student_digest(bytes)?, device)
    }

    fn of(file: StudentFile, digest: String, device: &Device) -> Result<Self> {
        let StudentFile { header, student, tensors } = file;
        let width = header
            .card
            .embedding
            .ok_or_else(|| Error::weights(format!("a student of kind `{}` has no embedding", header.kind)))?;
        let name = format!("student at {size}x{size}", size = header.card.input_size);
        let fast = if device.is_cpu() { student.inference()? } else { None };
        let network = match fast {
            Some(mut network) => {
                // The weights are the network's alone, so that each layer can give its own up for the form that it needs.
                drop((student, tensors));
                network.hold(WeightPrecision::Float32)?;
                Network::Fast(Box::new(network))
            }
            None => Network::Layers(student),
        };
        Ok(Self { name, header, digest: digest.into(), network, width, device: device.clone() })
    }

    /// The same student with its weights held in another precision. README has what [`WeightPrecision::Bfloat16`] and
    /// [`WeightPrecision::Int8`] gain and lose; weights that were rounded do not get their bits back.
    ///
    /// ```
    /// use gdrd_student::{FaceEncoder, WeightPrecision};
    ///
    /// # fn main() -> Result<(), gdrd_student::Error> {
    /// # let student = "../tests/files/student-format-1.safetensors";
    /// let encoder = FaceEncoder::open(student)?.with_weights(WeightPrecision::Bfloat16)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If another precision than float32 is wanted of a student that has no inference form on its device.
    pub fn with_weights(mut self, precision: WeightPrecision) -> Result<Self> {
        match &mut self.network {
            Network::Fast(network) => network.hold(precision)?,
            Network::Layers(_) if precision == WeightPrecision::Float32 => {}
            Network::Layers(_) => {
                return Err(Error::component(format!(
                    "a student of kind `{}` holds its weights in float32 on this device; only the inference form that most kinds \
                     have on the CPU holds others",
                    self.header.kind
                )));
            }
        }
        Ok(self)
    }

    /// What tells this student from every other: the checksum that its file states, or that of the file.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The embedding of one aligned square face of any size: a [`Face`], or [`Aligned`](crate::front_end::Aligned) if it was cut out of
    /// a photograph and enlarged.
    ///
    /// # Errors
    /// As [`embed`](Self::embed).
    pub fn face(&self, face: &impl AsFace) -> Result<Embedding> {
        self.faces(std::slice::from_ref(face))?.pop().ok_or_else(|| Error::component("the student embedded nothing"))
    }

    /// The embeddings of aligned square faces of any size, each with its quality if the file has a quality model.
    ///
    /// # Errors
    /// As [`embed`](Self::embed).
    pub fn faces<F: AsFace>(&self, faces: &[F]) -> Result<Vec<Embedding>> {
        let (shown, pixels): (Vec<&Face>, Vec<usize>) = faces.iter().map(AsFace::as_face).unzip();
        let (found, small) = self.rows(&shown)?;
        let one = |(row, (face, pixels)): (usize, (&Face, usize))| {
            // No image shows more than it has.
            let pixels = pixels.min(face.height());
            let least = self.header.facts.least_pixels();
            let rating = |model: &QualityModel| model.rating(&small[row], found.lengths()[row], pixels, least);
            let quality = self.header.facts.quality.as_ref().map(rating);
            Ok(Embedding::new(found.row(row)?.to_vec(), pixels, quality, self.digest.clone()))
        };
        shown.into_iter().zip(pixels).enumerate().map(one).collect()
    }

    /// An embedding from values that this student gave before, such as those of a database.
    ///
    /// # Errors
    /// If there are not as many as the student gives, or they have no direction.
    pub fn embedding(&self, values: &[f32], pixels: usize) -> Result<Embedding> {
        if values.len() != self.width {
            return Err(Error::data(format!("expected {} values, found {}", self.width, values.len())));
        }
        let unit = Embeddings::from_rows(self.width, values.to_vec())?;
        Ok(Embedding::new(unit.row(0)?.to_vec(), pixels, None, self.digest.clone()))
    }

    /// The network as an ONNX model of opset 17, whose metadata says how faces are prepared for it.
    ///
    /// # Errors
    /// If the network has no inference form on the CPU: of the built-in kinds the diffusion ones and `iresnet` in the layout
    /// `evolve-se`.
    #[cfg(feature = "train")]
    pub fn to_onnx(&self, input: gdrd_core::nn::OnnxInput) -> Result<Vec<u8>> {
        let Network::Fast(network) = &self.network else {
            let kind = &self.header.kind;
            return Err(Error::component(format!(
                "a student of kind `{kind}` with these options has no form for ONNX"
            )));
        };
        let text = |key: &str, value: &str| (key.to_string(), value.to_string());
        let json = |key: &str, value: serde_json::Value| text(key, &value.to_string());
        let header = &self.header;
        let prepare = serde_json::to_value(&header.prepare).map_err(|e| Error::weights(e.to_string()))?;
        let calibration = serde_json::to_value(&header.facts.calibration).map_err(|e| Error::weights(e.to_string()))?;
        let alignment = serde_json::to_value(header.facts.input.map(|input| input.alignment));
        let metadata = [
            text("gdrd.kind", &header.kind),
            text("gdrd.student", &self.digest),
            text("gdrd.colour", "rgb"),
            text("gdrd.values", "bytes divided by 255"),
            json("gdrd.prepare", prepare),
            json("gdrd.alignment", alignment.map_err(|e| Error::weights(e.to_string()))?),
            json("gdrd.calibration", calibration),
        ];
        network.to_onnx(input, &metadata)
    }

    /// What the file says of itself.
    pub fn header(&self) -> &StudentHeader {
        &self.header
    }

    /// Embeddings of aligned square faces of any size, `[faces, width]`, rows of unit length.
    ///
    /// # Errors
    /// If a face is not square.
    pub fn embed(&self, faces: &[Face]) -> Result<Embeddings> {
        Ok(self.rows(&faces.iter().collect::<Vec<_>>())?.0)
    }

    /// Embeddings, and, for a quality model, the faces as the network saw them.
    fn rows(&self, faces: &[&Face]) -> Result<(Embeddings, Vec<Face>)> {
        // More faces keep the threads busy by themselves.
        let _awake = (self.device.is_cpu() && faces.len() <= FEW).then(keep_awake);
        let (mut values, mut seen) = (Vec::with_capacity(self.width * faces.len()), Vec::new());
        for batch in faces.chunks(BATCH) {
            let small = batch.iter().map(|face| self.header.prepare.apply(face)).collect::<Result<Vec<_>>>()?;
            match &self.network {
                Network::Fast(network) => values.extend(network.embed(&small)?),
                Network::Layers(student) => {
                    let map = student.backbone(&FaceBatch::from_faces(&small, &self.device)?, Mode::Evaluate)?;
                    values.extend(student.head(&map, Mode::Evaluate)?.flatten_all()?.to_vec1::<f32>()?);
                }
            }
            if self.header.facts.quality.is_some() {
                seen.extend(small);
            }
        }
        Ok((Embeddings::from_rows(self.width, values)?, seen))
    }
}

/// Faces whose layers are over before a thread that fell asleep is awake again.
const FEW: usize = 16;

impl Embedder for FaceEncoder {
    fn name(&self) -> &str {
        &self.name
    }

    fn width(&self) -> usize {
        self.width
    }

    fn embed(&self, faces: &[Face]) -> Result<Embeddings> {
        let (found, small) = self.rows(&faces.iter().collect::<Vec<_>>())?;
        match &self.header.facts.quality {
            Some(model) => model.rate(found, faces, &small, self.header.facts.least_pixels()),
            None => Ok(found),
        }
    }
}

/// The kinds of this crate.
pub struct BuiltIn;

impl StudentKinds for BuiltIn {
    fn config(&self, kind: &str, options: &serde_json::Value) -> Result<Box<dyn StudentConfig>> {
        fn read<T: StudentConfig + DeserializeOwned + 'static>(
            kind: &str,
            options: &serde_json::Value,
        ) -> Result<Box<dyn StudentConfig>> {
            let config = T::deserialize(options);
            Ok(Box::new(config.map_err(|e| Error::weights(format!("options of kind `{kind}`: {e}")))?))
        }
        match kind {
            "resnet-trunk" => read::<ResnetTrunk>(kind, options),
            "diffusion-trunk" => read::<DiffusionTrunk>(kind, options),
            "diffusion-unet" => read::<DiffusionUnet>(kind, options),
            "mobilefacenet" => read::<MobileFaceNetStudent>(kind, options),
            "iresnet" => read::<IresnetStudent>(kind, options),
            "mobilenet" => read::<MobileNet>(kind, options),
            "super-resolution" => read::<SuperResolution>(kind, options),
            other => Err(Error::weights(format!(
                "a student of kind `{other}`; this program has `resnet-trunk`, `mobilefacenet`, `iresnet`, `mobilenet`, \
                 `super-resolution`, `diffusion-trunk` and `diffusion-unet`. The program that registers the kind opens it, or give its kinds to `FaceEncoder::with_kinds`"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::FaceEncoder;

    #[test]
    fn a_mapped_file_gives_the_student_of_its_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("student.safetensors");
        std::fs::copy("../tests/files/student-format-1.safetensors", &path).expect("copied");
        let (read, mapped) =
            (FaceEncoder::open(&path).expect("read"), FaceEncoder::open_mapped(&path).expect("mapped"));
        // The map is gone: what happens to the file now does not matter.
        std::fs::write(&path, "short").expect("written");
        let face = crate::Face::new(16, 16, (0..768).map(|at| (at % 251) as u8).collect()).expect("a face");
        let values = |encoder: &FaceEncoder| encoder.face(&face).expect("an embedding").values().to_vec();
        assert_eq!((read.digest(), values(&read)), (mapped.digest(), values(&mapped)));
        for path in [&*path, folder.path(), &folder.path().join("none")] {
            let error = FaceEncoder::open_mapped(path).err().expect("no student").to_string();
            assert!(error.contains(&format!("`{}`", path.display())), "{error}");
        }
        std::fs::write(&path, "").expect("written");
        let error = FaceEncoder::open_mapped(&path).err().expect("empty").to_string();
        assert!(error.contains("not a complete safetensors file"), "{error}");
    }

    #[test]
    fn threads_may_share_everything() {
        fn shared<T: Send + Sync>() {}
        shared::<FaceEncoder>();
        shared::<crate::Embedding>();
        shared::<crate::Gallery>();
    }
}
