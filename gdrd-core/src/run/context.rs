//! What losses can learn about the run while they are built.

use std::cell::RefCell;

use candle_core::{Device, Tensor};

use super::prepared::Prepared;
use crate::error::{Context, Error, Result};
use crate::loss::LossContext;
use crate::observe::Observer;
use crate::recipe::StageRecipe;
use crate::student::StudentCard;
use crate::teacher::{Output, Teacher, class_centres};

pub(super) struct StageContext<'a> {
    pub(super) prepared: &'a Prepared,
    pub(super) stage: &'a StageRecipe,
    pub(super) observer: RefCell<&'a mut dyn Observer>,
    /// Whether class centres may run a teacher over the dataset; if not they are zeros of the right shape.
    pub(super) may_compute: bool,
}

impl StageContext<'_> {
    fn teacher(&self, name: &str) -> Result<&dyn Teacher> {
        self.prepared.teacher(name)
    }

    fn offers(&self, name: &str, output: &Output) -> bool {
        match output {
            Output::Map(map) if map.is_empty() => self.default_map(name).is_ok(),
            output => self.teacher_shape(name, output).is_ok(),
        }
    }
}

impl LossContext for StageContext<'_> {
    fn student(&self) -> &StudentCard {
        self.prepared.student.card()
    }

    fn teacher_shape(&self, teacher: &str, output: &Output) -> Result<Vec<usize>> {
        let found = self.teacher(teacher)?;
        let size = self.prepared.source(found, self.stage, false)?.input_size();
        found.shape(output, size).at(|| format!("teacher `{teacher}`"))
    }

    fn default_map(&self, teacher: &str) -> Result<Output> {
        let map = self.teacher(teacher)?.card().default_map.clone();
        map.map(Output::Map).ok_or_else(|| Error::component(format!("teacher `{teacher}` has no feature maps")))
    }

    fn only_teacher(&self, named: Option<&str>, output: &Output) -> Result<String> {
        if let Some(name) = named {
            self.teacher(name)?;
            return Ok(name.to_string());
        }
        let what = match output {
            Output::Map(name) if name.is_empty() => "a feature map".to_string(),
            output => output.to_string(),
        };
        let able: Vec<&String> = self.prepared.teachers.keys().filter(|name| self.offers(name, output)).collect();
        match able[..] {
            [name] => Ok(name.clone()),
            _ => Err(Error::component(format!(
                "expected one teacher that offers {what}, found {able:?}; name one with `teacher`"
            ))),
        }
    }

    fn identities(&self) -> Result<usize> {
        match self.prepared.views(&self.stage.options.data)?.dataset().identities() {
            0 => Err(Error::data(format!("the dataset `{}` knows no identities", self.stage.options.data))),
            count => Ok(count),
        }
    }

    fn class_centres(&self, teacher: &str) -> Result<Tensor> {
        let width = self.teacher_shape(teacher, &Output::Embedding)?.iter().product::<usize>();
        if !self.may_compute {
            let shape = (self.identities()?, width);
            return Ok(Tensor::zeros(shape, candle_core::DType::F32, &self.prepared.device)?);
        }
        let source = self.prepared.source(self.teacher(teacher)?, self.stage, false)?;
        let mut observer = self.observer.borrow_mut();
        let stored = self.prepared.stored(teacher, &source, &[Output::Embedding], *observer)?;
        class_centres(&stored[0], source.views.dataset(), &self.prepared.device)
    }

    fn classifiers(&self) -> Vec<String> {
        let classifies =
            |(name, term): (&String, &crate::recipe::TermRecipe)| term.loss.config.classifies().then(|| name.clone());
        self.stage.losses.iter().filter_map(classifies).collect()
    }

    fn device(&self) -> &Device {
        &self.prepared.device
    }
}
