//! Images that cannot be read: found before a run begins, all of them, and named.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decode::{check_image, read_bytes};
use crate::context::{BuildContext, FileCheck};
use crate::error::{Context, Error, Result};
use crate::recipe::RecipePath;

/// What becomes of images that cannot be read: empty, cut, of no known format, or too large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unreadable {
    /// They are an error that names all of them, before anything is trained.
    #[default]
    Refuse,
    /// They are left out, counted and named.
    Skip,
}

/// How many an error or a note names.
const NAMED: usize = 1000;

/// The images that cannot be read.
#[derive(Default)]
pub(super) struct Broken {
    /// Where each is, and why it cannot be read.
    why: Vec<String>,
    files: BTreeSet<PathBuf>,
}

impl Broken {
    pub(super) fn is_empty(&self) -> bool {
        self.why.is_empty()
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.why.extend(other.why);
        self.files.extend(other.files);
    }

    /// Where each is, and why it cannot be read.
    pub(super) fn into_why(self) -> Vec<String> {
        self.why
    }

    /// Whether this file is one of them.
    pub(super) fn holds(&self, path: &Path) -> bool {
        self.files.contains(path)
    }

    /// All of them as one error, unless they may be skipped.
    pub(super) fn judged(self, of: usize, unreadable: Unreadable) -> Result<Self> {
        if self.is_empty() || unreadable == Unreadable::Skip && self.why.len() < of {
            return Ok(self);
        }
        if let [one] = self.why.as_slice() {
            return Err(Error::data(one.clone()));
        }
        let way = if unreadable == Unreadable::Refuse { "; `unreadable = \"skip\"` leaves them out" } else { "" };
        Err(Error::data(format!("{} of {of} images cannot be read{way}:{}", self.why.len(), self.lines())))
    }

    /// That they are left out.
    pub(super) fn note(&self) -> String {
        format!("left out, images that cannot be read: {}:{}", self.why.len(), self.lines())
    }

    fn lines(&self) -> String {
        let shown: String = self.why.iter().take(NAMED).map(|why| format!("\n  {why}")).collect();
        match self.why.len().saturating_sub(NAMED) {
            0 => shown,
            more => format!("{shown}\n  and {more} more"),
        }
    }
}

/// Looks at every image of a container; the places of those that can be read, and the others.
///
/// # Errors
/// If some cannot be read and may not be skipped, or none is left.
pub(super) fn readable<'a>(
    count: usize,
    unreadable: Unreadable,
    place: impl Fn(usize) -> String + Sync,
    image: impl Fn(usize) -> Result<std::borrow::Cow<'a, [u8]>> + Sync,
) -> Result<(Vec<usize>, Broken)> {
    let check = |index: usize| image(index).and_then(|bytes| check_image(&bytes)).at(|| place(index));
    let why: Vec<(usize, String)> =
        (0..count).into_par_iter().filter_map(|index| Some((index, check(index).err()?.to_string()))).collect();
    let without: BTreeSet<usize> = why.iter().map(|(index, _)| *index).collect();
    let broken = Broken { why: why.into_iter().map(|(_, why)| why).collect(), files: BTreeSet::new() };
    let broken = broken.judged(count, unreadable)?;
    Ok(((0..count).filter(|index| !without.contains(index)).collect(), broken))
}

impl BuildContext<'_> {
    /// Takes note of image files below `folder`, and finds those that cannot be read now and not in the middle of a run. Files
    /// that did not change since they were last looked at are not read again, unless broken ones may be skipped.
    ///
    /// # Errors
    /// If files cannot be read or are no whole images; the error names all of them.
    pub fn images(&self, folder: &RecipePath, files: &[PathBuf]) -> Result<()> {
        self.readable(folder, files, Unreadable::Refuse).map(drop)
    }

    /// The same; the files that cannot be read, where they may be skipped.
    pub(super) fn readable(&self, folder: &RecipePath, files: &[PathBuf], unreadable: Unreadable) -> Result<Broken> {
        let look = || -> Result<Broken> {
            let check = |path: &Path| read_bytes(path).and_then(|bytes| check_image(&bytes));
            let why = |path: &PathBuf| Some((path.clone(), check(path).err()?.at(format!("`{}`", path.display()))));
            let found: Vec<(PathBuf, Error)> = files.par_iter().filter_map(why).collect();
            let why = found.iter().map(|(_, error)| error.to_string()).collect();
            let broken = Broken { why, files: found.into_iter().map(|(path, _)| path).collect() };
            broken.judged(files.len(), unreadable)
        };
        let whole =
            |path: &Path| read_bytes(path).and_then(|bytes| check_image(&bytes)).at(|| format!("`{}`", path.display()));
        let whole = FileCheck { name: "images that can be read", check: &whole };
        match unreadable {
            Unreadable::Refuse => match self.fingerprint(folder, files, &whole) {
                Ok(()) => Ok(Broken::default()),
                // The first one was met; whoever mends the data wants all.
                Err(first) => look().and(Err(first)),
            },
            Unreadable::Skip => {
                let broken = look()?;
                let kept: Vec<PathBuf> = files.iter().filter(|path| !broken.holds(path)).cloned().collect();
                self.fingerprint(folder, &kept, &whole)?;
                Ok(broken)
            }
        }
    }
}
