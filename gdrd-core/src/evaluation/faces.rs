//! Some faces of a dataset, and who they are: one by one, or several as a template.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::templates::templates;
use crate::context::BuildContext;
use crate::data::Dataset;
use crate::embedder::{Embedder, Embeddings};
use crate::error::{Error, Result};

/// Some faces of a dataset, or some templates of its faces, and who they are.
pub(super) struct Faces {
    dataset: Arc<dyn Dataset>,
    /// The index of each face; of a template that of its first.
    indices: Vec<usize>,
    people: Vec<Option<usize>>,
    templates: Option<Vec<Template>>,
}

/// Several faces of one person that have one embedding.
#[derive(Clone)]
struct Template {
    name: String,
    indices: Vec<usize>,
    weights: Vec<f64>,
}

impl Faces {
    /// Those faces of a dataset that `kept` says, with the numbers that `numbers` gives to its people; nobody's where it gives none.
    pub(super) fn new(dataset: &Arc<dyn Dataset>, numbers: &[usize], kept: impl Fn(usize) -> bool) -> Self {
        let number = |index: usize| numbers.get(dataset.person(index)?).copied();
        let indices: Vec<usize> = (0..dataset.len()).filter(|index| kept(*index)).collect();
        let people = indices.iter().map(|index| number(*index)).collect();
        Self { dataset: dataset.clone(), indices, people, templates: None }
    }

    /// All faces of a dataset, as nobody's.
    pub(super) fn of_strangers(dataset: Arc<dyn Dataset>) -> Self {
        Self::new(&dataset, &[], |_| true)
    }

    /// These faces as templates: those of one value of the attribute `template` are one. Themselves where none is named. `names` are
    /// those of people, by number.
    ///
    /// # Errors
    /// If a face lacks an attribute, or the faces of a template are not of one person.
    pub(super) fn fused(self, template: Option<&String>, media: Option<&String>, names: &[String]) -> Result<Self> {
        let Some(template) = template else { return Ok(self) };
        let values = self.every("template", template, "probes")?;
        let mut members: BTreeMap<&String, Vec<usize>> = BTreeMap::new();
        values.iter().enumerate().for_each(|(at, value)| members.entry(value).or_default().push(at));
        let numbers: BTreeMap<&String, u32> = members.keys().copied().zip(0..).collect();
        let of: Vec<u32> = values.iter().map(|value| numbers[value]).collect();
        let weights = self.weights(&of, media, "probes")?;
        let (mut firsts, mut people, mut templates) = (Vec::new(), Vec::new(), Vec::new());
        for (name, places) in members {
            let person = self.people[places[0]];
            if let Some(at) = places.iter().find(|at| self.people[**at] != person) {
                let who =
                    |person: Option<usize>| person.map_or("nobody".into(), |person| format!("`{}`", names[person]));
                return Err(Error::data(format!(
                    "`template`: expected faces of one person in `{name}`, found {} and {}",
                    who(person),
                    who(self.people[*at])
                )));
            }
            firsts.push(self.indices[places[0]]);
            people.push(person);
            templates.push(Template {
                name: name.clone(),
                indices: places.iter().map(|at| self.indices[*at]).collect(),
                weights: places.iter().map(|at| weights[*at]).collect(),
            });
        }
        Ok(Self { dataset: self.dataset, indices: firsts, people, templates: Some(templates) })
    }

    /// The weight of each face in the mean of its person or template, whose number `of` says: one over the number of its faces with
    /// the same value of the attribute `media`; 1 where none is named. `whose` faces these are, errors say.
    ///
    /// # Errors
    /// If a face lacks the attribute.
    pub(super) fn weights(&self, of: &[u32], media: Option<&String>, whose: &str) -> Result<Vec<f64>> {
        let Some(media) = media else { return Ok(vec![1.0; of.len()]) };
        let values = self.every("media", media, whose)?;
        let mut count: BTreeMap<(u32, &String), usize> = BTreeMap::new();
        of.iter().zip(&values).for_each(|(of, value)| *count.entry((*of, value)).or_default() += 1);
        Ok(of.iter().zip(&values).map(|(of, value)| 1.0 / count[&(*of, value)] as f64).collect())
    }

    /// The value of an attribute of each face, which an option names.
    fn every(&self, option: &str, attribute: &str, whose: &str) -> Result<Vec<String>> {
        let values: Vec<Option<String>> = self.indices.iter().map(|index| self.value(*index, attribute)).collect();
        let lacking = values.iter().filter(|value| value.is_none()).count();
        if let Some(first) = values.iter().position(Option::is_none) {
            return Err(Error::data(format!(
                "`{option}`: {lacking} of {} faces of the {whose} lack the attribute `{attribute}`, `{}` is the first; {}",
                values.len(),
                self.dataset.key(self.indices[first]),
                attributes_of(&*self.dataset)
            )));
        }
        Ok(values.into_iter().flatten().collect())
    }

    fn value(&self, index: usize, attribute: &str) -> Option<String> {
        self.dataset.attributes(index).into_iter().find(|(name, _)| name == attribute).map(|(_, value)| value)
    }

    /// The dataset.
    pub(super) fn dataset(&self) -> &dyn Dataset {
        &*self.dataset
    }

    /// Number of faces or templates.
    pub(super) fn len(&self) -> usize {
        self.indices.len()
    }

    /// Number of faces in all templates; none where there are no templates.
    pub(super) fn images(&self) -> Option<usize> {
        self.templates.as_ref().map(|all| all.iter().map(|template| template.indices.len()).sum())
    }

    /// A face by its place, of a template the first: its dataset, and its index there.
    pub(super) fn place(&self, at: usize) -> (Arc<dyn Dataset>, usize) {
        (self.dataset.clone(), self.indices[at])
    }

    /// The number of each one's person; none where nobody knows.
    pub(super) fn people(&self) -> &[Option<usize>] {
        &self.people
    }

    /// The indices of the faces at a place.
    fn faces(&self, at: usize) -> &[usize] {
        match &self.templates {
            Some(templates) => &templates[at].indices,
            None => &self.indices[at..=at],
        }
    }

    /// Person and key of each face at a place; nothing where nobody knows.
    pub(super) fn named(&self, at: usize) -> Vec<(usize, String)> {
        let Some(person) = self.people[at] else { return Vec::new() };
        self.faces(at).iter().map(|index| (person, self.dataset.key(*index))).collect()
    }

    /// What tells each one from all others: a face's key in its dataset, and of a template its name and the keys of its faces.
    pub(super) fn keys(&self) -> impl Iterator<Item = String> {
        (0..self.len()).map(|at| {
            let keys: Vec<String> = self.faces(at).iter().map(|index| self.dataset.key(*index)).collect();
            match &self.templates {
                Some(templates) => format!("{}: {}", templates[at].name, keys.join(", ")),
                None => keys.concat(),
            }
        })
    }

    /// The numbers of the people of whom there are faces.
    pub(super) fn known(&self) -> BTreeSet<usize> {
        self.people.iter().flatten().copied().collect()
    }

    /// Those whose person `kept` accepts.
    pub(super) fn of(&self, kept: impl Fn(Option<usize>) -> bool) -> Self {
        let places: Vec<usize> = (0..self.len()).filter(|at| kept(self.people[*at])).collect();
        Self {
            dataset: self.dataset.clone(),
            indices: places.iter().map(|at| self.indices[*at]).collect(),
            people: places.iter().map(|at| self.people[*at]).collect(),
            templates: self.templates.as_ref().map(|all| places.iter().map(|at| all[*at].clone()).collect()),
        }
    }

    /// The embeddings of some of them, row by row.
    ///
    /// # Errors
    /// If a face cannot be read or embedded, or those of a template cancel out.
    pub(super) fn embed_some(
        &self,
        embedder: &dyn Embedder,
        range: std::ops::Range<usize>,
        cx: &BuildContext,
    ) -> Result<Embeddings> {
        let Some(all) = &self.templates else {
            return super::embed(embedder, &self.dataset, &self.indices[range], cx);
        };
        let (mut indices, mut of, mut weights, mut names) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (number, template) in (0u32..).zip(&all[range]) {
            indices.extend(&template.indices);
            weights.extend(&template.weights);
            of.resize(indices.len(), number);
            names.push(template.name.clone());
        }
        templates(&super::embed(embedder, &self.dataset, &indices, cx)?, &of, &weights, &names)
    }

    /// The embeddings of all of them, row by row.
    ///
    /// # Errors
    /// As [`embed_some`](Self::embed_some).
    pub(super) fn embed(&self, embedder: &dyn Embedder, cx: &BuildContext) -> Result<Embeddings> {
        self.embed_some(embedder, 0..self.len(), cx)
    }

    /// The places among these of each value of an attribute; what has none is in the group `-`. No group is asked for with none.
    ///
    /// # Errors
    /// If no face has the attribute, those of a template have different values, or there are too many for a table.
    pub(super) fn groups(&self, attribute: Option<&str>) -> Result<BTreeMap<String, Vec<usize>>> {
        let Some(attribute) = attribute else { return Ok(BTreeMap::new()) };
        let (mut groups, mut some): (BTreeMap<String, Vec<usize>>, bool) = (BTreeMap::new(), false);
        for at in 0..self.len() {
            let mut values = self.faces(at).iter().map(|index| self.value(*index, attribute));
            let value = values.next().flatten();
            if let (Some(templates), Some(other)) = (&self.templates, values.find(|other| *other != value)) {
                let said = |value: Option<String>| value.map_or("none".into(), |value| format!("`{value}`"));
                return Err(Error::data(format!(
                    "`group_by`: expected one value of `{attribute}` for all faces of `{}`, found {} and {}",
                    templates[at].name,
                    said(value),
                    said(other)
                )));
            }
            some |= value.is_some();
            groups.entry(value.unwrap_or_else(|| "-".to_string())).or_default().push(at);
        }
        if !some {
            return Err(Error::data(format!(
                "`group_by`: no probe has the attribute `{attribute}`; {}",
                attributes_of(&*self.dataset)
            )));
        }
        match groups.len() {
            0..=MOST_GROUPS => Ok(groups),
            many => Err(Error::data(format!(
                "`group_by`: expected at most {MOST_GROUPS} values of `{attribute}`, found {many}"
            ))),
        }
    }
}

/// The most groups of a table.
const MOST_GROUPS: usize = 50;

/// What attributes a dataset has, for errors.
pub(super) fn attributes_of(dataset: &dyn Dataset) -> String {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, value) in (0..dataset.len()).flat_map(|index| dataset.attributes(index)) {
        found.entry(name).or_default().insert(value);
    }
    if found.is_empty() {
        return "its dataset has no attributes".into();
    }
    let shown = |(name, values): (String, BTreeSet<String>)| {
        let few: Vec<&str> = values.iter().take(8).map(String::as_str).collect();
        let more = if values.len() > few.len() { ", ..." } else { "" };
        format!("`{name}` ({}{more})", few.join(", "))
    };
    format!("its dataset has {}", found.into_iter().map(shown).collect::<Vec<_>>().join(", "))
}
