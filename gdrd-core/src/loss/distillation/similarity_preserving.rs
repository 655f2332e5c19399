//! Similarity-preserving distillation.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::BuildContext;
use crate::error::Result;
use crate::loss::{About, Loss, LossConfig, LossInputs, LossValue, Needs, Wanted};
use crate::nn::l2_normalise;
use crate::plugin::Kind;

/// The Gram matrix of a batch, its rows of unit length, is the teacher's: `|| G_S - G_T ||_F^2 / b^2` (Tung and Mori,
/// ICCV 2019, on feature maps).
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SimilarityPreserving {
    /// The teacher's name in the recipe; may be left out when only one offers what is compared.
    pub teacher: Option<String>,
    /// What is compared.
    pub of: Compared,
    /// The teacher's feature map; its own default when left out.
    pub tap: Option<String>,
}

/// What of a network is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Compared {
    /// Feature maps, flattened.
    #[default]
    Map,
    /// Embeddings.
    Embedding,
}

impl Kind for SimilarityPreserving {
    const NAME: &'static str = "similarity-preserving";
    const PURPOSE: &'static str = "the Gram matrix of a batch is the teacher's (SP)";
}

impl LossConfig for SimilarityPreserving {
    fn needs(&self) -> Needs {
        match self.of {
            Compared::Map => Needs::map_and(self.teacher.as_ref(), self.tap.as_ref()),
            Compared::Embedding => Needs::embedding_and(self.teacher.as_ref(), Wanted::Embedding),
        }
    }

    fn about(&self) -> About {
        About { equation: "|| G(S) - G(T) ||^2 / b^2, rows of G = S S' of unit length", memory: "b^2" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        if self.of == Compared::Embedding {
            cx.stage()?.embedding_width()?;
        }
        Ok(Box::new(Grams { of: self.of }))
    }
}

struct Grams {
    of: Compared,
}

impl Loss for Grams {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let student = match self.of {
            Compared::Map => inputs.map()?,
            Compared::Embedding => inputs.embedding()?,
        };
        let gram = |x: &Tensor| -> Result<Tensor> {
            let rows = x.flatten_from(1)?;
            l2_normalise(&rows.matmul(&rows.t()?)?)
        };
        Ok((gram(student)? - gram(inputs.teacher(0)?)?)?.sqr()?.mean_all()?.into())
    }
}
