//! Thresholds and a quality model from the faces of people who were not trained on.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use rand::seq::SliceRandom;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// The false match rate that faces are rated by.
const QUALITY_RATE: f64 = 0.01;
/// Similarities are counted in so many steps of `[-1, 1]`.
const STEPS: usize = 1 << 16;
/// Faces of each half of the people from which on a quality model is fitted.
const LEAST_FACES: usize = 100;

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

/// A face, what is known of it, and how often it was recognised.
struct Rated {
    person: usize,
    features: [f64; 5],
    share: f64,
}

/// The model of half of the people, measured on the other half; none if either has too few faces.
fn fit(rated: &[Rated]) -> Option<QualityModel> {
    let (fitted, measured): (Vec<&Rated>, Vec<&Rated>) = rated.iter().partition(|face| face.person % 2 == 0);
    if fitted.len() < LEAST_FACES || measured.len() < LEAST_FACES {
        return None;
    }
    let count = fitted.len() as f64;
    let mean = |of: &dyn Fn(&Rated) -> f64| fitted.iter().map(|face| of(face)).sum::<f64>() / count;
    let centre: [f64; 5] = std::array::from_fn(|at| mean(&|face| face.features[at]));
    let deviation = |at: usize| mean(&|face| (face.features[at] - centre[at]).powi(2)).sqrt();
    // A feature that is the same for all says nothing.
    let scale: [f64; 5] = std::array::from_fn(|at| Some(deviation(at)).filter(|scale| *scale > 1e-9).unwrap_or(1.0));
    let bias = mean(&|face| face.share);
    let centred = |face: &Rated| -> [f64; 5] { std::array::from_fn(|at| (face.features[at] - centre[at]) / scale[at]) };
    // (X^T X + r I) w = X^T y, by elimination.
    let mut system = [[0f64; 6]; 5];
    for face in &fitted {
        let x = centred(face);
        for (row, left) in system.iter_mut().zip(x) {
            row.iter_mut().zip(x).for_each(|(sum, right)| *sum += left * right);
            row[5] += left * (face.share - bias);
        }
    }
    (0..5).for_each(|at| system[at][at] += 1e-3 * count);
    let weights = solved(system);
    let mut model = QualityModel {
        false_match_rate: QUALITY_RATE,
        centre,
        scale,
        weights,
        bias,
        curve: Vec::new(),
        measured: measured.len(),
        calibration_error: 0.0,
        error_versus_reject: Vec::new(),
    };
    let by_sum = |faces: &[&Rated]| {
        let mut rows: Vec<(f64, f64)> = faces.iter().map(|face| (model.sum(&face.features), face.share)).collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        rows
    };
    let (fitted, measured) = (by_sum(&fitted), by_sum(&measured));
    model.curve = rising(&groups(&fitted, 20));
    let error = |(sum, share): &(f64, f64)| (model.chance(*sum) - share).abs();
    let tens = groups(&measured, 10);
    model.calibration_error = tens.iter().map(error).sum::<f64>() / tens.len() as f64;
    let missed = |rejected: f64| {
        let kept = &measured[((rejected * measured.len() as f64) as usize).min(measured.len() - 1)..];
        (rejected, 1.0 - kept.iter().map(|(_, share)| share).sum::<f64>() / kept.len() as f64)
    };
    model.error_versus_reject = [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5].map(missed).to_vec();
    Some(model)
}

/// The mean sum and share of groups of equal size; `rows` rise.
fn groups(rows: &[(f64, f64)], count: usize) -> Vec<(f64, f64)> {
    let mean = |group: &[(f64, f64)]| {
        let (sums, shares) = group.iter().fold((0.0, 0.0), |(a, b), (sum, share)| (a + sum, b + share));
        (sums / group.len() as f64, shares / group.len() as f64)
    };
    rows.chunks(rows.len().div_ceil(count).max(1)).map(mean).collect()
}

/// The nearest curve that does not fall, by pooling neighbours (isotonic regression).
fn rising(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut pools: Vec<(f64, f64, f64)> = Vec::new();
    for &(at, value) in points {
        pools.push((at, value, 1.0));
        while let [.., (a, low, n), (b, high, m)] = pools[..]
            && (low > high || a >= b)
        {
            pools.truncate(pools.len() - 2);
            pools.push(((a * n + b * m) / (n + m), (low * n + high * m) / (n + m), n + m));
        }
    }
    pools.into_iter().map(|(at, value, _)| (at, value.clamp(0.0, 1.0))).collect()
}

/// The solution of five equations, whose last column is the right side, by elimination with pivots.
fn solved(mut rows: [[f64; 6]; 5]) -> [f64; 5] {
    for at in 0..5 {
        let pivot = (at..5).max_by(|a, b| rows[*a][at].abs().total_cmp(&rows[*b][at].abs())).unwrap_or(at);
        rows.swap(at, pivot);
        let head = rows[at];
        for row in rows.iter_mut().skip(at + 1) {
            let factor = row[at] / head[at];
            row.iter_mut().zip(head).for_each(|(value, of)| *value -= factor * of);
        }
    }
    let mut found = [0.0; 5];
    for at in (0..5).rev() {
        let known: f64 = (at + 1..5).map(|other| rows[at][other] * found[other]).sum();
        found[at] = (rows[at][5] - known) / rows[at][at];
    }
    found
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
            assert!(rate <= point.false_match_rate && rate > 0.5 * point.false_match_rate, "{rate} for {point:?}");
            assert_eq!(point.true_match_rate, Some(1.0));
        }
    }

    #[test]
    fn the_model_finds_what_makes_faces_fail() {
        let face = |at: usize| {
            let x = (at * 7919 % 1000) as f64 / 1000.0;
            let noise = (at * 104_729 % 997) as f64 / 997.0 - 0.5;
            Rated { person: at, features: [x, noise, 1.0, 0.0, 0.0], share: (x + 0.1 * noise).clamp(0.0, 1.0) }
        };
        let rated: Vec<Rated> = (0..2000).map(face).collect();
        let model = fit(&rated).expect("a model");
        assert!(model.wrong().is_none(), "{model:?}");
        for x in [0.1, 0.5, 0.9] {
            assert!((model.score(&[x, 0.0, 1.0, 0.0, 0.0]) - x).abs() < 0.05, "{x}");
        }
        assert!(model.calibration_error < 0.03, "{}", model.calibration_error);
        let errors: Vec<f64> = model.error_versus_reject.iter().map(|(_, error)| *error).collect();
        assert!(errors.windows(2).all(|pair| pair[1] < pair[0]), "{errors:?}");
        assert!((errors[0] - 0.5).abs() < 0.02 && (errors[6] - 0.25).abs() < 0.02, "{errors:?}");
        assert!(fit(&rated[..150]).is_none());
    }

    #[test]
    fn falling_neighbours_are_pooled() {
        let found = rising(&[(0.0, 0.2), (1.0, 0.1), (2.0, 0.5), (3.0, 0.5)]);
        assert!((found[0].1 - 0.15).abs() < 1e-12 && found.windows(2).all(|pair| pair[0].0 < pair[1].0), "{found:?}");
    }

    #[test]
    fn equations_are_solved() {
        let mut rows = [[0.0; 6]; 5];
        let expected = [1.0, -2.0, 3.0, 0.5, 4.0];
        for (at, row) in rows.iter_mut().enumerate() {
            (0..5).for_each(|column| {
                row[column] = ((at * 5 + column * 3 + 1) % 7) as f64 + if at == column { 9.0 } else { 0.0 }
            });
            row[5] = (0..5).map(|column| row[column] * expected[column]).sum();
        }
        assert!(solved(rows).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9));
    }
}
