//! What every loss that classifies the training identities can be told about them.

use candle_core::{DType, Device, Tensor};
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cross_entropy::weighted_cross_entropy;
use crate::error::{Problem, Result};
use crate::loss::{Labels, LoggedScalar, LossInputs, StageFacts};
use crate::nn::kernels::put;
use crate::seed::Stream;

/// What a classifying loss is told about the training identities.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Classes {
    /// Share of the target that is spread over all identities, 0 to below 1.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub label_smoothing: f64,
    /// People with fewer images than this are rare: with 2, those who have one.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_images: usize,
    /// Weight of the faces of rare people in the mean over the batch, 0 to 1; others have 1. With 0 they are no
    /// targets, and stay classes that others are told apart from.
    #[schemars(range(min = 0, max = 1))]
    pub rare_weight: f64,
    /// Share of the identities that a step classifies over, above 0 to 1: those of the batch, and as many others,
    /// drawn anew at every step, as the share asks for (PartialFC, An et al., CVPR 2022). With 1 it is all of them.
    /// Below 1 the loss has no logits for other terms; memory of logits falls with it, the gradient of the class
    /// weights stays whole.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub sample: f64,
}

impl Default for Classes {
    fn default() -> Self {
        Self { label_smoothing: 0.0, min_images: 2, rare_weight: 1.0, sample: 1.0 }
    }
}

impl Classes {
    /// What is wrong with the options, as problems of the table `classes`.
    pub(super) fn check(&self) -> Vec<Problem> {
        let wrong = |good: bool, option: &str, expected: &str, found: f64| {
            Problem::unless(good, "classes", || format!("`{option}`: expected {expected}, found {found}"))
        };
        let Self { label_smoothing, min_images, rare_weight, sample } = *self;
        [
            wrong((0.0..1.0).contains(&label_smoothing), "label_smoothing", "0 to below 1", label_smoothing),
            wrong((1..=1_000_000).contains(&min_images), "min_images", "1 to 1000000", min_images as f64),
            wrong((0.0..=1.0).contains(&rare_weight), "rare_weight", "0 to 1", rare_weight),
            wrong(sample > 0.0 && sample <= 1.0, "sample", "above 0 to 1", sample),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Whether every step has the logits of all identities.
    pub(super) fn are_whole(&self) -> bool {
        self.sample == 1.0
    }
}

/// The identities of a stage's data.
pub(super) struct Identities {
    options: Classes,
    /// Weight of each person's faces; none where all have 1.
    weights: Option<Vec<f32>>,
    people: usize,
}

/// The identities that a step classifies over.
pub(super) struct Drawn {
    /// Their numbers, `[classes]`, u32; none if it is everyone in order.
    columns: Option<Tensor>,
    /// The place of each known face's person among them.
    labels: Vec<u32>,
    /// The same, `[known]`, u32.
    pub(super) known: Tensor,
    weights: Option<Vec<f32>>,
    smoothing: f64,
}

impl Identities {
    pub(super) fn new(options: &Classes, stage: &StageFacts) -> Self {
        let weight = |images: &usize| if *images < options.min_images { options.rare_weight as f32 } else { 1.0 };
        let weights = (options.rare_weight != 1.0).then(|| stage.images.iter().map(weight).collect());
        Self { options: options.clone(), weights, people: stage.people }
    }

    /// Whether every step has the logits of all identities.
    pub(super) fn are_whole(&self) -> bool {
        self.options.are_whole()
    }

    /// The identities of this step.
    pub(super) fn draw(&self, inputs: &LossInputs) -> Result<Drawn> {
        let labels = inputs.labels()?;
        let people: Vec<u32> = labels.people().iter().flatten().map(|person| *person as u32).collect();
        let weights = self.weights.as_ref().map(|all| people.iter().map(|person| all[*person as usize]).collect());
        let smoothing = self.options.label_smoothing;
        if self.options.are_whole() {
            return Ok(Drawn { columns: None, labels: people, known: labels.known().clone(), weights, smoothing });
        }
        let wanted = (self.options.sample * self.people as f64).ceil() as usize;
        let columns = sample(&people, self.people, wanted, &mut inputs.stream()?);
        let place = |person: &u32| columns.binary_search(person).unwrap_or_default() as u32;
        let labels: Vec<u32> = people.iter().map(place).collect();
        let device = inputs.embedding()?.device();
        let index = |numbers: &[u32]| put(&Tensor::new(numbers, &Device::Cpu)?, device);
        Ok(Drawn { columns: Some(index(&columns)?), known: index(&labels)?, labels, weights, smoothing })
    }
}

impl Drawn {
    /// The rows of these identities in `x` `[people, ...]`.
    pub(super) fn of(&self, x: &Tensor) -> Result<Tensor> {
        match &self.columns {
            None => Ok(x.clone()),
            Some(columns) => Ok(x.index_select(columns, 0)?),
        }
    }

    /// Cross-entropy of `logits` `[known, classes]`, the weighted mean over the faces; 0 where no face has a weight.
    pub(super) fn cross_entropy(&self, logits: &Tensor) -> Result<Tensor> {
        weighted_cross_entropy(logits, &self.known, self.smoothing, self.weights.as_deref())
    }

    /// The share of known faces whose largest value in `scores` `[known, classes]` is their person's.
    pub(super) fn accuracy(&self, scores: &Tensor, labels: &Labels) -> Result<LoggedScalar> {
        if labels.is_empty() {
            return Ok(0.0.into());
        }
        // Numbers of people are far below 2^24, up to which float32 has every whole number.
        let best = scores.detach().argmax(candle_core::D::Minus1)?.to_dtype(DType::F32)?;
        let known = self.labels.clone();
        LoggedScalar::later(&best, move |best| {
            let hits = best.iter().zip(&known).filter(|(found, person)| **found as u32 == **person).count();
            hits as f64 / known.len() as f64
        })
    }
}

/// The numbers of `people`, and of others drawn from `0..all` until there are `wanted`, in order.
fn sample(people: &[u32], all: usize, wanted: usize, stream: &mut Stream) -> Vec<u32> {
    let mut chosen = vec![false; all];
    people.iter().for_each(|person| chosen[*person as usize] = true);
    let there = chosen.iter().filter(|chosen| **chosen).count();
    let mut others: Vec<usize> = (0..all).filter(|person| !chosen[*person]).collect();
    for at in 0..wanted.saturating_sub(there).min(others.len()) {
        let other = stream.random_range(at..others.len());
        others.swap(at, other);
        chosen[others[at]] = true;
    }
    (0..all).filter(|person| chosen[*person]).map(|person| person as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn the_people_of_the_batch_are_always_among_the_sample() {
        let mut stream = Seed(7).stream("test", &[]);
        let drawn = sample(&[8, 3, 8], 10, 5, &mut stream);
        assert_eq!(drawn.len(), 5);
        assert!(drawn.is_sorted() && drawn.contains(&3) && drawn.contains(&8), "{drawn:?}");
        assert_eq!(sample(&[8, 3], 10, 1, &mut stream), [3, 8], "more people in the batch than asked for");
        assert_eq!(sample(&[], 4, 9, &mut stream), [0, 1, 2, 3]);
        let counts = (0..200).flat_map(|_| sample(&[0], 4, 2, &mut stream)).fold([0; 4], |mut counts, person| {
            counts[person as usize] += 1;
            counts
        });
        assert!(counts[0] == 200 && counts[1..].iter().all(|count| (40..100).contains(count)), "{counts:?}");
    }

    #[test]
    fn options_have_bounds() {
        assert!(Classes::default().check().is_empty());
        let bad = Classes { label_smoothing: 1.0, min_images: 0, rare_weight: -0.1, sample: 0.0 };
        assert_eq!(bad.check().len(), 4);
        assert!(!Classes { sample: f64::NAN, ..Classes::default() }.check().is_empty());
    }
}
