//! Relations of one to four faces.

use candle_core::{D, Device, Tensor};
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::relations::{angle_term, distance_term, quadruple_term};
use crate::context::BuildContext;
use crate::error::{Error, Problem, Result};
use crate::loss::{About, LoggedScalar, Loss, LossConfig, LossInputs, LossValue, Needs, Wanted};
use crate::nn::kernels::put;
use crate::nn::{Linear, l2_normalise};
use crate::plugin::Kind;

/// Hybrid order relational knowledge distillation, HORKD (Ge et al., AAAI 2020): similarities in relational structures
/// of several orders are the teacher's, with an assistant between teacher and student.
///
/// We have read its abstract alone, which says no more than that. Here the first order is `1 - cos` between the
/// embeddings, the second and third are RKD's distances and angles, and the fourth is the cosine between the directions
/// of two pairs, for `quadruples` times four faces drawn at random; all on unit vectors. An assistant is a second such
/// term with another teacher.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HybridOrder {
    /// The teacher's name in the recipe; may be left out when only one has embeddings.
    pub teacher: Option<String>,
    /// Weight of the first order.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub first: f64,
    /// Weight of the second order.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub second: f64,
    /// Weight of the third order.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub third: f64,
    /// Weight of the fourth order.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub fourth: f64,
    /// Quadruples of a step.
    #[schemars(range(min = 1, max = 1 << 20))]
    pub quadruples: usize,
}

impl Default for HybridOrder {
    fn default() -> Self {
        Self { teacher: None, first: 1.0, second: 1.0, third: 2.0, fourth: 2.0, quadruples: 4096 }
    }
}

impl Kind for HybridOrder {
    const NAME: &'static str = "hybrid-order";
    const PURPOSE: &'static str = "relations of one to four faces are the teacher's (HORKD)";
}

impl LossConfig for HybridOrder {
    fn check(&self) -> Vec<Problem> {
        [
            Problem::within("first", self.first, 0.0..=1e6),
            Problem::within("second", self.second, 0.0..=1e6),
            Problem::within("third", self.third, 0.0..=1e6),
            Problem::within("fourth", self.fourth, 0.0..=1e6),
            Problem::within("quadruples", self.quadruples, 1..=1 << 20),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn needs(&self) -> Needs {
        Needs::embedding_and(self.teacher.as_ref(), Wanted::Embedding)
    }

    fn about(&self) -> About {
        About {
            equation: "1 - cos(S, T) + L1 of distances, angles, and directions of pairs",
            memory: "b^2 w + b^3 + p w",
        }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        let stage = cx.stage()?;
        let (width, target) = (stage.embedding_width()?, stage.teachers[0].width());
        let differ = width != target && self.first > 0.0;
        let connector = differ.then(|| Linear::new(width, target, true, &cx.weights()?.pp("connector"))).transpose()?;
        Ok(Box::new(Orders { config: self.clone(), connector }))
    }
}

struct Orders {
    config: HybridOrder,
    connector: Option<Linear>,
}

impl Loss for Orders {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let (student, teacher) = (l2_normalise(inputs.embedding()?)?, l2_normalise(inputs.teacher(0)?)?);
        let HybridOrder { first, second, third, fourth, .. } = self.config;
        let (mut value, mut details) = (Tensor::zeros((), student.dtype(), student.device())?, Vec::new());
        let mut add = |name: &str, weight: f64, term: &dyn Fn() -> Result<Tensor>| -> Result<()> {
            if weight > 0.0 {
                let term = term()?;
                details.push((name.to_string(), LoggedScalar::scalar(&term)?));
                value = (&value + (term * weight)?)?;
            }
            Ok(())
        };
        add("first", first, &|| {
            let mapped = match &self.connector {
                Some(connector) => l2_normalise(&connector.forward(inputs.embedding()?)?)?,
                None => student.clone(),
            };
            Ok((1.0 - (mapped * &teacher)?.sum(D::Minus1)?.mean_all()?)?)
        })?;
        add("second", second, &|| distance_term(&student, &teacher))?;
        add("third", third, &|| angle_term(&student, &teacher))?;
        add("fourth", fourth, &|| quadruple_term(&student, &teacher, &self.quadruples(inputs, student.dim(0)?)?))?;
        Ok(LossValue { value, logits: None, details })
    }
}

impl Orders {
    /// Four different faces of the batch for each quadruple.
    fn quadruples(&self, inputs: &LossInputs, batch: usize) -> Result<[Tensor; 4]> {
        if batch < 4 {
            return Err(Error::component(format!("relations of four faces need a batch of at least 4, found {batch}")));
        }
        let (mut stream, mut four) = (inputs.stream()?, [const { Vec::new() }; 4]);
        for _ in 0..self.config.quadruples {
            let mut drawn: Vec<u32> = Vec::with_capacity(4);
            while drawn.len() < 4 {
                let face = stream.random_range(0..batch) as u32;
                if !drawn.contains(&face) {
                    drawn.push(face);
                }
            }
            four.iter_mut().zip(drawn).for_each(|(column, face)| column.push(face));
        }
        let device = inputs.embedding()?.device();
        let index = |numbers: &Vec<u32>| put(&Tensor::new(numbers.as_slice(), &Device::Cpu)?, device);
        Ok([index(&four[0])?, index(&four[1])?, index(&four[2])?, index(&four[3])?])
    }
}
