//! MobileNets as students (Howard et al., 2017 and ICCV 2019).

use candle_core::Tensor;
use gdrd_core::context::BuildContext;
use gdrd_core::error::{Problem, Result};
use gdrd_core::face::FaceBatch;
use gdrd_core::nn::{Alignment, Inference, Mode, Plan, Preprocessing};
use gdrd_core::student::{BACKBONE, LastLinear, Student, StudentCard, StudentConfig};
use serde::{Deserialize, Serialize};

use self::layers::{Block, Layer, Row, V1, V3_LARGE, V3_SMALL, divisible};
use super::bounds::WIDEST;
use super::head::{Head, HeadOptions};

mod layers;

/// A MobileNet for small faces: the published network whose first strides are left out, since a face of 16 pixels has nothing to give
/// away. The backbone ends where the published network averages its map.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct MobileNet {
    /// Which of the published networks it is.
    pub version: MobileNetVersion,
    /// What channels are multiplied by; they are rounded to multiples of 8, as in the published code.
    #[cfg_attr(feature = "train", schemars(range(min = 0.125, max = 4)))]
    pub width: f64,
    /// How many of the five layers with stride 2 keep it: the last ones. 2 makes maps of 4x4 pixels of faces of 16, all 5 are the
    /// published network.
    #[cfg_attr(feature = "train", schemars(range(min = 0, max = 5)))]
    pub reductions: usize,
    /// Values in an embedding.
    #[cfg_attr(feature = "train", schemars(range(min = 1, max = WIDEST)))]
    pub embedding: usize,
    /// The head.
    pub head: HeadOptions,
}

/// The published networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum MobileNetVersion {
    /// MobileNetV1: depthwise and pointwise convolutions with ReLU, 3.2 M parameters.
    V1,
    /// MobileNetV3-Small: inverted residual blocks with squeeze and excitation, 0.93 M parameters.
    #[default]
    V3Small,
    /// MobileNetV3-Large, 3.0 M parameters.
    V3Large,
}

impl Default for MobileNet {
    fn default() -> Self {
        Self {
            version: MobileNetVersion::default(),
            width: 1.0,
            reductions: 2,
            embedding: 512,
            head: HeadOptions::default(),
        }
    }
}

/// Layers of each published network whose stride is 2, the stem's among them.
const REDUCTIONS: usize = 5;

impl StudentConfig for MobileNet {
    fn check(&self) -> Vec<Problem> {
        [
            Problem::within("width", self.width, 0.125..=4.0),
            Problem::within("reductions", self.reductions, 0..=REDUCTIONS),
            Problem::within("embedding", self.embedding, 1..=WIDEST),
            self.head.check(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Student>> {
        let (input_size, weights) = (cx.input_size()?, cx.weights()?);
        let backbone = weights.pp("backbone");
        let (mut size, mut left) = (input_size, REDUCTIONS);
        // The layers with stride 2 come in their order, and the first ones have lost it.
        let mut stride = |published: usize| {
            if published == 1 {
                return 1;
            }
            left -= 1;
            let kept = if left < self.reductions { published } else { 1 };
            size = size.div_ceil(kept);
            kept
        };
        let wide = |channels: usize| divisible(channels as f64 * self.width);
        let at = |block: usize| backbone.pp("blocks").pp(block);
        let (mut inputs, swish) = match self.version {
            MobileNetVersion::V1 => (wide(32), false),
            MobileNetVersion::V3Small | MobileNetVersion::V3Large => (wide(16), true),
        };
        let stem = Layer::new((3, inputs), 3, stride(2), 1, Some(swish), &backbone.pp("stem"))?;
        let mut blocks = Vec::new();
        let rows: &[Row] = match self.version {
            MobileNetVersion::V1 => &[],
            MobileNetVersion::V3Small => &V3_SMALL,
            MobileNetVersion::V3Large => &V3_LARGE,
        };
        for row in rows {
            let (expanded, outputs) = (wide(row.expanded), wide(row.outputs));
            blocks.push(Block::inverted(*row, (inputs, expanded, outputs), stride(row.stride), &at(blocks.len()))?);
            inputs = outputs;
        }
        if self.version == MobileNetVersion::V1 {
            for (channels, published) in V1 {
                blocks.push(Block::separable((inputs, wide(channels)), stride(published), &at(blocks.len()))?);
                inputs = wide(channels);
            }
        }
        let last = match self.version {
            MobileNetVersion::V1 => None,
            MobileNetVersion::V3Small | MobileNetVersion::V3Large => {
                let outputs = 6 * inputs;
                let last = Layer::new((inputs, outputs), 1, 1, 1, Some(true), &backbone.pp("last"))?;
                inputs = outputs;
                Some(last)
            }
        };
        let map = [inputs, size, size];
        let head = Head::new(&self.head, map, self.embedding, &weights.pp("head"))?;
        let card = StudentCard { input_size, map, embedding: Some(self.embedding) };
        Ok(Box::new(Network { card, stem, blocks, last, head }))
    }
}

struct Network {
    card: StudentCard,
    stem: Layer,
    blocks: Vec<Block>,
    last: Option<Layer>,
    head: Head,
}

impl Network {
    /// The map of the stem, of each block, and of the last layer.
    fn all(&self, faces: &FaceBatch, mode: Mode, mut each: impl FnMut(&Tensor)) -> Result<Tensor> {
        let mut x = self.stem.forward(&faces.tensor().affine(2.0, -1.0)?, None, mode)?;
        each(&x);
        for block in &self.blocks {
            x = block.forward(&x, mode)?;
            each(&x);
        }
        if let Some(last) = &self.last {
            x = last.forward(&x, None, mode)?;
            each(&x);
        }
        Ok(x)
    }
}

impl Student for Network {
    fn card(&self) -> &StudentCard {
        &self.card
    }

    fn input(&self) -> Option<Preprocessing> {
        Some(Preprocessing { alignment: Alignment::Data, ..Preprocessing::default() })
    }

    fn backbone(&self, faces: &FaceBatch, mode: Mode) -> Result<Tensor> {
        self.all(faces, mode, |_| ())
    }

    fn maps(&self) -> Vec<String> {
        let inner = self.blocks.len() - usize::from(self.last.is_none());
        let blocks = (0..inner).map(|at| format!("blocks.{at}"));
        let backbone = std::iter::once("stem".to_string()).chain(blocks).chain([BACKBONE.to_string()]);
        backbone.chain(self.head.map_names()).collect()
    }

    fn features(&self, faces: &FaceBatch, names: &[String], mode: Mode) -> Result<Vec<Tensor>> {
        let mut found = Vec::new();
        let map = self.all(faces, mode, |map| found.push(map.clone()))?;
        self.head.with_maps(&map, self.maps(), found, names)
    }

    fn head(&self, map: &Tensor, mode: Mode) -> Result<Tensor> {
        self.head.forward(map, mode)
    }

    fn last_linear(&self) -> Option<LastLinear> {
        self.head.last_linear("head")
    }

    fn before_last_linear(&self, map: &Tensor, mode: Mode) -> Result<Tensor> {
        self.head.before_last(map, mode)
    }

    fn inference(&self) -> Result<Option<Inference>> {
        if self.last.is_some() {
            // Squeezing and hard swish have no inference form.
            return Ok(None);
        }
        let (mut plan, faces) = Plan::new([3, self.card.input_size, self.card.input_size]);
        let x = plan.affine(faces, 2.0, -1.0);
        let mut x = self.stem.conv.plan(&mut plan, x, None)?;
        for block in &self.blocks {
            x = block.depthwise.conv.plan(&mut plan, x, None)?;
            x = block.project.conv.plan(&mut plan, x, None)?;
        }
        let embedding = self.head.plan(&mut plan, x)?;
        Ok(Some(plan.finish(embedding)))
    }
}

#[cfg(test)]
mod tests;
