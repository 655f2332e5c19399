//! Logit distillation, L_kd of Eq. (3).

use candle_core::{D, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::BuildContext;
use crate::error::{Error, Problem, Result};
use crate::loss::{About, Loss, LossConfig, LossInputs, LossValue, Needs, TeacherNeed, Wanted};
use crate::nn::l2_normalise;
use crate::nn::weights::read_safetensors;
use crate::plugin::Kind;
use crate::recipe::RecipePath;

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
    #[schemars(range(min = 1e-6, max = 1_000_000))]
    pub scale: f64,
    /// T.
    #[schemars(range(min = 1e-6, max = 1_000_000))]
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
        let message = || "`file` and `teacher_logits = \"file\"` go together".into();
        Problem::unless(from_file == self.file.is_some(), "file", message).into_iter().collect()
    }

    fn needs(&self) -> Needs {
        let output = if self.teacher_logits == TeacherLogits::Offered { Wanted::Logits } else { Wanted::Embedding };
        Needs {
            teachers: vec![TeacherNeed { teacher: self.teacher.clone(), output }],
            centres: self.teacher_logits == TeacherLogits::ClassCentres,
            logits_of: Some(self.classifier.clone()),
            labels: true,
            ..Needs::default()
        }
    }

    fn about(&self) -> About {
        About { equation: "t^2 KL(softmax(T / t) || softmax(S / t))", memory: "b c" }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let (people, width) = (cx.stage()?.people, cx.stage()?.teachers[0].width());
        let logits = match self.teacher_logits {
            TeacherLogits::Offered if width != people => {
                return Err(Error::component(format!(
                    "the teacher has logits of {width} identities, the data has {people}"
                )));
            }
            TeacherLogits::Offered => Logits::Offered,
            TeacherLogits::ClassCentres => Logits::Centres,
            TeacherLogits::File => Logits::ClassWeights(self.read(people, width, cx)?),
        };
        Ok(Box::new(Divergence { logits, scale: self.scale, temperature: self.temperature }))
    }
}

impl LogitDistillation {
    fn read(&self, people: usize, width: usize, cx: &BuildContext) -> Result<Tensor> {
        let path = self.file.as_ref().ok_or_else(|| Error::recipe("`file` is missing"))?;
        let tensors = read_safetensors(&cx.file(path)?.path)?;
        match tensors.get("weight") {
            Some(weight) if weight.dims() == [people, width] => {
                Ok(l2_normalise(&weight.to_dtype(candle_core::DType::F32)?.to_device(cx.device())?)?)
            }
            found => Err(Error::weights(format!(
                "`{path}`: expected a tensor `weight` [{people}, {width}], found {}",
                found.map_or("none".into(), |t| format!("{:?}", t.dims()))
            ))),
        }
    }
}

/// What a teacher's logits are made of.
enum Logits {
    Offered,
    Centres,
    ClassWeights(Tensor),
}

struct Divergence {
    logits: Logits,
    scale: f64,
    temperature: f64,
}

impl Loss for Divergence {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let given = inputs.teacher(0)?;
        let cosines =
            |classes: &Tensor| -> Result<Tensor> { Ok((l2_normalise(given)?.matmul(&classes.t()?)? * self.scale)?) };
        let teacher = match &self.logits {
            Logits::Offered => given.clone(),
            Logits::Centres => cosines(inputs.centres()?)?,
            Logits::ClassWeights(weights) => cosines(weights)?,
        };
        let details = vec![("teacher_accuracy".into(), crate::loss::accuracy(&teacher, inputs.labels()?)?)];
        let value = divergence(&teacher, inputs.logits()?, self.temperature)?;
        Ok(LossValue { value, logits: None, details })
    }
}

/// `T^2 KL(softmax(teacher / T) || softmax(student / T))`, mean over the rows.
pub(super) fn divergence(teacher: &Tensor, student: &Tensor, temperature: f64) -> Result<Tensor> {
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
