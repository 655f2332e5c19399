//! What a recipe says of a stage that is solved.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::loss::{TeacherNeed, Wanted};

/// The student's last fully connected layer in closed form: the linear map of what stands before it that comes nearest to what a
/// teacher says of the same faces (ridge regression). Nothing else changes. A teacher of kind `transformed` makes other targets,
/// such as the sum over a face and its mirror image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClosedForm {
    /// The teacher's name in the recipe; may be left out when only one has what is wanted.
    pub teacher: Option<String>,
    /// The teacher's feature map of this name is the target, all its values; the embedding when left out.
    pub map: Option<String>,
    /// The penalty of large weights, in units of the mean diagonal of the features' Gram matrix (centred).
    #[schemars(range(min = 1e-4, max = 1e6))]
    pub ridge: f64,
    /// Whether embeddings are brought to unit length, as they are compared. Maps are taken as they are.
    pub unit_length: bool,
    /// Exponent `p` of the covariance `C^-p` by which predictions are whitened, their mean removed: 0 leaves them as they are, 0.5
    /// gives all directions equal weight, 0.25 lies between.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub whiten: f64,
}

impl Default for ClosedForm {
    fn default() -> Self {
        Self { teacher: None, map: None, ridge: 1.0, unit_length: true, whiten: 0.0 }
    }
}

impl ClosedForm {
    /// The teacher's output that is the target.
    pub fn need(&self) -> TeacherNeed {
        let output = self.map.clone().map_or(Wanted::Embedding, Wanted::Map);
        TeacherNeed { teacher: self.teacher.clone(), output }
    }
}
