//! Everything that a recipe names, built and checked against each other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use candle_core::{DType, Device, Tensor};

use super::Place;
use super::context::StageContext;
use super::tell;
use crate::data::Views;
use crate::error::{Context, Error, Result};
use crate::evaluation::Protocol;
use crate::nn::Weights;
use crate::nn::kernels::Precision;
use crate::nn::weights::{Draw, Variables};
use crate::observe::{Event, Observer, Silent};
use crate::recipe::{Recipe, RunOptions, StageRecipe};
use crate::seed::Seed;
use crate::student::{Part, Student};
use crate::teacher::{FeatureStore, Output, Source, Stored, Teacher, TeacherConfig, View};
use crate::trainer::{Stage, TeacherFeatures, Term};

/// Datasets and protocols that are open.
pub struct Opened {
    /// Protocols by name, with the name of their dataset.
    pub protocols: BTreeMap<String, (String, Box<dyn Protocol>)>,
    views: BTreeMap<String, Views>,
}

impl Opened {
    /// Opens the datasets for which `wanted` is true and prepares every protocol.
    ///
    /// # Errors
    /// If a dataset cannot be opened, or a protocol does not find its faces.
    pub fn new(recipe: &Recipe, observer: &mut dyn Observer, wanted: impl Fn(&str) -> bool) -> Result<Self> {
        let mut views = BTreeMap::new();
        for (name, component) in recipe.data.iter().filter(|(name, _)| wanted(name)) {
            tell(observer, &Event::Working { what: format!("reading dataset `{name}`"), done: 0, total: 1 })?;
            let dataset = component.config.build().at(|| format!("dataset `{name}`"))?;
            for note in dataset.notes() {
                tell(observer, &Event::Warning { message: format!("dataset `{name}`: {note}") })?;
            }
            views.insert(name.clone(), Views::new(dataset.into(), recipe.degradation.clone()));
        }
        let mut protocols = BTreeMap::new();
        for (name, component) in &recipe.evaluate {
            let data = component.config.data();
            let protocol = component.config.prepare(views[data].dataset()).at(|| format!("protocol `{name}`"))?;
            protocols.insert(name.clone(), (data.to_string(), protocol));
        }
        Ok(Self { protocols, views })
    }

    /// The dataset called `name` and its degraded form.
    pub fn views(&self, name: &str) -> Result<&Views> {
        self.views.get(name).ok_or_else(|| Error::component(format!("no dataset is called `{name}`")))
    }
}

/// Loads every teacher of a recipe.
pub(super) fn build_teachers(recipe: &Recipe, device: &Device) -> Result<BTreeMap<String, Box<dyn Teacher>>> {
    let build = |(name, component): (&String, &crate::registry::Component<dyn TeacherConfig>)| {
        Ok((name.clone(), component.config.build(device).at(|| format!("teacher `{name}`"))?))
    };
    recipe.teachers.iter().map(build).collect()
}

/// The parts of a run.
pub struct Prepared {
    /// The student.
    pub student: Box<dyn Student>,
    /// Teachers by name.
    pub teachers: BTreeMap<String, Box<dyn Teacher>>,
    /// Datasets and protocols.
    pub opened: Opened,
    pub(super) device: Device,
    variables: Variables,
    seed: Seed,
    workers: usize,
    precision: Precision,
    checkpoint_steps: u64,
    store: FeatureStore,
}

/// The losses of one stage and their variables.
#[derive(Default)]
pub struct StageTerms {
    terms: Vec<Term>,
    variables: Variables,
}

impl Prepared {
    /// Opens the datasets, loads the teachers and makes the student.
    ///
    /// # Errors
    /// If any of them cannot be had, or a protocol does not find its faces.
    pub fn new(recipe: &Recipe, place: &Place, observer: &mut dyn Observer) -> Result<Self> {
        recipe.needs_no_network()?;
        recipe.run.precision.check(&place.device).map_err(|e| Error::recipe(format!("`run.precision`: {e}")))?;
        let opened = Opened::new(recipe, observer, |name| {
            recipe.stages.iter().any(|stage| stage.options.data == name)
                || recipe.evaluate.values().any(|protocol| protocol.config.data() == name)
        })?;
        let teachers = build_teachers(recipe, &place.device)?;
        let seed = recipe.seed();
        let size = recipe.degradation.downscale().size;
        let build = |weights: &Weights| recipe.student.config.build(size, weights);
        let (student, variables) =
            Weights::create(&place.device, draw(seed, "student"), build).at(|| "student".into())?;
        adopt(&variables, student.initial()?).at(|| "student".into())?;
        let (device, store) = (place.device.clone(), FeatureStore::open(&place.store));
        let RunOptions { workers, precision, checkpoint_steps, .. } = recipe.run;
        Ok(Self { student, teachers, opened, device, variables, seed, workers, precision, checkpoint_steps, store })
    }

    /// The losses of every stage, in the recipe's order. Class centres are computed or read from the store.
    ///
    /// # Errors
    /// If a loss does not fit its teachers, the student or the data.
    pub fn terms(&self, recipe: &Recipe, observer: &mut dyn Observer) -> Result<Vec<StageTerms>> {
        recipe.stages.iter().map(|stage| self.stage_terms(stage, observer, true)).collect()
    }

    pub(super) fn stage_terms(
        &self,
        stage: &StageRecipe,
        observer: &mut dyn Observer,
        may_compute: bool,
    ) -> Result<StageTerms> {
        stage
            .options
            .total_steps(self.views(&stage.options.data)?.dataset().len())
            .at(|| format!("stage `{}`", stage.name))?;
        let context = StageContext { prepared: self, stage, observer: RefCell::new(observer), may_compute };
        let mut made = StageTerms::default();
        for (name, term) in &stage.losses {
            let scope = format!("loss.{}.{name}", stage.name);
            let build = |weights: &Weights| term.loss.config.build(&context, weights);
            let (loss, variables) = Weights::create(&self.device, draw(self.seed, &scope), build)
                .at(|| format!("stage `{}`, loss `{name}`", stage.name))?;
            made.terms.push(Term { name: name.clone(), weight: term.weight, loss });
            made.variables.extend(prefixed(variables, &scope));
        }
        // A term that uses another's logits comes after it.
        made.terms.sort_by_key(|term| term.loss.needs().logits_of.is_some());
        Ok(made)
    }

    /// Every variable of the run, as checkpoints name them.
    pub fn variables(&self, terms: &[StageTerms]) -> Variables {
        let mut all = prefixed(self.variables.clone(), "student");
        for stage in terms {
            all.extend(stage.variables.clone());
        }
        all
    }

    /// The tensors of the student file.
    pub fn student_tensors(&self, half_precision: bool) -> Result<BTreeMap<String, Tensor>> {
        let dtype = if half_precision { DType::F16 } else { DType::F32 };
        let cast = |(name, tensor): (String, Tensor)| Ok((name, tensor.to_dtype(dtype)?));
        self.variables.tensors().into_iter().map(cast).collect()
    }

    /// Number of the student's parameters, by part.
    pub fn parameters(&self, part: Part) -> usize {
        let of_part = self.variables.parameters.iter().filter(|(name, _)| self.student.part(name) == part);
        of_part.map(|(_, var)| var.elem_count()).sum()
    }

    /// Digests of the teachers' weights.
    pub fn teacher_digests(&self) -> BTreeMap<String, String> {
        self.teachers.iter().map(|(name, teacher)| (name.clone(), teacher.card().digest.clone())).collect()
    }

    /// The teacher called `name`.
    pub fn teacher(&self, name: &str) -> Result<&dyn Teacher> {
        let found = self.teachers.get(name);
        found.map(|teacher| &**teacher).ok_or_else(|| {
            Error::component(format!("no teacher is called `{name}`; there are {:?}", self.teachers.keys()))
        })
    }

    /// The dataset called `name` and its degraded form.
    pub fn views(&self, name: &str) -> Result<&Views> {
        self.opened.views(name)
    }

    /// All datasets that the recipe uses.
    pub fn datasets(&self) -> impl Iterator<Item = (&String, &Views)> {
        self.opened.views.iter()
    }

    /// What `teacher` looks at in a stage.
    pub(super) fn source<'a>(
        &'a self,
        teacher: &'a dyn Teacher,
        stage: &StageRecipe,
        flipped: bool,
    ) -> Result<Source<'a>> {
        let views = self.views(&stage.options.data)?;
        Ok(Source { teacher, views, view: teacher.card().view, flipped, device: &self.device })
    }

    pub(super) fn stored(
        &self,
        name: &str,
        source: &Source,
        outputs: &[Output],
        observer: &mut dyn Observer,
    ) -> Result<Vec<Stored>> {
        let side = if source.flipped { ", mirrored" } else { "" };
        let what = format!("features of teacher `{name}`{side}");
        let observer = RefCell::new(observer);
        let mut report =
            |done, total| tell(*observer.borrow_mut(), &Event::Working { what: what.clone(), done, total });
        let mut warn = |message| tell(*observer.borrow_mut(), &Event::Warning { message });
        self.store.features(source, outputs, &mut report, &mut warn).at(|| format!("teacher `{name}`"))
    }

    /// A stage that is ready to run. Features that its losses need are stored first, where they can be.
    pub fn stage<'a>(
        &'a self,
        stage: &'a StageRecipe,
        terms: StageTerms,
        observer: &mut dyn Observer,
    ) -> Result<Stage<'a>> {
        let mut wanted: BTreeMap<String, Vec<Output>> = BTreeMap::new();
        for (name, output) in terms.terms.iter().flat_map(|term| term.loss.needs().teachers) {
            let outputs = wanted.entry(name).or_default();
            if !outputs.contains(&output) {
                outputs.push(output);
            }
        }
        let views = self.views(&stage.options.data)?;
        let mut teachers = TeacherFeatures::default();
        for (name, outputs) in wanted {
            let teacher = self.teacher(&name)?;
            let chance = views.degradation().is_random() && teacher.card().view == View::Low;
            if chance || !stage.options.store_features {
                teachers.add_live(&name, teacher, teacher.card().view, outputs);
                continue;
            }
            let plain = self.stored(&name, &self.source(teacher, stage, false)?, &outputs, observer)?;
            let mirrored: Vec<Option<Stored>> = if stage.options.augment.flip {
                let stored = self.stored(&name, &self.source(teacher, stage, true)?, &outputs, observer)?;
                stored.into_iter().map(Some).collect()
            } else {
                outputs.iter().map(|_| None).collect()
            };
            for ((output, plain), mirrored) in outputs.into_iter().zip(plain).zip(mirrored) {
                teachers.add_stored(&name, output, plain, mirrored);
            }
        }
        Ok(self.with_teachers(stage, terms, teachers, views))
    }

    fn with_teachers<'a>(
        &'a self,
        stage: &'a StageRecipe,
        terms: StageTerms,
        teachers: TeacherFeatures<'a>,
        views: &'a Views,
    ) -> Stage<'a> {
        let mut buffers = prefixed(self.variables.clone(), "student").buffers;
        buffers.extend(terms.variables.buffers);
        let mut trained = terms.variables.parameters;
        for (name, var) in &self.variables.parameters {
            if stage.options.trains.contains(&self.student.part(name)) {
                trained.insert(format!("student.{name}"), var.clone());
            }
        }
        Stage {
            name: &stage.name,
            options: &stage.options,
            student: &*self.student,
            trained,
            buffers,
            terms: terms.terms,
            teachers,
            optimizer: stage.optimizer.config.build(),
            schedule: &*stage.schedule.config,
            views,
            seed: self.seed,
            workers: self.workers,
            device: &self.device,
            precision: self.precision,
            checkpoint_steps: self.checkpoint_steps,
        }
    }

    /// A stage whose teachers run live and whose class centres are zeros, to time its steps.
    pub(super) fn trial<'a>(&'a self, stage: &'a StageRecipe) -> Result<Stage<'a>> {
        let terms = self.stage_terms(stage, &mut Silent, false)?;
        let mut teachers = TeacherFeatures::default();
        for term in &terms.terms {
            for (name, output) in term.loss.needs().teachers {
                let teacher = self.teacher(&name)?;
                teachers.add_live(&name, teacher, teacher.card().view, vec![output]);
            }
        }
        // Each step is timed by itself.
        let trial = self.with_teachers(stage, terms, teachers, self.views(&stage.options.data)?);
        Ok(Stage { checkpoint_steps: 1, ..trial })
    }
}

/// Draws new parameters from the stream that is named by their scope and their name.
fn draw(seed: Seed, scope: &str) -> Rc<Draw> {
    let scope = scope.to_string();
    Rc::new(move |name: &str, count, init| seed.draw(&format!("{scope}.{name}"), count, init))
}

fn prefixed(variables: Variables, prefix: &str) -> Variables {
    let name = |(name, var): (String, _)| (format!("{prefix}.{name}"), var);
    Variables {
        parameters: variables.parameters.into_iter().map(name).collect(),
        buffers: variables.buffers.into_iter().map(name).collect(),
    }
}

/// Overwrites the variables that `initial` names.
fn adopt(variables: &Variables, initial: BTreeMap<String, Tensor>) -> Result<()> {
    if initial.is_empty() {
        return Ok(());
    }
    // Copies: a variable cannot be set to itself.
    let own = variables.tensors().into_iter().filter(|(name, _)| !initial.contains_key(name));
    let mut all = own.map(|(name, tensor)| Ok((name, tensor.copy()?))).collect::<Result<BTreeMap<_, _>>>()?;
    // Names that the student does not have, and shapes that differ, are found by `assign`.
    all.extend(initial);
    variables.assign(&all)
}
