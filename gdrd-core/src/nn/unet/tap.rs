//! Places in a U-Net where features are taken.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The output of one block of the encoder; written `input_blocks.7` or `middle_block`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "train", schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub enum Tap {
    /// The output of `input_blocks.N`, which counts from 0 (the first convolution).
    Input(usize),
    /// The output of the middle block.
    Middle,
}

impl Tap {
    /// Whether a network with `blocks` input blocks has this tap.
    ///
    /// # Errors
    /// If it has not; the error states the range.
    pub fn check(self, blocks: usize) -> Result<()> {
        match self {
            Self::Input(index) if index >= blocks => Err(Error::component(format!(
                "there is no `{self}`: expected `input_blocks.0` to `input_blocks.{}` or `middle_block`",
                blocks.saturating_sub(1)
            ))),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(index) => write!(f, "input_blocks.{index}"),
            Self::Middle => f.write_str("middle_block"),
        }
    }
}

impl FromStr for Tap {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "middle_block" {
            return Ok(Self::Middle);
        }
        let index = text.strip_prefix("input_blocks.").and_then(|index| index.parse().ok());
        let expected = "expected `input_blocks.N` (N from 0) or `middle_block`";
        index.map(Self::Input).ok_or_else(|| Error::recipe(format!("{expected}, found `{text}`")))
    }
}

impl TryFrom<String> for Tap {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Tap> for String {
    fn from(tap: Tap) -> Self {
        tap.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_are_written_as_they_are_read() {
        for text in ["input_blocks.0", "input_blocks.22", "middle_block"] {
            assert_eq!(text.parse::<Tap>().expect("a tap").to_string(), text);
        }
        for text in ["input_blocks", "input_blocks.x", "middle", "input_blocks.1.0", ""] {
            let error = text.parse::<Tap>().expect_err("not a tap").to_string();
            assert!(error.contains(&format!("found `{text}`")), "{error}");
        }
    }

    #[test]
    fn the_range_is_stated() {
        let error = Tap::Input(23).check(23).expect_err("one too far").to_string();
        assert!(error.contains("no `input_blocks.23`") && error.contains("to `input_blocks.22`"), "{error}");
        assert!(Tap::Input(22).check(23).is_ok() && Tap::Middle.check(23).is_ok());
    }
}
