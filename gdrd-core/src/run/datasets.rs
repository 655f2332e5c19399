//! The datasets of a run, opened one after the other, so that what is wrong with several of them is said at once.

use std::collections::BTreeSet;

use super::assembly::Assembly;
use crate::error::{Error, ErrorKind, Result};
use crate::plugin::{Component, DatasetName, TeacherName, ViewName};

/// Opens every dataset that stages, calibration, protocols, teachers, views and the student of a run name.
///
/// # Errors
/// If some cannot be had: what is wrong with each of them. A wish to stop, and what is not the data's fault, ends it at once.
pub(super) fn open_all(parts: &Assembly) -> Result<()> {
    let experiment = parts.experiment();
    let mut opening = Opening::new(parts);
    for stage in &experiment.stages {
        opening.dataset(&stage.options.data)?;
        opening.of(&stage.optimizer)?;
        opening.of(&stage.schedule)?;
        stage.losses.values().try_for_each(|term| opening.of(&term.loss))?;
    }
    opening.of(&experiment.student.network)?;
    // One that is not there is found before the first step, and stands in the lock.
    experiment.calibration.iter().try_for_each(|calibration| opening.dataset(&calibration.data))?;
    opening.of_measured(true)?;
    opening.done()
}

/// Opens every dataset that protocols name, and teachers and views if `teachers` are measured.
///
/// # Errors
/// As [`open_all`].
pub(super) fn open_measured(parts: &Assembly, teachers: bool) -> Result<()> {
    let mut opening = Opening::new(parts);
    opening.of_measured(teachers)?;
    opening.done()
}

/// Opens datasets, and those that they, and the teachers and views that they name, are made of.
struct Opening<'p, 'a> {
    parts: &'p Assembly<'a>,
    seen: BTreeSet<(&'a str, &'a str)>,
    failed: BTreeSet<(&'a str, &'a str)>,
    errors: Vec<Error>,
}

impl<'p, 'a> Opening<'p, 'a> {
    fn new(parts: &'p Assembly<'a>) -> Self {
        Self { parts, seen: BTreeSet::new(), failed: BTreeSet::new(), errors: Vec::new() }
    }

    /// A dataset by its name in the recipe. A wish to stop, and what is not the data's fault, ends it at once.
    fn dataset(&mut self, name: &'a str) -> Result<()> {
        self.named(DatasetName::FORMAT, name).map(drop)
    }

    /// The datasets that a part's options name, and those of the teachers and views that they name.
    fn of<D: ?Sized>(&mut self, part: &'a Component<D>) -> Result<()> {
        self.all_of(part).map(drop)
    }

    fn of_measured(&mut self, teachers: bool) -> Result<()> {
        let experiment = self.parts.experiment();
        experiment.evaluate.values().try_for_each(|part| self.of(part))?;
        if teachers {
            experiment.teachers.values().try_for_each(|part| self.of(part))?;
            experiment.views.values().try_for_each(|part| self.of(part))?;
        }
        Ok(())
    }

    /// What is wrong with each dataset that cannot be had.
    fn done(mut self) -> Result<()> {
        if self.errors.len() < 2 {
            return self.errors.pop().map_or(Ok(()), Err);
        }
        // Each names a thousand images at most.
        let lines = self.errors.iter().map(|error| format!("\n  {}", error.to_string().replace('\n', "\n  ")));
        Err(Error::data(format!("{} datasets cannot be read:{}", self.errors.len(), lines.collect::<String>())))
    }

    /// Whether all could be had.
    fn all_of<D: ?Sized>(&mut self, part: &'a Component<D>) -> Result<bool> {
        let mut all = true;
        for marked in &part.marked {
            all &= self.named(marked.format, &marked.written)?;
        }
        Ok(all)
    }

    fn named(&mut self, format: &'a str, name: &'a str) -> Result<bool> {
        if !self.seen.insert((format, name)) {
            return Ok(!self.failed.contains(&(format, name)));
        }
        let experiment = self.parts.experiment();
        let made_of = match format {
            DatasetName::FORMAT => experiment.data.get(name).map(|part| self.all_of(part)),
            TeacherName::FORMAT => experiment.teachers.get(name).map(|part| self.all_of(part)),
            ViewName::FORMAT => experiment.views.get(name).map(|part| self.all_of(part)),
            _ => None,
        };
        // What its parts lack was said of them.
        let mut good = made_of.unwrap_or(Ok(true))?;
        if good && format == DatasetName::FORMAT {
            match self.parts.context().dataset(name) {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Data | ErrorKind::Io) => {
                    good = false;
                    self.errors.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        if !good {
            self.failed.insert((format, name));
        }
        Ok(good)
    }
}
