//! Who is in a gallery, and who is asked about: faces of two datasets, or the faces of one, divided.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::faces::{Faces, attributes_of};
use crate::context::BuildContext;
use crate::data::{Dataset, by_name};
use crate::error::{Error, Problem, Result};
use crate::plugin::DatasetName;
use crate::seed::{Seed, shuffled};

/// How the faces of one dataset are divided between gallery and probes: one of the ways, half of each person's faces if none is
/// named. Faces that nobody knows go to the gallery, except where attributes decide.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Split {
    /// Faces of each person for the gallery, drawn by `seed`. A person with no more than these has no probe.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub per_person: Option<usize>,
    /// The share of each person's faces for the gallery, above 0 and below 1, drawn by `seed`; of two faces or more at least one
    /// goes to each side.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub share: Option<f64>,
    /// Attributes of the gallery's faces, such as `{ situation = "plain", session = "1" }`; all other faces are probes.
    pub with: BTreeMap<String, String>,
    /// What the faces are drawn by. It is a part of the measure: the run's seed does not change it.
    #[schemars(range(max = i64::MAX as u64))]
    pub seed: u64,
}

impl Split {
    /// What is wrong with these options beside `gallery` and `probes`.
    pub(super) fn check(&self, gallery: &DatasetName, probes: Option<&DatasetName>) -> Vec<Problem> {
        let ways = [self.per_person.is_some(), self.share.is_some(), !self.with.is_empty()];
        let ways = ways.into_iter().filter(|way| *way).count();
        let found: Vec<Option<Problem>> = vec![
            Problem::unless(probes.is_none() || *self == Self::default(), "split", || {
                "expected it only without `probes`: it divides the faces of one dataset".into()
            }),
            Problem::unless(ways <= 1, "split", || {
                format!("expected one of `per_person`, `share` and `with`, found {ways} of them")
            }),
            Problem::unless(probes != Some(gallery), "probes", || {
                format!("expected another dataset than `gallery`, found `{gallery}` twice; `split` divides one dataset")
            }),
        ];
        found.into_iter().flatten().collect()
    }

    /// Whether each face of `dataset` is in the gallery.
    fn divide(&self, dataset: &dyn Dataset) -> Result<Vec<bool>> {
        if !self.with.is_empty() {
            let fits = |index: usize| {
                let attributes: BTreeMap<String, String> = dataset.attributes(index).into_iter().collect();
                self.with.iter().all(|(name, value)| attributes.get(name) == Some(value))
            };
            let gallery: Vec<bool> = (0..dataset.len()).map(fits).collect();
            if !gallery.contains(&true) {
                return Err(Error::data(format!(
                    "`split`: no face has the attributes {:?}; {}",
                    self.with,
                    attributes_of(dataset)
                )));
            }
            return Ok(gallery);
        }
        let mut gallery = vec![true; dataset.len()];
        let mut faces: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for index in 0..dataset.len() {
            if let Some(person) = dataset.person(index) {
                faces.entry(person).or_default().push(index);
            }
        }
        for (person, faces) in faces {
            let of_share = || {
                let share = (self.share.unwrap_or(0.5) * faces.len() as f64).round() as usize;
                share.clamp(1, (faces.len() - 1).max(1))
            };
            let kept = self.per_person.unwrap_or_else(of_share);
            let mut stream = Seed(self.seed).stream(&format!("gallery of {}", dataset.people()[person]), &[]);
            for place in shuffled(&mut stream, faces.len()).into_iter().skip(kept) {
                gallery[faces[place]] = false;
            }
        }
        Ok(gallery)
    }
}

/// Gallery and probes, with common numbers for people.
pub(super) struct Sides {
    /// The faces that are known beforehand.
    pub(super) gallery: Faces,
    /// The faces that are asked about.
    pub(super) probes: Faces,
    /// The names of all people of both, by their numbers.
    pub(super) people: Vec<String>,
    /// Probes with a face whose person and key a face of the gallery has too: the same photograph, perhaps.
    pub(super) repeated: usize,
}

/// The attributes by which faces become one: `template` of the probes, and `media` of the faces of a template or person.
pub(super) type Fusing<'a> = (Option<&'a String>, Option<&'a String>);

impl Sides {
    /// The faces of `gallery` and `probes`, or those of `gallery` divided by `split`; the probes' templates if there are some.
    ///
    /// # Errors
    /// If a dataset cannot be had, or has no face for a side, or as [`Faces::fused`].
    pub(super) fn new(
        gallery: &DatasetName,
        probes: Option<&DatasetName>,
        split: &Split,
        (template, media): Fusing,
        cx: &BuildContext,
    ) -> Result<Self> {
        let known = cx.dataset(gallery)?;
        let (people, (of_gallery, of_probes)): (Vec<String>, _) = match probes {
            Some(probes) => {
                let asked = cx.dataset(probes)?;
                // Who is on both sides is known by name, so a name must be one person's.
                for (name, dataset) in [(gallery, &known), (probes, &asked)] {
                    let mut seen = BTreeSet::new();
                    if let Some(twice) = dataset.people().iter().find(|person| !seen.insert(*person)) {
                        return Err(Error::data(format!(
                            "dataset `{name}`: `{twice}` is the name of two people; who is in the gallery and among the \
                             probes is known by name, so make them one person (`same_name = \"one-person\"`) or rename one"
                        )));
                    }
                }
                let numbers = by_name(&[&*known, &*asked]);
                let of = |dataset: &Arc<dyn Dataset>| {
                    let own: Vec<usize> = dataset.people().iter().map(|name| numbers[name]).collect();
                    Faces::new(dataset, &own, |_| true)
                };
                let sides = (of(&known), of(&asked));
                (numbers.into_keys().collect(), sides)
            }
            None => {
                let in_gallery = split.divide(&*known)?;
                // In the order of names; two people of one name stay two.
                let mut order: Vec<usize> = (0..known.people().len()).collect();
                order.sort_by(|a, b| known.people()[*a].cmp(&known.people()[*b]));
                let mut numbers = vec![0; order.len()];
                order.iter().enumerate().for_each(|(number, person)| numbers[*person] = number);
                let of = |side: bool| Faces::new(&known, &numbers, |index| in_gallery[index] == side);
                (order.iter().map(|person| known.people()[*person].clone()).collect(), (of(true), of(false)))
            }
        };
        let of_probes = of_probes.fused(template, media, &people)?;
        let repeated = match probes {
            Some(_) => {
                let keys: BTreeSet<_> = (0..of_gallery.len()).flat_map(|at| of_gallery.named(at)).collect();
                (0..of_probes.len()).filter(|at| of_probes.named(*at).iter().any(|key| keys.contains(key))).count()
            }
            None => 0,
        };
        Ok(Self { gallery: of_gallery, probes: of_probes, people, repeated })
    }

    /// What a reader must know of the two sides: of what the probes are made, and those that the gallery seems to hold already.
    pub(super) fn notes(&self) -> Vec<String> {
        let of_templates = self
            .probes
            .images()
            .map(|images| format!("the probes are {} templates of {images} images", self.probes.len()));
        let repeated = (self.repeated > 0).then(|| {
            format!(
                "{} probes have the person and the key of a face of the gallery; the same photograph on both sides is \
                 found too easily",
                self.repeated
            )
        });
        of_templates.into_iter().chain(repeated).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Coloured, bench};
    use super::*;
    use crate::data::{DatasetConfig, Joined};

    fn sides(split: serde_json::Value, probes: Option<&str>) -> Sides {
        let split: Split = serde_json::from_value(split).expect("options");
        let known = [("Ann", 5), ("Bob", 2), ("Cy", 1), ("", 2)];
        let known: Vec<_> = known.into_iter().flat_map(|(name, count)| vec![(name, [9, 9, 9]); count]).collect();
        // The same keys, since there are as many; the first is of the same person too.
        let asked: Vec<_> = (0..10).map(|at| (if at < 1 { "Ann" } else { "Di" }, [9, 9, 9])).collect();
        let bench = bench(Coloured::of(&known), Coloured::of(&asked));
        Sides::new(&"known".into(), probes.map(Into::into).as_ref(), &split, (None, None), &BuildContext::new(&bench))
            .expect("sides")
    }

    fn counts(faces: &Faces) -> [usize; 4] {
        let count = |person: Option<usize>| faces.people().iter().filter(|other| **other == person).count();
        [count(Some(0)), count(Some(1)), count(Some(2)), count(None)]
    }

    #[test]
    fn one_dataset_is_divided_person_by_person() {
        let half = sides(serde_json::json!({}), None);
        assert_eq!((counts(&half.gallery), counts(&half.probes)), ([3, 1, 1, 2], [2, 1, 0, 0]));
        let most = sides(serde_json::json!({ "share": 0.99 }), None);
        assert_eq!((counts(&most.gallery), counts(&most.probes)), ([4, 1, 1, 2], [1, 1, 0, 0]));
        let two = sides(serde_json::json!({ "per_person": 2 }), None);
        assert_eq!((counts(&two.gallery), counts(&two.probes)), ([2, 2, 1, 2], [3, 0, 0, 0]));
        let first = sides(serde_json::json!({ "with": { "half": "first" } }), None);
        assert_eq!((counts(&first.gallery), counts(&first.probes)), ([5, 0, 0, 0], [0, 2, 1, 2]));
        assert!(first.notes().is_empty());
    }

    #[test]
    fn two_people_of_one_name_stay_two_and_are_refused_where_names_count() {
        // Two datasets, each with its own Ann and Bob, joined.
        let two: Vec<_> = [("Ann", 4), ("Bob", 2)].into_iter().flat_map(|(name, n)| vec![(name, [9; 3]); n]).collect();
        let bench = bench(Coloured::of(&two), Coloured::of(&two));
        let config: Joined =
            serde_json::from_value(serde_json::json!({ "parts": ["known", "asked"] })).expect("options");
        let joined: Arc<dyn Dataset> = config.build(&BuildContext::new(&bench)).expect("joined").into();
        let bench = bench.with("dataset", "both", joined);
        let (both, split) = ("both".into(), Split::default());
        let sides = Sides::new(&both, None, &split, (None, None), &BuildContext::new(&bench)).expect("sides");
        assert_eq!(sides.people, ["Ann", "Ann", "Bob", "Bob"]);
        let mut found: Vec<Option<usize>> = sides.gallery.people().to_vec();
        found.dedup();
        assert_eq!(found, [Some(0), Some(2), Some(1), Some(3)]);
        let error = Sides::new(&both, Some(&"known".into()), &split, (None, None), &BuildContext::new(&bench))
            .err()
            .expect("refused");
        assert!(error.to_string().contains("dataset `both`: `Ann` is the name of two people"), "{error}");
    }

    #[test]
    fn a_photograph_on_both_sides_is_seen() {
        let both = sides(serde_json::json!({}), Some("asked"));
        assert_eq!(both.people, ["Ann", "Bob", "Cy", "Di"]);
        let notes = both.notes();
        assert!(notes[0].starts_with("1 probes have the person and the key of a face of the gallery"), "{notes:?}");
    }

    #[test]
    fn groups_need_their_attribute() {
        let probes = sides(serde_json::json!({}), None).probes;
        assert!(probes.groups(None).expect("none").is_empty());
        let groups = probes.groups(Some("half")).expect("two");
        assert_eq!(groups.values().map(Vec::len).sum::<usize>(), 3);
        let error = probes.groups(Some("camera")).expect_err("no camera").to_string();
        let expected = "`group_by`: no probe has the attribute `camera`; its dataset has `half` (first, second)";
        assert_eq!(error, expected);
    }
}
