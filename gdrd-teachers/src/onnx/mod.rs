//! Any ONNX recogniser as a discriminative teacher.

use gdrd_core::context::BuildContext;
use gdrd_core::error::{Problem, Result};
use gdrd_core::plugin::Kind;
use gdrd_core::recipe::RecipePath;
use gdrd_core::teacher::{Preprocessing, Teacher, TeacherConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "onnx")]
mod model;
#[cfg(feature = "onnx")]
mod teacher;

#[cfg(feature = "onnx")]
pub use model::OnnxModel;

/// A recogniser in an ONNX file, such as insightface's `buffalo_l` or AuraFace, run by tract on the CPU.
///
/// Needs a gdrd that is built with the feature `onnx`, which takes Rust 1.91: `cargo build --release --features onnx`.
/// The file does not say how faces must be prepared, so the recipe must: a wrong contract is no error anywhere, it only
/// costs accuracy, and `gdrd doctor teacher` looks for one.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnnxTeacher {
    /// The model: one input `[batch, 3, size, size]` of float32. Faces are run one by one, on all cores at once.
    pub weights: RecipePath,
    /// Height and width of the input, in pixels.
    #[serde(default = "default_size")]
    #[schemars(range(min = 1, max = 4096))]
    pub size: usize,
    /// What the network expects of its input: RGB in `[-1, 1]` where a key is left out, as insightface's and AuraFace's.
    pub preprocessing: Preprocessing,
    /// The output that is the embedding; may be left out where there is one output.
    #[serde(default)]
    pub output: Option<String>,
}

fn default_size() -> usize {
    112
}

impl Kind for OnnxTeacher {
    const NAME: &'static str = "onnx";
    const PURPOSE: &'static str = "any recogniser in an ONNX file (needs a gdrd built with the feature `onnx`)";
}

impl TeacherConfig for OnnxTeacher {
    fn check(&self) -> Vec<Problem> {
        let available = Problem::unless(cfg!(feature = "onnx"), "kind", || {
            "this gdrd is built without ONNX models; `cargo build --release --features onnx` builds one with them"
                .into()
        });
        available.into_iter().collect()
    }

    #[cfg(feature = "onnx")]
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Teacher>> {
        teacher::build(self, cx)
    }

    #[cfg(not(feature = "onnx"))]
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Teacher>> {
        let problems: Vec<String> = self.check().into_iter().map(|problem| problem.message).collect();
        Err(gdrd_core::error::Error::recipe(problems.join("; ")))
    }
}
