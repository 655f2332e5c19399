//! Regression of the teacher's embedding.

use candle_core::{D, Device, Tensor};
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::BuildContext;
use crate::error::{Problem, Result};
use crate::loss::{About, Loss, LossConfig, LossInputs, LossValue, Needs, Queue, Wanted, smooth_l1};
use crate::nn::kernels::put;
use crate::nn::{Linear, l2_normalise};
use crate::plugin::Kind;
use crate::seed::Stream;

/// `1 - cos(S(x_lr), T_d(x))`, or another distance. Not in the paper; the plainest form of cross-resolution
/// distillation, for comparison. Where the widths differ, a linear map stands between.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddingRegression {
    /// The teacher's name in the recipe; may be left out when only one has embeddings.
    pub teacher: Option<String>,
    /// How far two embeddings are apart.
    pub distance: EmbeddingDistance,
    /// Whether both are brought to unit length first; the cosine does not care.
    pub unit_length: bool,
    /// Where smooth L1 becomes a straight line.
    #[schemars(range(min = 1e-6, max = 1e6))]
    pub beta: f64,
    /// Chance of a face that its target is the teacher's embedding of another photo of the same person, from the
    /// batch or the queue; its own where there is no other. Batches have others with `images_per_person` of the
    /// stage.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub other_photo: f64,
    /// Faces of earlier batches among which another photo may be found; at most 65536. One that is older than an
    /// epoch may be the same photo.
    #[schemars(range(min = 0, max = 1 << 16))]
    pub queue: usize,
}

/// How far two embeddings are apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EmbeddingDistance {
    /// `1 - cos`.
    #[default]
    Cosine,
    /// The square of the Euclidean distance: of unit vectors, twice the cosine distance.
    Squared,
    /// Smooth L1 of each value's difference, summed over the embedding.
    SmoothL1,
}

impl Default for EmbeddingRegression {
    fn default() -> Self {
        let distance = EmbeddingDistance::default();
        Self { teacher: None, distance, unit_length: true, beta: 1.0, other_photo: 0.0, queue: 0 }
    }
}

impl Kind for EmbeddingRegression {
    const NAME: &'static str = "embedding-regression";
    const PURPOSE: &'static str = "the embedding is where the teacher's is";
}

impl LossConfig for EmbeddingRegression {
    fn check(&self) -> Vec<Problem> {
        [
            Problem::within("beta", self.beta, 1e-6..=1e6),
            Problem::within("other_photo", self.other_photo, 0.0..=1.0),
            Problem::within("queue", self.queue, 0..=1 << 16),
            Problem::unless(self.queue == 0 || self.other_photo > 0.0, "queue", || {
                "nobody looks into it unless `other_photo` is above 0".into()
            }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn needs(&self) -> Needs {
        Needs { labels: self.other_photo > 0.0, ..Needs::embedding_and(self.teacher.as_ref(), Wanted::Embedding) }
    }

    fn about(&self) -> About {
        About { equation: "1 - cos(S, T), or || S - T ||^2", memory: "b w + q w" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let stage = cx.stage()?;
        let (width, target) = (stage.embedding_width()?, stage.teachers[0].width());
        let differ = width != target;
        let connector = differ.then(|| Linear::new(width, target, true, &cx.weights()?.pp("connector"))).transpose()?;
        let rows = [("teacher", target)];
        let queue = (self.queue > 0).then(|| Queue::new(self.queue, &rows, cx.weights()?)).transpose()?;
        Ok(Box::new(Regression { config: self.clone(), connector, queue }))
    }
}

struct Regression {
    config: EmbeddingRegression,
    connector: Option<Linear>,
    queue: Option<Queue>,
}

impl Loss for Regression {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let embedding = match &self.connector {
            Some(connector) => connector.forward(inputs.embedding()?)?,
            None => inputs.embedding()?.clone(),
        };
        let mut details = Vec::new();
        let target = if self.config.other_photo > 0.0 {
            let (target, share) = self.photos(inputs)?;
            details.push(("other_photos".into(), share.into()));
            target
        } else {
            inputs.teacher(0)?.clone()
        };
        Ok(LossValue { value: self.config.of(&embedding, &target)?, logits: None, details })
    }
}

impl Regression {
    /// The targets with their photos chosen, and the share of them that are of another photo.
    fn photos(&self, inputs: &LossInputs) -> Result<(Tensor, f64)> {
        let (teacher, people) = (inputs.teacher(0)?, inputs.labels()?.people());
        let mut all = (teacher.clone(), people.to_vec());
        if let Some(queue) = &self.queue {
            let held = queue.held()?;
            all = (Tensor::cat(&[teacher, &held.rows[0]], 0)?, [people, &held.people].concat());
            queue.push(&[teacher], people)?;
        }
        let chosen = choose(people.len(), &all.1, self.config.other_photo, &mut inputs.stream()?);
        let others = chosen.iter().enumerate().filter(|(face, photo)| *face as u32 != **photo).count();
        let share = others as f64 / people.len() as f64;
        let index = put(&Tensor::new(chosen, &Device::Cpu)?, teacher.device())?;
        Ok((all.0.index_select(&index, 0)?, share))
    }
}

/// For each of the first `faces` of `people`, with a chance of `share`, another face of the same person; else itself.
fn choose(faces: usize, people: &[Option<usize>], share: f64, stream: &mut Stream) -> Vec<u32> {
    let choice = |face: usize| {
        let is_other = |other: &usize| *other != face && people[face].is_some() && people[*other] == people[face];
        let others: Vec<usize> = (0..people.len()).filter(is_other).collect();
        let wants = stream.random::<f64>() < share;
        let other = if others.is_empty() { face } else { others[stream.random_range(0..others.len())] };
        if wants { other as u32 } else { face as u32 }
    };
    (0..faces).map(choice).collect()
}

impl EmbeddingRegression {
    /// The mean distance over the batch.
    fn of(&self, embedding: &Tensor, target: &Tensor) -> Result<Tensor> {
        let cosine = self.distance == EmbeddingDistance::Cosine;
        let (embedding, target) = match cosine || self.unit_length {
            true => (&l2_normalise(embedding)?, &l2_normalise(target)?),
            false => (embedding, target),
        };
        match self.distance {
            EmbeddingDistance::Cosine => Ok((1.0 - (embedding * target)?.sum(D::Minus1)?.mean_all()?)?),
            EmbeddingDistance::Squared => Ok((embedding - target)?.sqr()?.sum(D::Minus1)?.mean_all()?),
            EmbeddingDistance::SmoothL1 => {
                Ok(smooth_l1(&(embedding - target)?, self.beta)?.sum(D::Minus1)?.mean_all()?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn another_photo_is_of_the_same_person_and_none_of_a_stranger() {
        let people = [Some(1), None, Some(2), Some(1), None, Some(1)];
        let mut stream = Seed(7).stream("test", &[]);
        let drawn: Vec<Vec<u32>> = (0..100).map(|_| choose(4, &people, 1.0, &mut stream)).collect();
        for chosen in &drawn {
            assert_eq!(chosen[1..3], [1, 2], "strangers and people who are alone keep their own");
            assert!([3, 5].contains(&chosen[0]) && [0, 5].contains(&chosen[3]), "{chosen:?}");
        }
        assert!(drawn.iter().any(|chosen| chosen[0] == 3) && drawn.iter().any(|chosen| chosen[0] == 5));
        assert_eq!(choose(4, &people, 0.0, &mut stream), [0, 1, 2, 3]);
    }
}
