//! Thresholds and a quality model from the faces of people who were not trained on.

mod quality;

use std::sync::Arc;

use candle_core::{Device, Tensor};
use rand::seq::SliceRandom;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::quality::{QUALITY_RATE, Rated, fit};
use super::facts::{Calibration, FALSE_MATCH_RATES, LEAST_FALSE_MATCHES, QualityModel, SizeCalibration, Threshold};
use crate::context::BuildContext;
use crate::data::Dataset;
use crate::degrade::Downscale;
use crate::embedder::{Embedder, Embeddings};
use crate::error::{Context, Error, Problem, Result};
use crate::face::{Face, Kernel};
use crate::plugin::DatasetName;
use crate::seed::Seed;

/// What a student file's thresholds are calibrated by: the recipe's table `[calibration]`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CalibrationOptions {
    /// A dataset of people whom the student was not trained on.
    pub data: DatasetName,
    /// Sizes of probes, rising, in pixels; the student's own when left out.
    #[serde(default)]
    #[schemars(length(max = 20), inner(range(min = 4, max = 512)))]
    pub sizes: Vec<usize>,
    /// Faces that are compared, at most: each with each.
    #[serde(default = "default_faces")]
    #[schemars(range(min = 2, max = 50_000))]
    pub faces: usize,
}

fn default_faces() -> usize {
    5_000
}

impl CalibrationOptions {
    /// Every option at its default.
    pub fn of(data: impl Into<DatasetName>) -> Self {
        Self { data: data.into(), sizes: Vec::new(), faces: default_faces() }
    }

    /// What is wrong with the options.
    pub fn check(&self) -> Vec<Problem> {
        let rising = self.sizes.windows(2).all(|pair| pair[0] < pair[1]);
        let message = || format!("expected rising sizes, found {:?}", self.sizes);
        Problem::unless(rising, "sizes", message).into_iter().collect()
    }
}

/// Similarities are counted in so many steps of `[-1, 1]`.
const STEPS: usize = 1 << 16;

/// The faces that are compared, and who they are.
struct Compared {
    faces: Vec<Face>,
    people: Vec<usize>,
}

/// Thresholds of `embedder` for faces that `prepare` makes small, and a quality model if there are faces enough. `digest` is that of
/// the dataset.
///
/// # Errors
/// If nobody knows who the faces are, they are of fewer than two people, or one cannot be embedded.
pub fn calibrate(
    embedder: &dyn Embedder,
    prepare: &Downscale,
    options: &CalibrationOptions,
    digest: String,
    cx: &BuildContext,
) -> Result<(Calibration, Option<QualityModel>)> {
    let compared = chosen(&cx.dataset(&options.data)?, options.faces, cx)?;
    let people = distinct(&compared.people);
    if people < 2 {
        let message = format!("thresholds need faces of two people or more, `{}` has {people}", options.data);
        return Err(Error::data(message));
    }
    let embed = |faces: &[Face]| -> Result<Embeddings> {
        let mut all = Embeddings::none(embedder.width());
        for (at, batch) in faces.chunks(96).enumerate() {
            cx.report("calibration", at * 96, faces.len())?;
            all.append(embedder.embed(batch)?)?;
        }
        Ok(all)
    };
    let references = embed(&compared.faces)?;
    let sizes = if options.sizes.is_empty() { vec![prepare.size] } else { options.sizes.clone() };
    let (mut calibrated, mut rated) = (Vec::new(), Vec::new());
    for size in sizes {
        // As a camera's small face would come.
        let shown = |face: &Face| match size < face.width() {
            true => face.resized(size, Kernel::Bicubic, true),
            false => Ok(face.clone()),
        };
        let small = compared.faces.par_iter().map(shown).collect::<Result<Vec<_>>>()?;
        let probes = embed(&small)?;
        let scores = Scores::of(&references, &probes, &compared.people)?;
        let at = scores.calibration(size, people);
        if let Some(point) = at.thresholds.iter().find(|point| point.false_match_rate == QUALITY_RATE) {
            let shares = shares(&references, &probes, &compared.people, point.similarity);
            for (row, share) in shares.into_iter().enumerate() {
                let Some(share) = share else { continue };
                let seen = prepare.apply(&small[row])?;
                let features = QualityModel::features(&seen, probes.lengths()[row], small[row].height());
                rated.push(Rated { person: compared.people[row], features, share });
            }
        }
        calibrated.push(at);
    }
    let (data, faces) = (options.data.to_string(), compared.faces.len());
    Ok((Calibration { data, digest, faces, people, sizes: calibrated }, fit(&rated)))
}

fn distinct(people: &[usize]) -> usize {
    let mut people = people.to_vec();
    people.sort_unstable();
    people.dedup();
    people.len()
}

/// Whole people in an order that chance decides, until there are enough faces.
fn chosen(dataset: &Arc<dyn Dataset>, most: usize, cx: &BuildContext) -> Result<Compared> {
    let mut of_person: Vec<Vec<usize>> = vec![Vec::new(); dataset.people().len()];
    (0..dataset.len()).for_each(|index| {
        if let Some(faces) = dataset.person(index).and_then(|person| of_person.get_mut(person)) {
            faces.push(index);
        }
    });
    let mut order: Vec<usize> = (0..of_person.len()).collect();
    // Not the run's seed: whom a student is measured by is no part of the experiment.
    order.shuffle(&mut Seed(7).stream("calibration", &[]));
    let mut indices: Vec<(usize, usize)> = Vec::new();
    for person in order {
        if !indices.is_empty() && indices.len() + of_person[person].len() > most {
            break;
        }
        indices.extend(of_person[person].iter().map(|index| (person, *index)));
    }
    indices.truncate(most);
    cx.report("calibration", 0, indices.len())?;
    let read = |&(_, index): &(usize, usize)| {
        crate::data::face_as_it_is(&**dataset, index)
            .and_then(|face| Ok(face.square()?.clone()))
            .at(|| dataset.place(index))
    };
    let faces = indices.par_iter().map(read).collect::<Result<Vec<_>>>()?;
    Ok(Compared { faces, people: indices.into_iter().map(|(person, _)| person).collect() })
}

/// How many comparisons have each similarity.
struct Scores {
    same: Vec<u64>,
    different: Vec<u64>,
}

/// Rows that are compared at once.
const ROWS: usize = 256;

impl Scores {
    /// Every probe with every reference that is not the same photograph.
    fn of(references: &Embeddings, probes: &Embeddings, people: &[usize]) -> Result<Self> {
        let (width, count) = (references.width(), references.len());
        let right = Tensor::from_slice(references.values(), (count, width), &Device::Cpu)?.t()?;
        let mut all = Self { same: vec![0; STEPS], different: vec![0; STEPS] };
        for start in (0..count).step_by(ROWS) {
            let rows = ROWS.min(count - start);
            let values = &probes.values()[start * width..(start + rows) * width];
            let scores = Tensor::from_slice(values, (rows, width), &Device::Cpu)?.matmul(&right)?;
            let scores = scores.flatten_all()?.to_vec1::<f32>()?;
            for (row, scores) in scores.chunks_exact(count).enumerate() {
                let probe = start + row;
                for (reference, score) in scores.iter().enumerate().filter(|(reference, _)| *reference != probe) {
                    let counts = if people[probe] == people[reference] { &mut all.same } else { &mut all.different };
                    counts[step(f64::from(*score))] += 1;
                }
            }
        }
        Ok(all)
    }

    fn calibration(&self, size: usize, people: usize) -> SizeCalibration {
        let (same_pairs, different_pairs) = (self.same.iter().sum(), self.different.iter().sum::<u64>());
        let different_people = (people as u64) * (people as u64 - 1) / 2;
        let supported = |rate: &&f64| *rate * different_people as f64 >= LEAST_FALSE_MATCHES;
        let point = |&rate: &f64| {
            let allowed = (rate * different_pairs as f64 + 1e-9).floor() as u64;
            // Down from the highest similarity, as long as no more strangers are let through than may be.
            let (mut through, mut at) = (0, STEPS);
            while at > 0 && through + self.different[at - 1] <= allowed {
                at -= 1;
                through += self.different[at];
            }
            let found: u64 = self.same[at..].iter().sum();
            let true_match_rate = (same_pairs > 0).then(|| found as f64 / same_pairs as f64);
            Threshold { false_match_rate: rate, similarity: similarity(at), true_match_rate }
        };
        let thresholds = FALSE_MATCH_RATES.iter().filter(supported).map(point).collect();
        SizeCalibration { size, different_pairs, different_people, same_pairs, thresholds }
    }
}

/// The step of a similarity, and the similarity at which a step begins.
fn step(similarity: f64) -> usize {
    (((similarity + 1.0) / 2.0 * STEPS as f64).floor().max(0.0) as usize).min(STEPS - 1)
}

fn similarity(step: usize) -> f64 {
    2.0 * step as f64 / STEPS as f64 - 1.0
}

/// For each probe the share of comparisons with its own person that reach a similarity; none for one who has no other face.
fn shares(references: &Embeddings, probes: &Embeddings, people: &[usize], least: f64) -> Vec<Option<f64>> {
    let of = |probe: usize| {
        let own = (0..people.len()).filter(|&at| at != probe && people[at] == people[probe]);
        let similarity = |at: usize| probes.row(probe).iter().zip(references.row(at)).map(|(a, b)| a * b).sum::<f32>();
        let (right, all) =
            own.fold((0u32, 0u32), |(right, all), at| (right + u32::from(f64::from(similarity(at)) >= least), all + 1));
        (all > 0).then(|| f64::from(right) / f64::from(all))
    };
    (0..people.len()).into_par_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// People on a circle, two faces each, a little apart; every similarity is known.
    #[test]
    fn thresholds_let_no_more_strangers_through_than_they_say() {
        let people: Vec<usize> = (0..600).map(|at| at / 2).collect();
        let angle = |at: usize| (at / 2) as f32 / 300.0 * std::f32::consts::PI + (at % 2) as f32 * 0.003;
        let rows = (0..600).flat_map(|at| [angle(at).cos(), angle(at).sin()]).collect();
        let all = Embeddings::from_rows(2, rows).expect("rows");
        let scores = Scores::of(&all, &all, &people).expect("scores");
        let found = scores.calibration(16, 300);
        assert_eq!((found.same_pairs, found.different_pairs), (600, 600 * 598));
        // 44,850 pairs of people: one in ten thousand would be 4.5 of them.
        let rates: Vec<f64> = found.thresholds.iter().map(|point| point.false_match_rate).collect();
        assert_eq!(rates, [0.1, 0.01, 0.001]);
        for point in &found.thresholds {
            let through = (0..600)
                .flat_map(|a| (0..600).map(move |b| (a, b)))
                .filter(|(a, b)| people[*a] != people[*b] && f64::from(all.similarity(*a, *b)) >= point.similarity)
                .count() as f64;
            let rate = through / found.different_pairs as f64;
            assert!(rate <= point.false_match_rate, "{rate} for {point:?}");
            // Neighbours on the circle are one face in 600: the least rate is met by nobody, and costs everybody.
            if point.false_match_rate >= 0.01 {
                assert!(rate > 0.5 * point.false_match_rate, "{rate} for {point:?}");
                assert_eq!(point.true_match_rate, Some(1.0));
            }
        }
    }
}
