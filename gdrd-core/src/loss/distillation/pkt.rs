//! Probabilistic knowledge transfer.

use candle_core::{D, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::BuildContext;
use crate::error::Result;
use crate::loss::{About, Loss, LossConfig, LossInputs, LossValue, Needs, Wanted};
use crate::nn::l2_normalise;
use crate::plugin::Kind;

/// `KL(P_T || P_S)` of the probabilities that a face of the batch is another's neighbour, which are the cosines,
/// brought to 0 .. 1 and divided by their sum over the batch (Passalis and Tefas, ECCV 2018). The mean is over all
/// pairs, as in its code.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pkt {
    /// The teacher's name in the recipe; may be left out when only one has embeddings.
    pub teacher: Option<String>,
}

impl Kind for Pkt {
    const NAME: &'static str = "pkt";
    const PURPOSE: &'static str = "probabilities of a batch's faces to be neighbours are the teacher's";
}

impl LossConfig for Pkt {
    fn needs(&self) -> Needs {
        Needs::embedding_and(self.teacher.as_ref(), Wanted::Embedding)
    }

    fn about(&self) -> About {
        About { equation: "KL(P(T) || P(S)), P = (1 + cos) / sum (1 + cos)", memory: "b^2" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        cx.stage()?.embedding_width()?;
        Ok(Box::new(Neighbours {}))
    }
}

struct Neighbours {}

impl Loss for Neighbours {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let probabilities = |x: &Tensor| -> Result<Tensor> {
            let unit = l2_normalise(x)?;
            let near = unit.matmul(&unit.t()?)?.affine(0.5, 0.5)?;
            Ok(near.broadcast_div(&near.sum_keepdim(D::Minus1)?)?)
        };
        const SMALL: f64 = 1e-7;
        let (teacher, student) = (probabilities(inputs.teacher(0)?)?, probabilities(inputs.embedding()?)?);
        let ratio = ((&teacher + SMALL)?.log()? - (student + SMALL)?.log()?)?;
        Ok((teacher * ratio)?.mean_all()?.into())
    }
}
