//! Numbers that levels share or have each.

use serde::{Deserialize, Serialize};

/// Most blocks of a level, heads of a block, and multiples of `model_channels`.
pub(super) const MOST: usize = 1_024;

/// A number for all levels, or one for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum PerLevel {
    /// The same number at every level.
    All(#[cfg_attr(feature = "train", schemars(range(max = MOST)))] usize),
    /// A number for each level, the first at full size.
    Each(#[cfg_attr(feature = "train", schemars(inner(range(max = MOST))))] Vec<usize>),
}

impl PerLevel {
    /// All numbers.
    pub(super) fn numbers(&self) -> &[usize] {
        match self {
            Self::All(number) => std::slice::from_ref(number),
            Self::Each(numbers) => numbers,
        }
    }

    /// The number of `level`, if there is one.
    pub fn at(&self, level: usize) -> Option<usize> {
        match self {
            Self::All(number) => Some(*number),
            Self::Each(numbers) => numbers.get(level).copied(),
        }
    }
}

impl From<usize> for PerLevel {
    fn from(number: usize) -> Self {
        Self::All(number)
    }
}

impl From<Vec<usize>> for PerLevel {
    fn from(numbers: Vec<usize>) -> Self {
        Self::Each(numbers)
    }
}
