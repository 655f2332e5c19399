//! Open-set identification, as on UCCS and IJB: who of a gallery is a face, if anybody?

use std::collections::{BTreeMap, BTreeSet};

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::faces::Faces;
use super::made::made_note;
use super::mistakes::Mistakes;
use super::nearest::{Asked, by_threshold, part};
use super::outcome::{CURVE_POINTS, Curve, Figure, Outcome, digest_of_items};
use super::rates::{TIE, by_group, items, rate};
use super::resolution::{self, GallerySize, over_sizes, with_gallery};
use super::roc::Roc;
use super::split::{Sides, Split};
use super::templates::{self, templates};
use super::{Protocol, ProtocolConfig};
use crate::context::BuildContext;
use crate::embedder::{Embedder, Embeddings, FlipFused};
use crate::error::{Error, Problem, Result};
use crate::plugin::{DatasetName, Kind};
use crate::seed::{Seed, shuffled};

/// Open-set identification: each person of the gallery is enrolled with the mean of the embeddings. A probe gets the person of the
/// highest cosine if that reaches a threshold, and nobody otherwise. Reported is how many probes of enrolled people get the right
/// person (TPIR) at the thresholds at which so many of the others get anybody (FPIR). Probes that nobody knows count as people who
/// are not enrolled.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenSetIdentification {
    /// The dataset of the people who are enrolled.
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
    /// An attribute of the faces, such as `media`, that says of which video a frame is: of a probe's template and of a person of the
    /// gallery, embeddings with the same value are averaged first, so that a long video counts once. Every face must have it.
    #[serde(default)]
    pub media: Option<String>,
    /// The share of the gallery's people who are not enrolled, drawn by the split's seed; half without `probes`, else none.
    #[serde(default)]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub not_enrolled: Option<f64>,
    /// False positive identification rates at which the true positive identification rate is reported. The first that the probes
    /// can measure is the headline.
    #[serde(default = "default_fpir")]
    #[schemars(length(min = 1, max = 20), inner(range(min = 1e-9, max = 0.999_999)))]
    pub fpir: Vec<f64>,
    /// Whether the embeddings of a face and of its mirror image are summed.
    #[serde(default)]
    pub flip: bool,
    /// An attribute of the probes, such as `situation`: the headline is reported for each of its values too, at the threshold of
    /// the whole.
    #[serde(default)]
    pub group_by: Option<String>,
    /// Sizes to which faces are brought before they are embedded, rising, in pixels: the headline at each gives a curve.
    #[serde(default)]
    #[schemars(length(max = 50), inner(range(min = 4, max = 512)))]
    pub sizes: Vec<usize>,
    /// How large the gallery's faces are shown, `"native"` or a number of pixels; as the probes when left out.
    #[serde(default)]
    pub gallery_size: Option<GallerySize>,
}

fn default_fpir() -> Vec<f64> {
    vec![0.01, 0.1, 0.3]
}

/// Probes whose scores are held at once.
const PROBES: usize = 1024;

impl Kind for OpenSetIdentification {
    const NAME: &'static str = "open-set-identification";
    const PURPOSE: &'static str = "who of a gallery a face is, if anybody: TPIR at FPIR, DET (UCCS, IJB)";
}

impl ProtocolConfig for OpenSetIdentification {
    fn check(&self) -> Vec<Problem> {
        let rates = (1..=20).contains(&self.fpir.len());
        let distinct = self.fpir.iter().enumerate().all(|(at, rate)| !self.fpir[..at].contains(rate));
        let fusing = (self.template.as_ref(), self.media.as_ref());
        let mut problems = self.split.check(&self.gallery, self.probes.as_ref());
        problems.extend(templates::check(fusing, self.probes.as_ref(), &self.split, true));
        problems.extend(Problem::unless(rates && distinct, "fpir", || {
            format!("expected 1 to 20 different rates, found {:?}", self.fpir)
        }));
        problems.extend(resolution::check(&self.sizes));
        problems
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Protocol>> {
        let fusing = (self.template.as_ref(), self.media.as_ref());
        let sides = Sides::new(&self.gallery, self.probes.as_ref(), &self.split, fusing, cx)?;
        let people: Vec<usize> = sides.gallery.known().into_iter().collect();
        let share = self.not_enrolled.unwrap_or(if self.probes.is_some() { 0.0 } else { 0.5 });
        let left_out = (share * people.len() as f64).round() as usize;
        let mut stream = Seed(self.split.seed).stream("people who are not enrolled", &[]);
        let order = shuffled(&mut stream, people.len());
        let enrolled: BTreeSet<usize> = order.into_iter().skip(left_out).map(|at| people[at]).collect();
        let gallery = sides.gallery.of(|person| person.is_some_and(|person| enrolled.contains(&person)));
        let number: BTreeMap<usize, u32> = (0u32..).zip(&enrolled).map(|(number, person)| (*person, number)).collect();
        let wanted: Vec<Option<u32>> =
            sides.probes.people().iter().map(|person| number.get(&(*person)?).copied()).collect();
        let mated = wanted.iter().flatten().count();
        let strangers = wanted.len() - mated;
        if enrolled.len() < 2 || mated == 0 || strangers == 0 {
            return Err(Error::data(format!(
                "expected two enrolled people or more, probes of them and probes of others, found {} enrolled people, {mated} \
                 probes of them and {strangers} of others",
                enrolled.len()
            )));
        }
        let headline = self.fpir.iter().copied().find(|rate| rate * strangers as f64 + 1e-9 >= 1.0);
        let headline = headline.ok_or_else(|| {
            Error::data(format!(
                "`fpir`: {strangers} probes of people who are not enrolled cannot measure any of {:?}; expected one rate of {:.4} \
                 or more",
                self.fpir,
                1.0 / strangers as f64
            ))
        })?;
        let made = made_note([gallery.dataset(), sides.probes.dataset()]);
        let learnt: Vec<u32> = gallery.people().iter().flatten().map(|person| number[person]).collect();
        Ok(Box::new(Open {
            groups: sides.probes.groups(self.group_by.as_deref())?,
            weights: gallery.weights(&learnt, self.media.as_ref(), "gallery")?,
            learnt,
            names: enrolled.iter().map(|person| sides.people[*person].clone()).collect(),
            notes: sides.notes().into_iter().chain(made).collect(),
            config: self.clone(),
            gallery,
            probes: sides.probes,
            wanted,
            headline,
        }))
    }
}

struct Open {
    config: OpenSetIdentification,
    gallery: Faces,
    /// The number of each gallery face's person among those who are enrolled.
    learnt: Vec<u32>,
    /// The weight of each in that person's mean.
    weights: Vec<f64>,
    names: Vec<String>,
    probes: Faces,
    /// The number of each probe's person; none if that one is not enrolled.
    wanted: Vec<Option<u32>>,
    groups: BTreeMap<String, Vec<usize>>,
    headline: f64,
    notes: Vec<String>,
}

/// A score below every cosine: whoever is taken for another is not found at any threshold.
const NEVER: f64 = -2.0;

impl Protocol for Open {
    fn evaluate(&self, embedder: &dyn Embedder, cx: &BuildContext) -> Result<Outcome> {
        let fused = FlipFused(embedder);
        let embedder = fused.when(self.config.flip);
        over_sizes(embedder, &self.config.sizes, self.config.gallery_size, |of_gallery, of_probes| {
            let gallery = self.enrolled(&self.gallery.embed(of_gallery, cx)?)?;
            let probes = self.probes.embed(of_probes, cx)?;
            self.outcome(&self.scores(&gallery, &probes, cx)?)
        })
    }

    fn mistakes(&self, embedder: &dyn Embedder, _: &Outcome, cx: &BuildContext) -> Result<Option<Mistakes>> {
        let fused = FlipFused(embedder);
        let embedder = fused.when(self.config.flip);
        with_gallery(embedder, None, self.config.gallery_size, |of_gallery, of_probes| {
            let gallery = part(&self.gallery, self.gallery.len(), of_gallery, cx)?;
            let probes = self.probes.embed(of_probes, cx)?;
            let scores = self.scores(&self.enrolled(gallery.embeddings())?, &probes, cx)?;
            let mated: Vec<bool> = self.wanted.iter().map(Option::is_some).collect();
            let Some(point) = Roc::new(&scores, &mated)?.at_far(self.headline) else { return Ok(None) };
            let of = |wrong: &dyn Fn(usize) -> bool| -> Vec<Asked> {
                let asked = |probe| Asked {
                    probe,
                    person: self.probes.people()[probe].filter(|_| mated[probe]),
                    taken_for: None,
                };
                (0..mated.len()).filter(|&probe| wrong(probe)).map(asked).collect()
            };
            let missed = of(&|probe| mated[probe] && scores[probe] < point.threshold);
            let accepted = of(&|probe| !mated[probe] && scores[probe] >= point.threshold);
            Ok(Some(by_threshold((&self.probes, &probes), &missed, &accepted, &[gallery])?))
        })
    }
}

impl Open {
    /// One embedding for each person who is enrolled.
    fn enrolled(&self, gallery: &Embeddings) -> Result<Embeddings> {
        templates(gallery, &self.learnt, &self.weights, &self.names)
    }

    /// For each probe the score that decides: of an enrolled person the own template's, if it is the highest; of others the
    /// highest.
    fn scores(&self, gallery: &Embeddings, probes: &Embeddings, cx: &BuildContext) -> Result<Vec<f64>> {
        let width = probes.width();
        let gallery = Tensor::from_slice(gallery.values(), (gallery.len(), width), cx.device())?.t()?;
        let mut found = Vec::with_capacity(probes.len());
        for (rows, wanted) in probes.values().chunks(PROBES * width).zip(self.wanted.chunks(PROBES)) {
            let rows = Tensor::from_slice(rows, (wanted.len(), width), cx.device())?;
            for (scores, wanted) in rows.matmul(&gallery)?.to_vec2::<f32>()?.iter().zip(wanted) {
                let others =
                    scores.iter().enumerate().filter(|(person, _)| wanted.is_none_or(|own| own as usize != *person));
                let highest = others.map(|(_, score)| *score).fold(f32::NEG_INFINITY, f32::max);
                found.push(match wanted {
                    None => f64::from(highest),
                    Some(own) if highest < scores[*own as usize] - TIE => f64::from(scores[*own as usize]),
                    Some(_) => NEVER,
                });
            }
        }
        Ok(found)
    }

    fn outcome(&self, scores: &[f64]) -> Result<Outcome> {
        let mated: Vec<bool> = self.wanted.iter().map(Option::is_some).collect();
        let roc = Roc::new(scores, &mated)?;
        let title = |rate: f64| format!("TPIR at FPIR {rate}");
        let mut figures = Vec::new();
        let mut right = Vec::new();
        let of_mated = |threshold: f64| {
            let of = scores.iter().zip(&mated).filter(|(_, mated)| **mated);
            items(of.map(move |(score, _)| *score >= threshold))
        };
        for fpir in &self.config.fpir {
            let Some(point) = roc.at_far(*fpir) else {
                let others = roc.negatives();
                let why = format!("{others} probes of people who are not enrolled cannot measure a rate of {fpir}");
                figures.push(Figure::missing(title(*fpir), others, why));
                continue;
            };
            let found = of_mated(point.threshold);
            let figure = rate(&title(*fpir), &found)?;
            if *fpir != self.headline {
                figures.push(figure);
                continue;
            }
            let whole: Vec<f64> = items(scores.iter().map(|score| *score >= point.threshold));
            let of_enrolled =
                |places: &Vec<usize>| places.iter().copied().filter(|at| mated[*at]).collect::<Vec<usize>>();
            let groups = self.groups.iter().map(|(group, places)| (group.clone(), of_enrolled(places))).collect();
            let note = format!("{} people are enrolled, {} probes are of others", self.names.len(), roc.negatives());
            let notes: Vec<String> = self.notes.iter().cloned().chain([note]).collect();
            figures.push(figure.also_noted(notes.join("; ")));
            figures.extend(by_group(&title(*fpir), &whole, &groups)?);
            right = found;
        }
        figures.push(rate("rank-1 of the enrolled", &of_mated(NEVER + 0.5))?);
        // The last point accepts even those who are taken for another: no threshold does.
        let points = roc.thinned(CURVE_POINTS).into_iter().filter(|point| point.threshold > NEVER);
        let curve = Curve {
            name: "DET".into(),
            x: "false positive identification rate".into(),
            y: "false negative identification rate, %".into(),
            log_x: true,
            points: points.map(|point| (point.far, 100.0 * (1.0 - point.tar))).collect(),
            reading: String::new(),
        };
        Ok(Outcome {
            what: "probes of enrolled people".into(),
            headline: title(self.headline),
            figures,
            curves: vec![curve],
            matrices: Vec::new(),
            items: right,
            items_digest: digest_of_items(
                self.probes.keys().zip(&mated).filter(|(_, mated)| **mated).map(|(key, _)| key),
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Coloured, Pixel, bench, shown_mistakes};
    use super::*;

    fn config(options: serde_json::Value) -> OpenSetIdentification {
        serde_json::from_value(options).expect("options")
    }

    #[test]
    fn thresholds_come_from_people_who_are_not_enrolled() {
        let known = Coloured::of(&[("Ann", [250, 0, 0]), ("Bob", [0, 250, 0]), ("Bob", [0, 240, 0])]);
        let asked = Coloured::of(&[
            ("Ann", [250, 5, 0]),
            ("Ann", [250, 160, 0]),
            ("Bob", [90, 250, 0]),
            // Taken for Ann: wrong at every threshold.
            ("Bob", [250, 90, 0]),
            // Four who are not enrolled, from near to far.
            ("Cy", [250, 100, 0]),
            ("Cy", [250, 250, 250]),
            ("", [10, 10, 250]),
            ("", [5, 0, 250]),
        ]);
        let bench = bench(known, asked);
        let cx = BuildContext::new(&bench);
        let config = config(serde_json::json!({
            "gallery": "known", "probes": "asked", "fpir": [0.1, 0.25, 0.5], "group_by": "half",
        }));
        let found = config.build(&cx).and_then(|protocol| protocol.evaluate(&Pixel, &cx)).expect("an outcome");
        found.check().expect("a good outcome");
        let values: Vec<_> = found.figures.iter().map(|figure| (figure.name.as_str(), figure.value)).collect();
        // Cosines with the own template: 1.0, 0.842, 0.941; of the others 0.928, 0.577, 0.04, 0.02.
        let expected = [
            ("TPIR at FPIR 0.1", None),
            ("TPIR at FPIR 0.25", Some(75.0)),
            ("TPIR at FPIR 0.25, first", Some(75.0)),
            ("TPIR at FPIR 0.25, second", None),
            ("TPIR at FPIR 0.5", Some(75.0)),
            ("rank-1 of the enrolled", Some(75.0)),
        ];
        assert_eq!(values, expected);
        assert_eq!(found.headline, "TPIR at FPIR 0.25");
        assert_eq!(found.items, [1.0, 1.0, 1.0, 0.0]);
        assert!(found.curves[0].points.iter().all(|(_, missed)| *missed >= 25.0), "{:?}", found.curves);
        assert!(found.curves[0].points.contains(&(0.25, 25.0)), "{:?}", found.curves);
        assert!(found.curves[0].points.contains(&(0.0, 50.0)), "{:?}", found.curves);
        // Bob who was taken for Ann beside himself, and the stranger beside Ann.
        let protocol = config.build(&cx).expect("a protocol");
        assert_eq!(shown_mistakes(&*protocol, &cx), (vec![(3, 1, true), (4, 0, false)], 2));
    }

    #[test]
    fn one_dataset_gives_both_kinds_of_people() {
        let faces: Vec<(&str, [u8; 3])> =
            ["Ann", "Bob", "Cy", "Di"].into_iter().flat_map(|name| [(name, [9; 3]); 4]).collect();
        let bench = bench(Coloured::of(&faces), Coloured::of(&[]));
        let cx = BuildContext::new(&bench);
        let config = config(serde_json::json!({ "gallery": "known", "fpir": [0.5] }));
        let found = config.build(&cx).and_then(|protocol| protocol.evaluate(&Pixel, &cx)).expect("an outcome");
        // Two of four people with half of their faces each; a constant embedder finds nobody.
        assert_eq!(found.items, [0.0; 4]);
        let note = found.figures[0].note.as_deref().expect("a note");
        assert!(note.ends_with("all 4 items are alike; 2 people are enrolled, 4 probes are of others"), "{note}");
    }

    #[test]
    fn what_cannot_be_measured_at_all_is_an_error_of_the_build() {
        let known = Coloured::of(&[("Ann", [250, 0, 0]), ("Bob", [0, 250, 0])]);
        let bench = bench(known, Coloured::of(&[("Ann", [250, 0, 0]), ("Cy", [9, 9, 9])]));
        let text = |options| config(options).build(&BuildContext::new(&bench)).err().expect("no protocol").to_string();
        let found = text(serde_json::json!({ "gallery": "known", "probes": "asked" }));
        assert!(
            found.contains("1 probes of people who are not enrolled cannot measure any of [0.01, 0.1, 0.3]"),
            "{found}"
        );
        let found = text(serde_json::json!({ "gallery": "known", "probes": "asked", "not_enrolled": 0.5 }));
        assert!(found.contains("found 1 enrolled people"), "{found}");
        let problems = config(serde_json::json!({ "gallery": "a", "fpir": [0.1, 0.1] })).check();
        assert_eq!(problems.iter().map(|problem| problem.key).collect::<Vec<_>>(), ["fpir"]);
    }
}
