//! A stage's parts: which variables are trained, on what, for what; its loop is in `run_stage.rs`.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Tensor, Var};

use super::features::TeacherFeatures;
use super::optimizer::Optimizer;
use super::options::StageOptions;
use super::schedule::Schedule;
use crate::data::{Groups, LastPhaseOrder, Order, Views, Wanted};
use crate::error::Result;
use crate::loss::{Loss, Needs};
use crate::nn::kernels::Precision;
use crate::seed::Seed;
use crate::student::{Part, Student};

/// A weighted loss of a stage.
pub struct Term {
    /// Its name in the recipe.
    pub name: String,
    /// Its factor in the sum.
    pub weight: f64,
    /// The loss.
    pub loss: Box<dyn Loss>,
    /// What it has to be given.
    pub needs: Needs,
    /// The outputs of teachers among them, as [`TeacherFeatures`] knows them.
    pub teachers: Vec<super::features::OutputOf>,
    /// The term whose logits it uses.
    pub logits_of: Option<String>,
    /// Unit-length mean embeddings of the people, if it needs them.
    pub centres: Option<Tensor>,
}

/// What stands between gradients and the optimiser. A run on several machines sums gradients here.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use gdrd_core::trainer::{Alone, Exchange};
///
/// let mut gradients = BTreeMap::new();
/// Alone.exchange(&mut gradients)?;
/// assert_eq!(Alone.share(), (0, 1));
/// # Ok::<(), gdrd_core::error::Error>(())
/// ```
pub trait Exchange: Send + Sync {
    /// Brings the gradients of named variables of all processes to the same mean.
    ///
    /// # Errors
    /// If another process cannot be reached.
    fn exchange(&self, gradients: &mut BTreeMap<String, Tensor>) -> Result<()>;

    /// This process's number, from 0, and how many there are: each takes its share of every batch.
    fn share(&self) -> (usize, usize) {
        (0, 1)
    }
}

/// One process, which needs nobody's gradients.
pub struct Alone;

impl Exchange for Alone {
    fn exchange(&self, _: &mut BTreeMap<String, Tensor>) -> Result<()> {
        Ok(())
    }
}

/// A stage that is ready to run.
pub struct Stage<'a> {
    /// Its name in the recipe.
    pub name: &'a str,
    /// Its options.
    pub options: &'a StageOptions,
    /// The student.
    pub student: &'a dyn Student,
    /// Everything that gradients change in this stage, by name.
    pub trained: BTreeMap<String, Var>,
    /// Running statistics of the student and the losses: as they were before a step that is refused.
    pub buffers: BTreeMap<String, Var>,
    /// The objective, in an order in which logits are there before they are used.
    pub terms: Vec<Term>,
    /// What teachers say.
    pub teachers: TeacherFeatures<'a>,
    /// Changes the variables.
    pub optimizer: Box<dyn Optimizer>,
    /// Factor of the learning rate.
    pub schedule: Box<dyn Schedule>,
    /// Between gradients and optimiser.
    pub exchange: &'a dyn Exchange,
    /// The faces.
    pub views: &'a Views,
    /// The view that the student sees.
    pub view: String,
    /// The run's seed.
    pub seed: Seed,
    /// Threads that read faces.
    pub workers: usize,
    /// Where tensors are.
    pub device: &'a Device,
    /// What products may round to on a GPU.
    pub precision: Precision,
    /// Steps between checkpoints. On a GPU the numbers of a step are read, told and checked to be finite some steps later, but
    /// before the next checkpoint.
    pub checkpoint_steps: u64,
    /// Bytes that the maps of a frozen backbone may take.
    pub map_memory: usize,
}

impl Stage<'_> {
    /// The steps of the whole stage.
    ///
    /// # Errors
    /// If the dataset does not fill one batch.
    pub fn steps(&self) -> Result<u64> {
        self.options.total_steps(self.views.dataset().len())
    }

    /// The views beside the student's that losses need.
    pub(super) fn views_of_losses(&self) -> BTreeSet<String> {
        let of = |needs: &Needs| needs.views.iter().chain(&needs.embeddings_of).cloned().collect::<Vec<_>>();
        self.terms.iter().flat_map(|term| of(&term.needs)).collect()
    }

    /// The views of which losses need the student's embeddings.
    pub(super) fn embedded_views(&self) -> BTreeSet<&String> {
        self.terms.iter().flat_map(|term| &term.needs.embeddings_of).collect()
    }

    /// The names of the student's maps on the way to the backbone's that losses need.
    pub(super) fn inner_maps(&self) -> BTreeSet<&String> {
        self.terms.iter().filter_map(|term| term.needs.student_map.as_ref()).collect()
    }

    /// The views that the loader makes beside the student's: those of live teachers, then those of losses.
    pub(super) fn wanted(&self) -> Vec<Wanted> {
        let of_losses = self.views_of_losses().into_iter().map(|view| Wanted { view, size: None });
        self.teachers.wanted().into_iter().chain(of_losses).collect()
    }

    /// Which faces make which step.
    pub(super) fn order(&self, steps: u64) -> Order {
        let last = self.options.last_phase(steps).map(|(first, last, augment)| LastPhaseOrder {
            from: first * self.options.accumulate as u64,
            augment,
            view: last.view.clone().unwrap_or_else(|| self.view.clone()),
        });
        Order {
            seed: self.seed,
            stage: self.name.to_string(),
            batch_size: self.options.batch_size,
            samples: self.views.dataset().len(),
            groups: self.options.images_per_person.map(|size| Groups::new(size, self.views.dataset())),
            augment: self.options.augment.clone(),
            view: self.view.clone(),
            last,
        }
    }

    /// Whether `part` changes at a step.
    pub fn trains(&self, part: Part, step: u64, steps: u64) -> bool {
        self.options.first_change(part, steps).is_some_and(|first| step >= first)
    }

    /// The learning rate of a step, of what has no factor of its own.
    pub(super) fn rate(&self, step: u64, steps: u64) -> f64 {
        let options = self.options;
        let warm = if step < options.warmup_steps { (step + 1) as f64 / options.warmup_steps as f64 } else { 1.0 };
        options.learning_rate * warm * self.schedule.factor(step as f64 / steps as f64)
    }
}

/// The part of the student that the variable `name` belongs to; none if it is a loss's.
pub(super) fn part_of(student: &dyn Student, name: &str) -> Option<Part> {
    name.strip_prefix("student.").map(|name| student.part(name))
}

/// The factor of the learning rate of the variable `name`: that of its part of the student, if it has one.
pub(super) fn factor(student: &dyn Student, parts: &BTreeMap<Part, f64>, name: &str) -> f64 {
    part_of(student, name).and_then(|part| parts.get(&part)).copied().unwrap_or(1.0)
}

/// Variables as they were, such as running statistics before a step.
pub(super) struct Kept(Vec<(Var, Tensor)>);

impl Kept {
    pub(super) fn of<'v>(variables: impl IntoIterator<Item = &'v Var>) -> Result<Self> {
        variables.into_iter().map(|var| Ok((var.clone(), var.as_tensor().copy()?))).collect::<Result<_>>().map(Self)
    }

    /// Puts them back.
    pub(super) fn restore(self) -> Result<()> {
        self.0.into_iter().try_for_each(|(var, before)| Ok(var.set(&before)?))
    }
}
