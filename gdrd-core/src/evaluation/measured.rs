//! What was measured of whom.

use serde::{Deserialize, Serialize};

use super::Outcome;

/// Whose embeddings an outcome is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Role {
    /// The student of a run, or one from its file.
    Student,
    /// A teacher of the recipe.
    Teacher {
        /// Its name in the recipe.
        name: String,
        /// Whether it was shown faces behind the degradation, blown up to its own size.
        small: bool,
    },
}

/// One embedder measured by one protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What reports call it.
    pub embedder: String,
    /// Whose embeddings these are.
    pub role: Role,
    /// How it did.
    pub outcome: Outcome,
}
