//! The layouts of MobileFaceNet that are published.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::super::weights::listed;
use crate::error::{Error, Result};

/// Whose network it is. They differ in names, widths, activations and the last layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// foamliu/MobileFaceNet: 128-d; RGB / 255, then ImageNet's mean and standard deviation.
    Foamliu,
    /// insightface's `arcface_torch` (`get_mbf` has blocks 1, 4, 6, 2 and scale 2); RGB / 127.5 - 1.
    Insightface {
        /// Blocks of each stage.
        blocks: [usize; 4],
        /// Channels of the first stage, in units of 64.
        scale: usize,
        /// Width of the embedding.
        embedding: usize,
    },
    /// FaceX-Zoo, face.evoLVe and InsightFace_Pytorch, from which both have it (`conv2_dw`, `conv_23`): insightface's blocks 1,
    /// 4, 6, 2 and scale 1 under other names. FaceX-Zoo's own weights want (BGR - 127.5) / 128.
    FacexZoo {
        /// Width of the embedding.
        embedding: usize,
    },
}

impl Layout {
    /// The layout of a checkpoint, by the names and shapes of its tensors.
    ///
    /// # Errors
    /// If the names are of no layout.
    pub fn of(tensors: &BTreeMap<String, Tensor>) -> Result<Self> {
        if tensors.contains_key("gdconv.depthwise.weight") {
            return Ok(Self::Foamliu);
        }
        let (stem, last, linear) = ("layers.0.layers.0.weight", "features.layers.2.weight", "linear.weight");
        let outputs = |name: &str| tensors.get(name)?.dims().first().copied().filter(|outputs| *outputs > 0);
        if let (true, Some(embedding)) = (tensors.contains_key("conv2_dw.conv.weight"), outputs(linear)) {
            return Ok(Self::FacexZoo { embedding });
        }
        let (Some(channels), Some(embedding)) = (outputs(stem), outputs(last)) else {
            return Err(Error::weights(format!(
                "no MobileFaceNet: expected `gdconv.depthwise.weight` (foamliu), `{stem}` and `{last}` (insightface), or \
                 `conv2_dw.conv.weight` and `{linear}` (FaceX-Zoo, face.evoLVe); {}",
                listed(tensors)
            )));
        };
        if channels % 64 != 0 {
            return Err(Error::weights(format!("`{stem}` has {channels} outputs, expected a multiple of 64")));
        }
        let count = |stage: usize| {
            let first = |block: &usize| format!("layers.{stage}.layers.{block}.layers.0.layers.0.weight");
            let is_there = |block: &usize| tensors.contains_key(&first(block));
            (0..).take_while(is_there).count()
        };
        // A first stage of a single block has no residual blocks at all.
        let blocks = [count(1).max(1), count(3), count(5), count(7)];
        Ok(Self::Insightface { blocks, scale: channels / 64, embedding })
    }

    /// Width of the embedding.
    pub fn embedding(&self) -> usize {
        match self {
            Self::Foamliu => 128,
            Self::Insightface { embedding, .. } | Self::FacexZoo { embedding } => *embedding,
        }
    }
}
