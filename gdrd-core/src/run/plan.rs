//! What a run will cost, from a few timed steps, before it starts.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::features::wanted;
use super::prepared::Prepared;
use crate::closed_form::{ClosedForm, Moments};
use crate::data::{Augment, Variant};
use crate::error::Result;
use crate::experiment::StageSpec;
use crate::observe::{Event, Flow, Observer, Silent};
use crate::student::Part;
use crate::teacher::Output;

/// The plan of one stage.
#[derive(Clone, Debug)]
pub struct StagePlan {
    /// The stage's name.
    pub stage: String,
    /// Optimiser steps.
    pub steps: u64,
    /// Parameters that are trained: of the student, and of losses.
    pub trained: usize,
    /// Bytes of parameters, gradients and optimiser state (two values a parameter).
    pub state_bytes: usize,
    /// Teacher outputs that losses read: teacher, output, shape for one face.
    pub taps: Vec<(String, Output, Vec<usize>)>,
    /// Variables of losses, connectors among them, with their shapes.
    pub loss_variables: Vec<(String, Vec<usize>)>,
    /// Bytes of stored teacher features.
    pub store_bytes: usize,
    /// Seconds of a step, with teachers from the store.
    pub seconds_per_step: f64,
    /// Seconds that the teachers need for the dataset, once for all runs.
    pub teacher_seconds: f64,
    /// Whether the stage is one step that is solved in closed form. Its bytes are then those of the sums, and nothing is trained
    /// by gradients.
    pub solved: bool,
}

/// Steps that are timed, after one that is not.
const TIMED: u64 = 3;

/// Builds everything and makes a few steps of each stage, without writing anything. Class centres are zeros here; nothing
/// else differs from the real steps.
pub fn plan(prepared: &Prepared) -> Result<Vec<StagePlan>> {
    let mut plans = Vec::new();
    for stage in &prepared.parts.experiment().stages {
        if let Some(closed_form) = &stage.closed_form {
            plans.push(of_solved(prepared, stage, closed_form)?);
            continue;
        }
        let views = prepared.views(&stage.options.data)?;
        let faces = views.dataset().len();
        let sides = stage.options.augment.variants().len();
        let none = Augment::none();
        let mut trial = prepared.trial(stage)?;
        let mut taps = Vec::new();
        for (name, outputs) in wanted(&trial.terms) {
            let size = prepared.source(stage, &name, &none)?.input_size()?;
            for output in outputs {
                let shape = prepared.teacher(&name)?.shape(&output, size)?;
                taps.push((name.clone(), output, shape));
            }
        }
        let values: usize = taps.iter().map(|(_, _, shape)| shape.iter().product::<usize>()).sum();
        let steps = trial.steps()?;
        let trained: usize = trial.trained.values().map(|var| var.elem_count()).sum();
        let of_losses = trial.trained.iter().filter(|(name, _)| name.starts_with("loss."));
        let loss_variables = of_losses.map(|(name, var)| (name.clone(), var.dims().to_vec())).collect();
        // A step with live teachers, less the teachers' own time on such a batch.
        let mut teacher_step = 0.0;
        for (name, output, _) in &taps {
            let source = prepared.source(stage, name, &none)?;
            teacher_step += source.seconds(stage.options.batch_size.min(faces), output)?;
        }
        let clock = Clock(Mutex::new(Times { since: Instant::now(), steps: Vec::new() }));
        trial.run(0, &clock, &mut |_, _, _| Ok(()))?;
        let times = clock.0.into_inner().unwrap_or_else(PoisonError::into_inner).steps;
        // The first step also starts threads and packs kernels; where there is no other, it has to do.
        let after = times.get(1..).filter(|rest| !rest.is_empty()).unwrap_or(&times);
        let live = after.iter().sum::<f64>() / after.len().max(1) as f64;
        let stored = stage.options.store_features;
        let batches = faces as f64 / stage.options.batch_size as f64 * sides as f64;
        plans.push(StagePlan {
            stage: stage.name.clone(),
            steps,
            trained,
            state_bytes: 4 * 4 * trained,
            taps,
            loss_variables,
            store_bytes: if stored { 2 * values * faces * sides } else { 0 },
            seconds_per_step: if stored { (live - teacher_step).max(live * 0.05) } else { live },
            teacher_seconds: if stored { teacher_step * batches } else { 0.0 },
            solved: false,
        });
    }
    Ok(plans)
}

/// Faces of which features are timed.
const TIMED_FACES: usize = 8;

/// The plan of a stage that is solved: from the time of a few faces and of one product of matrices.
fn of_solved(prepared: &Prepared, stage: &StageSpec, closed_form: &ClosedForm) -> Result<StagePlan> {
    let (last, offered) = prepared.last_linear(stage, closed_form)?;
    let faces = prepared.views(&stage.options.data)?.dataset().len();
    let variants = stage.options.augment.variants().len();
    let none = Augment::none();
    let source = prepared.source(stage, &offered.teacher, &none)?;
    let count = TIMED_FACES.min(faces);
    source.seconds(count, &offered.output)?;
    let teacher = source.seconds(count, &offered.output)? / count as f64;
    let ready = prepared.solved(stage, closed_form, false)?;
    let rows = || ready.rows(0..count, Variant::default(), 0, &Silent);
    rows()?;
    let since = Instant::now();
    rows()?;
    let live = since.elapsed().as_secs_f64() / count as f64;
    let stored = stage.options.store_features;
    let of_face = if stored { (live - teacher).max(live * 0.05) } else { live };
    let rows = (faces * variants) as f64;
    let bytes = if stored { 2 * offered.width() * faces * variants } else { 0 };
    Ok(StagePlan {
        stage: stage.name.clone(),
        steps: 1,
        trained: (last.inputs + 1) * last.outputs,
        state_bytes: Moments::bytes(last.inputs, last.outputs),
        taps: vec![(offered.teacher, offered.output, offered.shape)],
        loss_variables: Vec::new(),
        store_bytes: bytes,
        seconds_per_step: rows * of_face + Moments::seconds(last.inputs, rows, ready.device)?,
        teacher_seconds: if stored { teacher * rows } else { 0.0 },
        solved: true,
    })
}

struct Clock(Mutex<Times>);

struct Times {
    since: Instant,
    steps: Vec<f64>,
}

impl Observer for Clock {
    fn on(&self, event: &Event) -> Flow {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(event, Event::StepDone { .. }) {
            let seconds = times.since.elapsed().as_secs_f64();
            times.steps.push(seconds);
        }
        times.since = Instant::now();
        if times.steps.len() as u64 > TIMED { Flow::Stop } else { Flow::Continue }
    }
}

impl Prepared<'_> {
    /// Parameters of the student, backbone and head.
    pub fn student_parameters(&self) -> (usize, usize) {
        (self.parameters(Part::Backbone), self.parameters(Part::Head))
    }
}
