//! Logit distillation, L_kd of Eq. (3).

use candle_core::{D, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Loss, LossConfig, LossContext, LossInputs, LossValue, Needs};
use crate::error::{Error, Problem, Result};
use crate::nn::weights::read_safetensors;
use crate::nn::{Weights, l2_normalise};
use crate::recipe::RecipePath;
use crate::registry::Kind;
use crate::teacher::Output;

/// `T^2 KL(softmax(t / T) || softmax(s / T))` between the teacher's identity logits t and the student's s, mean over the
/// batch. The paper gives neither T nor the origin of t; 4 is the value of CRD's experiments.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogitDistillation {
    /// The teacher's name in the recipe; may be left out when only one has embeddings.
    pub teacher: Option<String>,
    /// The term of the same stage whose logits are the student's; may be left out when only one classifies.
    pub classifier: Option<String>,
    /// Where the teacher's logits come from.
    pub teacher_logits: TeacherLogits,
    /// With `teacher_logits = "file"`: a safetensors file with the class weights `weight`, `[identities, width]`.
    pub file: Option<RecipePath>,
    /// Factor of cosines that serve as the teacher's logits.
    pub scale: f64,
    /// T.
    pub temperature: f64,
}

/// Where a teacher's logits over the training identities come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TeacherLogits {
    /// Cosines with the mean embedding of each training identity.
    #[default]
    ClassCentres,
    /// Cosines with class weights from a file.
    File,
    /// The teacher's own logits, over exactly the training identities.
    Offered,
}

impl Default for LogitDistillation {
    fn default() -> Self {
        Self {
            teacher: None,
            classifier: None,
            teacher_logits: TeacherLogits::default(),
            file: None,
            scale: 30.0,
            temperature: 4.0,
        }
    }
}

impl Kind for LogitDistillation {
    const NAME: &'static str = "logit-distillation";
    const PURPOSE: &'static str = "the student's identity distribution is the teacher's (L_kd of Eq. 3)";
}

impl LossConfig for LogitDistillation {
    fn check(&self) -> Vec<Problem> {
        let from_file = self.teacher_logits == TeacherLogits::File;
        let positive = |value: f64| value > 0.0;
        [
            Problem::unless(positive(self.temperature), "temperature", || {
                format!("expected a positive number, found {}", self.temperature)
            }),
            Problem::unless(positive(self.scale), "scale", || {
                format!("expected a positive number, found {}", self.scale)
            }),
            Problem::unless(from_file == self.file.is_some(), "file", || {
                "`file` and `teacher_logits = \"file\"` go together".into()
            }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn teachers(&self) -> Vec<&str> {
        self.teacher.as_deref().into_iter().collect()
    }

    fn needs_labels(&self) -> bool {
        true
    }

    fn build(&self, context: &dyn LossContext, _: &Weights) -> Result<Box<dyn Loss>> {
        let offered = self.teacher_logits == TeacherLogits::Offered;
        let output = if offered { Output::Logits } else { Output::Embedding };
        let teacher = context.only_teacher(self.teacher.as_deref(), &output)?;
        let classifiers = context.classifiers();
        let classifier = match &self.classifier {
            Some(named) if classifiers.contains(named) => named.clone(),
            Some(named) => {
                return Err(Error::component(format!(
                    "`classifier = \"{named}\"` is no classifying term of this stage; there are {classifiers:?}"
                )));
            }
            None if classifiers.len() == 1 => classifiers[0].clone(),
            None => {
                return Err(Error::component(format!(
                    "expected one classifying term in the stage (cross-entropy, arcface ...), found {classifiers:?}; \
                     name one with `classifier`"
                )));
            }
        };
        let width = context.teacher_shape(&teacher, &output)?.iter().product::<usize>();
        let identities = context.identities()?;
        let centres = match self.teacher_logits {
            TeacherLogits::Offered if width != identities => {
                return Err(Error::component(format!(
                    "the teacher has logits of {width} identities, the data has {identities}"
                )));
            }
            TeacherLogits::Offered => None,
            TeacherLogits::ClassCentres => Some(context.class_centres(&teacher)?),
            TeacherLogits::File => Some(self.read(identities, width, context)?),
        };
        let (scale, temperature) = (self.scale, self.temperature);
        Ok(Box::new(Live { teacher, output, classifier, centres, scale, temperature }))
    }
}

impl LogitDistillation {
    fn read(&self, identities: usize, width: usize, context: &dyn LossContext) -> Result<Tensor> {
        let path = self.file.as_ref().ok_or_else(|| Error::recipe("`file` is missing"))?;
        let tensors = read_safetensors(path)?;
        match tensors.get("weight") {
            Some(weight) if weight.dims() == [identities, width] => {
                Ok(l2_normalise(&weight.to_dtype(candle_core::DType::F32)?.to_device(context.device())?)?)
            }
            found => Err(Error::weights(format!(
                "`{}`: expected a tensor `weight` [{identities}, {width}], found {}",
                path.display(),
                found.map_or("none".into(), |t| format!("{:?}", t.dims()))
            ))),
        }
    }
}

struct Live {
    teacher: String,
    output: Output,
    classifier: String,
    centres: Option<Tensor>,
    scale: f64,
    temperature: f64,
}

impl Loss for Live {
    fn needs(&self) -> Needs {
        Needs {
            teachers: vec![(self.teacher.clone(), self.output.clone())],
            labels: true,
            logits_of: Some(self.classifier.clone()),
            ..Needs::default()
        }
    }

    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let teacher = inputs.teacher(&self.teacher, &self.output)?;
        let teacher = match &self.centres {
            Some(centres) => (l2_normalise(teacher)?.matmul(&centres.t()?)? * self.scale)?,
            None => teacher.clone(),
        };
        let student = inputs
            .logits
            .get(&self.classifier)
            .ok_or_else(|| Error::component(format!("the term `{}` has given no logits", self.classifier)))?;
        let details = vec![("teacher_accuracy".into(), super::accuracy(&teacher, inputs.identities)?)];
        let value = divergence(&teacher, student, self.temperature)?;
        Ok(LossValue { value, logits: None, details })
    }
}

/// `T^2 KL(softmax(teacher / T) || softmax(student / T))`, mean over the rows.
fn divergence(teacher: &Tensor, student: &Tensor, temperature: f64) -> Result<Tensor> {
    let teacher = candle_nn::ops::log_softmax(&(teacher / temperature)?, D::Minus1)?;
    let student = candle_nn::ops::log_softmax(&(student / temperature)?, D::Minus1)?;
    let each = (teacher.exp()? * (teacher - student)?)?.sum(D::Minus1)?;
    Ok((each.mean_all()? * (temperature * temperature))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_value_by_hand() {
        let teacher = Tensor::new(&[[0f32, 0.0]], &Device::Cpu).expect("logits");
        let student = Tensor::new(&[[2f32, 0.0]], &Device::Cpu).expect("logits");
        let found = divergence(&teacher, &student, 2.0).and_then(|t| Ok(t.to_scalar::<f32>()?)).expect("value");
        // Student's log-probabilities at T=2: -ln(1+e^-1) and -1-ln(1+e^-1); KL = -ln 2 + 0.5 + ln(1+e^-1).
        let expected = 4.0 * (-(2f32.ln()) + 0.5 + (1.0 + (-1f32).exp()).ln());
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
}
