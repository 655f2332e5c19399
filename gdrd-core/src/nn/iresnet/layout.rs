//! The layouts of iresnets that are published.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::super::weights::listed;
use crate::error::{Error, Result};

/// Channels of the four stages; each halves the size.
pub(super) const CHANNELS: [usize; 4] = [64, 128, 256, 512];

/// The depths that are published, and the blocks of their stages.
const DEPTHS: [(usize, [usize; 4]); 6] = [
    (18, [2, 2, 2, 2]),
    (34, [3, 4, 6, 3]),
    (50, [3, 4, 14, 3]),
    (100, [3, 13, 30, 3]),
    (152, [3, 8, 36, 3]),
    (200, [6, 26, 60, 6]),
];

/// Who names the tensors. They differ in names, in the shortcut of the first stage, in the normalisation between a block's
/// convolutions, and in the last normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// insightface's `arcface_torch` (`layer1.0.conv1.weight`), and CVLface's copy of it.
    Insightface,
    /// AdaFace and CVLface (`body.0.res_layer.1.weight`): blocks are numbered through, a shortcut between equal channels
    /// takes every second pixel, and the last normalisation has neither weight nor bias.
    Flat,
    /// face.evoLVe, FaceX-Zoo and InsightFace_Pytorch (`body.0.res_layer.3.weight` is a convolution): as `Flat`, but nothing is
    /// normalised between a block's convolutions, and the last normalisation has weight and bias.
    Evolve {
        /// Whether each block weighs its channels by their means (the names with `SE`).
        squeeze: bool,
    },
}

/// Which network a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Who names the tensors.
    pub naming: Naming,
    /// 18, 34, 50, 100 (which CVLface and face.evoLVe call 101), 152 or 200.
    pub depth: usize,
    /// Width of the embedding.
    pub embedding: usize,
}

impl Layout {
    /// The layout of a checkpoint, by the names and shapes of its tensors.
    ///
    /// # Errors
    /// If the names are of neither naming, or there is no depth with this many blocks.
    pub fn of(tensors: &BTreeMap<String, Tensor>) -> Result<Self> {
        let outputs = |name: &str| tensors.get(name).and_then(|tensor| tensor.dims().first().copied());
        let (insightface, flat) = ("layer1.0.conv1.weight", "body.0.res_layer.1.weight");
        let (naming, last) = match (outputs(insightface), outputs(flat)) {
            (Some(_), _) => (Naming::Insightface, "fc.weight"),
            (None, Some(_)) => {
                let third = tensors.get("body.0.res_layer.3.weight").map(Tensor::rank);
                let squeeze = tensors.contains_key("body.0.res_layer.5.fc1.weight");
                let naming = if third == Some(4) { Naming::Evolve { squeeze } } else { Naming::Flat };
                (naming, "output_layer.3.weight")
            }
            (None, None) => {
                return Err(Error::weights(format!(
                    "no iresnet: expected `{insightface}` (insightface) or `{flat}` (AdaFace, CVLface, face.evoLVe); {}",
                    listed(tensors)
                )));
            }
        };
        let Some(embedding) = outputs(last).filter(|width| *width > 0) else {
            return Err(Error::weights(format!("an iresnet without `{last}`; {}", listed(tensors))));
        };
        let blocks: [usize; 4] = match naming {
            Naming::Insightface => [1, 2, 3, 4].map(|stage| {
                let is_there = |block: &usize| tensors.contains_key(&format!("layer{stage}.{block}.conv1.weight"));
                (0..).take_while(is_there).count()
            }),
            Naming::Flat | Naming::Evolve { .. } => {
                let widths = (0..).map_while(|block| outputs(&format!("body.{block}.res_layer.1.weight")));
                let widths: Vec<usize> = widths.collect();
                CHANNELS.map(|channels| widths.iter().filter(|width| **width == channels).count())
            }
        };
        match DEPTHS.iter().find(|(_, known)| *known == blocks) {
            Some((depth, _)) => Ok(Self { naming, depth: *depth, embedding }),
            None => Err(Error::weights(format!(
                "an iresnet with {blocks:?} blocks in its stages; expected {}",
                DEPTHS.map(|(depth, blocks)| format!("{blocks:?} (iresnet{depth})")).join(", ")
            ))),
        }
    }

    /// Blocks of the four stages; zeros for a depth that is not published.
    pub fn blocks(self) -> [usize; 4] {
        DEPTHS.iter().find(|(depth, _)| *depth == self.depth).map_or([0; 4], |(_, blocks)| *blocks)
    }

    /// The name of one of two.
    pub(super) fn name<'n>(self, insightface: &'n str, flat: &'n str) -> &'n str {
        match self.naming {
            Naming::Insightface => insightface,
            Naming::Flat | Naming::Evolve { .. } => flat,
        }
    }
}
