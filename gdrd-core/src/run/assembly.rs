//! The parts of an experiment, each built when it is first asked for: the host of every [`BuildContext`] of a run.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::Device;

use super::Place;
use super::known::Known;
use crate::context::{BuildContext, FileCheck, Host, LocalFile, Part, Record};
use crate::data::{Dataset, Degradation, Views};
use crate::degrade::Downscale;
use crate::digest;
use crate::error::{Context, Error, Result};
use crate::evaluation::Protocol;
use crate::experiment::Experiment;
use crate::nn::kernels;
use crate::observe::{Event, Observer, tell};
use crate::plugin::Component;
use crate::recipe::diagnostic::no_such;
use crate::recipe::path::PATH_FORMAT;
use crate::recipe::{HubAddress, HubFile};
use crate::registry::Registry;
use crate::teacher::{FeatureStore, Teacher};

/// An experiment at a place, whose parts are built as they are asked for. Everything that they read is recorded.
pub struct Assembly<'a> {
    experiment: &'a Experiment,
    place: &'a Place,
    observer: &'a dyn Observer,
    known: Known,
    store: FeatureStore,
    program: String,
    built: Mutex<BTreeMap<(&'static str, String), Slot>>,
    read: Mutex<BTreeMap<String, String>>,
    hub: Mutex<BTreeMap<String, HubFile>>,
}

enum Slot {
    Building,
    Built(Part),
}

fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Assembly<'a> {
    /// Nothing is built yet.
    ///
    /// # Errors
    /// If the program's own file cannot be read: its digest is part of every key.
    pub fn new(experiment: &'a Experiment, place: &'a Place, observer: &'a dyn Observer) -> Result<Self> {
        let known = Known::open(place.store.join("known"));
        let program = std::env::current_exe().map_err(|e| Error::io("the running program", e))?;
        let program = known.of_program(&program)?;
        let store = FeatureStore::open(&place.store, format!("{program} {}", kernels::processor()));
        Ok(Self {
            experiment,
            place,
            observer,
            known,
            store,
            program,
            built: Mutex::default(),
            read: Mutex::default(),
            hub: Mutex::default(),
        })
    }

    /// The experiment.
    pub fn experiment(&self) -> &'a Experiment {
        self.experiment
    }

    /// A context with everything that the experiment has.
    pub fn context(&self) -> BuildContext<'_> {
        BuildContext::new(self)
    }

    /// Who listens.
    pub fn observer(&self) -> &'a dyn Observer {
        self.observer
    }

    /// Stored features of teachers.
    pub fn store(&self) -> &FeatureStore {
        &self.store
    }

    /// Sha256 of the running program: of the code that decides the numbers.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Digest of everything that a part is; the part is built if it was not.
    ///
    /// # Errors
    /// If there is none, or it cannot be built.
    pub fn content(&self, family: &'static str, name: &str) -> Result<String> {
        Ok(self.part(family, name)?.content)
    }

    /// The names of a family's parts that were built.
    pub fn built(&self, family: &str) -> Vec<String> {
        open(&self.built).keys().filter(|(of, _)| *of == family).map(|(_, name)| name.clone()).collect()
    }

    /// The protocol called `name`.
    ///
    /// # Errors
    /// If there is none, or its data does not have what it needs.
    pub fn protocol(&self, name: &str) -> Result<Arc<dyn Protocol>> {
        self.context().part("protocol", name)
    }

    /// What each of a teacher's views does to a face.
    ///
    /// # Errors
    /// If the recipe has no such view.
    pub fn views_of(&self, teacher: &dyn Teacher) -> Result<Vec<Option<Downscale>>> {
        let cx = self.context();
        let view = |name: &String| Ok(cx.part::<dyn Degradation>("view", name)?.downscale().cloned());
        teacher.card().views.iter().map(view).collect()
    }

    /// A dataset in all views of the recipe; `content` is the digest of everything that it is.
    ///
    /// # Errors
    /// If a view cannot be built.
    pub fn views_over(&self, dataset: Arc<dyn Dataset>, content: &str) -> Result<Views> {
        let cx = self.context();
        let mut views = Views::new(dataset, content);
        for view in self.experiment.views.keys() {
            views = views.with(view, cx.part("view", view)?, self.content("view", view)?);
        }
        Ok(views)
    }

    /// What files were read, by the path or address in the recipe.
    pub fn read(&self) -> BTreeMap<String, String> {
        open(&self.read).clone()
    }

    /// The files of the Hub that were read, by address.
    pub fn hub_files(&self) -> BTreeMap<String, HubFile> {
        open(&self.hub).clone()
    }

    /// Whether every file that parts were built from is still the same; those that are read again and again among them.
    ///
    /// # Errors
    /// Names one that is not.
    pub(super) fn unchanged(&self) -> Result<()> {
        self.known.unchanged()
    }

    /// Takes note of what a build has read, outside of the parts that others can ask for.
    pub(super) fn note(&self, record: &Record) {
        open(&self.read).extend(record.files.clone());
    }

    fn build(&self, family: &'static str, name: &str) -> Result<Part> {
        fn find<'m, D: ?Sized>(
            family: &str,
            parts: &'m BTreeMap<String, Component<D>>,
            name: &str,
        ) -> Result<&'m Component<D>> {
            parts.get(name).ok_or_else(|| Error::recipe(no_such(family, name, parts.keys().map(String::as_str))))
        }
        let cx = self.context();
        let (value, content): (Arc<dyn Any + Send + Sync>, String) = match family {
            "dataset" => {
                let component = find(family, &self.experiment.data, name)?;
                self.report(&format!("reading dataset `{name}`"), 0, 1)?;
                let dataset: Arc<dyn Dataset> = component.config.build(&cx)?.into();
                for note in dataset.notes() {
                    tell(self.observer, &Event::Warning { message: format!("dataset `{name}`: {note}") })?;
                }
                (Arc::new(dataset), content(family, component, &cx.record()))
            }
            "view" => {
                let component = find(family, &self.experiment.views, name)?;
                let degradation: Arc<dyn Degradation> = component.config.build(&cx)?.into();
                (Arc::new(degradation), content(family, component, &cx.record()))
            }
            "views" => {
                let of_data = self.content("dataset", name)?;
                let views = self.views_over(cx.dataset(name)?, &of_data)?;
                let names = self.experiment.views.keys();
                let contents = names.map(|view| self.content("view", view)).collect::<Result<Vec<_>>>()?;
                (Arc::new(Arc::new(views)), digest::of_value(&(of_data, contents)))
            }
            "teacher" => {
                let component = find(family, &self.experiment.teachers, name)?;
                let teacher: Arc<dyn Teacher> = component.config.build(&cx)?.into();
                (Arc::new(teacher), content(family, component, &cx.record()))
            }
            "protocol" => {
                let component = find(family, &self.experiment.evaluate, name)?;
                let protocol: Arc<dyn Protocol> = component.config.build(&cx)?.into();
                (Arc::new(protocol), content(family, component, &cx.record()))
            }
            other => return Err(Error::component(format!("there is no family of parts called `{other}`"))),
        };
        self.note(&cx.record());
        Ok(Part { value, content })
    }
}

/// Sha256 of a part's kind, options and everything that it was built from; what lies at a path counts, the path does not.
pub(super) fn content<D: ?Sized>(family: &str, component: &Component<D>, record: &Record) -> String {
    let mut options = serde_json::to_value(&component.resolved).expect("TOML tables have a JSON form");
    for marked in component.marked.iter().filter(|marked| marked.format == PATH_FORMAT) {
        let pointer = format!("/{}", marked.key.replace('.', "/"));
        if let (Some(option), Some(sha256)) = (options.pointer_mut(&pointer), record.files.get(&marked.written)) {
            *option = serde_json::Value::String(sha256.clone());
        }
    }
    let files: Vec<&String> = record.files.values().collect();
    digest::of_value(&serde_json::json!({
        "family": family, "options": options, "files": files, "parts": record.parts, "seed": record.seed,
    }))
}

impl Host for Assembly<'_> {
    fn device(&self) -> &Device {
        &self.place.device
    }

    fn seed(&self) -> u64 {
        self.experiment.run.seed
    }

    fn report(&self, what: &str, done: usize, total: usize) -> Result<()> {
        tell(self.observer, &Event::Working { what: what.to_string(), done, total })
    }

    fn file(&self, path: &str) -> Result<LocalFile> {
        let Ok(address) = path.parse::<HubAddress>() else {
            let local = PathBuf::from(path);
            return Ok(LocalFile { sha256: self.known.of_file(&local)?, path: local });
        };
        if let Some(file) = open(&self.hub).get(path) {
            return Ok(LocalFile { path: file.path.clone(), sha256: file.locked.sha256.clone() });
        }
        let hub = self.place.hub.as_ref().ok_or_else(|| {
            Error::hub(format!("{address}: this program has no way to the Hub; `gdrd_teachers::hub::Hub` is one"))
        })?;
        let file = hub.fetch(&address, self.observer)?;
        open(&self.hub).insert(path.to_string(), file.clone());
        Ok(LocalFile { path: file.path, sha256: file.locked.sha256 })
    }

    fn fingerprint(&self, files: &[PathBuf], check: &FileCheck<'_>) -> Result<String> {
        self.known.of_files(files, check)
    }

    fn fact(&self, what: &str, files: &[PathBuf], find: &mut dyn FnMut() -> Result<String>) -> Result<String> {
        self.known.fact(what, files, find)
    }

    fn part(&self, family: &'static str, name: &str) -> Result<Part> {
        let key = (family, name.to_string());
        match open(&self.built).get(&key) {
            Some(Slot::Built(part)) => return Ok(part.clone()),
            Some(Slot::Building) => {
                return Err(Error::recipe(format!("{family} `{name}` is built from itself; expected no circle")));
            }
            None => {}
        }
        open(&self.built).insert(key.clone(), Slot::Building);
        let built = self.build(family, name);
        // A dataset in all views is no part that the recipe names: what fails there has said its own place.
        let built = if family == "views" { built } else { built.at(|| format!("{family} `{name}`")) };
        match &built {
            Ok(part) => open(&self.built).insert(key, Slot::Built(part.clone())),
            Err(_) => open(&self.built).remove(&key),
        };
        built
    }

    fn service(&self, id: TypeId) -> Option<&(dyn Any + Send + Sync)> {
        if id == TypeId::of::<Registry>() {
            return Some(&*self.place.registry);
        }
        if id == TypeId::of::<FeatureStore>() {
            return Some(&self.store);
        }
        None
    }
}
