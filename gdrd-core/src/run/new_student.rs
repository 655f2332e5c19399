//! The student that a run begins with.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use candle_core::Tensor;

use super::assembly::Assembly;
use super::lock::LockedStart;
use crate::context::{Host, Record};
use crate::data::Degradation;
use crate::error::{Context, Error, Result};
use crate::files;
use crate::nn::Weights;
use crate::nn::weights::{Draw, Variables, first_of};
use crate::observe::{Event, tell};
use crate::recipe::RecipePath;
use crate::seed::Seed;
use crate::student::{self, Input, Student, StudentHeader, student_digest};
use crate::teacher::TeacherWeights;

/// The student that a run begins with.
pub(super) struct NewStudent {
    pub(super) student: Box<dyn Student>,
    pub(super) variables: Variables,
    /// What it has from the teacher that it starts from.
    pub(super) started: Option<LockedStart>,
    /// The student that it goes on from: what its file says, and the file's checksum.
    pub(super) before: Option<(StudentHeader, String)>,
}

/// The student, new or with the weights of the file or teacher that the recipe names.
pub(super) fn new_student(parts: &Assembly) -> Result<NewStudent> {
    let experiment = parts.experiment();
    let spec = &experiment.student;
    let view = parts.context().part::<dyn Degradation>("view", &spec.view)?;
    let size = view.downscale().map(|small| small.size).ok_or_else(|| {
        Error::recipe(format!("the view `{}` leaves faces as they are; a student needs a view of one size", spec.view))
    })?;
    let (before, initial) = match &spec.initial {
        None => (None, None),
        Some(path) => {
            let (header, checksum, tensors) = of_file(parts, path)?;
            (Some((header, checksum)), Some(tensors))
        }
    };
    let teacher = match &spec.initial_teacher {
        None => None,
        Some(name) => Some((name, parts.context().teacher(name)?.weights().at(|| format!("teacher `{name}`"))?)),
    };
    let names: Option<Vec<String>> = initial.as_ref().map(|tensors| tensors.keys().cloned().collect());
    let input = Input { size, preprocessing: teacher.as_ref().and_then(|(_, of)| of.preprocessing) };
    let build = |weights: &Weights| {
        if let Some(tensors) = initial {
            weights.begin_with(tensors);
        }
        if let Some((_, TeacherWeights { tensors, .. })) = &teacher {
            weights.offer(tensors.clone());
        }
        let (student, record) = student::build_recorded(&*spec.network.config, &input, weights, parts)?;
        parts.note(&record);
        Ok(student)
    };
    let (student, variables) = Weights::create(parts.device(), draw(experiment.seed(), "student"), build)?;
    let own: BTreeSet<String> = variables.tensors().into_keys().collect();
    if let Some(names) = names {
        let missing: Vec<String> = own.iter().filter(|name| !names.contains(name)).take(20).cloned().collect();
        if !missing.is_empty() {
            return Err(Error::weights(format!(
                "`initial` has no tensors {missing:?}; expected a student of these options"
            )));
        }
    }
    let started = match &teacher {
        None => None,
        Some((name, TeacherWeights { tensors, .. })) => {
            let shared = shared(&own, &tensors.keys().cloned().collect(), &|name| student.replaces(name));
            let Shared { taken, drawn, left } = shared.at(|| format!("teacher `{name}`"))?;
            let start = LockedStart { teacher: name.to_string(), taken, drawn: drawn.clone() };
            tell(parts.observer(), &Event::StudentStarted { teacher: name.to_string(), taken, drawn, left })?;
            Some(start)
        }
    };
    Ok(NewStudent { student, variables, started, before })
}

/// Header, checksum and tensors of a student file of the recipe's kind.
fn of_file(parts: &Assembly, path: &RecipePath) -> Result<(StudentHeader, String, BTreeMap<String, Tensor>)> {
    let file = parts.context().file(path)?;
    let bytes = files::read(&file.path).map_err(|e| Error::io(&file.path, e))?;
    let (header, tensors) = StudentHeader::from_bytes(&bytes).at(|| format!("`{path}`"))?;
    let kind = &parts.experiment().student.network.kind;
    if header.kind != *kind {
        return Err(Error::weights(format!("`initial`: `{path}` is a `{}`; expected a `{kind}`", header.kind)));
    }
    parts.note(&Record { files: BTreeMap::from([(path.written(), file.sha256)]), ..Default::default() });
    let checksum = student_digest(&bytes)?;
    Ok((header, checksum, tensors))
}

/// What a student and the teacher that it starts from have in common.
#[derive(Debug, PartialEq)]
struct Shared {
    /// Number of tensors that the student has from the teacher.
    taken: usize,
    /// The student's that are new.
    drawn: Vec<String>,
    /// The teacher's that the student has not.
    left: Vec<String>,
}

/// Compares the names of both sides. All must be the same, except that a head may be replaced as a whole: then none of its
/// tensors are the teacher's.
fn shared(own: &BTreeSet<String>, teacher: &BTreeSet<String>, replaces: &dyn Fn(&str) -> bool) -> Result<Shared> {
    let (drawn, left): (Vec<_>, Vec<_>) = (own.difference(teacher).collect(), teacher.difference(own).collect());
    let keeps_head = own.intersection(teacher).any(|name| replaces(name));
    let wrong = |names: &[&String]| -> Vec<String> {
        names.iter().filter(|name| keeps_head || !replaces(name)).map(|name| format!("`{name}`")).collect()
    };
    let mut lines = Vec::new();
    for (names, what) in [(wrong(&drawn), "it has not, but the student"), (wrong(&left), "it has, but not the student")]
    {
        if !names.is_empty() {
            lines.push(format!(
                "{} tensors that {what}: {}",
                names.len(),
                first_of(names.len(), names.iter().cloned())
            ));
        }
    }
    if !lines.is_empty() {
        let lines = lines.join("; ");
        return Err(Error::weights(format!(
            "the student cannot start from its weights, expected the same network, but for the head; found {lines}"
        )));
    }
    let owned = |names: Vec<&String>| names.into_iter().cloned().collect::<Vec<_>>();
    Ok(Shared { taken: own.len() - drawn.len(), drawn: owned(drawn), left: owned(left) })
}

/// Draws new parameters from the stream that is named by their scope and their name.
pub(super) fn draw(seed: Seed, scope: &str) -> Rc<Draw> {
    let scope = scope.to_string();
    Rc::new(move |name: &str, count, init| seed.draw(&format!("{scope}.{name}"), count, init))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn a_head_is_replaced_as_a_whole_and_nothing_else_may_differ() {
        let head = |name: &str| name.starts_with("head");
        let compare = |own: &[&str], teacher: &[&str]| shared(&names(own), &names(teacher), &head);
        let same = compare(&["a", "head.x"], &["a", "head.x"]).expect("the same");
        assert_eq!(same, Shared { taken: 2, drawn: vec![], left: vec![] });
        let other = compare(&["a", "head.x"], &["a", "head.y", "head.z"]).expect("another head");
        assert_eq!(
            other,
            Shared { taken: 1, drawn: vec!["head.x".into()], left: vec!["head.y".into(), "head.z".into()] }
        );
        for (own, teacher, expected) in [
            (&["a", "b", "head.x"][..], &["a", "head.x"][..], "1 tensors that it has not, but the student: `b`"),
            (&["a", "head.x"], &["a", "b", "head.y"], "1 tensors that it has, but not the student: `b`"),
            (&["a", "head.x", "head.y"], &["a", "head.x"], "it has not, but the student: `head.y`"),
        ] {
            let text = compare(own, teacher).expect_err("do not fit").to_string();
            assert!(text.contains(expected), "{text}");
        }
    }
}
