//! A stage in closed form, ready to be solved.

use std::collections::BTreeMap;

use super::prepared::Prepared;
use crate::closed_form::ClosedForm;
use crate::context::Host;
use crate::error::{Context, Error, Result};
use crate::experiment::StageSpec;
use crate::loss::Offered;
use crate::student::LastLinear;
use crate::trainer::{SolvedStage, TeacherFeatures};

impl Prepared<'_> {
    /// The layer that a stage sets, and what it is set by.
    ///
    /// # Errors
    /// If the student has no such layer, no teacher offers the target, or their widths differ.
    pub(super) fn last_linear(&self, stage: &StageSpec, closed_form: &ClosedForm) -> Result<(LastLinear, Offered)> {
        let last = self.student.last_linear().ok_or_else(|| {
            Error::component(format!(
                "`closed_form` sets the fully connected layer at the end of a student; this `{}` does not end with one that \
                 has a bias",
                self.parts.experiment().student.network.kind
            ))
        })?;
        let offered = self.offered(stage, &closed_form.need())?;
        if offered.width() != last.outputs {
            return Err(Error::component(format!(
                "`{}` of teacher `{}` has {} values, the student\'s embedding {}; expected the same number",
                offered.output,
                offered.teacher,
                offered.width(),
                last.outputs
            )));
        }
        Ok((last, offered))
    }

    /// A stage that is ready to be solved. What the teacher says is stored first, where it can be and `store` says so.
    ///
    /// # Errors
    /// As [`last_linear`](Self::last_linear); if the teacher fails, or features cannot be stored.
    pub(super) fn solved<'s>(
        &'s self,
        stage: &'s StageSpec,
        closed_form: &'s ClosedForm,
        store: bool,
    ) -> Result<SolvedStage<'s>> {
        let (last, offered) = self.last_linear(stage, closed_form).at(|| format!("stage `{}`", stage.name))?;
        let (name, output) = (offered.teacher, offered.output);
        let variable = |of: &str| {
            let found = self.variables.parameters.get(of).cloned();
            found.ok_or_else(|| {
                Error::component(format!("the student has no parameter `{of}`, which it names its last"))
            })
        };
        let teacher = self.teacher(&name)?;
        let views = self.views(&stage.options.data)?;
        let mut random = false;
        for view in &teacher.card().views {
            random |= views.is_random(view)?;
        }
        let mut teachers = TeacherFeatures::default();
        if random || !stage.options.store_features || !store {
            teachers.add_live(&name, &**teacher, vec![output.clone()]);
        } else {
            let mut stored = BTreeMap::new();
            for variant in stage.options.augment.variants() {
                let source = self.source(stage, &name, &stage.options.augment, variant)?;
                let found = self.stored(&name, &source, std::slice::from_ref(&output))?;
                stored.extend(found.into_iter().map(|found| (variant, found)));
            }
            teachers.add_stored(&name, output.clone(), stored);
        }
        let experiment = self.parts.experiment();
        Ok(SolvedStage {
            name: &stage.name,
            options: &stage.options,
            closed_form,
            student: &*self.student,
            variables: (variable(&last.weight)?, variable(&last.bias)?),
            last,
            teachers,
            target: (name, output),
            views,
            view: stage.options.view.clone().unwrap_or_else(|| experiment.student.view.clone()),
            seed: experiment.seed(),
            device: self.parts.device(),
            precision: experiment.run.precision,
        })
    }
}
