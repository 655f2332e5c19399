//! What teachers say of a stage's faces: stored where they always say the same, asked for live where they do not.

use std::collections::BTreeMap;

use super::prepared::Prepared;
use crate::context::Host;
use crate::data::{Augment, Variant};
use crate::error::{Context, Result};
use crate::experiment::StageSpec;
use crate::observe::{Event, tell};
use crate::teacher::{Output, Source, Stored};
use crate::trainer::{TeacherFeatures, Term};

impl Prepared<'_> {
    /// What a teacher looks at in a stage.
    pub(super) fn source<'s>(&'s self, stage: &StageSpec, teacher: &str, augment: &'s Augment) -> Result<Source<'s>> {
        Ok(Source {
            teacher: &**self.teacher(teacher)?,
            content: self.parts.content("teacher", teacher)?,
            views: self.views(&stage.options.data)?,
            augment,
            device: self.parts.device(),
        })
    }

    pub(super) fn stored(
        &self,
        name: &str,
        source: &Source,
        variants: &[Variant],
        outputs: &[Output],
    ) -> Result<Vec<BTreeMap<Variant, Stored>>> {
        let mut report = |draw, done, total| {
            let change = if draw == 0 { String::new() } else { format!(", change {draw}") };
            self.parts.report(&format!("features of teacher `{name}`{change}"), done, total)
        };
        let mut warn = |message| tell(self.parts.observer(), &Event::Warning { message });
        let store = self.parts.store();
        store.features(source, variants, outputs, &mut report, &mut warn).at(|| format!("teacher `{name}`"))
    }

    /// These outputs of teachers in a stage. With `store` they are stored first, unless a view of the teacher is random.
    ///
    /// # Errors
    /// If a teacher fails, or features cannot be stored.
    pub(super) fn teacher_features<'s>(
        &'s self,
        stage: &'s StageSpec,
        wanted: BTreeMap<String, Vec<Output>>,
        store: bool,
    ) -> Result<TeacherFeatures<'s>> {
        let views = self.views(&stage.options.data)?;
        let mut teachers = TeacherFeatures::default();
        for (name, outputs) in wanted {
            let teacher = self.teacher(&name)?;
            let mut random = false;
            for view in &teacher.card().views {
                random |= views.is_random(view)?;
            }
            if random || !store {
                teachers.add_live(&name, &**teacher, outputs);
                continue;
            }
            let augment = &stage.options.augment;
            let source = self.source(stage, &name, augment)?;
            let stored = self.stored(&name, &source, &augment.variants(), &outputs)?;
            for (output, of_output) in outputs.into_iter().zip(stored) {
                teachers.add_stored(&name, output, of_output);
            }
        }
        Ok(teachers)
    }
}

/// What some terms need of each teacher, each output once.
pub(super) fn wanted(terms: &[Term]) -> BTreeMap<String, Vec<Output>> {
    let mut wanted: BTreeMap<String, Vec<Output>> = BTreeMap::new();
    for (name, output) in terms.iter().flat_map(|term| &term.teachers) {
        let outputs = wanted.entry(name.clone()).or_default();
        if !outputs.contains(output) {
            outputs.push(output.clone());
        }
    }
    wanted
}
