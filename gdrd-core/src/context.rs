//! What a plug-in is built from: the one place that it gets anything from.
//!
//! Every family of plug-ins has a config with two methods, `check(&self)` and `build(&self, cx: &BuildContext)`. Modules add to
//! the context what they know: `cx.file` stands in `recipe`, `cx.dataset` and `cx.views` in `data`, `cx.teacher` in `teacher`,
//! `cx.student_file` in `student`. Whatever a plug-in asks for is recorded; the run's lock and the keys of kept features and
//! scores follow from that record, so a plug-in that reads a file behind the context's back reads stale features.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Device;

use crate::error::{Error, Result};
use crate::nn::Weights;

/// A file on this machine, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalFile {
    /// Where it is.
    pub path: PathBuf,
    /// Sha256 of its bytes, in hexadecimal digits.
    pub sha256: String,
}

/// A part of an experiment that is built.
#[derive(Clone)]
pub struct Part {
    /// The part: an `Arc` of its contract's trait object.
    pub value: Arc<dyn Any + Send + Sync>,
    /// Sha256 of its kind, its options, and everything that it was built from. Paths do not count, what lies there does.
    pub content: String,
}

/// What a build has asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Sha256 of files and folders, by the path or address that the recipe has.
    pub files: BTreeMap<String, String>,
    /// [`Part::content`] of other parts, by family and name, such as `dataset train`.
    pub parts: BTreeMap<String, String>,
    /// The run's seed, if random numbers were drawn by it.
    pub seed: Option<u64>,
}

/// What files must be, by a check that is not made again while they stay as they are.
#[derive(Clone, Copy)]
pub struct FileCheck<'a> {
    /// What is checked, such as `whole images`. Another check has another name, and so has this one when it begins to check more:
    /// files that passed one of the name before pass.
    pub name: &'a str,
    /// The check of one file. Its error names the file.
    pub check: &'a (dyn Fn(&Path) -> Result<()> + Sync),
}

/// Who has what a [`BuildContext`] hands out: a run, a command, or a program that only embeds.
///
/// ```
/// use candle_core::Device;
/// use gdrd_core::context::{BuildContext, Host};
/// use gdrd_core::seed::Seed;
///
/// /// A program with a seed of its own.
/// struct Mine;
///
/// impl Host for Mine {
///     fn device(&self) -> &Device {
///         &Device::Cpu
///     }
///     fn seed(&self) -> u64 {
///         7
///     }
/// }
///
/// let cx = BuildContext::new(&Mine);
/// assert_eq!(cx.seed(), Seed(7));
/// assert_eq!(cx.record().seed, Some(7), "what was asked for is written down");
/// assert!(cx.file_at("weights.safetensors").is_err(), "a host has files only if it says so");
/// ```
pub trait Host: Send + Sync {
    /// Where tensors are.
    fn device(&self) -> &Device;

    /// The run's seed.
    fn seed(&self) -> u64 {
        0
    }

    /// Shows that `what` is done up to `done` of `total`.
    ///
    /// # Errors
    /// If the user wants to stop.
    fn report(&self, what: &str, done: usize, total: usize) -> Result<()> {
        let _ = (what, done, total);
        Ok(())
    }

    /// The file at a path or an `hf://` address.
    ///
    /// # Errors
    /// If it cannot be had.
    fn file(&self, path: &str) -> Result<LocalFile> {
        Err(Error::component(format!("`{path}`: this program reads no files for its plug-ins")))
    }

    /// Sha256 over the names and bytes of many files, each of which passes `check`. If path, size and time of all are known
    /// together with the check's name, they are not read again.
    ///
    /// # Errors
    /// If one cannot be read or does not pass.
    fn fingerprint(&self, files: &[PathBuf], check: &FileCheck<'_>) -> Result<String> {
        let _ = (files, check);
        Err(Error::component("this program has no datasets"))
    }

    /// What `find` says of files. It is not asked again about the same `what` while path, size and times of all stay as they are.
    /// Unless this program remembers, it is always asked.
    ///
    /// # Errors
    /// Those of `find`, which are not remembered.
    fn fact(&self, what: &str, files: &[PathBuf], find: &mut dyn FnMut() -> Result<String>) -> Result<String> {
        let _ = (what, files);
        find()
    }

    /// The part `name` of a family such as `dataset`, built when it is first asked for.
    ///
    /// # Errors
    /// If there is none, or it cannot be built.
    fn part(&self, family: &'static str, name: &str) -> Result<Part> {
        Err(Error::component(format!("no {family} is called `{name}`: this program has none")))
    }

    /// Something that there is once, by its type.
    fn service(&self, id: TypeId) -> Option<&(dyn Any + Send + Sync)> {
        let _ = id;
        None
    }
}

/// A host with a device and nothing else, for programs that only embed, and for tests.
pub struct Bare(pub Device);

impl Host for Bare {
    fn device(&self) -> &Device {
        &self.0
    }
}

/// What a plug-in is built from.
pub struct BuildContext<'a> {
    host: &'a dyn Host,
    weights: Option<&'a Weights>,
    facts: Option<&'a (dyn Any + Send + Sync)>,
    record: Mutex<Record>,
}

#[cfg_attr(
    not(feature = "train"),
    allow(dead_code, reason = "a program that only embeds has no datasets and no other parts")
)]
impl<'a> BuildContext<'a> {
    /// A context with what `host` has.
    pub fn new(host: &'a dyn Host) -> Self {
        Self { host, weights: None, facts: None, record: Mutex::default() }
    }

    /// The same, for a part with variables of its own.
    #[must_use]
    pub fn with_weights(self, weights: &'a Weights) -> Self {
        Self { weights: Some(weights), ..self }
    }

    /// The same, with what only this family can know: of a student, how large its faces are; of a loss, its stage.
    #[must_use]
    pub fn with_facts(self, facts: &'a (dyn Any + Send + Sync)) -> Self {
        Self { facts: Some(facts), ..self }
    }

    /// Where tensors are.
    pub fn device(&self) -> &Device {
        self.host.device()
    }

    /// The variables of the part that is built.
    ///
    /// # Errors
    /// If parts of this family have none.
    pub fn weights(&self) -> Result<&'a Weights> {
        self.weights.ok_or_else(|| Error::component("only students and losses have variables of their own"))
    }

    /// What only this family can know.
    pub(crate) fn facts<T: 'static>(&self) -> Option<&'a T> {
        self.facts?.downcast_ref()
    }

    /// Something that there is once, such as the registry.
    ///
    /// # Errors
    /// If this program has none.
    pub fn service<T: Any>(&self) -> Result<&'a T> {
        let found = self.host.service(TypeId::of::<T>()).and_then(|found| found.downcast_ref());
        found.ok_or_else(|| Error::component(format!("this program has no {}", std::any::type_name::<T>())))
    }

    /// Shows that `what` is done up to `done` of `total`.
    ///
    /// # Errors
    /// If the user wants to stop; hand the error on.
    pub fn report(&self, what: &str, done: usize, total: usize) -> Result<()> {
        self.host.report(what, done, total)
    }

    /// The run's seed as a number; `cx.seed()` is for streams.
    pub(crate) fn seed_number(&self) -> u64 {
        let seed = self.host.seed();
        self.note(|record| record.seed = Some(seed));
        seed
    }

    /// The file that a recipe writes as `path`, for kinds that also exist where there are no recipes; others use `cx.file`.
    ///
    /// # Errors
    /// If it cannot be had or read.
    pub fn file_at(&self, path: &str) -> Result<LocalFile> {
        let file = self.host.file(path)?;
        self.note(|record| record.files.insert(path.to_string(), file.sha256.clone()));
        Ok(file)
    }

    /// Makes sure that a file passes a check.
    ///
    /// # Errors
    /// If it cannot be read or does not pass.
    pub(crate) fn passed(&self, file: &Path, check: &FileCheck<'_>) -> Result<()> {
        let mut find = || (check.check)(file).map(|()| String::new());
        self.fact(&format!("passed {}", check.name), &[file.to_path_buf()], &mut find).map(drop)
    }

    /// What `find` says of files, which is remembered by `what` while they stay as they are.
    ///
    /// # Errors
    /// Those of `find`, which are not remembered.
    pub(crate) fn fact(
        &self,
        what: &str,
        files: &[PathBuf],
        find: &mut dyn FnMut() -> Result<String>,
    ) -> Result<String> {
        self.host.fact(what, files, find)
    }

    /// Sha256 over many files below the folder that a recipe writes as `path`.
    ///
    /// # Errors
    /// If one cannot be read.
    pub(crate) fn read_all(&self, path: &str, files: &[PathBuf], check: &FileCheck<'_>) -> Result<()> {
        let sha256 = self.host.fingerprint(files, check)?;
        self.note(|record| record.files.insert(path.to_string(), sha256));
        Ok(())
    }

    /// The part `name` of a family whose contract is the trait object `T`.
    ///
    /// # Errors
    /// If there is none, it cannot be built, or it is built from the part that asks.
    pub(crate) fn part<T: ?Sized + 'static>(&self, family: &'static str, name: &str) -> Result<Arc<T>>
    where
        Arc<T>: Send + Sync,
    {
        let part = self.host.part(family, name)?;
        self.note(|record| record.parts.insert(format!("{family} {name}"), part.content));
        let found = part.value.downcast_ref::<Arc<T>>().cloned();
        found.ok_or_else(|| Error::component(format!("{family} `{name}` is not of its family's contract")))
    }

    /// What was asked for so far.
    pub fn record(&self) -> Record {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who hands out what this context has, for a part of the part that is built.
    pub(crate) fn host(&self) -> &'a dyn Host {
        self.host
    }

    /// Takes what a part of the part that is built has asked for as asked for here.
    pub(crate) fn add(&self, record: Record) {
        self.note(|own| {
            own.files.extend(record.files);
            own.parts.extend(record.parts);
            own.seed = own.seed.or(record.seed);
        });
    }

    fn note<T>(&self, change: impl FnOnce(&mut Record) -> T) {
        change(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn a_bare_context_has_a_device_and_says_what_it_lacks() {
        let bare = Bare(Device::Cpu);
        let cx = BuildContext::new(&bare);
        assert!(cx.device().is_cpu());
        assert!(cx.weights().is_err());
        let error = cx.part::<dyn Host>("dataset", "train").err().expect("no dataset").to_string();
        assert!(error.contains("no dataset is called `train`"), "{error}");
        assert_eq!(cx.record(), Record::default());
        assert_eq!((cx.seed(), cx.record().seed), (Seed(0), Some(0)), "whoever draws depends on the seed");
    }
}
