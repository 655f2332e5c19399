//! ArcFace's residual network as a student (Duta et al., ICPR 2020).

use gdrd_core::context::BuildContext;
use gdrd_core::error::{Problem, Result};
use gdrd_core::nn::Preprocessing;
use gdrd_core::nn::iresnet::{Head, Layout, Naming};
use gdrd_core::student::{Student, StudentConfig};
use serde::{Deserialize, Serialize};

use super::recogniser::{Common, Recogniser, RecogniserHead};

/// An iresnet that sees small faces blown up: by the bicubic filter, as PIL's, on numbers that are not rounded to bytes, but
/// clipped as bytes are. With `initial_teacher` it starts with the weights of a teacher of kind `iresnet`; its tensors have the names
/// of the layout, so that its file is a teacher's too where the head is the network's own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct IresnetStudent {
    /// Whose network it is: they differ in names, shortcuts and normalisations.
    pub layout: IresnetLayout,
    /// 18, 34, 50, 100, 152 or 200.
    #[cfg_attr(feature = "train", schemars(range(min = 18, max = 200)))]
    pub depth: usize,
    /// Height and width that faces are brought to, in pixels. Another size than 112 needs another head than a teacher's.
    #[cfg_attr(feature = "train", schemars(range(min = 32, max = 512)))]
    pub input: usize,
    /// What the network expects of its input. Left out: what the teacher expects that the student starts from; without one, RGB
    /// with mean and std 0.5.
    pub preprocessing: Option<Preprocessing>,
    /// What makes the embedding of the last map.
    pub head: RecogniserHead,
    /// Share of the last fully connected layer's inputs that is left out in training, 0 to below 1.
    #[cfg_attr(feature = "train", schemars(range(min = 0), extend("exclusiveMaximum" = 1)))]
    pub dropout: f64,
    /// Values in an embedding.
    #[cfg_attr(feature = "train", schemars(range(min = 1, max = 16_384)))]
    pub embedding: usize,
    /// Blocks of the backbone, the stem among them; those after it belong to the head, which a stage may train alone. Left out:
    /// all, so that the backbone's map is the last one. With depth 18, 3 end it at 56x56 pixels, 5 at 28x28, 7 at 14x14.
    #[cfg_attr(feature = "train", schemars(range(min = 1, max = 128)))]
    pub backbone_blocks: Option<usize>,
}

/// Whose iresnet it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum IresnetLayout {
    /// insightface's `arcface_torch`, and CVLface's copy of it.
    #[default]
    Insightface,
    /// AdaFace's and CVLface's.
    Cvlface,
    /// The IR networks of face.evoLVe, FaceX-Zoo and InsightFace_Pytorch.
    Evolve,
    /// Their IR-SE networks, whose blocks weigh their channels.
    EvolveSe,
}

impl Default for IresnetStudent {
    fn default() -> Self {
        Self {
            layout: IresnetLayout::default(),
            depth: 18,
            input: 112,
            preprocessing: None,
            head: RecogniserHead::default(),
            dropout: 0.0,
            embedding: 512,
            backbone_blocks: None,
        }
    }
}

impl IresnetStudent {
    fn common(&self) -> Common {
        let Self { input, preprocessing, embedding, head, dropout, backbone_blocks, .. } = *self;
        Common { input, preprocessing, embedding, head, dropout, backbone_blocks }
    }

    pub(crate) fn layout(&self) -> Layout {
        let naming = match self.layout {
            IresnetLayout::Insightface => Naming::Insightface,
            IresnetLayout::Cvlface => Naming::Flat,
            IresnetLayout::Evolve => Naming::Evolve { squeeze: false },
            IresnetLayout::EvolveSe => Naming::Evolve { squeeze: true },
        };
        Layout { naming, depth: self.depth, embedding: self.embedding }
    }
}

impl StudentConfig for IresnetStudent {
    fn check(&self) -> Vec<Problem> {
        let blocks: usize = self.layout().blocks().iter().sum();
        let depth = Problem::unless(blocks > 0, "depth", || {
            format!("expected 18, 34, 50, 100, 152 or 200, found {}", self.depth)
        });
        depth.into_iter().chain(self.common().check(blocks + 1)).collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Student>> {
        let (layout, dropout) = (self.layout(), self.dropout);
        let trunk = layout.trunk(cx.weights()?)?;
        let own = |map: [usize; 3], weights: &_| Ok(Box::new(Head::new(layout, map, dropout, weights)?) as _);
        Recogniser::build(self.common(), Preprocessing::default(), trunk, own, cx)
    }
}
