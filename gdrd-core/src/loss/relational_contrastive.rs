//! Cross-resolution relational contrastive distillation, Eq. (2).

use candle_core::{D, Device, Tensor};
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LoggedScalar, Loss, LossConfig, LossInputs, LossValue, Needs, Wanted};
use crate::context::BuildContext;
use crate::error::Result;
use crate::nn::kernels::put;
use crate::nn::{Linear, Weights, l2_normalise};
use crate::plugin::Kind;
use crate::seed::Stream;

/// Eq. (2): relations between faces, the teacher's among themselves and the teacher's to the student's, are told apart.
///
/// With t_i the teacher's and s_j the student's embeddings of a batch, v^t_ij = F^t(t_i, t_j) and
/// v^{t,s}_ij = F^{t,s}(t_i, s_j). A positive is (v^t_ij, v^{t,s}_ij); a negative is (v^t_ij, v^{t,s}_ik) with another face k of
/// another identity, drawn at random from the batch: as many negatives as positives, nothing outside the batch, no
/// memory bank. h = exp(h1(v^t) . h2(v^{t,s}) / tau) / (exp(..) + n/m), with n/m = 1/2.
///
/// Where the paper is silent: F(a, b) = W2 ReLU(W1 (a - b)) on unit-length embeddings, h1 and h2 are a linear map, the
/// subtraction of the batch's mean and the projection to unit length, and the sums over positives and negatives are means.
/// Without the subtraction training gets stuck where all relations are one constant pair of vectors, with cosine
/// `tau ln(n/m)`: there the loss is `2 ln 2` whatever the student does.
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
    /// Whether h1 and h2 subtract the mean over the batch's relations.
    pub centre: bool,
    /// Sum over the positives and negatives of an anchor, as Eq. (2) reads, instead of their mean.
    pub sum: bool,
}

impl Default for RelationalContrastive {
    fn default() -> Self {
        Self { teacher: None, temperature: 0.4, hidden: 256, relation: 128, partners: None, centre: true, sum: false }
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

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let (stage, weights) = (cx.stage()?, cx.weights()?);
        let (wide, narrow) = (stage.teachers[0].width(), stage.embedding_width()?);
        // What is added to every relation would be subtracted again.
        let map = |name| Linear::new(self.relation, self.relation, !self.centre, &weights.pp(name));
        Ok(Box::new(Relations {
            config: self.clone(),
            same: Relation::new(wide, wide, self, &weights.pp("f_t"))?,
            cross: Relation::new(wide, narrow, self, &weights.pp("f_ts"))?,
            h1: map("h1")?,
            h2: map("h2")?,
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
    same: Relation,
    cross: Relation,
    h1: Linear,
    h2: Linear,
}

impl Loss for Relations {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let teacher = l2_normalise(inputs.teacher(0)?)?;
        let student = l2_normalise(inputs.embedding()?)?;
        let pairs = Pairs::draw(inputs.labels()?.people(), self.config.partners, &mut inputs.stream()?);
        let index = |numbers: &[u32]| put(&Tensor::new(numbers, &Device::Cpu)?, teacher.device());
        let count = pairs.anchors.len();
        let own = self.same.pairs(
            &self.same.project(&teacher, &teacher)?,
            &index(&pairs.anchors)?,
            &index(&pairs.partners)?,
        )?;
        let cross = self.cross.pairs(
            &self.cross.project(&teacher, &student)?,
            &index(&pairs.anchors.repeat(2))?,
            &index(&[pairs.partners.as_slice(), &pairs.negatives].concat())?,
        )?;
        let anchor = self.transformed(&self.h1, &own)?;
        let cross = self.transformed(&self.h2, &cross)?;
        let cosine = |others: Tensor| -> Result<Tensor> { Ok((&anchor * others)?.sum(D::Minus1)?) };
        let positive = cosine(cross.narrow(0, 0, count)?)?;
        let negative = cosine(cross.narrow(0, count, count)?)?;
        let details = vec![
            ("positive_cosine".into(), LoggedScalar::scalar(&positive.mean_all()?)?),
            ("negative_cosine".into(), LoggedScalar::scalar(&negative.mean_all()?)?),
        ];
        let mean = contrast(&positive, &negative, self.config.temperature)?;
        let per_anchor = pairs.anchors.len() as f64 / teacher.dim(0)? as f64;
        let value = if self.config.sum { (mean * per_anchor)? } else { mean };
        Ok(LossValue { value, logits: None, details })
    }
}

impl Relations {
    /// h1 or h2 of relations `[pairs, relation]`, rows of unit length.
    fn transformed(&self, map: &Linear, relations: &Tensor) -> Result<Tensor> {
        let mapped = map.forward(relations)?;
        if !self.config.centre {
            return l2_normalise(&mapped);
        }
        l2_normalise(&mapped.broadcast_sub(&mapped.mean_keepdim(0)?)?)
    }
}

/// n/m of Eq. (2), with as many negative pairs as positive ones.
const NEGATIVE_SHARE: f64 = 0.5;

/// `-mean log h(positive) - mean log(1 - h(negative))` of cosines.
///
/// With z = cosine / tau, h = e^z / (e^z + n/m) = sigmoid(z - ln(n/m)), so -log h and -log(1 - h) are softplus of its
/// negative and of itself; cosines are within 1 and tau is not tiny, so `ln(1 + e^x)` needs no further care.
fn contrast(positive: &Tensor, negative: &Tensor, temperature: f64) -> Result<Tensor> {
    let softplus = |x: Tensor| -> Result<Tensor> { Ok((x.exp()? + 1.0)?.log()?) };
    let offset = NEGATIVE_SHARE.ln();
    let hit = softplus(positive.affine(-1.0 / temperature, offset)?)?;
    let miss = softplus(negative.affine(1.0 / temperature, -offset)?)?;
    Ok((hit.mean_all()? + miss.mean_all()?)?)
}

/// Whether two faces are of two people; faces of strangers are taken for that.
fn differ(one: Option<usize>, other: Option<usize>) -> bool {
    one.is_none() || one != other
}

/// Index triples (i, j, k): the positive partner j and the negative partner k of the anchor i.
#[derive(Debug, PartialEq)]
struct Pairs {
    anchors: Vec<u32>,
    partners: Vec<u32>,
    negatives: Vec<u32>,
}

impl Pairs {
    /// Every anchor with its partners, each with one k that is neither i nor j and not of j's identity; a pair for
    /// which the batch has no such k is left out.
    fn draw(people: &[Option<usize>], partners: Option<usize>, stream: &mut Stream) -> Self {
        let count = people.len();
        let mut pairs = Self { anchors: Vec::new(), partners: Vec::new(), negatives: Vec::new() };
        for i in 0..count {
            let others: Vec<usize> = match partners {
                Some(wanted) if wanted < count - 1 => {
                    let start = stream.random_range(0..count - 1);
                    (0..wanted).map(|step| (i + 1 + (start + step) % (count - 1)) % count).collect()
                }
                _ => (0..count).filter(|&j| j != i).collect(),
            };
            for j in others {
                let start = stream.random_range(0..count);
                let fits = |k: &usize| *k != i && *k != j && differ(people[*k], people[j]);
                if let Some(k) = (0..count).map(|step| (start + step) % count).find(fits) {
                    pairs.anchors.push(i as u32);
                    pairs.partners.push(j as u32);
                    pairs.negatives.push(k as u32);
                }
            }
        }
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;
    use candle_core::Device;

    #[test]
    fn the_value_is_eq_2_by_hand() {
        let tensor = |v: f32| Tensor::new(&[v], &Device::Cpu).expect("tensor");
        let found = contrast(&tensor(0.6), &tensor(-0.2), 0.4).and_then(|t| Ok(t.to_scalar::<f32>()?)).expect("value");
        let h = |cosine: f64| (cosine / 0.4).exp() / ((cosine / 0.4).exp() + 0.5);
        let expected = -h(0.6).ln() - (1.0 - h(-0.2)).ln();
        assert!((f64::from(found) - expected).abs() < 1e-6, "{found} {expected}");
    }

    #[test]
    fn negatives_are_of_other_identities() {
        let identities = [0, 0, 1, 2, 2, 2].map(Some);
        for partners in [None, Some(2)] {
            let pairs = Pairs::draw(&identities, partners, &mut Seed(7).stream("test", &[]));
            assert_eq!(pairs.anchors.len(), 6 * partners.unwrap_or(5));
            for at in 0..pairs.anchors.len() {
                let [i, j, k] = [pairs.anchors[at], pairs.partners[at], pairs.negatives[at]].map(|n| n as usize);
                assert!(i != j && k != i && k != j && identities[k] != identities[j]);
            }
        }
    }

    #[test]
    fn a_batch_of_one_identity_gives_no_pair() {
        assert!(Pairs::draw(&[Some(3); 3], None, &mut Seed(7).stream("test", &[])).anchors.is_empty());
    }
}
