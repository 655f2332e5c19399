//! One-to-one verification, as on LFW.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bootstrap::{Interval, RESAMPLES};
use super::folds::{best_threshold, fold_accuracy};
use super::made::made_note;
use super::mistakes::Mistakes;
use super::outcome::{CURVE_POINTS, Curve, Figure, Outcome, Unit, digest_of_items};
use super::pair_list::PairList;
use super::pairs::{Pair, generated};
use super::rates::with_interval;
use super::rejection::Quality;
use super::resolution::{self, GallerySize, over_sizes, with_gallery};
use super::roc::{Roc, RocIntervals};
use super::similarity::cosines;
use super::{Protocol, ProtocolConfig};
use crate::context::BuildContext;
use crate::data::{Compared, Dataset, Keys};
use crate::embedder::{Embedder, FlipFused};
use crate::error::{Error, Problem, Result};
use crate::plugin::{DatasetName, Kind};
use crate::recipe::RecipePath;
use crate::seed::Seed;

mod frames;

/// Are two faces of the same person? Pairs come from an LFW-style list, or are drawn from the dataset.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// The dataset's name in the recipe.
    pub data: DatasetName,
    /// A list in the format of LFW's `pairs.txt`, or one that `gdrd data pairs` has written. When left out, the pairs are those that the dataset itself brings (as
    /// `insightface-bin` does), and drawn where it brings none.
    #[serde(default)]
    pub pairs: Option<RecipePath>,
    /// Number of pairs to draw, half of them of the same person.
    #[serde(default = "default_drawn")]
    #[schemars(range(min = 2, max = 100_000_000))]
    pub drawn_pairs: usize,
    /// Folds of drawn pairs and of those that a dataset brings; a list brings its own.
    #[serde(default = "default_folds")]
    #[schemars(range(min = 2, max = 10_000))]
    pub folds: usize,
    /// Whether the embeddings of a face and of its mirror image are summed.
    #[serde(default)]
    pub flip: bool,
    /// False accept rates at which the true accept rate is reported.
    #[serde(default = "default_far")]
    #[schemars(inner(range(min = 1e-9, max = 0.999_999)))]
    pub far: Vec<f64>,
    /// Sizes to which faces are brought before they are embedded, rising, in pixels: the accuracy at each gives a curve.
    #[serde(default)]
    #[schemars(length(max = 50), inner(range(min = 4, max = 512)))]
    pub sizes: Vec<usize>,
    /// Numbers of faces that are fused into one on the second side of a pair, rising, such as `[1, 2, 4, 8]`: the accuracy with each gives
    /// a curve. The further faces are others of that person, for pairs of two people too.
    #[serde(default)]
    #[schemars(length(max = 50), inner(range(min = 1, max = 100)))]
    pub frames: Vec<usize>,
    /// How large the first face of each pair is shown, `"native"` or a number of pixels; as the second when left out.
    #[serde(default)]
    pub gallery_size: Option<GallerySize>,
}

fn default_drawn() -> usize {
    6000
}

fn default_folds() -> usize {
    10
}

fn default_far() -> Vec<f64> {
    vec![0.01, 0.001]
}

impl Verification {
    /// Pairs that are drawn from a dataset, with every other option at its default.
    pub fn drawn_from(data: impl Into<DatasetName>) -> Self {
        Self {
            data: data.into(),
            pairs: None,
            drawn_pairs: default_drawn(),
            folds: default_folds(),
            flip: false,
            far: default_far(),
            sizes: Vec::new(),
            frames: Vec::new(),
            gallery_size: None,
        }
    }
}

impl Kind for Verification {
    const NAME: &'static str = "verification";
    const PURPOSE: &'static str = "one-to-one verification by folds, ROC, TAR at FAR, EER (LFW)";
}

impl ProtocolConfig for Verification {
    fn check(&self) -> Vec<Problem> {
        let several = self.folds.saturating_mul(2).max(1);
        let good = self.pairs.is_some() || self.drawn_pairs.is_multiple_of(several);
        let message = || format!("expected a multiple of {several} (two a fold), found {}", self.drawn_pairs);
        let problems = Problem::unless(good, "drawn_pairs", message).into_iter();
        problems.chain(resolution::check(&self.sizes)).chain(frames::check(&self.frames)).collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Protocol>> {
        let dataset = cx.dataset(&self.data)?;
        let pairs = match &self.pairs {
            Some(path) => {
                let keys = Keys::of(&*dataset);
                let list = PairList::read(&cx.file(path)?.path)?;
                list.resolve(|image| {
                    let mut found = Ok(None);
                    for key in image.keys() {
                        found = keys.find(&key, &*dataset);
                        if !matches!(found, Ok(None)) {
                            break;
                        }
                    }
                    found
                })?
            }
            None if dataset.pairs().is_empty() => return self.clone().over(dataset),
            None => own_pairs(dataset.pairs(), self.folds)?,
        };
        Ok(Box::new(Pairs::new(self.clone(), dataset, pairs)))
    }
}

impl Verification {
    /// The protocol with pairs that are drawn from `dataset`, whatever the recipe's name of it.
    ///
    /// # Errors
    /// If the dataset does not give that many pairs.
    pub(crate) fn over(self, dataset: Arc<dyn Dataset>) -> Result<Box<dyn Protocol>> {
        if dataset.people().is_empty() {
            return Err(Error::data("pairs can only be drawn from a dataset with identities"));
        }
        let known: Vec<usize> = (0..dataset.len()).filter(|&index| dataset.person(index).is_some()).collect();
        let people: Vec<usize> = known.iter().filter_map(|&index| dataset.person(index)).collect();
        // Not the run's seed: the pairs are a part of the measure, not of the experiment.
        let mut stream = Seed(7).stream("verification pairs", &[]);
        let drawn = generated(&people, self.drawn_pairs, self.folds, &mut stream)?;
        let placed = |pair: Pair| Pair { left: known[pair.left], right: known[pair.right], ..pair };
        let pairs = drawn.into_iter().map(placed).collect();
        Ok(Box::new(Pairs::new(self, dataset, pairs)))
    }
}

/// The pairs that a dataset brings, in folds of neighbours: insightface's, and scikit-learn's `KFold` without shuffling. Where the
/// folds do not come out even, the first ones have a pair more.
fn own_pairs(pairs: &[Compared], folds: usize) -> Result<Vec<Pair>> {
    if pairs.len() < folds {
        return Err(Error::data(format!("expected a pair for each of {folds} folds, found {}", pairs.len())));
    }
    let (each, more) = (pairs.len() / folds, pairs.len() % folds);
    let fold = |at: usize| if at < more * (each + 1) { at / (each + 1) } else { (at - more) / each };
    let placed =
        |(at, pair): (usize, &Compared)| Pair { left: pair.left, right: pair.right, same: pair.same, fold: fold(at) };
    Ok(pairs.iter().enumerate().map(placed).collect())
}

struct Pairs {
    config: Verification,
    dataset: Arc<dyn Dataset>,
    pairs: Vec<Pair>,
    items_digest: String,
}

impl Protocol for Pairs {
    fn evaluate(&self, embedder: &dyn Embedder, cx: &BuildContext) -> Result<Outcome> {
        let fused = FlipFused(embedder);
        let embedder = fused.when(self.config.flip);
        let sizes = &self.config.sizes;
        let mut outcome = over_sizes(embedder, sizes, self.config.gallery_size, |of_left, of_right| {
            self.outcome(&self.seen(of_left, of_right, cx)?)
        })?;
        self.over_frames(embedder, &mut outcome, cx)?;
        Ok(outcome)
    }

    fn mistakes(&self, embedder: &dyn Embedder, outcome: &Outcome, cx: &BuildContext) -> Result<Option<Mistakes>> {
        let wrong = self.pairs.iter().zip(&outcome.items).filter(|(_, item)| **item == 0.0);
        let pairs: Vec<Pair> = wrong.map(|(pair, _)| *pair).collect();
        let few = Self::new(self.config.clone(), self.dataset.clone(), pairs);
        let fused = FlipFused(embedder);
        let embedder = fused.when(self.config.flip);
        let similarities = match few.pairs.is_empty() {
            true => Vec::new(),
            false => with_gallery(embedder, None, self.config.gallery_size, |of_left, of_right| {
                Ok(few.seen(of_left, of_right, cx)?.similarities)
            })?,
        };
        Ok(Some(Mistakes::of_pairs(&self.dataset, &few.pairs, &similarities)))
    }
}

/// What an embedder says of the pairs.
struct Seen {
    /// One for each pair.
    similarities: Vec<f64>,
    /// The embeddings of each pair's faces, as places in `quality`.
    places: Vec<Pair>,
    quality: Quality,
}

/// Each number once, rising.
fn distinct(numbers: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut distinct: Vec<usize> = numbers.collect();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

/// A share of items with its interval.
fn of_items(figure: Figure, items: &[f64]) -> Result<Figure> {
    with_interval(figure, items, "accuracy interval")
}

/// A percentage with its interval, which is of fractions.
fn between(figure: Figure, interval: Interval) -> Figure {
    figure.between(100.0 * interval.low, 100.0 * interval.high)
}

impl Pairs {
    fn new(config: Verification, dataset: Arc<dyn Dataset>, pairs: Vec<Pair>) -> Self {
        let name = |pair: &Pair| {
            let sign = if pair.same { '=' } else { '/' };
            format!("{} {sign} {}", dataset.key(pair.left), dataset.key(pair.right))
        };
        Self { items_digest: digest_of_items(pairs.iter().map(name)), config, dataset, pairs }
    }

    fn seen(&self, of_left: &dyn Embedder, of_right: &dyn Embedder, cx: &BuildContext) -> Result<Seen> {
        let row =
            |used: &[usize], index: usize| used.binary_search(&index).expect("every index of a pair was collected");
        let (embeddings, places): (_, Vec<Pair>) = match self.config.gallery_size {
            None => {
                let used = distinct(self.pairs.iter().flat_map(|pair| [pair.left, pair.right]));
                let place = |pair: &Pair| Pair { left: row(&used, pair.left), right: row(&used, pair.right), ..*pair };
                let places = self.pairs.iter().map(place).collect();
                (super::embed(of_right, &self.dataset, &used, cx)?, places)
            }
            Some(_) => {
                let left = distinct(self.pairs.iter().map(|pair| pair.left));
                let right = distinct(self.pairs.iter().map(|pair| pair.right));
                let mut embeddings = super::embed(of_left, &self.dataset, &left, cx)?;
                embeddings.append(super::embed(of_right, &self.dataset, &right, cx)?)?;
                let behind = |pair: &Pair| left.len() + row(&right, pair.right);
                let place = |pair: &Pair| Pair { left: row(&left, pair.left), right: behind(pair), ..*pair };
                (embeddings, self.pairs.iter().map(place).collect())
            }
        };
        let similarities = cosines(embeddings.values(), embeddings.width(), &places)?;
        Ok(Seen { similarities, places, quality: Quality::of(&embeddings) })
    }

    fn same(&self) -> Vec<bool> {
        self.pairs.iter().map(|pair| pair.same).collect()
    }

    /// The headline, and for each pair 1 where it was judged rightly and 0 where not.
    fn accuracy(&self, similarities: &[f64]) -> Result<(Figure, Vec<f64>)> {
        let same = self.same();
        let folds: Vec<usize> = self.pairs.iter().map(|pair| pair.fold).collect();
        let count = same.len();
        let mut notes: Vec<String> = made_note([&*self.dataset]).into_iter().collect();
        let (mut accuracy, correct) = if folds.iter().any(|fold| *fold != folds[0]) {
            let by_fold = fold_accuracy(similarities, &same, &folds)?;
            let accuracy = Figure::percent("accuracy", by_fold.mean, count);
            (accuracy.with_error(100.0 * by_fold.standard_error), by_fold.correct)
        } else {
            let best = best_threshold(similarities, &same)?;
            let right = |(similarity, same): (&f64, &bool)| (*similarity >= best.value) == *same;
            let correct = similarities.iter().zip(&same).map(right).collect();
            notes.insert(0, "one fold: the threshold was chosen on these pairs themselves".into());
            (Figure::percent("accuracy", best.accuracy, count), correct)
        };
        accuracy.note = (!notes.is_empty()).then(|| notes.join("; "));
        let items: Vec<f64> = correct.iter().map(|&right| f64::from(u8::from(right))).collect();
        Ok((of_items(accuracy, &items)?, items))
    }

    fn outcome(&self, Seen { similarities, places, quality }: &Seen) -> Result<Outcome> {
        let (same, count) = (self.same(), self.pairs.len());
        let (accuracy, items) = self.accuracy(similarities)?;
        let best = best_threshold(similarities, &same)?;
        let roc = Roc::new(similarities, &same)?;
        let right = |(similarity, same): (&f64, &bool)| f64::from(u8::from((*similarity >= best.value) == *same));
        let at_best: Vec<f64> = similarities.iter().zip(&same).map(right).collect();
        let single = Figure::percent("accuracy at the single best threshold", best.accuracy, count);
        let mut figures = vec![
            accuracy,
            of_items(single, &at_best)?,
            Figure::plain("best threshold", best.value, Unit::Cosine, count).aside(),
        ];
        let mut stream = Seed(7).stream("ROC intervals", &[]);
        let intervals = RocIntervals::new(similarities, &same, &self.config.far, RESAMPLES, &mut stream)?;
        for (far, interval) in self.config.far.iter().zip(&intervals.at_far) {
            let name = format!("TAR at FAR {far}");
            figures.push(match (roc.at_far(*far), interval) {
                (Some(point), Some(interval)) => {
                    let figure = Figure::percent(name, point.tar, roc.positives());
                    // Every resample is alike, which says nothing of how sure the rate is.
                    match interval.low == interval.high {
                        true => of_items(figure, &vec![point.tar; roc.positives()])?,
                        false => between(figure, *interval),
                    }
                }
                _ => Figure::missing(
                    name,
                    roc.negatives(),
                    format!("{} different pairs cannot measure a rate of {far}", roc.negatives()),
                ),
            });
        }
        let error_rate = Figure::percent("equal error rate", roc.equal_error_rate(), count).lower_is_better();
        figures.push(between(error_rate, intervals.equal_error_rate));
        let area = Figure::plain("area under the ROC curve", roc.area(), Unit::Plain, count).aside();
        figures.push(area.between(intervals.area.low, intervals.area.high));
        let points = roc.thinned(CURVE_POINTS).into_iter().map(|point| (point.far, 100.0 * point.tar)).collect();
        let curve = Curve {
            name: "ROC".into(),
            x: "false accept rate".into(),
            y: "true accept rate, %".into(),
            log_x: true,
            points,
            reading: String::new(),
        };
        let faces = places.iter().map(|pair| (pair.left, pair.right));
        let (rejection, table) = quality.error_versus_reject(faces, &same, &items)?.unzip();
        Ok(Outcome {
            what: "pairs".into(),
            headline: "accuracy".into(),
            figures,
            curves: std::iter::once(curve).chain(rejection).collect(),
            matrices: table.into_iter().collect(),
            items,
            items_digest: self.items_digest.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Coloured, Pixel, bench};
    use super::*;

    #[test]
    fn every_measured_figure_has_an_interval_and_quality_a_curve() {
        // Faces of one person have one colour, of another length each.
        let colour = |at: u8| [[1, 0, 0], [0, 1, 0], [0, 0, 1]][usize::from(at % 3)].map(|on: u8| on * (10 + 4 * at));
        let faces: Vec<(&str, [u8; 3])> =
            (0..24).map(|at| (["Ann", "Bob", "Cy"][usize::from(at % 3)], colour(at))).collect();
        let bench = bench(Coloured::of(&faces), Coloured::of(&[]));
        let cx = BuildContext::new(&bench);
        let options = serde_json::json!({ "data": "known", "drawn_pairs": 40, "folds": 2, "far": [0.1, 0.001] });
        let config: Verification = serde_json::from_value(options).expect("options");
        let measured = || config.build(&cx).and_then(|protocol| protocol.evaluate(&Pixel, &cx)).expect("an outcome");
        let found = measured();
        found.check().expect("a good outcome");
        assert_eq!(found, measured(), "intervals repeat");
        let ends: Vec<_> = found.figures.iter().map(|figure| (figure.value, figure.low, figure.high)).collect();
        let none = (Some(0.0), Some(0.0), Some(0.0));
        // All 40 pairs are right, of which Wilson's interval says 40 / (40 + 1.96^2).
        let right = |figure: &Figure| (figure.value == Some(100.0)).then_some(figure.low?);
        for figure in &found.figures[..2] {
            assert!((right(figure).expect("an interval") - 91.2378).abs() < 1e-4, "{figure:?}");
        }
        let threshold = (Some(0.5), None, None);
        assert!((right(&found.figures[3]).expect("an interval") - 83.8875).abs() < 1e-3, "of 20 pairs: {ends:?}");
        assert_eq!([ends[2], ends[4]], [threshold, (None, None, None)]);
        assert_eq!(ends[5..], [none, (Some(1.0), Some(1.0), Some(1.0))]);
        assert_eq!(found.curves[1].name, "Error versus reject");
        assert!(found.curves[1].points.iter().all(|(_, error)| *error == 0.0), "{:?}", found.curves[1]);
        assert_eq!(found.matrices[0].name, "Error versus reject, quality by the length of the embedding");
    }

    #[test]
    fn pairs_of_a_dataset_are_in_folds_of_neighbours() {
        let pairs: Vec<Compared> = (0..8).map(|at| Compared { left: at, right: at + 8, same: at < 4 }).collect();
        let folds: Vec<usize> = own_pairs(&pairs, 3).expect("folds").iter().map(|pair| pair.fold).collect();
        assert_eq!(folds, [0, 0, 0, 1, 1, 1, 2, 2], "as scikit-learn's KFold");
        assert!(own_pairs(&pairs, 9).is_err());
    }
}
