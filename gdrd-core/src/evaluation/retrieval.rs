//! Retrieval, as on TinyFace: where in a gallery full of strangers are a probe's mates?

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::faces::Faces;
use super::made::made_note;
use super::mistakes::Mistakes;
use super::nearest::{Asked, part, taken_for_others};
use super::outcome::{Outcome, digest_of_items};
use super::rates::{by_group, check_ranks, items, of_ranks, rate};
use super::resolution::{self, GallerySize, over_sizes, with_gallery};
use super::search::{Search, average_precision, trapezoid_precision};
use super::split::{Sides, Split};
use super::{Protocol, ProtocolConfig};
use crate::context::BuildContext;
use crate::embedder::{Embedder, FlipFused};
use crate::error::{Error, Problem, Result};
use crate::plugin::{DatasetName, Kind};

/// Retrieval: for each probe the whole gallery is ranked by cosine similarity. A probe is right at rank k if one of its person's
/// faces is among the first k. Faces of equal similarity are ranked against the embedder: those of others come first. Probes whose
/// person is not in the gallery are passed over.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retrieval {
    /// The dataset that is searched. Its faces that nobody knows are distractors.
    pub gallery: DatasetName,
    /// The dataset of the faces that are searched for; when left out, `split` divides the gallery's.
    #[serde(default)]
    pub probes: Option<DatasetName>,
    /// How the faces are divided where there are no `probes`.
    #[serde(default)]
    pub split: Split,
    /// More faces to be searched, none of which is of a probe's person. They are embedded and compared in blocks, and not kept.
    #[serde(default)]
    pub distractors: Option<DatasetName>,
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

fn default_ranks() -> Vec<usize> {
    vec![5, 10, 20]
}

/// Distractors that are embedded before they are compared.
const DISTRACTORS: usize = 8192;

impl Kind for Retrieval {
    const NAME: &'static str = "retrieval";
    const PURPOSE: &'static str = "search in a gallery with distractors: rank k, mean average precision (TinyFace)";
}

impl ProtocolConfig for Retrieval {
    fn check(&self) -> Vec<Problem> {
        let own = |other: &Option<DatasetName>| other.is_some() && *other == self.distractors;
        let distinct = self.distractors.as_ref() != Some(&self.gallery) && !own(&self.probes);
        let mut problems = self.split.check(&self.gallery, self.probes.as_ref());
        problems.extend(Problem::unless(distinct, "distractors", || {
            "expected another dataset than those of gallery and probes".into()
        }));
        problems.extend(check_ranks(&self.ranks));
        problems.extend(resolution::check(&self.sizes));
        problems
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Protocol>> {
        let sides = Sides::new(&self.gallery, self.probes.as_ref(), &self.split, (None, None), cx)?;
        let enrolled = sides.gallery.known();
        let asked = sides.probes.known();
        let probes = sides.probes.of(|person| person.is_some_and(|person| enrolled.contains(&person)));
        if probes.len() == 0 {
            return Err(Error::data(format!(
                "expected probes of people in the gallery, found {} people in the gallery, {} among the probes, none in both",
                enrolled.len(),
                asked.len()
            )));
        }
        let mut notes: Vec<String> = sides.notes();
        if probes.len() < sides.probes.len() {
            let passed_over = sides.probes.len() - probes.len();
            notes.push(format!("{passed_over} probes whose person is not in the gallery were passed over"));
        }
        let mut strangers = vec![sides.gallery.of(|person| person.is_none())];
        if let Some(name) = &self.distractors {
            let dataset = cx.dataset(name)?;
            let wanted: Vec<&String> = probes.known().into_iter().map(|person| &sides.people[person]).collect();
            if let Some(person) = dataset.people().iter().find(|person| wanted.contains(person)) {
                return Err(Error::data(format!(
                    "distractors `{name}`: expected nobody who is searched for, found `{person}`, who is among the probes"
                )));
            }
            strangers.push(Faces::of_strangers(dataset));
        }
        notes.extend(made_note(strangers.iter().chain([&probes]).map(Faces::dataset)));
        let gallery = sides.gallery.of(|person| person.is_some());
        let numbers = |faces: &Faces| faces.people().iter().flatten().copied().collect();
        Ok(Box::new(Searched {
            groups: probes.groups(self.group_by.as_deref())?,
            of: numbers(&gallery),
            wanted: numbers(&probes),
            config: self.clone(),
            gallery,
            probes,
            strangers,
            notes,
        }))
    }
}

struct Searched {
    config: Retrieval,
    gallery: Faces,
    /// The person of each face of the gallery.
    of: Vec<usize>,
    probes: Faces,
    /// The person of each probe.
    wanted: Vec<usize>,
    strangers: Vec<Faces>,
    groups: BTreeMap<String, Vec<usize>>,
    notes: Vec<String>,
}

impl Protocol for Searched {
    fn evaluate(&self, embedder: &dyn Embedder, cx: &BuildContext) -> Result<Outcome> {
        let fused = FlipFused(embedder);
        let embedder = fused.when(self.config.flip);
        over_sizes(embedder, &self.config.sizes, self.config.gallery_size, |of_gallery, of_probes| {
            let probes = self.probes.embed(of_probes, cx)?;
            let gallery = self.gallery.embed(of_gallery, cx)?;
            let mut search = Search::new((&probes, &self.wanted), (&gallery, &self.of))?;
            for strangers in &self.strangers {
                for first in (0..strangers.len()).step_by(DISTRACTORS) {
                    let last = (first + DISTRACTORS).min(strangers.len());
                    search.among(&strangers.embed_some(of_gallery, first..last, cx)?)?;
                    cx.report("distractors", last, strangers.len())?;
                }
            }
            self.outcome(&search)
        })
    }

    /// Of the distractors the first 8,192 are looked at: they are embedded anew.
    fn mistakes(&self, embedder: &dyn Embedder, outcome: &Outcome, cx: &BuildContext) -> Result<Option<Mistakes>> {
        let fused = FlipFused(embedder);
        let embedder = fused.when(self.config.flip);
        let wrong = |(probe, (item, person)): (usize, (&f64, &usize))| {
            (*item == 0.0).then_some(Asked { probe, person: Some(*person), taken_for: None })
        };
        let wrong: Vec<Asked> = outcome.items.iter().zip(&self.wanted).enumerate().filter_map(wrong).collect();
        with_gallery(embedder, None, self.config.gallery_size, |of_gallery, of_probes| {
            let probes = self.probes.embed(of_probes, cx)?;
            let mut parts = vec![part(&self.gallery, self.gallery.len(), of_gallery, cx)?];
            let mut left = DISTRACTORS;
            for strangers in &self.strangers {
                let some = strangers.len().min(left);
                left -= some;
                parts.push(part(strangers, some, of_gallery, cx)?);
            }
            Ok(Some(taken_for_others((&self.probes, &probes), &wrong, &parts)?))
        })
    }
}

impl Searched {
    fn outcome(&self, search: &Search) -> Result<Outcome> {
        let places = search.places();
        let before: Vec<usize> = places.iter().map(|places| places[0].others).collect();
        let right = items(before.iter().map(|before| *before == 0));
        let strangers: usize = self.strangers.iter().map(Faces::len).sum();
        let ranks: Vec<usize> = std::iter::once(1).chain(self.config.ranks.iter().copied()).collect();
        let (mut figures, curve) = of_ranks(&before, &ranks, self.gallery.len() + strangers)?;
        let mut notes = self.notes.clone();
        notes.push(format!("a gallery of {} faces and {strangers} distractors", self.gallery.len()));
        figures[0] = figures[0].clone().also_noted(notes.join("; "));
        let precisions: Vec<f64> = places.iter().map(|places| average_precision(places)).collect();
        figures.push(rate("mean average precision", &precisions)?);
        let precisions: Vec<f64> = places.iter().map(|places| trapezoid_precision(places)).collect();
        let trapezoid = rate("mean average precision by trapezoids", &precisions)?;
        figures.push(trapezoid.also_noted("the rule of TinyFace's own script").aside());
        figures.extend(by_group("rank-1", &right, &self.groups)?);
        Ok(Outcome {
            what: "probes".into(),
            headline: "rank-1".into(),
            figures,
            curves: vec![curve],
            matrices: Vec::new(),
            items: right,
            items_digest: digest_of_items(self.probes.keys()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Coloured, Pixel, bench, shown_mistakes};
    use super::*;

    fn config(options: serde_json::Value) -> Retrieval {
        serde_json::from_value(options).expect("options")
    }

    #[test]
    fn mates_are_ranked_among_strangers() {
        let known = [
            ("Ann", [250, 0, 0]),
            ("Ann", [0, 250, 0]),
            ("Bob", [0, 0, 250]),
            // Nobody knows whose this is; it is nearer to Ann's probe than her second face.
            ("", [200, 90, 0]),
        ];
        let asked = [("Ann", [250, 20, 0]), ("Bob", [250, 0, 10]), ("Cy", [9, 9, 9])];
        let bench = bench(Coloured::of(&known), Coloured::of(&asked));
        let cx = BuildContext::new(&bench);
        let config =
            config(serde_json::json!({ "gallery": "known", "probes": "asked", "ranks": [3], "sizes": [4, 8] }));
        let found = config.build(&cx).and_then(|protocol| protocol.evaluate(&Pixel, &cx)).expect("an outcome");
        found.check().expect("a good outcome");
        assert_eq!(found.items, [1.0, 0.0]);
        let value = |name: &str| found.get(name).and_then(|figure| figure.value);
        // Ann: faces at ranks 1 and 3 of 4. Bob: at rank 3, behind Ann's red one and the stranger; her green one is tied with
        // none of them.
        assert_eq!((value("rank-1"), value("rank-3")), (Some(50.0), Some(100.0)));
        let close = |name: &str, expected: f64| {
            assert!(value(name).is_some_and(|found| (found - 100.0 * expected).abs() < 1e-9), "{name}: {found:?}");
        };
        close("mean average precision", ((1.0 + 2.0 / 3.0) / 2.0 + 1.0 / 3.0) / 2.0);
        // Ann: (1 + 1) / 2 and (1/2 + 2/3) / 2. Bob: (0 + 1/3) / 2.
        close("mean average precision by trapezoids", ((1.0 + 7.0 / 12.0) / 2.0 + 1.0 / 6.0) / 2.0);
        let note = found.figures[0].note.as_deref().expect("a note");
        let expected =
            "1 probes whose person is not in the gallery were passed over; a gallery of 3 faces and 1 distractors";
        assert_eq!(note, expected);
        // Faces of one pixel are the same at every size.
        assert_eq!(found.curves[1].points, [(4.0, 50.0), (8.0, 50.0)]);
        // Bob beside himself, and beside Ann, for whom he was taken.
        let protocol = config.build(&cx).expect("a protocol");
        assert_eq!(shown_mistakes(&*protocol, &cx), (vec![(1, 2, true), (1, 0, false)], 1));
    }

    #[test]
    fn who_was_taken_for_a_stranger_is_shown_beside_him() {
        let known = [("Ann", [0, 250, 0]), ("", [250, 90, 0]), ("", [0, 0, 9])];
        let asked = [("Ann", [0, 90, 10]), ("Ann", [250, 100, 0])];
        let bench = bench(Coloured::of(&known), Coloured::of(&asked));
        let cx = BuildContext::new(&bench);
        let protocol = config(serde_json::json!({ "gallery": "known", "probes": "asked", "ranks": [] })).build(&cx);
        let found = shown_mistakes(&*protocol.expect("a protocol"), &cx);
        assert_eq!(found, (vec![(1, 0, true), (1, 1, false)], 1));
    }

    #[test]
    fn distractors_are_nobody_who_is_searched_for() {
        let faces = [("Ann", [250, 0, 0]), ("Ann", [240, 0, 9])];
        let bench = bench(Coloured::of(&faces), Coloured::of(&[("Ann", [1, 1, 1])]));
        let text = |options| config(options).build(&BuildContext::new(&bench)).err().expect("no protocol").to_string();
        let found = text(serde_json::json!({ "gallery": "known", "distractors": "asked" }));
        assert!(found.contains("found `Ann`, who is among the probes"), "{found}");
        let same = config(serde_json::json!({ "gallery": "known", "distractors": "known" }));
        assert_eq!(same.check()[0].key, "distractors");
    }
}
