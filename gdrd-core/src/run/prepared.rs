//! Everything that a recipe trains, built and checked against each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::assembly::Assembly;
use super::datasets::open_all;
use super::features::wanted;
use super::lock::LockedStart;
use super::new_student::{NewStudent, draw, new_student};
use crate::context::Host;
use crate::data::{Augment, Targets, Variant, Views};
use crate::error::{Context, Error, Result};
use crate::experiment::{Experiment, StageSpec, TermSpec};
use crate::face::FaceBatch;
use crate::loss::{Needs, Offered, StageFacts, TeacherNeed, Wanted};
use crate::nn::weights::Variables;
use crate::nn::{Mode, Weights};
use crate::recipe::diagnostic::no_such;
use crate::seed::Seed;
use crate::student::{BACKBONE, Part, Student, StudentCard, StudentHeader};
use crate::teacher::{Output, Teacher, class_centres};
use crate::trainer::{Alone, OutputOf, Stage, TeacherFeatures, Term, with_average};

/// The parts of a run.
pub struct Prepared<'a> {
    /// Datasets, views, teachers and protocols.
    pub parts: &'a Assembly<'a>,
    /// The student.
    pub student: Box<dyn Student>,
    pub(super) variables: Variables,
    /// What the student has from the teacher that it starts from.
    pub(super) started: Option<LockedStart>,
    /// The student that it goes on from: what its file says, and the file's checksum.
    pub(super) before: Option<(StudentHeader, String)>,
    /// The data of every stage, by the dataset's name.
    views: BTreeMap<String, Arc<Views>>,
    /// The teachers that losses use, by name.
    teachers: BTreeMap<String, Arc<dyn Teacher>>,
}

/// The losses of one stage and their variables.
#[derive(Default)]
pub struct StageTerms {
    pub(super) terms: Vec<Term>,
    pub(super) variables: Variables,
}

impl<'a> Prepared<'a> {
    /// Opens the datasets, loads the teachers, finds the faces of every protocol and makes the student.
    ///
    /// # Errors
    /// If any of them cannot be had, or a protocol does not find its faces.
    pub fn new(parts: &'a Assembly<'a>) -> Result<Self> {
        let (experiment, cx) = (parts.experiment(), parts.context());
        let precision = experiment.run.precision.check(cx.device());
        precision.map_err(|e| Error::recipe(format!("`run.precision`: {}", Error::from(e))))?;
        open_all(parts)?;
        let mut views = BTreeMap::new();
        for stage in &experiment.stages {
            views.insert(stage.options.data.clone(), cx.views(&stage.options.data)?);
        }
        for name in experiment.evaluate.keys() {
            parts.protocol(name)?;
        }
        let teacher = |name: &String| Ok((name.clone(), cx.teacher(name)?));
        let teachers = experiment.teachers.keys().map(teacher).collect::<Result<_>>()?;
        let NewStudent { student, variables, started, before } = new_student(parts).at(|| "student".into())?;
        Ok(Self { parts, student, variables, started, before, views, teachers })
    }

    fn experiment(&self) -> &'a Experiment {
        self.parts.experiment()
    }

    fn seed(&self) -> Seed {
        self.experiment().seed()
    }

    /// The losses of every stage, in the recipe's order.
    ///
    /// # Errors
    /// If a loss does not fit its teachers, the student or the data.
    pub fn terms(&self) -> Result<Vec<StageTerms>> {
        self.experiment().stages.iter().map(|stage| self.stage_terms(stage)).collect()
    }

    pub(super) fn stage_terms(&self, stage: &StageSpec) -> Result<StageTerms> {
        let views = self.views(&stage.options.data)?;
        let place = || format!("stage `{}`", stage.name);
        if let Some(closed_form) = &stage.closed_form {
            // What does not fit is said before the first step of any stage.
            self.check_views(stage).at(place)?;
            return self.last_linear(stage, closed_form).map(|_| StageTerms::default()).at(place);
        }
        stage.options.total_steps(views.dataset().len()).at(place)?;
        self.check_views(stage).at(place)?;
        let mut made = StageTerms::default();
        for (name, term) in &stage.losses {
            let place = || format!("stage `{}`, loss `{name}`", stage.name);
            let needs = term.loss.config.needs();
            let facts = self.facts(stage, &needs).at(place)?;
            let scope = format!("loss.{}.{name}", stage.name);
            let build = |weights: &Weights| {
                let cx = self.parts.context().with_weights(weights).with_facts(&facts);
                let loss = term.loss.config.build(&cx)?;
                self.parts.note(&cx.record());
                Ok(loss)
            };
            let device = self.parts.device();
            let (loss, variables) = Weights::create(device, draw(self.seed(), &scope), build).at(place)?;
            let gives =
                |(name, other): (&String, &TermSpec)| other.loss.config.needs().gives_logits.then(|| name.clone());
            let logits_of = needs.logits_of.clone().and_then(|of| of.or_else(|| stage.losses.iter().find_map(gives)));
            let teachers = facts.teachers.into_iter().map(|offered| (offered.teacher, offered.output)).collect();
            let (name, weight) = (name.clone(), term.weight);
            made.terms.push(Term { name, weight, loss, needs, teachers, logits_of, centres: None });
            made.variables.extend(prefixed(variables, &scope));
        }
        // A term that uses another's logits comes after it.
        made.terms.sort_by_key(|term| term.needs.logits_of.is_some());
        Ok(made)
    }

    /// Whether the views that the student sees have its size.
    fn check_views(&self, stage: &StageSpec) -> Result<()> {
        let last = stage.options.last.as_ref().and_then(|last| last.view.as_ref());
        stage.options.view.iter().chain(last).try_for_each(|view| self.check_view(stage, view))
    }

    fn check_view(&self, stage: &StageSpec, view: &str) -> Result<()> {
        let (found, expected) = (self.views(&stage.options.data)?.size(view)?, self.student.card().input_size);
        match found == expected {
            true => Ok(()),
            false => Err(Error::recipe(format!(
                "the view `{view}` has {found} pixels; expected {expected}, as the student's input"
            ))),
        }
    }

    /// Channels, height and width of the student's map that a loss wants.
    fn map_shape(&self, needs: &Needs) -> Result<[usize; 3]> {
        let card = self.student.card();
        let Some(name) = &needs.student_map else { return Ok(card.map) };
        let mut names = self.student.maps();
        // What comes behind it belongs to the head.
        names.truncate(names.iter().position(|name| name == BACKBONE).map_or(names.len(), |at| at + 1));
        if !names.contains(name) {
            return Err(Error::recipe(no_such(
                "map of the student's backbone",
                name,
                names.iter().map(String::as_str),
            )));
        }
        let blank = Tensor::zeros((1, 3, card.input_size, card.input_size), DType::F32, self.parts.device())?;
        let map = self.student.features(&FaceBatch::from_tensor(blank)?, std::slice::from_ref(name), Mode::Evaluate)?;
        let (_, channels, height, width) = map[0].dims4()?;
        Ok([channels, height, width])
    }

    /// What a loss can know of its stage.
    fn facts(&self, stage: &StageSpec, needs: &Needs) -> Result<StageFacts> {
        let dataset = self.views(&stage.options.data)?.dataset();
        let people = dataset.people().len();
        let mut images = vec![0; people];
        (0..dataset.len()).filter_map(|index| dataset.person(index)).for_each(|person| images[person] += 1);
        let least = if needs.gives_logits { 2 } else { usize::from(needs.labels || needs.centres) };
        if people < least {
            return Err(Error::data(format!(
                "expected a dataset with at least {least} identities, found {people} in `{}`",
                stage.options.data
            )));
        }
        let views = self.views(&stage.options.data)?;
        for view in needs.views.iter().chain(&needs.embeddings_of) {
            views.size(view)?;
            let Augment { shift, mixup, .. } = &stage.options.augment;
            if *shift > 0 || mixup.as_ref().is_some_and(|mixup| mixup.targets == Targets::Mixed) {
                return Err(Error::recipe(format!(
                    "it needs the view `{view}` to show what the student sees; expected no `augment.shift`, and no `augment.mixup` \
                     but with `targets = \"teacher\"`"
                )));
            }
        }
        for view in &needs.embeddings_of {
            self.check_view(stage, view)?;
        }
        let teachers = needs.teachers.iter().map(|need| self.offered(stage, need)).collect::<Result<_>>()?;
        Ok(StageFacts {
            name: stage.name.clone(),
            student: StudentCard { map: self.map_shape(needs)?, ..self.student.card().clone() },
            views: needs.views.iter().map(|view| views.size(view)).collect::<Result<_>>()?,
            people,
            images,
            faces: dataset.len(),
            teachers,
        })
    }

    /// The output that a need means.
    pub(super) fn offered(&self, stage: &StageSpec, need: &TeacherNeed) -> Result<Offered> {
        let of = |name: &String, teacher: &Arc<dyn Teacher>| -> Result<Offered> {
            let output = match &need.output {
                Wanted::Embedding => Output::Embedding,
                Wanted::Logits => Output::Logits,
                Wanted::Map(map) => Output::Map(map.clone()),
                Wanted::DefaultMap => Output::Map(teacher.card().default_map.clone().ok_or_else(|| {
                    Error::component("it has no feature maps, or none that is meant when none is named")
                })?),
            };
            let size = self.source(stage, name, &Augment::none())?.input_size()?;
            let shape = teacher.shape(&output, size)?;
            Ok(Offered { teacher: name.clone(), output, shape })
        };
        if let Some(name) = &need.teacher {
            return of(name, self.teacher(name)?).at(|| format!("teacher `{name}`"));
        }
        let (mut able, mut reasons) = (Vec::new(), String::new());
        for (name, teacher) in &self.teachers {
            match of(name, teacher) {
                Ok(offered) => able.push(offered),
                Err(error) => reasons += &format!("\nteacher `{name}`: {error}"),
            }
        }
        if able.len() == 1 {
            return Ok(able.remove(0));
        }
        let what = match &need.output {
            Wanted::Embedding => "an embedding",
            Wanted::Logits => "logits",
            Wanted::Map(map) => map,
            Wanted::DefaultMap => "a feature map",
        };
        let names: Vec<&String> = able.iter().map(|offered| &offered.teacher).collect();
        Err(Error::component(format!(
            "expected one teacher that offers {what}, found {names:?}; name one with `teacher`{reasons}"
        )))
    }

    /// Every variable of the run, as checkpoints name them.
    pub fn variables(&self, terms: &[StageTerms]) -> Variables {
        let mut all = prefixed(self.variables.clone(), "student");
        terms.iter().for_each(|stage| all.extend(stage.variables.clone()));
        all
    }

    /// The tensors of the student file.
    ///
    /// # Errors
    /// If a value is not finite in half precision.
    pub fn student_tensors(&self, half_precision: bool) -> Result<BTreeMap<String, Tensor>> {
        let dtype = if half_precision { DType::F16 } else { DType::F32 };
        let cast = |(name, tensor): (String, Tensor)| {
            let small = tensor.to_dtype(dtype)?;
            let values = small.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            match values.iter().position(|value| !value.is_finite()) {
                None => Ok((name, small)),
                Some(at) => {
                    let wide = tensor.flatten_all()?.to_vec1::<f32>()?[at];
                    let hint = if half_precision { "; `run.half_precision = false` keeps it" } else { "" };
                    Err(Error::component(format!(
                        "the student's tensor `{name}`, value {at}: {wide} is not finite as {dtype:?}{hint}"
                    )))
                }
            }
        };
        self.variables.tensors().into_iter().map(cast).collect()
    }

    /// Number of the student's parameters, by part.
    pub fn parameters(&self, part: Part) -> usize {
        let of_part = self.variables.parameters.iter().filter(|(name, _)| self.student.part(name) == part);
        of_part.map(|(_, var)| var.elem_count()).sum()
    }

    /// The teacher called `name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn teacher(&self, name: &str) -> Result<&Arc<dyn Teacher>> {
        let known = || self.teachers.keys().map(String::as_str);
        self.teachers.get(name).ok_or_else(|| Error::component(no_such("teacher", name, known())))
    }

    /// The dataset of a stage in all its views.
    ///
    /// # Errors
    /// If no stage uses it.
    pub fn views(&self, name: &str) -> Result<&Arc<Views>> {
        self.views.get(name).ok_or_else(|| Error::component(format!("no stage uses a dataset called `{name}`")))
    }

    /// A stage that is ready to run. Features that its losses need are stored first, where they can be.
    ///
    /// # Errors
    /// If a teacher fails, or features cannot be stored.
    pub fn stage<'s>(&'s self, stage: &'s StageSpec, mut terms: StageTerms) -> Result<Stage<'s>> {
        let live = !stage.options.store_features || stage.options.shows_mixtures_to_teachers();
        // First what steps need, so that what centres need of it is stored already: a face is read once for all its changes.
        let teachers = self.teacher_features(stage, wanted(&terms.terms), !live)?;
        let views = self.views(&stage.options.data)?;
        for term in terms.terms.iter_mut().filter(|term| term.needs.centres) {
            let (name, output) = first_teacher(term)?;
            let none = Augment::none();
            let source = self.source(stage, name, &none)?;
            for view in &source.teacher.card().views {
                if views.is_random(view)? {
                    return Err(Error::component(format!(
                        "stage `{}`, loss `{}`: people's mean embeddings need a view that is the same every time, and teacher \
                         `{name}` sees the random view `{view}`",
                        stage.name, term.name
                    )));
                }
            }
            let plain = Variant::default();
            let stored = self.stored(name, &source, &[plain], std::slice::from_ref(output))?;
            term.centres = Some(class_centres(&stored[0][&plain], views.dataset(), self.parts.device())?);
        }
        self.with_teachers(stage, terms, teachers)
    }

    fn with_teachers<'s>(
        &'s self,
        stage: &'s StageSpec,
        terms: StageTerms,
        teachers: TeacherFeatures<'s>,
    ) -> Result<Stage<'s>> {
        let run = &self.experiment().run;
        let mut trained = terms.variables.parameters;
        let own = self.variables.parameters.iter();
        let own = own.filter(|(name, _)| stage.options.trains.contains(&self.student.part(name)));
        trained.extend(own.map(|(name, var)| (format!("student.{name}"), var.clone())));
        let mut buffers = terms.variables.buffers;
        buffers.extend(self.variables.buffers.iter().map(|(name, var)| (format!("student.{name}"), var.clone())));
        let cx = self.parts.context();
        Ok(Stage {
            name: &stage.name,
            options: &stage.options,
            student: &*self.student,
            trained,
            buffers,
            terms: terms.terms,
            teachers,
            optimizer: with_average(stage.optimizer.config.build(&cx)?, stage.options.ema),
            schedule: stage.schedule.config.build(&cx)?,
            exchange: &Alone,
            views: self.views(&stage.options.data)?,
            view: stage.options.view.clone().unwrap_or_else(|| self.experiment().student.view.clone()),
            seed: self.seed(),
            workers: run.workers,
            device: self.parts.device(),
            precision: run.precision,
            checkpoint_steps: run.checkpoint_steps,
            map_memory: run.map_memory << 20,
        })
    }

    /// A stage whose teachers run live and whose people's mean embeddings are zeros, to time its steps.
    pub(super) fn trial<'s>(&'s self, stage: &'s StageSpec) -> Result<Stage<'s>> {
        let mut terms = self.stage_terms(stage)?;
        let people = self.views(&stage.options.data)?.dataset().people().len();
        for term in terms.terms.iter_mut().filter(|term| term.needs.centres) {
            let (name, output) = first_teacher(term)?;
            let size = self.source(stage, name, &Augment::none())?.input_size()?;
            let width: usize = self.teacher(name)?.shape(output, size)?.iter().product();
            term.centres = Some(Tensor::zeros((people, width), DType::F32, self.parts.device())?);
        }
        let mut teachers = TeacherFeatures::default();
        for (name, outputs) in wanted(&terms.terms) {
            teachers.add_live(&name, &**self.teacher(&name)?, outputs);
        }
        // Each step is timed by itself.
        Ok(Stage { checkpoint_steps: 1, ..self.with_teachers(stage, terms, teachers)? })
    }
}

/// The teacher whose mean embeddings a term needs.
fn first_teacher(term: &Term) -> Result<&OutputOf> {
    term.teachers.first().ok_or_else(|| Error::component(format!("`{}` needs centres of no teacher", term.name)))
}

fn prefixed(variables: Variables, prefix: &str) -> Variables {
    let name = |(name, var): (String, _)| (format!("{prefix}.{name}"), var);
    Variables {
        parameters: variables.parameters.into_iter().map(name).collect(),
        buffers: variables.buffers.into_iter().map(name).collect(),
    }
}
