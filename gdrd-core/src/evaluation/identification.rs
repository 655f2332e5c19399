//! Closed-set identification, as on UCCS and AR: who of a gallery is a face?

use std::collections::BTreeMap;

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::confusion::{Named, confusion, name};
use super::made::made_note;
use super::mistakes::Mistakes;
use super::nearest::{Asked, part, taken_for_others};
use super::outcome::{Figure, Outcome, Unit, digest_of_items};
use super::rates::{by_group, check_ranks, items, of_ranks};
use super::resolution::{self, GallerySize, over_sizes, with_gallery};
use super::softmax::{Softmax, Training};
use super::split::{Sides, Split};
use super::templates::{self, templates};
use super::{Protocol, ProtocolConfig};
use crate::context::BuildContext;
use crate::embedder::{Embedder, Embeddings, FlipFused};
use crate::error::{Error, Problem, Result};
use crate::plugin::{DatasetName, Kind};

/// Who is recognised by what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Classifier {
    /// A softmax layer that is trained on the gallery's embeddings until it converges; the embedder stays as it is.
    #[default]
    Softmax,
    /// The cosine with the mean of a person's embeddings in the gallery: nothing is trained.
    NearestMean,
}

/// Closed-set identification: a classifier learns the people of a gallery from frozen embeddings and names each probe. Faces that
/// nobody knows, and probes of people who are not in the gallery, are passed over.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Identification {
    /// The dataset of the faces that are known, the training images of UCCS.
    pub gallery: DatasetName,
    /// The dataset of the faces that are asked about; when left out, `split` divides the gallery's.
    #[serde(default)]
    pub probes: Option<DatasetName>,
    /// How the faces are divided where there are no `probes`.
    #[serde(default)]
    pub split: Split,
    /// An attribute of the probes, such as `template`: faces with the same value of it are one probe, with the mean of their
    /// embeddings, as on IJB-B and IJB-C. Every probe must have it.
    #[serde(default)]
    pub template: Option<String>,
    /// An attribute of the faces, such as `media`, that says of which video a frame is: of a probe's template, and of a person of the
    /// gallery with `nearest-mean`, embeddings with the same value are averaged first, so that a long video counts once. Every face
    /// must have it.
    #[serde(default)]
    pub media: Option<String>,
    /// What learns the people.
    #[serde(default)]
    pub classifier: Classifier,
    /// Penalty of the softmax layer: half of this times the sum of its squared weights is added to the mean cross-entropy.
    #[serde(default = "default_l2")]
    #[schemars(range(min = 0, max = 1e3))]
    pub l2: f64,
    /// The softmax layer is done when no element of its gradient is larger than this.
    #[serde(default = "default_tolerance")]
    #[schemars(range(min = 1e-7, max = 1))]
    pub tolerance: f64,
    /// The most steps of the softmax layer; if they do not suffice, a note says so.
    #[serde(default = "default_steps")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub steps: usize,
    /// The ranks that are reported beside rank 1.
    #[serde(default = "default_ranks")]
    #[schemars(length(max = 20), inner(range(min = 2, max = 1_000_000)))]
    pub ranks: Vec<usize>,
    /// Whether the embeddings of a face and of its mirror image are summed.
    #[serde(default)]
    pub flip: bool,
    /// An attribute of the probes, such as `situation`: rank 1 is reported for each of its values too.
    #[serde(default)]
    pub group_by: Option<String>,
    /// Sizes to which faces are brought before they are embedded, rising, in pixels: rank 1 at each gives a curve.
    #[serde(default)]
    #[schemars(length(max = 50), inner(range(min = 4, max = 512)))]
    pub sizes: Vec<usize>,
    /// How large the gallery's faces are shown, `"native"` or a number of pixels; as the probes when left out.
    #[serde(default)]
    pub gallery_size: Option<GallerySize>,
}

fn default_l2() -> f64 {
    1e-4
}

fn default_tolerance() -> f64 {
    1e-5
}

fn default_steps() -> usize {
    5000
}

fn default_ranks() -> Vec<usize> {
    vec![5]
}

/// The most elements of the softmax layer's table of targets, faces times people: 1 GB.
const MOST_TARGETS: usize = 1 << 28;

/// Probes whose scores are held at once.
const PROBES: usize = 1024;

impl Kind for Identification {
    const NAME: &'static str = "identification";
    const PURPOSE: &'static str =
        "closed-set identification by a softmax layer or nearest mean, rank k, CMC (UCCS, AR)";
}

impl ProtocolConfig for Identification {
    fn check(&self) -> Vec<Problem> {
        let fusing = (self.template.as_ref(), self.media.as_ref());
        let mut problems = self.split.check(&self.gallery, self.probes.as_ref());
        let nearest = self.classifier == Classifier::NearestMean;
        problems.extend(templates::check(fusing, self.probes.as_ref(), &self.split, nearest));
        problems.extend(check_ranks(&self.ranks));
        problems.extend(resolution::check(&self.sizes));
        problems
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Protocol>> {
        let fusing = (self.template.as_ref(), self.media.as_ref());
        let sides = Sides::new(&self.gallery, self.probes.as_ref(), &self.split, fusing, cx)?;
        let enrolled = sides.gallery.known();
        let asked = sides.probes.known();
        let probes = sides.probes.of(|person| person.is_some_and(|person| enrolled.contains(&person)));
        let gallery = sides.gallery.of(|person| person.is_some());
        if enrolled.len() < 2 || probes.len() == 0 {
            return Err(Error::data(format!(
                "expected a gallery of two people or more and probes of some of them, found {} people in the gallery, {} among \
                 the probes, {} in both",
                enrolled.len(),
                asked.len(),
                enrolled.intersection(&asked).count()
            )));
        }
        if self.classifier == Classifier::Softmax && gallery.len().saturating_mul(enrolled.len()) > MOST_TARGETS {
            return Err(Error::data(format!(
                "a softmax layer for {} people and {} faces would need a table of {} values, expected at most {MOST_TARGETS}; \
                 `classifier = \"nearest-mean\"` needs none",
                enrolled.len(),
                gallery.len(),
                gallery.len().saturating_mul(enrolled.len())
            )));
        }
        let passed_over = sides.probes.len() - probes.len();
        let made = made_note([gallery.dataset(), probes.dataset()]);
        let mut notes: Vec<String> = sides.notes().into_iter().chain(made).collect();
        if passed_over > 0 {
            notes.push(format!("{passed_over} probes of people who are not in the gallery were passed over"));
        }
        // Numbers without gaps for those who are enrolled.
        let number: BTreeMap<usize, u32> = (0u32..).zip(&enrolled).map(|(number, person)| (*person, number)).collect();
        let numbers = |people: &[Option<usize>]| -> Vec<u32> { people.iter().flatten().map(|at| number[at]).collect() };
        let people = numbers(gallery.people());
        let media = self.media.as_ref().filter(|_| self.classifier == Classifier::NearestMean);
        Ok(Box::new(Closed {
            groups: probes.groups(self.group_by.as_deref())?,
            weights: gallery.weights(&people, media, "gallery")?,
            people,
            wanted: numbers(probes.people()),
            names: enrolled.iter().map(|person| sides.people[*person].clone()).collect(),
            sides: Sides { gallery, probes, ..sides },
            notes,
            config: self.clone(),
        }))
    }
}

struct Closed {
    config: Identification,
    sides: Sides,
    /// The number of each gallery face's person among those who are enrolled.
    people: Vec<u32>,
    /// The weight of each in that person's mean.
    weights: Vec<f64>,
    /// The number of each probe's person among those who are enrolled.
    wanted: Vec<u32>,
    names: Vec<String>,
    groups: BTreeMap<String, Vec<usize>>,
    notes: Vec<String>,
}

impl Protocol for Closed {
    fn evaluate(&self, embedder: &dyn Embedder, cx: &BuildContext) -> Result<Outcome> {
        let fused = FlipFused(embedder);
        let embedder = fused.when(self.config.flip);
        over_sizes(embedder, &self.config.sizes, self.config.gallery_size, |of_gallery, of_probes| {
            let gallery = self.sides.gallery.embed(of_gallery, cx)?;
            let probes = self.sides.probes.embed(of_probes, cx)?;
            let learnt = self.learnt(&gallery, cx)?;
            self.outcome(&self.named(&learnt, &probes, cx)?, &learnt)
        })
    }

    fn mistakes(&self, embedder: &dyn Embedder, _: &Outcome, cx: &BuildContext) -> Result<Option<Mistakes>> {
        let fused = FlipFused(embedder);
        let embedder = fused.when(self.config.flip);
        with_gallery(embedder, None, self.config.gallery_size, |of_gallery, of_probes| {
            let gallery = part(&self.sides.gallery, self.sides.gallery.len(), of_gallery, cx)?;
            let probes = self.sides.probes.embed(of_probes, cx)?;
            let named = self.named(&self.learnt(gallery.embeddings(), cx)?, &probes, cx)?;
            // The numbers of people in both sides, by those among the enrolled.
            let enrolled: Vec<usize> = self.sides.gallery.known().into_iter().collect();
            let wrong = named.iter().enumerate().filter(|(_, named)| named.before > 0).map(|(probe, named)| Asked {
                probe,
                person: self.sides.probes.people()[probe],
                taken_for: Some(enrolled[named.person]),
            });
            let wrong: Vec<Asked> = wrong.collect();
            Ok(Some(taken_for_others((&self.sides.probes, &probes), &wrong, &[gallery])?))
        })
    }
}

/// What knows the people of the gallery.
enum Learnt {
    Layer(Softmax),
    /// A column for each person, `[width, people]`.
    Means(Tensor),
}

impl Closed {
    fn learnt(&self, gallery: &Embeddings, cx: &BuildContext) -> Result<Learnt> {
        match self.config.classifier {
            Classifier::Softmax => {
                let Identification { l2, tolerance, steps, .. } = self.config;
                let rows = Tensor::from_slice(gallery.values(), (gallery.len(), gallery.width()), cx.device())?;
                let training = Training { l2, tolerance, steps };
                Ok(Learnt::Layer(Softmax::train(&rows, &self.people, self.names.len(), training, cx)?))
            }
            Classifier::NearestMean => {
                let means = templates(gallery, &self.people, &self.weights, &self.names)?;
                Ok(Learnt::Means(Tensor::from_slice(means.values(), (means.len(), means.width()), cx.device())?.t()?))
            }
        }
    }

    fn named(&self, learnt: &Learnt, probes: &Embeddings, cx: &BuildContext) -> Result<Vec<Named>> {
        let mut named = Vec::with_capacity(probes.len());
        for (rows, wanted) in probes.values().chunks(PROBES * probes.width()).zip(self.wanted.chunks(PROBES)) {
            let rows = Tensor::from_slice(rows, (wanted.len(), probes.width()), cx.device())?;
            let scores = match learnt {
                Learnt::Layer(layer) => layer.logits(&rows)?,
                Learnt::Means(means) => rows.matmul(means)?,
            };
            for (scores, wanted) in scores.to_vec2::<f32>()?.iter().zip(wanted) {
                named.push(name(scores, *wanted as usize)?);
            }
        }
        Ok(named)
    }

    fn outcome(&self, named: &[Named], learnt: &Learnt) -> Result<Outcome> {
        let before: Vec<usize> = named.iter().map(|named| named.before).collect();
        let right = items(before.iter().map(|before| *before == 0));
        let ranks: Vec<usize> = std::iter::once(1).chain(self.config.ranks.iter().copied()).collect();
        let (mut figures, curve) = of_ranks(&before, &ranks, self.names.len())?;
        let mut notes = self.notes.clone();
        let layer = match learnt {
            Learnt::Layer(layer) => Some(layer),
            Learnt::Means(_) => None,
        };
        if let Some(layer) = layer.filter(|layer| !layer.converged) {
            notes.push(format!("the softmax layer had not converged after {} steps", layer.steps));
        }
        if !notes.is_empty() {
            figures[0] = figures[0].clone().also_noted(notes.join("; "));
        }
        figures.extend(by_group("rank-1", &right, &self.groups)?);
        if let Some(layer) = layer {
            let loss = Figure::plain("loss of the softmax layer", layer.loss, Unit::Plain, self.people.len());
            figures.push(loss.lower_is_better().aside());
            let steps = Figure::plain("steps of the softmax layer", layer.steps as f64, Unit::Plain, self.people.len());
            figures.push(steps.lower_is_better().aside());
        }
        Ok(Outcome {
            what: "probes".into(),
            headline: "rank-1".into(),
            figures,
            curves: vec![curve],
            matrices: confusion(&self.names, &self.wanted, named).into_iter().collect(),
            items: right,
            items_digest: digest_of_items(self.sides.probes.keys()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Coloured, Pixel, bench, shown_mistakes};
    use super::*;
    use crate::plugin::bounds::{OutOfBounds, out_of_bounds_of};

    fn config(options: serde_json::Value) -> Identification {
        serde_json::from_value(options).expect("options")
    }

    fn outcome(config: &Identification, bench: &crate::plugin::Workbench) -> Outcome {
        let cx = BuildContext::new(bench);
        let outcome = config.build(&cx).and_then(|protocol| protocol.evaluate(&Pixel, &cx)).expect("an outcome");
        outcome.check().expect("a good outcome");
        outcome
    }

    const RED: [u8; 3] = [250, 10, 10];
    const GREEN: [u8; 3] = [10, 250, 10];
    const BLUE: [u8; 3] = [10, 10, 250];

    #[test]
    fn probes_are_named_by_either_classifier() {
        let known = Coloured::of(&[("Red", RED), ("Green", GREEN), ("Blue", BLUE), ("", RED), ("Red", [200, 30, 10])]);
        let asked = Coloured::of(&[("Green", GREEN), ("Red", GREEN), ("Nobody", RED), ("Red", RED), ("", RED)]);
        let bench = bench(known, asked);
        for classifier in ["softmax", "nearest-mean"] {
            let options = serde_json::json!({
                "gallery": "known", "probes": "asked", "classifier": classifier, "ranks": [2, 5], "group_by": "half",
            });
            let found = outcome(&config(options.clone()), &bench);
            assert_eq!(found.items, [1.0, 0.0, 1.0], "{classifier}");
            let values: Vec<_> = found.figures.iter().map(|f| (f.name.as_str(), f.value)).take(5).collect();
            let two_thirds = Some(100.0 * (2.0 / 3.0));
            let expected = [("rank-1", two_thirds), ("rank-2", Some(100.0)), ("rank-5", None)];
            assert_eq!(values[..3], expected, "{classifier}");
            assert_eq!(values[3..], [("rank-1, first", Some(50.0)), ("rank-1, second", Some(100.0))]);
            let note = found.figures[0].note.as_deref().expect("a note");
            assert!(note.contains("2 probes of people who are not in the gallery"), "{note}");
            // Red was once taken for green.
            let rows = &found.matrices[0].rows;
            assert_eq!(rows.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["Green", "Red"]);
            assert_eq!(rows[1].1, [1.0, 1.0, 0.0]);
            // Beside the redder of Red's faces, and beside Green's.
            let cx = BuildContext::new(&bench);
            let protocol = config(options).build(&cx).expect("a protocol");
            assert_eq!(shown_mistakes(&*protocol, &cx), (vec![(1, 4, true), (1, 1, false)], 1), "{classifier}");
        }
    }

    #[test]
    fn a_constant_embedder_knows_nobody() {
        let grey = [9; 3];
        let known = Coloured::of(&[("Red", grey), ("Green", grey)]);
        let bench = bench(known, Coloured::of(&[("Green", grey), ("Red", grey)]));
        for classifier in ["softmax", "nearest-mean"] {
            let options = serde_json::json!({ "gallery": "known", "probes": "asked", "classifier": classifier });
            assert_eq!(outcome(&config(options), &bench).items, [0.0, 0.0], "{classifier}");
        }
    }

    #[test]
    fn the_seed_of_the_run_changes_nothing_and_that_of_the_split_does() {
        let faces: Vec<_> = (0..24).map(|at| (["Red", "Green", "Blue"][at % 3], [at as u8 * 10, 90, 30])).collect();
        let bench = bench(Coloured::of(&faces), Coloured::of(&[]));
        let of = |seed: u64| {
            outcome(
                &config(serde_json::json!({ "gallery": "known", "split": { "per_person": 2, "seed": seed } })),
                &bench,
            )
        };
        assert_eq!(of(1).items.len(), 18);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1).items, of(2).items);
        let cx = BuildContext::new(&bench);
        let protocol = config(serde_json::json!({ "gallery": "known" })).build(&cx).expect("a protocol");
        protocol.evaluate(&Pixel, &cx).expect("an outcome");
        assert_eq!(cx.record().seed, None);
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let bench = bench(Coloured::of(&[("Red", RED), ("Blue", RED)]), Coloured::of(&[("Green", GREEN)]));
        let error = |options| config(options).build(&BuildContext::new(&bench)).err().expect("no protocol").to_string();
        let text = error(serde_json::json!({ "gallery": "known", "probes": "asked" }));
        assert!(text.ends_with("found 2 people in the gallery, 1 among the probes, 0 in both"), "{text}");
        let text = error(serde_json::json!({ "gallery": "known", "split": { "with": { "half": "third" } } }));
        assert!(text.contains("`half` (first, second)"), "{text}");
        let keys = |options| config(options).check().into_iter().map(|problem| problem.key).collect::<Vec<_>>();
        let wrong = serde_json::json!({
            "gallery": "a", "probes": "a", "split": { "share": 1.5, "per_person": 0 }, "l2": -1.0, "tolerance": 0.0,
            "steps": 0, "ranks": [5, 5], "sizes": [1], "gallery_size": 1,
        });
        let mut outside: Vec<String> = out_of_bounds_of(&config(wrong.clone())).iter().map(OutOfBounds::key).collect();
        outside.sort();
        let expected = ["gallery_size", "l2", "sizes[0]", "split.per_person", "split.share", "steps", "tolerance"];
        assert_eq!(outside, expected);
        assert_eq!(keys(wrong), ["split", "split", "probes", "ranks"]);
        assert!(keys(serde_json::json!({ "gallery": "a", "probes": "b" })).is_empty());
    }
}
