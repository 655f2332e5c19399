//! What `files.py` wrote.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use gdrd_core::face::Face;
use gdrd_core::nn::weights::read_safetensors;

use crate::{Case, Result};

/// The faces, labels and classifier of a case.
pub(crate) struct Inputs {
    pub(crate) faces: Vec<Face>,
    pub(crate) labels: Tensor,
    pub(crate) classifier: BTreeMap<String, Tensor>,
}

impl Inputs {
    pub(crate) fn read(case: &Case) -> Result<Self> {
        let mut tensors = read_safetensors(&case.folder.join("inputs.safetensors"))?;
        let mut take = |name: &str| tensors.remove(name).ok_or_else(|| format!("the inputs lack `{name}`"));
        let pixels = take("pixels")?.narrow(0, 0, case.batch)?;
        let size = pixels.dim(1)?;
        let mut faces = Vec::new();
        for face in 0..case.batch {
            faces.push(Face::new(size, size, pixels.get(face)?.flatten_all()?.to_vec1()?)?);
        }
        let labels = take("labels")?.narrow(0, 0, case.batch)?.to_dtype(DType::U32)?;
        Ok(Self { faces, labels, classifier: tensors })
    }
}

/// The weights of a case and the classifier of its training step, by name.
pub(crate) fn weights(case: &Case) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = read_safetensors(&case.folder.join("weights.safetensors"))?;
    tensors.extend(Inputs::read(case)?.classifier);
    Ok(tensors)
}
