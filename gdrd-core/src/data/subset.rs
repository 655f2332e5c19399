//! Some people of another dataset: as many as have names, or are to be recognised, or the others.

use std::borrow::Cow;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Attribute, Dataset, DatasetConfig, ImageFile};
use crate::context::BuildContext;
use crate::error::{Error, Result};
use crate::face::Face;
use crate::plugin::{DatasetName, Kind};
use crate::seed::{Seed, shuffled};

/// Some people of another dataset, with all their faces or a few of each; who they are is drawn by `seed`. A larger share has everybody
/// that a smaller one has. Faces that belong to nobody are left out.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subset {
    /// The dataset's name in the recipe.
    pub data: DatasetName,
    /// The share of people that are taken, rounded to whole people, one at least.
    #[serde(default = "all")]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub share: f64,
    /// Whether the other people are taken instead: with the same `seed` and `share`, the two have nobody in common.
    #[serde(default)]
    pub others: bool,
    /// How many faces of each person are taken at most, drawn too; all when left out.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub images_per_person: Option<usize>,
    /// What chance depends on. It is a part of the data: the run's seed does not change it.
    #[serde(default = "default_seed")]
    #[schemars(range(max = i64::MAX as u64))]
    pub seed: u64,
}

fn all() -> f64 {
    1.0
}

fn default_seed() -> u64 {
    7
}

impl Kind for Subset {
    const NAME: &'static str = "subset";
    const PURPOSE: &'static str = "some people of another dataset, or some faces of each";
}

impl DatasetConfig for Subset {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Dataset>> {
        let inner = cx.dataset(&self.data)?;
        let count = inner.people().len();
        if count == 0 {
            return Err(Error::data(format!("`{}` has no people to take some of", self.data)));
        }
        let taken = ((self.share * count as f64).round() as usize).clamp(1, count);
        let drawn = shuffled(&mut Seed(self.seed).stream("people of a subset", &[]), count);
        let mut is_taken = vec![self.others; count];
        for person in &drawn[..taken] {
            is_taken[*person] = !self.others;
        }
        if !is_taken.contains(&true) {
            return Err(Error::data(format!(
                "nobody is left: `{}` has {count} people, and a share of {} is {taken} of them",
                self.data, self.share
            )));
        }
        let mut faces_of: Vec<Vec<usize>> = vec![Vec::new(); count];
        for index in 0..inner.len() {
            if let Some(person) = inner.person(index).filter(|person| is_taken[*person]) {
                faces_of[person].push(index);
            }
        }
        if let Some(most) = self.images_per_person {
            for (faces, name) in faces_of.iter_mut().zip(inner.people()) {
                let mut stream = Seed(self.seed).stream(&format!("faces of {name}"), &[]);
                let order = shuffled(&mut stream, faces.len());
                *faces = order.into_iter().take(most).map(|at| faces[at]).collect();
            }
        }
        // In the dataset's own order, as every list of its faces is.
        let mut faces = faces_of.concat();
        faces.sort_unstable();
        let mut numbers = vec![None; count];
        let mut people = Vec::new();
        for (person, name) in inner.people().iter().enumerate().filter(|(person, _)| is_taken[*person]) {
            numbers[person] = Some(people.len());
            people.push(name.clone());
        }
        Ok(Box::new(Opened { inner, faces, numbers, people }))
    }
}

/// Some faces of a dataset, and all its people.
pub(crate) fn some_faces(inner: Arc<dyn Dataset>, faces: Vec<usize>) -> impl Dataset {
    let people = inner.people().to_vec();
    Opened { inner, faces, numbers: (0..people.len()).map(Some).collect(), people }
}

struct Opened {
    inner: Arc<dyn Dataset>,
    /// The index of each face in `inner`.
    faces: Vec<usize>,
    /// The number of each person of `inner` here.
    numbers: Vec<Option<usize>>,
    people: Vec<String>,
}

impl Dataset for Opened {
    fn len(&self) -> usize {
        self.faces.len()
    }

    fn people(&self) -> &[String] {
        &self.people
    }

    fn person(&self, index: usize) -> Option<usize> {
        self.inner.person(self.faces[index]).and_then(|person| self.numbers[person])
    }

    fn key(&self, index: usize) -> String {
        self.inner.key(self.faces[index])
    }

    fn place(&self, index: usize) -> String {
        self.inner.place(self.faces[index])
    }

    fn attributes(&self, index: usize) -> Vec<Attribute> {
        self.inner.attributes(self.faces[index])
    }

    fn is_low_resolution(&self) -> bool {
        self.inner.is_low_resolution()
    }

    fn size(&self, index: usize) -> Option<usize> {
        self.inner.size(self.faces[index])
    }

    fn image(&self, index: usize) -> Option<Result<Cow<'_, [u8]>>> {
        self.inner.image(self.faces[index])
    }

    fn face(&self, index: usize) -> Result<Face> {
        self.inner.face(self.faces[index])
    }

    fn file(&self, index: usize) -> Option<ImageFile> {
        self.inner.file(self.faces[index])
    }

    fn made(&self) -> Vec<String> {
        self.inner.made()
    }

    fn left_out(&self) -> &[String] {
        self.inner.left_out()
    }

    fn notes(&self) -> &[String] {
        self.inner.notes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use candle_core::Device;

    use super::*;
    use crate::data::SyntheticFaces;
    use crate::plugin::Workbench;

    fn opened(options: serde_json::Value) -> Result<Box<dyn Dataset>> {
        let faces = SyntheticFaces { identities: 10, images_per_identity: 4, size: 24, ..SyntheticFaces::default() };
        let bench = Workbench::new(Device::Cpu);
        let faces: Arc<dyn Dataset> = faces.build(&BuildContext::new(&bench)).expect("faces").into();
        let bench = bench.with("dataset", "faces", faces);
        let mut config = serde_json::json!({ "data": "faces" });
        config.as_object_mut().expect("a table").extend(options.as_object().expect("a table").clone());
        let config: Subset = serde_json::from_value(config).expect("options");
        config.build(&BuildContext::new(&bench))
    }

    fn names(set: &dyn Dataset) -> BTreeSet<String> {
        set.people().iter().cloned().collect()
    }

    #[test]
    fn a_share_has_its_people_with_all_their_faces_and_the_others_have_the_rest() {
        let some = opened(serde_json::json!({ "share": 0.3 })).expect("three people");
        let others = opened(serde_json::json!({ "share": 0.3, "others": true })).expect("seven people");
        assert_eq!((some.people().len(), some.len()), (3, 12));
        assert_eq!((others.people().len(), others.len()), (7, 28));
        assert!(names(&*some).is_disjoint(&names(&*others)));
        for set in [&some, &others] {
            for index in 0..set.len() {
                let person = set.person(index).expect("somebody");
                assert!(set.key(index).starts_with(&set.people()[person]), "{}", set.key(index));
            }
            assert_eq!((0..set.len()).filter_map(|index| set.person(index)).max(), Some(set.people().len() - 1));
        }
        assert!(names(&*some).is_subset(&names(&*opened(serde_json::json!({ "share": 0.5 })).expect("five people"))));
        assert_ne!(
            names(&*some),
            names(&*opened(serde_json::json!({ "share": 0.3, "seed": 8 })).expect("three others"))
        );
    }

    #[test]
    fn few_faces_of_each_are_the_same_few_every_time() {
        let few = || opened(serde_json::json!({ "images_per_person": 2 })).expect("ten people");
        let keys = |set: &dyn Dataset| (0..set.len()).map(|index| set.key(index)).collect::<Vec<_>>();
        assert_eq!((few().people().len(), few().len()), (10, 20));
        assert_eq!(keys(&*few()), keys(&*few()));
        assert_eq!(opened(serde_json::json!({ "share": 0.01 })).expect("one person").people().len(), 1);
    }

    #[test]
    fn nobody_is_an_error() {
        let error = opened(serde_json::json!({ "others": true })).err().expect("nobody is left").to_string();
        assert!(error.contains("`faces` has 10 people, and a share of 1 is 10 of them"), "{error}");
    }
}
