//! A teacher that is trained along with the student.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::logit_distillation::divergence;
use crate::context::BuildContext;
use crate::error::{Context, Error, Result};
use crate::loss::maps::MapPair;
use crate::loss::recognition::Classifier;
use crate::loss::{About, Loss, LossConfig, LossInputs, LossValue, Needs};
use crate::nn::Mode;
use crate::plugin::{Kind, ViewName};
use crate::student::Student;

/// Evolutionary knowledge distillation (EKD; Zhang et al., "Student network learning via evolutionary knowledge
/// distillation", TCSVT 2022): a teacher is learnt online, and hands on what it knows at every step of the way, not only
/// in the end; guided modules stand between the maps of both.
///
/// We have read its abstract alone, and the equations are ours: a second network T sees the same faces in another view
/// and learns to classify the identities, `CE(T)`; the student's logits follow its logits, `logits t^2 KL(T || S)`, and
/// the student's map follows its map through a learned 1x1 convolution where the channels differ, `map || S - T ||^2` as
/// a mean; of both, the teacher's side has no gradient. The network is of any kind that `[student]` knows, starts from
/// nothing, learns at the stage's rate and is in checkpoints, not in the student file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvolvingTeacher {
    /// The teacher's network: `kind` and its options, as in `[student]`.
    pub network: BTreeMap<String, serde_json::Value>,
    /// The view that the teacher sees.
    pub view: ViewName,
    /// The term of the same stage whose logits are the student's; may be left out when only one classifies.
    pub classifier: Option<String>,
    /// Weight of the logits.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub logits: f64,
    /// t.
    #[schemars(range(min = 1e-6, max = 1_000_000))]
    pub temperature: f64,
    /// Weight of the maps.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub map: f64,
}

impl Default for EvolvingTeacher {
    fn default() -> Self {
        let network = BTreeMap::from([("kind".to_string(), "resnet-trunk".into())]);
        Self { network, view: "high".into(), classifier: None, logits: 1.0, temperature: 4.0, map: 1.0 }
    }
}

impl Kind for EvolvingTeacher {
    const NAME: &'static str = "evolving-teacher";
    const PURPOSE: &'static str = "a teacher that is trained along, on another view, and followed at every step (EKD)";
}

impl LossConfig for EvolvingTeacher {
    fn needs(&self) -> Needs {
        Needs {
            map: true,
            labels: true,
            logits_of: Some(self.classifier.clone()),
            views: vec![self.view.to_string()],
            ..Needs::default()
        }
    }

    fn about(&self) -> About {
        About {
            equation: "CE(T(view)) + a t^2 KL(softmax(T / t) || softmax(S / t)) + b || S - T ||^2 of maps",
            memory: "a second network in training",
        }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let (stage, weights) = (cx.stage()?, cx.weights()?);
        let network = serde_json::Map::from_iter(self.network.clone());
        let teacher = cx.student(network, stage.views[0], &weights.pp("teacher")).at(|| "`network`".to_string())?;
        let card = teacher.card();
        let width = card.embedding.ok_or_else(|| {
            Error::component("`network`: expected a network with an embedding, found one that only denoises")
        })?;
        let pair = MapPair::with(card.map, cx)?;
        let classifier = Classifier::plain(width, stage, &weights.pp("classifier"))?;
        Ok(Box::new(Online { teacher, classifier, pair, config: self.clone() }))
    }
}

struct Online {
    teacher: Box<dyn Student>,
    classifier: Classifier,
    pair: MapPair,
    config: EvolvingTeacher,
}

impl Loss for Online {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let EvolvingTeacher { logits, temperature, map, .. } = self.config;
        let shown = self.teacher.backbone(inputs.view(0)?, Mode::Train)?;
        let embedding = self.teacher.head(&shown, Mode::Train)?;
        let of_teacher =
            LossInputs { embedding: Some(&embedding), labels: Some(inputs.labels()?), ..LossInputs::default() };
        let learnt = self.classifier.compute(&of_teacher)?;
        let known = learnt.logits.ok_or_else(|| Error::component("the teacher's classifier gave no logits"))?.detach();
        let mut value = learnt.value;
        if logits > 0.0 {
            value = (value + (divergence(&known, inputs.logits()?, temperature)? * logits)?)?;
        }
        if map > 0.0 {
            let (of_student, of_teacher) = self.pair.between(inputs.map()?, &shown.detach())?;
            value = (value + ((of_student - of_teacher)?.sqr()?.mean_all()? * map)?)?;
        }
        let details = learnt.details.into_iter().map(|(name, number)| (format!("teacher_{name}"), number)).collect();
        Ok(LossValue { value, logits: None, details })
    }
}
