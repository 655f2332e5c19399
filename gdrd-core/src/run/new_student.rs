//! The student that a run begins with.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::assembly::Assembly;
use crate::context::{Host, Record};
use crate::data::Degradation;
use crate::error::{Context, Error, Result};
use crate::files;
use crate::nn::Weights;
use crate::nn::weights::{Draw, Variables};
use crate::seed::Seed;
use crate::student::{self, Student, StudentHeader};

/// The student, new or with the weights of the file that `initial` names.
pub(super) fn new_student(parts: &Assembly) -> Result<(Box<dyn Student>, Variables)> {
    let experiment = parts.experiment();
    let spec = &experiment.student;
    let view = parts.context().part::<dyn Degradation>("view", &spec.view)?;
    let size = view.downscale().map(|small| small.size).ok_or_else(|| {
        Error::recipe(format!("the view `{}` leaves faces as they are; a student needs a view of one size", spec.view))
    })?;
    let initial = match &spec.initial {
        None => None,
        Some(path) => {
            let file = parts.context().file(path)?;
            let bytes = files::read(&file.path).map_err(|e| Error::io(&file.path, e))?;
            let (header, tensors) = StudentHeader::from_bytes(&bytes).at(|| format!("`{path}`"))?;
            if header.kind != spec.network.kind {
                return Err(Error::weights(format!(
                    "`initial`: `{path}` is a `{}`; expected a `{}`",
                    header.kind, spec.network.kind
                )));
            }
            parts.note(&Record { files: BTreeMap::from([(path.written(), file.sha256)]), ..Default::default() });
            Some(tensors)
        }
    };
    let names: Option<Vec<String>> = initial.as_ref().map(|tensors| tensors.keys().cloned().collect());
    let build = |weights: &Weights| {
        if let Some(tensors) = initial {
            weights.begin_with(tensors);
        }
        let (student, record) = student::build_recorded(&*spec.network.config, size, weights, parts)?;
        parts.note(&record);
        Ok(student)
    };
    let (student, variables) = Weights::create(parts.device(), draw(experiment.seed(), "student"), build)?;
    if let Some(names) = names {
        let missing: Vec<String> =
            variables.tensors().into_keys().filter(|name| !names.contains(name)).take(20).collect();
        if !missing.is_empty() {
            return Err(Error::weights(format!(
                "`initial` has no tensors {missing:?}; expected a student of these options"
            )));
        }
    }
    Ok((student, variables))
}

/// Draws new parameters from the stream that is named by their scope and their name.
pub(super) fn draw(seed: Seed, scope: &str) -> Rc<Draw> {
    let scope = scope.to_string();
    Rc::new(move |name: &str, count, init| seed.draw(&format!("{scope}.{name}"), count, init))
}
