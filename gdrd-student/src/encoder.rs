//! The embedding API for other people's programs.

use std::path::Path;

use candle_core::Device;
use gdrd_core::embedder::{Embedder, Embeddings};
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::face::{Face, FaceBatch};
use gdrd_core::nn::kernels::keep_awake;
use gdrd_core::nn::{Inference, Mode};
use gdrd_core::student::{Student, StudentConfig, StudentFile, StudentHeader, StudentKinds};
use serde::de::DeserializeOwned;

use crate::{DiffusionTrunk, DiffusionUnet, IresnetStudent, MobileFaceNetStudent, MobileNet, ResnetTrunk};

/// A trained student, ready to embed faces. Threads may share it.
///
/// ```no_run
/// use gdrd_student::{Face, FaceEncoder};
///
/// # fn main() -> Result<(), gdrd_student::Error> {
/// let encoder = FaceEncoder::open("student.safetensors")?;
/// let aligned = Face::new(112, 112, vec![127; 3 * 112 * 112])?;
/// let embeddings = encoder.embed(&[aligned.clone(), aligned.flipped()])?;
/// println!("similarity {:.3}", embeddings.similarity(0, 1));
/// # Ok(())
/// # }
/// ```
pub struct FaceEncoder {
    name: String,
    pub(crate) header: StudentHeader,
    pub(crate) student: Box<dyn Student>,
    /// What embeds on the CPU, where the student has it.
    inference: Option<Inference>,
    pub(crate) width: usize,
    device: Device,
}

/// Faces that go through the network at once; more are cut into batches of this size.
const BATCH: usize = 96;

impl FaceEncoder {
    /// Opens a student file on the CPU.
    ///
    /// # Errors
    /// If the file cannot be read, is not a complete student file, or was made by another version of gdrd.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        Self::from_bytes(&bytes, &Device::Cpu).at(|| format!("`{}`", path.display()))
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
        let StudentFile { header, student, .. } = StudentFile::open(bytes, device, kinds)?;
        let width = header
            .card
            .embedding
            .ok_or_else(|| Error::weights(format!("a student of kind `{}` has no embedding", header.kind)))?;
        let name = format!("student at {size}x{size}", size = header.card.input_size);
        let inference = if device.is_cpu() { student.inference()? } else { None };
        Ok(Self { name, header, student, inference, width, device: device.clone() })
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
        // More faces keep the threads busy by themselves.
        let _awake = (self.device.is_cpu() && faces.len() <= FEW).then(keep_awake);
        let mut values = Vec::with_capacity(self.width * faces.len());
        for batch in faces.chunks(BATCH) {
            let small = batch.iter().map(|face| self.header.prepare.apply(face)).collect::<Result<Vec<_>>>()?;
            match &self.inference {
                Some(network) => {
                    let size = self.header.card.input_size;
                    let fill = |input: &mut [f32]| {
                        small
                            .iter()
                            .zip(input.chunks_exact_mut(3 * size * size))
                            .try_for_each(|(face, to)| face.write(size, to))
                    };
                    network.run(batch.len(), fill, |embeddings| values.extend_from_slice(embeddings))?;
                }
                None => {
                    let map = self.student.backbone(&FaceBatch::from_faces(&small, &self.device)?, Mode::Evaluate)?;
                    values.extend(self.student.head(&map, Mode::Evaluate)?.flatten_all()?.to_vec1::<f32>()?);
                }
            }
        }
        Embeddings::from_rows(self.width, values)
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
        FaceEncoder::embed(self, faces)
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
            other => Err(Error::weights(format!(
                "a student of kind `{other}`; this program has `resnet-trunk`, `mobilefacenet`, `iresnet`, `mobilenet`, \
                 `diffusion-trunk` and `diffusion-unet`. The program that registers the kind opens it, or give its kinds to `FaceEncoder::with_kinds`"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::FaceEncoder;

    #[test]
    fn threads_may_share_an_encoder() {
        fn shared<T: Send + Sync>() {}
        shared::<FaceEncoder>();
    }
}
