//! Thresholds, of single and of fused faces, and a quality model from the faces of people who were not trained on.

mod quality;
mod scores;

use std::sync::Arc;

use rand::seq::SliceRandom;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::quality::{QUALITY_RATE, Rated, fit};
use self::scores::{Scores, fused, singles};
use super::facts::QualityModel;
use super::thresholds::{Calibration, FusedCalibration, SizeCalibration};
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
    /// Numbers of faces of a person, rising, that are fused into one and have thresholds of their own beside those of single faces: 2
    /// to 100. The dataset needs people with so many faces.
    #[serde(default)]
    #[schemars(length(max = 20), inner(range(min = 2, max = 100)))]
    pub frames: Vec<usize>,
}

fn default_faces() -> usize {
    5_000
}

impl CalibrationOptions {
    /// Every option at its default.
    pub fn of(data: impl Into<DatasetName>) -> Self {
        Self { data: data.into(), sizes: Vec::new(), faces: default_faces(), frames: Vec::new() }
    }

    /// What is wrong with the options.
    pub fn check(&self) -> Vec<Problem> {
        let rising = |numbers: &[usize]| numbers.windows(2).all(|pair| pair[0] < pair[1]);
        let sizes =
            Problem::unless(rising(&self.sizes), "sizes", || format!("expected rising sizes, found {:?}", self.sizes));
        let frames = rising(&self.frames) && self.frames.iter().all(|frames| (2..=100).contains(frames));
        let frames = Problem::unless(frames, "frames", || {
            format!("expected rising numbers from 2 to 100, found {:?}", self.frames)
        });
        sizes.into_iter().chain(frames).collect()
    }
}

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
    let least = sizes.first().copied().unwrap_or(1);
    let single = singles(&references, &compared.people);
    let (mut calibrated, mut rated, mut shown) = (Vec::new(), Vec::new(), Vec::new());
    for size in sizes {
        // As a camera's small face would come.
        let at_size = |face: &Face| match size < face.width() {
            true => face.resized(size, Kernel::Bicubic, true),
            false => Ok(face.clone()),
        };
        let small = compared.faces.par_iter().map(at_size).collect::<Result<Vec<_>>>()?;
        let probes = embed(&small)?;
        let at = Scores::of(&single, &singles(&probes, &compared.people))?.comparisons(people);
        if let Some(point) = at.thresholds.iter().find(|point| point.false_match_rate == QUALITY_RATE) {
            let shares = shares(&references, &probes, &compared.people, point.similarity);
            for (row, share) in shares.into_iter().enumerate() {
                let Some(share) = share else { continue };
                let seen = prepare.apply(&small[row])?;
                let features = QualityModel::features(&seen, probes.lengths()[row], small[row].height());
                rated.push(Rated { person: compared.people[row], features, share });
            }
        }
        calibrated.push(SizeCalibration { size, single: at, fused: Vec::new() });
        if !options.frames.is_empty() {
            shown.push((small, probes));
        }
    }
    let quality = fit(&rated);
    // Faces are fused by what the quality model says of them, so it comes first.
    let rate = |embeddings: &Embeddings, faces: &[Face]| match &quality {
        None => Ok(embeddings.unrated()),
        Some(model) => {
            let seen = faces.par_iter().map(|face| prepare.apply(face)).collect::<Result<Vec<_>>>()?;
            model.rate(embeddings.unrated(), faces, &seen, least)
        }
    };
    let all = shown.len() * options.frames.len();
    for (number, (at, (small, probes))) in calibrated.iter_mut().zip(shown).enumerate() {
        let (references, probes) = (rate(&references, &compared.faces)?, rate(&probes, &small)?);
        for (done, &frames) in options.frames.iter().enumerate() {
            cx.report("thresholds of fused faces", number * options.frames.len() + done, all)?;
            let probes = fused(&probes, &compared.people, frames)?;
            let people = distinct(&probes.people);
            if people < 2 {
                return Err(Error::data(format!(
                    "thresholds of {frames} fused faces need two people with {frames} faces or more, `{}` has {people}",
                    options.data
                )));
            }
            let as_many = fused(&references, &compared.people, frames)?;
            at.fused.push(FusedCalibration {
                frames,
                with_single: Scores::of(&single, &probes)?.comparisons(people),
                with_fused: Scores::of(&as_many, &probes)?.comparisons(people),
            });
        }
    }
    let (data, faces) = (options.data.to_string(), compared.faces.len());
    Ok((Calibration { data, digest, faces, people, sizes: calibrated }, quality))
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

/// For each probe the share of comparisons with its own person that reach a similarity; none for one who has no other face.
fn shares(references: &Embeddings, probes: &Embeddings, people: &[usize], least: f64) -> Vec<Option<f64>> {
    let of = |probe: usize| {
        let own = (0..people.len()).filter(|&at| at != probe && people[at] == people[probe]);
        let similarity =
            |at: usize| probes.known(probe).iter().zip(references.known(at)).map(|(a, b)| a * b).sum::<f32>();
        let (right, all) =
            own.fold((0u32, 0u32), |(right, all), at| (right + u32::from(f64::from(similarity(at)) >= least), all + 1));
        (all > 0).then(|| f64::from(right) / f64::from(all))
    };
    (0..people.len()).into_par_iter().map(of).collect()
}
