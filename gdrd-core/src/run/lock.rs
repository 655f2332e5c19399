//! Everything outside the recipe that a run's numbers depend on.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::assembly::Assembly;
use super::prepared::{Prepared, StageTerms};
use crate::context::Host;
use crate::digest;
use crate::error::{Error, Result};
use crate::files;
use crate::nn::kernels;
use crate::recipe::{HubFile, LockedFile};

/// Everything outside the recipe that the numbers depend on: `lock.json` of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lock {
    /// Version of gdrd.
    pub gdrd: String,
    /// Version of candle.
    pub candle: String,
    /// Sha256 of the program that ran.
    #[serde(default)]
    pub program: String,
    /// The recipe's name, of which its digest says nothing.
    #[serde(default)]
    pub name: String,
    /// Digest of the recipe.
    pub recipe: String,
    /// Digests of everything that each view is, by name.
    #[serde(default)]
    pub views: BTreeMap<String, String>,
    /// Digests of everything that each teacher is, by name.
    pub teachers: BTreeMap<String, String>,
    /// What the student took from the teacher that it starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub student: Option<LockedStart>,
    /// Files of the Hub, by address.
    #[serde(default)]
    pub files: BTreeMap<String, LockedFile>,
    /// Licence and terms of those of them that gdrd knows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub licences: BTreeMap<String, String>,
    /// Sha256 of all files and folders that were read, by path or address.
    #[serde(default)]
    pub read: BTreeMap<String, String>,
    /// The datasets, by name.
    pub data: BTreeMap<String, LockedData>,
    /// Digests of everything that each protocol is, by name.
    #[serde(default)]
    pub protocols: BTreeMap<String, String>,
    /// The machine.
    pub machine: BTreeMap<String, String>,
}

/// A student that starts from a teacher, in a [`Lock`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedStart {
    /// The teacher's name in the recipe.
    pub teacher: String,
    /// How many tensors the student has from it.
    pub taken: usize,
    /// The student's tensors that were drawn.
    pub drawn: Vec<String>,
}

/// A dataset in a [`Lock`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LockedData {
    /// Digest of everything that it is.
    pub fingerprint: String,
    /// Number of faces.
    pub faces: usize,
    /// Number of people who are known.
    pub identities: usize,
}

/// The kernels that ran, in [`Lock::machine`].
const KERNELS: &str = "kernels";
/// The device, in [`Lock::machine`].
const DEVICE: &str = "device";

impl Lock {
    /// The lock of everything that a run is prepared from. Losses and the student may have read files too, so they are built by
    /// now.
    ///
    /// # Errors
    /// If a part cannot be built.
    pub fn of(prepared: &Prepared, _: &[StageTerms]) -> Result<Self> {
        let parts = prepared.parts;
        let experiment = parts.experiment();
        let cx = parts.context();
        fn contents<T>(
            parts: &Assembly,
            family: &'static str,
            names: &BTreeMap<String, T>,
        ) -> Result<BTreeMap<String, String>> {
            names.keys().map(|name| Ok((name.clone(), parts.content(family, name)?))).collect()
        }
        let views = contents(parts, "view", &experiment.views)?;
        let teachers = contents(parts, "teacher", &experiment.teachers)?;
        let protocols = contents(parts, "protocol", &experiment.evaluate)?;
        let mut data = BTreeMap::new();
        for name in parts.built("dataset") {
            let set = cx.dataset(&name)?;
            let fingerprint = parts.content("dataset", &name)?;
            data.insert(name, LockedData { fingerprint, faces: set.len(), identities: set.people().len() });
        }
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let machine = [
            ("os", std::env::consts::OS.to_string()),
            ("architecture", std::env::consts::ARCH.to_string()),
            ("cores", cores.to_string()),
            (KERNELS, kernels::processor().to_string()),
            (DEVICE, kernels::device_name(parts.device())?),
        ];
        let files = parts.hub_files();
        let licence = |(address, file): (&String, &HubFile)| Some((address.clone(), file.licence.clone()?));
        let licences = files.iter().filter_map(licence).collect();
        let locked = files.into_iter().map(|(address, file)| (address, file.locked));
        Ok(Self {
            gdrd: env!("CARGO_PKG_VERSION").into(),
            candle: CANDLE.into(),
            program: parts.program().to_string(),
            name: experiment.name.clone(),
            recipe: experiment.digest(),
            student: prepared.started.clone(),
            views,
            teachers,
            files: locked.collect(),
            licences,
            read: parts.read(),
            data,
            protocols,
            machine: machine.into_iter().map(|(key, value)| (key.to_string(), value)).collect(),
        })
    }

    /// Digest of everything that decides the numbers, the program and its kernels among it.
    pub fn digest(&self) -> String {
        let circumstances = [KERNELS, DEVICE].map(|key| self.machine.get(key));
        digest::of_value(&(
            (&self.program, &self.recipe, &self.views, &self.teachers),
            (&self.data, &self.protocols, &self.read, circumstances),
        ))
    }

    /// Reads a lock.
    ///
    /// # Errors
    /// If the file cannot be read or is no lock.
    pub fn read_file(path: &Path) -> Result<Self> {
        let text = files::read(path).map_err(|e| Error::io(path, e))?;
        serde_json::from_slice(&text)
            .map_err(|e| Error::data(format!("`{}` is no lock.json of gdrd: {e}", path.display())))
    }

    /// What differs that decides the numbers: the recipe, a teacher, a dataset, a file.
    pub fn changes(&self, now: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        if self.recipe != now.recipe {
            changes.push("the recipe".to_string());
        }
        if self.name != now.name && !self.name.is_empty() {
            changes.push(format!("the recipe's name (`{}` then, `{}` now)", self.name, now.name));
        }
        fn compare<T: PartialEq>(
            what: &str,
            then: &BTreeMap<String, T>,
            now: &BTreeMap<String, T>,
            changes: &mut Vec<String>,
        ) {
            let names: std::collections::BTreeSet<&String> = then.keys().chain(now.keys()).collect();
            let changed = names.into_iter().filter(|name| then.get(*name) != now.get(*name));
            changes.extend(changed.map(|name| format!("{what} `{name}`")));
        }
        compare("teacher", &self.teachers, &now.teachers, &mut changes);
        compare("the view", &self.views, &now.views, &mut changes);
        compare("the file", &self.files, &now.files, &mut changes);
        compare("the dataset", &self.data, &now.data, &mut changes);
        compare("protocol", &self.protocols, &now.protocols, &mut changes);
        // Files that nothing above holds, such as a loss's; what was not read yet then or now says nothing.
        let both = |(path, sha256): (&String, &String)| {
            now.read.get(path).filter(|found| *found != sha256).map(|_| format!("the file `{path}`"))
        };
        if changes.is_empty() {
            changes.extend(self.read.iter().filter_map(both));
        }
        changes
    }

    /// What differs without being the experiment's: the program, the processor's kernels, the device. Numbers may differ in their
    /// last bits, or more.
    pub fn circumstances(&self, now: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        if self.program != now.program {
            changes.push(format!("the program (gdrd {} then, {} now)", self.gdrd, now.gdrd));
        }
        for key in [KERNELS, DEVICE] {
            if let (Some(then), Some(now)) = (self.machine.get(key), now.machine.get(key))
                && then != now
            {
                changes.push(format!("the {key} ({then} then, {now} now)"));
            }
        }
        changes
    }
}

/// The version of candle that this crate is built with.
const CANDLE: &str = "0.11.1";
