//! The datasets of a run, opened one after the other, so that what is wrong with several of them is said at once.

use std::collections::BTreeSet;

use super::assembly::Assembly;
use crate::error::{Error, ErrorKind, Result};
use crate::plugin::{Component, DatasetName};

/// The names of datasets that the options of some parts are.
pub(super) fn named<'a, D: ?Sized + 'a>(
    parts: impl Iterator<Item = &'a Component<D>>,
) -> impl Iterator<Item = &'a str> {
    let of_part = |part: &'a Component<D>| part.marked.iter().filter(|marked| marked.format == DatasetName::FORMAT);
    parts.flat_map(of_part).map(|marked| marked.written.as_str())
}

/// Opens datasets of the recipe, and those that they are made of.
///
/// # Errors
/// If some cannot be had: what is wrong with each of them. A wish to stop, and what is not the data's fault, ends it at once.
pub(super) fn open_all<'a>(parts: &Assembly<'a>, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut all = All { parts, seen: BTreeSet::new(), failed: BTreeSet::new(), errors: Vec::new() };
    for name in names {
        all.open(name)?;
    }
    if all.errors.len() < 2 {
        return all.errors.pop().map_or(Ok(()), Err);
    }
    // Each names a thousand images at most.
    let lines = all.errors.iter().map(|error| format!("\n  {}", error.to_string().replace('\n', "\n  ")));
    Err(Error::data(format!("{} datasets cannot be read:{}", all.errors.len(), lines.collect::<String>())))
}

struct All<'p, 'a> {
    parts: &'p Assembly<'a>,
    seen: BTreeSet<&'a str>,
    failed: BTreeSet<&'a str>,
    errors: Vec<Error>,
}

impl<'a> All<'_, 'a> {
    fn open(&mut self, name: &'a str) -> Result<()> {
        if !self.seen.insert(name) {
            return Ok(());
        }
        let made_of: Vec<&str> = named(self.parts.experiment().data.get(name).into_iter()).collect();
        for part in made_of.iter().copied() {
            self.open(part)?;
        }
        // What its parts lack was said of them.
        if made_of.iter().any(|part| self.failed.contains(part)) {
            self.failed.insert(name);
            return Ok(());
        }
        match self.parts.context().dataset(name) {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::Data | ErrorKind::Io) => {
                self.failed.insert(name);
                self.errors.push(error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
