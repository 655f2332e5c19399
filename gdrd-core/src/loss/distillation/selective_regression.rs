//! Regression of a choice of faces.

use candle_core::{D, Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::BuildContext;
use crate::error::{Problem, Result};
use crate::loss::{About, Loss, LossConfig, LossInputs, LossValue, Needs, Wanted};
use crate::nn::kernels::put;
use crate::nn::{Linear, l2_normalise};
use crate::plugin::Kind;

/// Selective knowledge distillation, SKD (Ge et al., TIP 2019): the student regresses the teacher's most informative
/// features alone, which are selected by optimising a sparse graph; the classification beside it is a term of its own.
///
/// We have read its abstract alone, and the selection is ours: of each batch a `share` of the faces is selected one by
/// one. The next is the face with the largest `confidence - redundancy * similarity`. The confidence is how much nearer
/// the teacher's embedding is to the mean of its own person than to any other's, by cosines, and 0 for strangers; the
/// similarity is the largest cosine with a face of the same person that is selected already. The features are unit
/// vectors; a linear map stands between where the widths differ.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SelectiveRegression {
    /// The teacher's name in the recipe; may be left out when only one has embeddings.
    pub teacher: Option<String>,
    /// Share of a batch that is selected, above 0 to 1; at least one face.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub share: f64,
    /// What similarity to a selected face of the same person costs.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub redundancy: f64,
}

impl Default for SelectiveRegression {
    fn default() -> Self {
        Self { teacher: None, share: 0.5, redundancy: 0.5 }
    }
}

impl Kind for SelectiveRegression {
    const NAME: &'static str = "selective-regression";
    const PURPOSE: &'static str = "the embeddings of the most informative faces are the teacher's (SKD)";
}

impl LossConfig for SelectiveRegression {
    fn check(&self) -> Vec<Problem> {
        let good = self.share > 0.0 && self.share <= 1.0;
        let share = Problem::unless(good, "share", || format!("expected above 0 to 1, found {}", self.share));
        share.into_iter().chain(Problem::within("redundancy", self.redundancy, 0.0..=100.0)).collect()
    }

    fn needs(&self) -> Needs {
        Needs { labels: true, centres: true, ..Needs::embedding_and(self.teacher.as_ref(), Wanted::Embedding) }
    }

    fn about(&self) -> About {
        About { equation: "|| S - T ||^2 over the selected faces, unit length", memory: "b c + b^2" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let stage = cx.stage()?;
        let (width, target) = (stage.embedding_width()?, stage.teachers[0].width());
        let differ = width != target;
        let connector = differ.then(|| Linear::new(width, target, true, &cx.weights()?.pp("connector"))).transpose()?;
        Ok(Box::new(Selective { config: self.clone(), connector }))
    }
}

struct Selective {
    config: SelectiveRegression,
    connector: Option<Linear>,
}

impl Loss for Selective {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let teacher = l2_normalise(inputs.teacher(0)?)?;
        let student = match &self.connector {
            Some(connector) => l2_normalise(&connector.forward(inputs.embedding()?)?)?,
            None => l2_normalise(inputs.embedding()?)?,
        };
        let people = inputs.labels()?.people();
        let to_people = teacher.matmul(&inputs.centres()?.t()?)?.to_vec2::<f32>()?;
        let to_faces = teacher.matmul(&teacher.t()?)?.to_vec2::<f32>()?;
        let wanted = ((self.config.share * people.len() as f64).round() as usize).max(1);
        let chosen = select(&confidences(&to_people, people), &to_faces, people, wanted, self.config.redundancy as f32);
        let index = put(&Tensor::new(chosen, &Device::Cpu)?, teacher.device())?;
        let gap = (student.index_select(&index, 0)? - teacher.index_select(&index, 0)?)?;
        Ok(gap.sqr()?.sum(D::Minus1)?.mean_all()?.into())
    }
}

/// How much nearer each face is to its own person than to the nearest other, by cosines with all people.
fn confidences(to_people: &[Vec<f32>], people: &[Option<usize>]) -> Vec<f32> {
    let of = |(cosines, person): (&Vec<f32>, &Option<usize>)| {
        let Some(person) = *person else { return 0.0 };
        let others = cosines.iter().enumerate().filter(|(other, _)| *other != person).map(|(_, cosine)| *cosine);
        let nearest = others.fold(f32::NEG_INFINITY, f32::max);
        if nearest.is_finite() { cosines[person] - nearest } else { cosines[person] }
    };
    to_people.iter().zip(people).map(of).collect()
}

/// `wanted` faces, one after the other the one with the largest confidence less `redundancy` times its similarity to
/// a chosen face of its person; in the order of the batch.
fn select(
    confidences: &[f32],
    similarities: &[Vec<f32>],
    people: &[Option<usize>],
    wanted: usize,
    redundancy: f32,
) -> Vec<u32> {
    let mut worth = confidences.to_vec();
    let mut nearest = vec![f32::NEG_INFINITY; worth.len()];
    let mut chosen = Vec::new();
    let mut left: Vec<usize> = (0..worth.len()).collect();
    while chosen.len() < wanted && !left.is_empty() {
        // The first of equals.
        let best = (1..left.len()).fold(0, |best, at| if worth[left[at]] > worth[left[best]] { at } else { best });
        let face = left.remove(best);
        chosen.push(face as u32);
        for &other in &left {
            if people[face].is_some() && people[other] == people[face] && similarities[face][other] > nearest[other] {
                nearest[other] = similarities[face][other];
                worth[other] = confidences[other] - redundancy * nearest[other];
            }
        }
    }
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confident_faces_are_chosen_and_near_doubles_are_not() {
        let people = [Some(0), Some(0), Some(1), None];
        let to_people = [vec![0.9, 0.1], vec![0.8, 0.1], vec![0.3, 0.7], vec![0.9, 0.0]];
        let confidences = confidences(&to_people, &people);
        assert!(confidences.iter().zip([0.8, 0.7, 0.4, 0.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{confidences:?}");
        let mut similar = vec![vec![0.0; 4]; 4];
        (similar[0][1], similar[1][0]) = (0.99, 0.99);
        let of = |wanted, redundancy| select(&confidences, &similar, &people, wanted, redundancy);
        assert_eq!(of(2, 0.0), [0, 1]);
        assert_eq!(of(2, 0.5), [0, 2], "0.7 - 0.5 * 0.99 is below 0.4");
        assert_eq!(of(9, 0.5), [0, 1, 2, 3]);
    }
}
