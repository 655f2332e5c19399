//! Contrastive representation distillation.

use candle_core::{D, Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::BuildContext;
use crate::error::{Problem, Result};
use crate::loss::{About, LoggedScalar, Loss, LossConfig, LossInputs, LossValue, Needs, Queue, Wanted, softplus};
use crate::nn::kernels::put;
use crate::nn::{Linear, l2_normalise};
use crate::plugin::Kind;

/// CRD (Tian et al., ICLR 2020): the student's and the teacher's embedding of one face are told apart from those of
/// different faces, `-log h(s, t) - sum log(1 - h(s, t'))` and the same with the roles exchanged. With N negatives of a
/// face and M faces of the data, `h = e^z / (e^z + N / M)`, where z is the cosine over tau after a linear map of each
/// to `width` values.
///
/// The original keeps a memory of the whole data; here negatives are the other faces of the batch and a bounded queue
/// of mapped embeddings of earlier batches, so N is smaller and memory does not grow with the data. Faces of the same
/// person are no negatives. The original code also divides `e^z` by its mean over the first batch times M, which the
/// paper's equation does not have; neither has this.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Crd {
    /// The teacher's name in the recipe; may be left out when only one has embeddings.
    pub teacher: Option<String>,
    /// tau.
    #[schemars(range(min = 1e-3, max = 1e3))]
    pub temperature: f64,
    /// Values that both embeddings are mapped to.
    #[schemars(range(min = 1, max = 1 << 16))]
    pub width: usize,
    /// Faces of earlier batches that are negatives; at most 65536.
    #[schemars(range(min = 0, max = 1 << 16))]
    pub queue: usize,
}

impl Default for Crd {
    fn default() -> Self {
        Self { teacher: None, temperature: 0.07, width: 128, queue: 2048 }
    }
}

impl Kind for Crd {
    const NAME: &'static str = "crd";
    const PURPOSE: &'static str = "embeddings of one face, student's and teacher's, are told apart from other faces'";
}

impl LossConfig for Crd {
    fn check(&self) -> Vec<Problem> {
        [
            Problem::within("temperature", self.temperature, 1e-3..=1e3),
            Problem::within("width", self.width, 1..=1 << 16),
            Problem::within("queue", self.queue, 0..=1 << 16),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn needs(&self) -> Needs {
        // Faces of one person are no negatives of each other; those of strangers are.
        Needs { labels: true, ..Needs::embedding_and(self.teacher.as_ref(), Wanted::Embedding) }
    }

    fn about(&self) -> About {
        About { equation: "-log h(S, T) - sum log(1 - h(S, T')), h = e^z / (e^z + N/M)", memory: "b (b + q)" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let (stage, weights) = (cx.stage()?, cx.weights()?);
        let rows = [("teacher", self.width), ("student", self.width)];
        Ok(Box::new(Contrast {
            student: Linear::new(stage.embedding_width()?, self.width, true, &weights.pp("embed_s"))?,
            teacher: Linear::new(stage.teachers[0].width(), self.width, true, &weights.pp("embed_t"))?,
            queue: (self.queue > 0).then(|| Queue::new(self.queue, &rows, weights)).transpose()?,
            temperature: self.temperature,
            faces: stage.faces,
        }))
    }
}

struct Contrast {
    student: Linear,
    teacher: Linear,
    queue: Option<Queue>,
    temperature: f64,
    /// M.
    faces: usize,
}

impl Loss for Contrast {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let student = l2_normalise(&self.student.forward(inputs.embedding()?)?)?;
        let teacher = l2_normalise(&self.teacher.forward(inputs.teacher(0)?)?)?;
        let people = inputs.labels()?.people();
        let (mut all_students, mut all_teachers, mut all_people) = (student.clone(), teacher.clone(), people.to_vec());
        if let Some(queue) = &self.queue {
            let held = queue.held()?;
            all_teachers = Tensor::cat(&[&teacher, &held.rows[0]], 0)?;
            all_students = Tensor::cat(&[&student, &held.rows[1]], 0)?;
            all_people.extend(held.people);
            queue.push(&[&teacher, &student], people)?;
        }
        let negatives = Negatives::new(people, &all_people, self.faces, teacher.device())?;
        let positive = (&student * &teacher)?.sum(D::Minus1)?;
        let details = vec![("positive_cosine".into(), LoggedScalar::scalar(&positive.mean_all()?)?)];
        let one = negatives.contrast(&positive, &student.matmul(&all_teachers.t()?)?, self.temperature)?;
        let other = negatives.contrast(&positive, &teacher.matmul(&all_students.t()?)?, self.temperature)?;
        Ok(LossValue { value: (one + other)?, logits: None, details })
    }
}

/// Which faces are negatives of each face of the batch.
struct Negatives {
    /// 1 for a negative, `[batch, all]`.
    mask: Tensor,
    /// `ln(N / M)` of each face, `[batch, 1]`.
    offset: Tensor,
}

impl Negatives {
    fn new(people: &[Option<usize>], all: &[Option<usize>], faces: usize, device: &Device) -> Result<Self> {
        let is_negative =
            |face: usize, other: usize| face != other && (people[face].is_none() || people[face] != all[other]);
        let (mut mask, mut offsets) = (Vec::with_capacity(people.len() * all.len()), Vec::new());
        for face in 0..people.len() {
            let row = (0..all.len()).map(|other| f32::from(u8::from(is_negative(face, other))));
            let before = mask.len();
            mask.extend(row);
            let count: f32 = mask[before..].iter().sum();
            offsets.push((count.max(1.0) / faces.max(1) as f32).ln());
        }
        let mask = put(&Tensor::from_vec(mask, (people.len(), all.len()), &Device::Cpu)?, device)?;
        Ok(Self { mask, offset: put(&Tensor::from_vec(offsets, (people.len(), 1), &Device::Cpu)?, device)? })
    }

    /// The mean over the batch of `-log h(positive) - sum log(1 - h(negative))`, of cosines `[batch]` and `[batch, all]`.
    fn contrast(&self, positive: &Tensor, cosines: &Tensor, temperature: f64) -> Result<Tensor> {
        // h = sigmoid(z - ln(N/M)).
        let hit = softplus(&(&self.offset - (positive.unsqueeze(1)? / temperature)?)?)?;
        let miss = softplus(&(cosines / temperature)?.broadcast_sub(&self.offset)?)?;
        let miss = (miss * &self.mask)?.sum_keepdim(D::Minus1)?;
        Ok((hit + miss)?.mean_all()?)
    }
}
