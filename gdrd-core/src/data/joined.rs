//! Several datasets as one: labelled faces beside an unlabelled pool, a gallery beside distractors.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Attribute, Compared, Dataset, DatasetConfig, ImageFile, SameName};
use crate::context::BuildContext;
use crate::error::{Error, Problem, Result};
use crate::face::Face;
use crate::plugin::{DatasetName, Kind};

/// The faces of several datasets of the recipe, in their order.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Joined {
    /// Names of datasets in the recipe.
    pub parts: Vec<DatasetName>,
    /// Whether people of the same name in two datasets are one person or two.
    #[serde(default)]
    pub same_name: SameName,
}

impl Kind for Joined {
    const NAME: &'static str = "joined";
    const PURPOSE: &'static str = "several datasets as one, with and without identities";
}

impl DatasetConfig for Joined {
    fn check(&self) -> Vec<Problem> {
        Problem::unless(!self.parts.is_empty(), "parts", || "expected at least one dataset".into())
            .into_iter()
            .collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Dataset>> {
        let parts = self.parts.iter().map(|name| cx.dataset(name)).collect::<Result<Vec<_>>>()?;
        let low_resolution = parts[0].is_low_resolution();
        if parts.iter().any(|part| part.is_low_resolution() != low_resolution) {
            return Err(Error::data(format!(
                "expected parts that are all of low resolution or all not, found {:?} of which some are",
                self.parts.iter().map(|name| &**name).collect::<Vec<_>>()
            )));
        }
        let mut people: Vec<String> = Vec::new();
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        let mut first = 0;
        let mut joined = Vec::new();
        let (mut pairs, mut notes, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
        for part in parts {
            if self.same_name == SameName::Apart {
                numbers.clear();
            }
            let number = |name: &String| {
                *numbers.entry(name.clone()).or_insert_with(|| {
                    people.push(name.clone());
                    people.len() - 1
                })
            };
            let numbers_here = part.people().iter().map(number).collect();
            let len = part.len();
            let here = |pair: &Compared| Compared { left: first + pair.left, right: first + pair.right, ..*pair };
            pairs.extend(part.pairs().iter().map(here));
            notes.extend_from_slice(part.notes());
            left_out.extend_from_slice(part.left_out());
            joined.push(Part { first, dataset: part, people: numbers_here });
            first += len;
        }
        Ok(Box::new(Opened { parts: joined, people, len: first, low_resolution, pairs, notes, left_out }))
    }
}

struct Part {
    first: usize,
    dataset: Arc<dyn Dataset>,
    /// The joined number of each person of this part.
    people: Vec<usize>,
}

struct Opened {
    parts: Vec<Part>,
    people: Vec<String>,
    len: usize,
    low_resolution: bool,
    pairs: Vec<Compared>,
    notes: Vec<String>,
    left_out: Vec<String>,
}

impl Opened {
    fn part(&self, index: usize) -> (&Part, usize) {
        let at = self.parts.partition_point(|part| part.first <= index) - 1;
        (&self.parts[at], index - self.parts[at].first)
    }
}

impl Dataset for Opened {
    fn len(&self) -> usize {
        self.len
    }

    fn people(&self) -> &[String] {
        &self.people
    }

    fn person(&self, index: usize) -> Option<usize> {
        let (part, index) = self.part(index);
        part.dataset.person(index).map(|person| part.people[person])
    }

    fn key(&self, index: usize) -> String {
        let (part, index) = self.part(index);
        part.dataset.key(index)
    }

    fn place(&self, index: usize) -> String {
        let (part, index) = self.part(index);
        part.dataset.place(index)
    }

    fn attributes(&self, index: usize) -> Vec<Attribute> {
        let (part, index) = self.part(index);
        part.dataset.attributes(index)
    }

    fn is_low_resolution(&self) -> bool {
        self.low_resolution
    }

    fn size(&self, index: usize) -> Option<usize> {
        let (part, index) = self.part(index);
        part.dataset.size(index)
    }

    fn image(&self, index: usize) -> Option<Result<Cow<'_, [u8]>>> {
        let (part, index) = self.part(index);
        part.dataset.image(index)
    }

    fn face(&self, index: usize) -> Result<Face> {
        let (part, index) = self.part(index);
        part.dataset.face(index)
    }

    fn file(&self, index: usize) -> Option<ImageFile> {
        let (part, index) = self.part(index);
        part.dataset.file(index)
    }

    fn made(&self) -> Vec<String> {
        let mut made: Vec<String> = self.parts.iter().flat_map(|part| part.dataset.made()).collect();
        made.sort();
        made.dedup();
        made
    }

    fn pairs(&self) -> &[Compared] {
        &self.pairs
    }

    fn left_out(&self) -> &[String] {
        &self.left_out
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::plugin::Workbench;

    /// Two faces of one person who are compared, and something to say.
    struct Pair([String; 1]);

    impl Dataset for Pair {
        fn len(&self) -> usize {
            2
        }

        fn people(&self) -> &[String] {
            &self.0
        }

        fn person(&self, _: usize) -> Option<usize> {
            Some(0)
        }

        fn key(&self, index: usize) -> String {
            format!("{}/{index}", self.0[0])
        }

        fn face(&self, _: usize) -> Result<Face> {
            Face::new(1, 1, vec![0; 3])
        }

        fn pairs(&self) -> &[Compared] {
            &[Compared { left: 0, right: 1, same: true }]
        }

        fn notes(&self) -> &[String] {
            &self.0
        }
    }

    #[test]
    fn pairs_and_notes_of_all_parts_are_kept() {
        let part = |name: &str| -> Arc<dyn Dataset> { Arc::new(Pair([name.to_string()])) };
        let bench = Workbench::new(Device::Cpu).with("dataset", "a", part("Ann")).with("dataset", "b", part("Bob"));
        let joined = Joined { parts: vec!["a".into(), "b".into()], same_name: SameName::Apart };
        let both = joined.build(&BuildContext::new(&bench)).expect("joined");
        let pair = |left, right| Compared { left, right, same: true };
        assert_eq!(
            (both.pairs(), both.notes()),
            (&[pair(0, 1), pair(2, 3)][..], &["Ann".into(), "Bob".to_string()][..])
        );
    }
}
