//! MobileFaceNet as a student (Chen et al., CCBR 2018).

use gdrd_core::context::BuildContext;
use gdrd_core::error::{Problem, Result};
use gdrd_core::nn::Preprocessing;
use gdrd_core::nn::mobilefacenet::{Head, Layout};
use gdrd_core::student::{Student, StudentConfig};
use serde::{Deserialize, Serialize};

use super::recogniser::{Common, Recogniser, RecogniserHead};

/// A MobileFaceNet that sees small faces blown up: by the bicubic filter, as PIL's, on numbers that are not rounded to bytes, but
/// clipped as bytes are. With `initial_teacher` it starts with the weights of a teacher of kind `mobilefacenet`; its tensors have the
/// names of the layout, so that its file is a teacher's too where the head is the network's own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct MobileFaceNetStudent {
    /// Whose network it is: they differ in activations, widths and names.
    pub layout: MobileFaceNetLayout,
    /// Blocks of each stage, in insightface's layout; `get_mbf` has 1, 4, 6 and 2, `get_mbf_large` 2, 8, 12 and 4.
    #[cfg_attr(feature = "train", schemars(inner(range(min = 1, max = 64))))]
    pub blocks: [usize; 4],
    /// Channels of the first stage in units of 64, in insightface's layout; 2 in `get_mbf`.
    #[cfg_attr(feature = "train", schemars(range(min = 1, max = 16)))]
    pub scale: usize,
    /// Height and width that faces are brought to, in pixels. Another size than 112 needs another head than a teacher's.
    #[cfg_attr(feature = "train", schemars(range(min = 32, max = 512)))]
    pub input: usize,
    /// What the network expects of its input. Left out: what the teacher expects that the student starts from; without one, what
    /// the layout's published weights do.
    pub preprocessing: Option<Preprocessing>,
    /// What makes the embedding of the last map.
    pub head: RecogniserHead,
    /// Share of the last fully connected layer's inputs that is left out in training, 0 to below 1.
    #[cfg_attr(feature = "train", schemars(range(min = 0), extend("exclusiveMaximum" = 1)))]
    pub dropout: f64,
    /// Values in an embedding; 128 in foamliu's own head.
    #[cfg_attr(feature = "train", schemars(range(min = 1, max = 16_384)))]
    pub embedding: usize,
    /// Blocks of the backbone; those after it belong to the head, which a stage may train alone. Left out: all, so that the
    /// backbone's map is the last one. In foamliu's layout 6 end it at 28x28 pixels, 13 at 14x14 and 16 at 7x7, before the
    /// last convolution to 512 channels, which is block 17.
    #[cfg_attr(feature = "train", schemars(range(min = 1, max = 128)))]
    pub backbone_blocks: Option<usize>,
}

/// Whose MobileFaceNet it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum MobileFaceNetLayout {
    /// foamliu's: 128 values, ReLU6.
    Foamliu,
    /// insightface's `mbf`: PReLU.
    #[default]
    Insightface,
    /// The one that FaceX-Zoo, face.evoLVe and InsightFace_Pytorch share: PReLU.
    FacexZoo,
}

impl Default for MobileFaceNetStudent {
    fn default() -> Self {
        Self {
            layout: MobileFaceNetLayout::default(),
            blocks: [1, 4, 6, 2],
            scale: 2,
            input: 112,
            preprocessing: None,
            head: RecogniserHead::default(),
            dropout: 0.0,
            embedding: 512,
            backbone_blocks: None,
        }
    }
}

impl MobileFaceNetStudent {
    fn common(&self) -> Common {
        let Self { input, preprocessing, embedding, head, dropout, backbone_blocks, .. } = *self;
        Common { input, preprocessing, embedding, head, dropout, backbone_blocks }
    }

    pub(crate) fn layout(&self) -> Layout {
        let Self { blocks, scale, embedding, .. } = *self;
        match self.layout {
            MobileFaceNetLayout::Foamliu => Layout::Foamliu,
            MobileFaceNetLayout::Insightface => Layout::Insightface { blocks, scale, embedding },
            MobileFaceNetLayout::FacexZoo => Layout::FacexZoo { embedding },
        }
    }
}

impl StudentConfig for MobileFaceNetStudent {
    fn check(&self) -> Vec<Problem> {
        let own = self.layout == MobileFaceNetLayout::Foamliu && self.head == RecogniserHead::Teacher;
        let foamliu = Problem::unless(!own || self.embedding == 128, "embedding", || {
            format!("expected 128, the width of foamliu's own head, found {}", self.embedding)
        });
        [
            foamliu,
            self.blocks.iter().find_map(|blocks| Problem::within("blocks", *blocks, 1..=64)),
            Problem::within("scale", self.scale, 1..=16),
        ]
        .into_iter()
        .flatten()
        .chain(self.common().check(self.layout().block_count()))
        .collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Student>> {
        let (layout, dropout) = (self.layout(), self.dropout);
        let trunk = layout.trunk(cx.weights()?)?;
        let own = |[_, size, _]: [usize; 3], weights: &_| Ok(Box::new(Head::new(layout, size, dropout, weights)?) as _);
        Recogniser::build(self.common(), layout.preprocessing(), trunk, own, cx)
    }
}
