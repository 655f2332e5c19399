//! A stage that is solved: the student's last layer in closed form.

use std::time::Instant;

use candle_core::{Device, Tensor, Var};
use rayon::prelude::*;

use super::features::{OutputOf, TeacherFeatures};
use super::options::StageOptions;
use crate::closed_form::{ClosedForm, Moments, Solution};
use crate::data::{Batch, Variant, Views};
use crate::error::{Context, Error, Result};
use crate::face::{Face, FaceBatch, Kernel};
use crate::nn::kernels::Precision;
use crate::nn::{Mode, l2_normalise};
use crate::observe::{Event, Observer, tell};
use crate::seed::Seed;
use crate::student::{LastLinear, Student};
use crate::teacher::Output;

/// A stage that is ready to be solved.
pub struct SolvedStage<'a> {
    /// Its name in the recipe.
    pub name: &'a str,
    /// Its options; those of training have no meaning here.
    pub options: &'a StageOptions,
    /// What is solved.
    pub closed_form: &'a ClosedForm,
    /// The student.
    pub student: &'a dyn Student,
    /// The layer that is set.
    pub last: LastLinear,
    /// Its variables: weight and bias.
    pub variables: (Var, Var),
    /// What teachers say.
    pub teachers: TeacherFeatures<'a>,
    /// Which of it is the target.
    pub target: OutputOf,
    /// The faces.
    pub views: &'a Views,
    /// The view that the student sees.
    pub view: String,
    /// The run's seed.
    pub seed: Seed,
    /// Where tensors are.
    pub device: &'a Device,
    /// What products may round to on a GPU.
    pub precision: Precision,
}

impl SolvedStage<'_> {
    /// Solves and sets the layer. Every variant of every face is a row.
    ///
    /// # Errors
    /// If a face or a teacher fails, the equations cannot be solved, or the observer wants to stop
    /// ([`ErrorKind::Stopped`](crate::error::ErrorKind::Stopped)); the layer is then as it was.
    pub fn run(&self, observer: &dyn Observer) -> Result<Solution> {
        let place = || format!("stage `{}`", self.name);
        let since = Instant::now();
        let mut moments = Moments::new(self.last.inputs, self.last.outputs, self.device).at(place)?;
        let (samples, variants) = (self.views.dataset().len(), self.options.augment.variants());
        let total = samples * variants.len();
        let what = format!("{}: features before the last layer", self.name);
        for (number, &variant) in variants.iter().enumerate() {
            for start in (0..samples).step_by(self.options.batch_size) {
                tell(observer, &Event::Working { what: what.clone(), done: number * samples + start, total })?;
                let indices = start..(start + self.options.batch_size).min(samples);
                let (x, y) = self.rows(indices, variant, number as u64).at(place)?;
                moments.add(&x, &y).at(place)?;
            }
        }
        tell(observer, &Event::Working { what, done: total, total })?;
        let what = format!("{}: factor of {} equations", self.name, self.last.inputs);
        let mut report = |done, total| tell(observer, &Event::Working { what: what.clone(), done, total });
        let mut solution = moments.solve(self.closed_form.ridge, &mut report).at(place)?;
        if self.closed_form.whiten > 0.0 {
            solution = solution.whitened(self.closed_form.whiten).at(place)?;
        }
        self.variables.0.set(&solution.weight)?;
        self.variables.1.set(&solution.bias)?;
        let (inputs, outputs) = (self.last.inputs, self.last.outputs);
        let (stage, rows, explained) = (self.name.to_string(), solution.rows, solution.explained);
        let seconds = since.elapsed().as_secs_f64();
        // A wish to stop is heard once the checkpoint is written.
        observer.on(&Event::StageSolved { stage, rows, inputs, outputs, explained, seconds });
        Ok(solution)
    }

    /// Features and targets of some faces, one a row; for [`plan`](crate::run::plan), a few of them.
    pub(crate) fn rows(
        &self,
        indices: std::ops::Range<usize>,
        variant: Variant,
        number: u64,
    ) -> Result<(Tensor, Tensor)> {
        let batch = self.batch(indices, variant, number)?;
        // Of the networks alone: sums and factors are float32 everywhere.
        let _precision = self.precision.set();
        let faces = FaceBatch::from_faces(&batch.faces, self.device)?;
        let map = self.student.backbone(&faces, Mode::Evaluate)?.detach();
        let x = self.student.before_last_linear(&map, Mode::Evaluate)?.detach();
        let mut put = |tensor: Tensor| Ok(tensor.to_device(self.device)?);
        let given = self.teachers.given(&batch, self.views.dataset(), &mut put)?;
        let mut found = self.teachers.of(given, &crate::observe::Silent)?;
        let found = found.remove(&self.target);
        let y = found.ok_or_else(|| Error::component("the target was not asked for"))?.flatten_from(1)?;
        let unit = self.closed_form.unit_length && self.target.1 == Output::Embedding;
        Ok((x, if unit { l2_normalise(&y)? } else { y }))
    }

    fn batch(&self, indices: std::ops::Range<usize>, variant: Variant, number: u64) -> Result<Batch> {
        let stream = format!("closed form/{}", self.name);
        let wanted = self.teachers.wanted();
        let forms = |index: usize| -> Result<(Face, Vec<Face>)> {
            // Each view takes its own copy of the stream, as in training.
            let random = self.seed.stream(&stream, &[number, index as u64]);
            let form = |view: &str| self.views.face(index, view, (&self.options.augment, variant), &mut random.clone());
            let for_teacher = |wanted: &crate::data::Wanted| match wanted.size {
                Some(size) => form(&wanted.view)?.resized(size, Kernel::Bicubic, true),
                None => form(&wanted.view),
            };
            Ok((form(&self.view)?, wanted.iter().map(for_teacher).collect::<Result<_>>()?))
        };
        let made = indices.clone().into_par_iter().map(forms).collect::<Result<Vec<_>>>()?;
        let mut batch = Batch {
            step: 0,
            variants: vec![variant; indices.len()],
            indices: indices.collect(),
            faces: Vec::with_capacity(made.len()),
            views: wanted.iter().map(|_| Vec::with_capacity(made.len())).collect(),
            mixed: None,
        };
        for (face, views) in made {
            batch.faces.push(face);
            batch.views.iter_mut().zip(views).for_each(|(all, one)| all.push(one));
        }
        Ok(batch)
    }
}
