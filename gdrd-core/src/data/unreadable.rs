//! Images that cannot be read: found before a run begins, all of them, and named.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decode::Decoding;
use super::files::Files;
use super::survey::Seen;
use crate::context::{BuildContext, FileCheck};
use crate::error::{Error, Result};
use crate::recipe::RecipePath;

/// What becomes of images that cannot be read: empty, cut, damaged, of no known format, or too large.
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

    /// One more, with its place.
    pub(super) fn add(&mut self, why: String) {
        self.why.push(why);
    }

    /// One more that is a file.
    pub(super) fn add_file(&mut self, path: &Path, why: &str) {
        self.add(format!("`{}`: {why}", path.display()));
        self.files.insert(path.to_path_buf());
    }

    /// All of them as one error, unless they may be skipped and images are `left`.
    pub(super) fn judged(self, left: usize, unreadable: Unreadable) -> Result<Self> {
        if self.is_empty() || unreadable == Unreadable::Skip && left > 0 {
            return Ok(self);
        }
        let of = left + self.why.len();
        if let [one] = self.why.as_slice() {
            return Err(Error::data(one.clone()));
        }
        let way = if unreadable == Unreadable::Refuse { "; `unreadable = \"skip\"` leaves them out" } else { "" };
        Err(Error::data(format!(
            "{} of {of} images cannot be read{way}:{}",
            self.why.len(),
            unreadable_lines(&self.why)
        )))
    }

    /// That they are left out.
    pub(super) fn note(&self) -> String {
        format!("left out, images that cannot be read: {}:{}", self.why.len(), unreadable_lines(&self.why))
    }
}

/// Images that cannot be read, with the reason, in lines of their own behind the text before: a thousand at most, and how many more.
pub fn unreadable_lines(why: &[String]) -> String {
    let shown: String = why.iter().take(NAMED).map(|why| format!("\n  {why}")).collect();
    match why.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown}\n  and {more} more"),
    }
}

impl BuildContext<'_> {
    /// Takes note of image files below `folder`, and decodes them, so that those that cannot be read are found now and not in the
    /// middle of a run. Files that did not change since they were last decoded are not decoded again.
    ///
    /// # Errors
    /// If files cannot be read or are no whole images; the error names all of them.
    pub fn images(&self, folder: &RecipePath, files: &[PathBuf]) -> Result<()> {
        self.readable(folder, files, Unreadable::Refuse).map(drop)
    }

    /// The same; the files that cannot be read, where they may be skipped.
    pub(super) fn readable(&self, folder: &RecipePath, files: &[PathBuf], unreadable: Unreadable) -> Result<Broken> {
        let (mut good, mut broken) = (Vec::with_capacity(files.len()), Broken::default());
        self.survey(&Files(files), Decoding::default(), |at, seen| match seen {
            Seen::Size(..) => good.push(files[at].clone()),
            Seen::Broken(why) => broken.add_file(&files[at], &why),
        })?;
        let broken = broken.judged(good.len(), unreadable)?;
        self.note_images(folder, &good)?;
        Ok(broken)
    }

    /// Takes note of image files below `folder` that somebody has looked at.
    pub(super) fn note_images(&self, folder: &RecipePath, files: &[PathBuf]) -> Result<()> {
        self.fingerprint(folder, files, &FileCheck { name: "images", check: &|_| Ok(()) })
    }
}
