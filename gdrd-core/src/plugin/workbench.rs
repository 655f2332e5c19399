//! A host for one plug-in at a time: for unit tests, and for tools that build a teacher or a dataset without a recipe.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;

use crate::context::{FileCheck, Host, LocalFile, Part};
use crate::digest;
use crate::error::{Error, Result};

/// A device, local files, and the parts that it is given.
///
/// ```
/// use candle_core::Device;
/// use gdrd_core::context::BuildContext;
/// use gdrd_core::data::{Dataset, DatasetConfig, Joined, SameName, SyntheticFaces};
/// use gdrd_core::plugin::Workbench;
///
/// let faces = SyntheticFaces {
///     identities: 2,
///     images_per_identity: 3,
///     first_identity: 0,
///     size: 16,
///     fixed_appearance: true,
///     ..SyntheticFaces::default()
/// };
/// let bench = Workbench::new(Device::Cpu);
/// let faces = faces.build(&BuildContext::new(&bench))?;
/// let faces: std::sync::Arc<dyn Dataset> = faces.into();
/// let bench = bench.with("dataset", "drawn", faces);
/// let twice = Joined { parts: vec!["drawn".into(), "drawn".into()], same_name: SameName::OnePerson };
/// let twice = twice.build(&BuildContext::new(&bench))?;
/// assert_eq!((twice.len(), twice.people().len()), (12, 2));
/// # Ok::<(), gdrd_core::error::Error>(())
/// ```
pub struct Workbench {
    device: Device,
    seed: u64,
    parts: BTreeMap<(&'static str, String), Part>,
    services: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
}

impl Workbench {
    /// A workbench without parts.
    pub fn new(device: Device) -> Self {
        Self { device, seed: 0, parts: BTreeMap::new(), services: HashMap::new() }
    }

    /// The same with another seed than 0.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The same with something that there is once: with the [`Registry`](crate::registry::Registry), `cx.student_file` works.
    #[must_use]
    pub fn with_service<T: Any + Send + Sync>(mut self, service: T) -> Self {
        self.services.insert(TypeId::of::<T>(), Box::new(service));
        self
    }

    /// The same with a part of a family, such as a `dataset`.
    #[must_use]
    pub fn with<T: ?Sized + 'static>(mut self, family: &'static str, name: &str, part: Arc<T>) -> Self
    where
        Arc<T>: Any + Send + Sync,
    {
        let part = Part { value: Arc::new(part), content: format!("{family} {name} of a workbench") };
        self.parts.insert((family, name.to_string()), part);
        self
    }
}

impl Host for Workbench {
    fn device(&self) -> &Device {
        &self.device
    }

    fn seed(&self) -> u64 {
        self.seed
    }

    fn service(&self, id: TypeId) -> Option<&(dyn Any + Send + Sync)> {
        self.services.get(&id).map(AsRef::as_ref)
    }

    fn file(&self, path: &str) -> Result<LocalFile> {
        let path = PathBuf::from(path);
        Ok(LocalFile { sha256: digest::of_file(&path)?, path })
    }

    fn fingerprint(&self, files: &[PathBuf], check: &FileCheck<'_>) -> Result<String> {
        fingerprint(files, check)
    }

    fn part(&self, family: &'static str, name: &str) -> Result<Part> {
        let found = self.parts.get(&(family, name.to_string())).cloned();
        found.ok_or_else(|| Error::component(format!("no {family} is called `{name}`")))
    }
}

/// Sha256 over the names (folder and file) and bytes of files, each of which passes `check`.
///
/// # Errors
/// If one cannot be read or does not pass.
pub(crate) fn fingerprint(files: &[PathBuf], check: &FileCheck<'_>) -> Result<String> {
    use rayon::prelude::*;
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let of_file = |path: &PathBuf| {
        (check.check)(path)?;
        let folder = path.parent().map(name).unwrap_or_default();
        Ok(digest::of_value(&(folder, name(path), digest::of_file(path)?)))
    };
    let digests = files.par_iter().map(of_file).collect::<Result<Vec<String>>>()?;
    Ok(digest::of_value(&digests))
}
