//! Contrastive representation distillation.

use candle_core::{D, Device, Tensor, Var};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::BuildContext;
use crate::error::Result;
use crate::loss::{About, LoggedScalar, Loss, LossConfig, LossInputs, LossValue, Needs, Queue, Wanted, softplus};
use crate::nn::kernels::put;
use crate::nn::{Linear, l2_normalise};
use crate::plugin::Kind;

/// CRD (Tian et al., ICLR 2020): the student's and the teacher's embedding of one face are told apart from those of
/// different faces, `-log h(s, t) - sum log(1 - h(s, t'))` and the same with the roles exchanged. With N negatives of a
/// face, `h = e^z / (e^z + N Z)`, where z is the cosine over tau after a linear map of each to `width` values, and Z is the
/// mean of `e^z` over the negatives of the first step that has some.
///
/// The paper has `N / M` in the place of `N Z`, with M faces of the data; its code divides `e^z` by M times the mean of
/// the first batch, which is this. Without it `h` is near 1 for faces that have nothing in common, and 2,000 negatives
/// drive all of the student's embeddings away from all of the teacher's, the face's own among them.
///
/// The original keeps a memory of the whole data; here negatives are the other faces of the batch and a bounded queue
/// of mapped embeddings of earlier batches, so N is smaller and memory does not grow with the data. Faces of the same
/// person are no negatives.
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
    fn needs(&self) -> Needs {
        // Faces of one person are no negatives of each other; those of strangers are.
        Needs { labels: true, ..Needs::embedding_and(self.teacher.as_ref(), Wanted::Embedding) }
    }

    fn about(&self) -> About {
        About { equation: "-log h(S, T) - sum log(1 - h(S, T')), h = e^z / (e^z + N Z)", memory: "b (b + q)" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let (stage, weights) = (cx.stage()?, cx.weights()?);
        let rows = [("teacher", self.width), ("student", self.width)];
        Ok(Box::new(Contrast {
            student: Linear::new(stage.embedding_width()?, self.width, true, &weights.pp("embed_s"))?,
            teacher: Linear::new(stage.teachers[0].width(), self.width, true, &weights.pp("embed_t"))?,
            queue: (self.queue > 0).then(|| Queue::new(self.queue, &rows, weights)).transpose()?,
            temperature: self.temperature,
            log_mean: weights.buffer("log_mean", 2, 0.0)?,
            is_set: weights.buffer("is_set", 1, 0.0)?,
        }))
    }
}

struct Contrast {
    student: Linear,
    teacher: Linear,
    queue: Option<Queue>,
    temperature: f64,
    /// `ln Z` for the student's faces and for the teacher's.
    log_mean: Var,
    /// 1 once they are set.
    is_set: Var,
}

impl Contrast {
    /// `ln Z`, `[2]`, of cosines of negatives in both roles where it is not set yet.
    fn log_mean(&self, negatives: &Negatives, cosines: [&Tensor; 2]) -> Result<Tensor> {
        if negatives.count > 0.0 {
            let of = |cosines: &Tensor| -> Result<Tensor> {
                let z = (cosines.detach() / self.temperature)?;
                // Nothing overflows with the largest taken out.
                let most = z.max_all()?;
                let sum = (z.broadcast_sub(&most)?.exp()? * &negatives.mask)?.sum_all()?;
                Ok(((sum / negatives.count)?.log()? + most)?.reshape(1)?)
            };
            let new = Tensor::cat(&[of(cosines[0])?, of(cosines[1])?], 0)?;
            let (set, old) = (self.is_set.as_detached_tensor(), self.log_mean.as_detached_tensor());
            let now = (old.broadcast_mul(&set)? + new.broadcast_mul(&(1.0 - &set)?)?)?;
            self.log_mean.set(&now)?;
            self.is_set.set(&set.ones_like()?)?;
        }
        Ok(self.log_mean.as_detached_tensor().copy()?)
    }
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
        let negatives = Negatives::new(people, &all_people, teacher.device())?;
        let positive = (&student * &teacher)?.sum(D::Minus1)?;
        let details = vec![("positive_cosine".into(), LoggedScalar::scalar(&positive.mean_all()?)?)];
        let (by_student, by_teacher) = (student.matmul(&all_teachers.t()?)?, teacher.matmul(&all_students.t()?)?);
        let log_mean = self.log_mean(&negatives, [&by_student, &by_teacher])?;
        let of = |role: usize, cosines: &Tensor| {
            negatives.contrast(&positive, cosines, &log_mean.narrow(0, role, 1)?, self.temperature)
        };
        Ok(LossValue { value: (of(0, &by_student)? + of(1, &by_teacher)?)?, logits: None, details })
    }
}

/// Which faces are negatives of each face of the batch.
struct Negatives {
    /// 1 for a negative, `[batch, all]`.
    mask: Tensor,
    /// How many there are in all.
    count: f64,
    /// `ln N` of each face, `[batch, 1]`.
    log_count: Tensor,
}

impl Negatives {
    fn new(people: &[Option<usize>], all: &[Option<usize>], device: &Device) -> Result<Self> {
        let is_negative =
            |face: usize, other: usize| face != other && (people[face].is_none() || people[face] != all[other]);
        let (mut mask, mut counts) = (Vec::with_capacity(people.len() * all.len()), Vec::new());
        for face in 0..people.len() {
            let row = (0..all.len()).map(|other| f32::from(u8::from(is_negative(face, other))));
            let before = mask.len();
            mask.extend(row);
            let count: f32 = mask[before..].iter().sum();
            counts.push(count);
        }
        let count = counts.iter().map(|count| f64::from(*count)).sum();
        let logs: Vec<f32> = counts.iter().map(|count| count.max(1.0).ln()).collect();
        let mask = put(&Tensor::from_vec(mask, (people.len(), all.len()), &Device::Cpu)?, device)?;
        Ok(Self { mask, count, log_count: put(&Tensor::from_vec(logs, (people.len(), 1), &Device::Cpu)?, device)? })
    }

    /// The mean over the batch of `-log h(positive) - sum log(1 - h(negative))`, of cosines `[batch]` and `[batch, all]`, and
    /// `ln Z` `[1]`.
    fn contrast(&self, positive: &Tensor, cosines: &Tensor, log_mean: &Tensor, temperature: f64) -> Result<Tensor> {
        // h = sigmoid(z - ln(N Z)).
        let offset = self.log_count.broadcast_add(log_mean)?;
        let hit = softplus(&(&offset - (positive.unsqueeze(1)? / temperature)?)?)?;
        let miss = softplus(&(cosines / temperature)?.broadcast_sub(&offset)?)?;
        let miss = (miss * &self.mask)?.sum_keepdim(D::Minus1)?;
        Ok((hit + miss)?.mean_all()?)
    }
}
