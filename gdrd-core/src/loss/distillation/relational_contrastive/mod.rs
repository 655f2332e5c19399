//! Cross-resolution relational contrastive distillation, Eq. (2).

use candle_core::{D, Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::pairs::Pairs;
use crate::context::BuildContext;
use crate::error::Result;
use crate::loss::{About, LoggedScalar, Loss, LossConfig, LossInputs, LossValue, Needs, Queue, Wanted, softplus};
use crate::nn::kernels::put;
use crate::nn::{Linear, Weights, l2_normalise};
use crate::plugin::Kind;

mod pairs;

pub use pairs::Negatives;

/// Eq. (2): relations between faces, the teacher's among themselves and the teacher's to the student's, are told apart.
///
/// With t_i the teacher's and s_j the student's embeddings of a batch, v^t_ij = F^t(t_i, t_j) and v^{t,s}_ij =
/// F^{t,s}(t_i, s_j). A positive is (v^t_ij, v^{t,s}_ij); a negative is (v^t_ij, v^{t,s}_ik) with another face k of
/// another identity, drawn at random from the batch: as many negatives as positives, nothing outside the batch, no
/// memory bank. h = exp(h1(v^t) . h2(v^{t,s}) / tau) / (exp(..) + n/m), with n/m = 1/2.
///
/// Where the paper is silent: F(a, b) = W2 ReLU(W1 (a - b)) on unit-length embeddings, h1 and h2 are a linear map, the
/// subtraction of the batch's mean and the projection to unit length, and the sums over positives and negatives are means.
/// Without the subtraction training gets stuck where all relations are one constant pair of vectors, with cosine
/// `tau ln(n/m)`: there the loss is `2 ln 2` whatever the student does.
///
/// Other readings are options; the defaults are the one above. `negatives`, `unit_length` and `queue` change which
/// relations are told apart and by what; `centre_scores` and `connector` are ours.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RelationalContrastive {
    /// The teacher's name in the recipe; may be left out when only one has embeddings.
    pub teacher: Option<String>,
    /// tau.
    #[schemars(range(min = 1e-6, max = 1_000_000))]
    pub temperature: f64,
    /// Width of the hidden layer of F.
    #[schemars(range(min = 1, max = 65536))]
    pub hidden: usize,
    /// Width of relations and of what h1 and h2 give.
    #[schemars(range(min = 1, max = 65536))]
    pub relation: usize,
    /// Partners j of each anchor i; all others of the batch when left out.
    #[schemars(range(min = 1, max = 1 << 20))]
    pub partners: Option<usize>,
    /// Which relations may be the negative of another.
    pub negatives: Negatives,
    /// Whether h1 and h2 subtract the mean over the batch's relations.
    pub centre: bool,
    /// Whether h1 and h2 end in the projection to unit length. Without it `h1 . h2 / tau` has no bounds, and h is a
    /// plain logistic critic.
    pub unit_length: bool,
    /// Whether `h1 . h2` has its mean over the batch's positives and negatives subtracted, so that an offset which
    /// they have in common costs nothing and gains nothing.
    pub centre_scores: bool,
    /// Whether the student's embedding goes through a learned linear map to the teacher's width first, before its
    /// projection to unit length.
    pub connector: bool,
    /// Faces of earlier batches, at most 65536, that are anchors i too. Of those only the teacher's embedding is
    /// asked for, so nothing in the queue grows stale. Each costs as much as an anchor of the batch.
    #[schemars(range(max = 65536))]
    pub queue: usize,
    /// Sum over the positives and negatives of an anchor, as Eq. (2) reads, instead of their mean.
    pub sum: bool,
}

impl Default for RelationalContrastive {
    fn default() -> Self {
        Self {
            teacher: None,
            temperature: 0.4,
            hidden: 256,
            relation: 128,
            partners: None,
            negatives: Negatives::default(),
            centre: true,
            unit_length: true,
            centre_scores: false,
            connector: false,
            queue: 0,
            sum: false,
        }
    }
}

impl Kind for RelationalContrastive {
    const NAME: &'static str = "relational-contrastive";
    const PURPOSE: &'static str = "cross-resolution relational contrastive distillation (Eq. 2)";
}

impl LossConfig for RelationalContrastive {
    fn needs(&self) -> Needs {
        // Negatives are faces of other identities.
        Needs { labels: true, ..Needs::embedding_and(self.teacher.as_ref(), Wanted::Embedding) }
    }

    fn about(&self) -> About {
        About {
            equation: "Eq. (2): -log h(v_ij(T, T), v_ij(T, S)) - log(1 - h(v_ij, v_ik))",
            memory: "p (hidden + relation), p = (b + q) partners",
        }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let (stage, weights) = (cx.stage()?, cx.weights()?);
        let (wide, narrow) = (stage.teachers[0].width(), stage.embedding_width()?);
        // What is added to every relation would be subtracted again.
        let map = |name| Linear::new(self.relation, self.relation, !self.centre, &weights.pp(name));
        let connect = || Linear::new(narrow, wide, true, &weights.pp("connector"));
        Ok(Box::new(Relations {
            config: self.clone(),
            connector: self.connector.then(connect).transpose()?,
            same: Relation::new(wide, wide, self, &weights.pp("f_t"))?,
            cross: Relation::new(wide, if self.connector { wide } else { narrow }, self, &weights.pp("f_ts"))?,
            h1: map("h1")?,
            h2: map("h2")?,
            queue: (self.queue > 0).then(|| Queue::new(self.queue, &[("teacher", wide)], weights)).transpose()?,
        }))
    }
}

/// F(a, b) = W2 ReLU(W1 a - W1' b). Where a and b have the same width W1' is W1, so that F sees the difference.
struct Relation {
    left: Linear,
    right: Option<Linear>,
    out: Linear,
}

impl Relation {
    fn new(left: usize, right: usize, config: &RelationalContrastive, weights: &Weights) -> Result<Self> {
        let (differ, hidden) = (left != right, config.hidden);
        Ok(Self {
            left: Linear::new(left, hidden, true, &weights.pp("w1"))?,
            right: differ.then(|| Linear::new(right, hidden, false, &weights.pp("w1_right"))).transpose()?,
            out: Linear::new(hidden, config.relation, !config.centre, &weights.pp("w2"))?,
        })
    }

    /// Both sides after W1, `[batch, hidden]`: the difference is linear, so pairs are made after it.
    fn project(&self, left: &Tensor, right: &Tensor) -> Result<(Tensor, Tensor)> {
        let right = match &self.right {
            Some(map) => map.forward(right)?,
            None => right.matmul(&self.left.weight().t()?)?,
        };
        Ok((self.left.forward(left)?, right))
    }

    /// The relations of the pairs `(anchors[p], others[p])`, `[pairs, relation]`.
    fn pairs(&self, sides: &(Tensor, Tensor), anchors: &Tensor, others: &Tensor) -> Result<Tensor> {
        let left = sides.0.index_select(anchors, 0)?;
        let right = sides.1.index_select(others, 0)?;
        self.out.forward(&(left - right)?.relu()?)
    }
}

struct Relations {
    config: RelationalContrastive,
    connector: Option<Linear>,
    same: Relation,
    cross: Relation,
    h1: Linear,
    h2: Linear,
    queue: Option<Queue>,
}

impl Loss for Relations {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let teacher = l2_normalise(inputs.teacher(0)?)?;
        let student = match &self.connector {
            Some(connector) => l2_normalise(&connector.forward(inputs.embedding()?)?)?,
            None => l2_normalise(inputs.embedding()?)?,
        };
        let people = inputs.labels()?.people();
        let (anchors, of_anchors) = self.anchors(&teacher, people)?;
        let pairs = {
            let RelationalContrastive { partners, negatives, .. } = self.config;
            Pairs::draw(people.len(), &of_anchors, partners, negatives, &mut inputs.stream()?)
        };
        if pairs.anchors.is_empty() {
            return Ok(Tensor::zeros((), teacher.dtype(), teacher.device())?.into());
        }
        let index = |numbers: &[u32]| put(&Tensor::new(numbers, &Device::Cpu)?, teacher.device());
        let count = pairs.anchors.len();
        let own = self.same.pairs(
            &self.same.project(&anchors, &teacher)?,
            &index(&pairs.anchors)?,
            &index(&pairs.partners)?,
        )?;
        let cross = self.cross.pairs(
            &self.cross.project(&anchors, &student)?,
            &index(&[pairs.anchors.as_slice(), &pairs.negative_anchors].concat())?,
            &index(&[pairs.partners.as_slice(), &pairs.negatives].concat())?,
        )?;
        let anchor = self.transformed(&self.h1, &own)?;
        let cross = self.transformed(&self.h2, &cross)?;
        let score = |others: Tensor| -> Result<Tensor> { Ok((&anchor * others)?.sum(D::Minus1)?) };
        let positive = score(cross.narrow(0, 0, count)?)?;
        let negative = score(cross.narrow(0, count, count)?)?;
        let details = vec![
            ("positive_cosine".into(), LoggedScalar::scalar(&positive.mean_all()?)?),
            ("negative_cosine".into(), LoggedScalar::scalar(&negative.mean_all()?)?),
        ];
        let (positive, negative) = match self.config.centre_scores {
            false => (positive, negative),
            true => {
                let mean = ((positive.mean_all()? + negative.mean_all()?)? * 0.5)?;
                (positive.broadcast_sub(&mean)?, negative.broadcast_sub(&mean)?)
            }
        };
        let mean = contrast(&positive, &negative, self.config.temperature)?;
        let per_anchor = count as f64 / of_anchors.len() as f64;
        let value = if self.config.sum { (mean * per_anchor)? } else { mean };
        Ok(LossValue { value, logits: None, details })
    }
}

impl Relations {
    /// The teacher's embeddings of all anchors, unit length, and who they are: the batch, then the queue.
    fn anchors(&self, teacher: &Tensor, people: &[Option<usize>]) -> Result<(Tensor, Vec<Option<usize>>)> {
        let Some(queue) = &self.queue else { return Ok((teacher.clone(), people.to_vec())) };
        let held = queue.held()?;
        queue.push(&[teacher], people)?;
        Ok((Tensor::cat(&[teacher, &held.rows[0]], 0)?, [people, &held.people].concat()))
    }

    /// h1 or h2 of relations `[pairs, relation]`.
    fn transformed(&self, map: &Linear, relations: &Tensor) -> Result<Tensor> {
        let mapped = map.forward(relations)?;
        let mapped = if self.config.centre { mapped.broadcast_sub(&mapped.mean_keepdim(0)?)? } else { mapped };
        if self.config.unit_length { l2_normalise(&mapped) } else { Ok(mapped) }
    }
}

/// n/m of Eq. (2), with as many negative pairs as positive ones.
const NEGATIVE_SHARE: f64 = 0.5;

/// `-mean log h(positive) - mean log(1 - h(negative))` of scores.
///
/// With z = score / tau, h = e^z / (e^z + n/m) = sigmoid(z - ln(n/m)), so -log h and -log(1 - h) are softplus of its
/// negative and of itself.
fn contrast(positive: &Tensor, negative: &Tensor, temperature: f64) -> Result<Tensor> {
    let offset = NEGATIVE_SHARE.ln();
    let hit = softplus(&positive.affine(-1.0 / temperature, offset)?)?;
    let miss = softplus(&negative.affine(1.0 / temperature, -offset)?)?;
    Ok((hit.mean_all()? + miss.mean_all()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_eq_2_by_hand() {
        let tensor = |v: f32| Tensor::new(&[v], &Device::Cpu).expect("tensor");
        let found = contrast(&tensor(0.6), &tensor(-0.2), 0.4).and_then(|t| Ok(t.to_scalar::<f32>()?)).expect("value");
        let h = |cosine: f64| (cosine / 0.4).exp() / ((cosine / 0.4).exp() + 0.5);
        let expected = -h(0.6).ln() - (1.0 - h(-0.2)).ln();
        assert!((f64::from(found) - expected).abs() < 1e-6, "{found} {expected}");
    }
}
