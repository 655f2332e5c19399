//! Feature maps that are similar.

use candle_core::{Device, Tensor};
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::BuildContext;
use crate::error::Result;
use crate::loss::maps::MapPair;
use crate::loss::{About, LoggedScalar, Loss, LossConfig, LossInputs, LossValue, Needs};
use crate::nn::kernels::put;
use crate::nn::l2_normalise;
use crate::plugin::Kind;
use crate::seed::Stream;

/// F-SKD (Shin et al., feature similarity knowledge distillation): `1 - cos` between the flattened map of the student
/// and of the teacher; and, with a weight, between their relations, which are the products of every pixel of a face's
/// map with every pixel of another face's of the same person, maps brought to unit length as a whole: with R_XY between maps of X and Y, the mean of `1 -
/// cos(R_TT, R_TS)` and `1 - cos(R_TT, R_ST)`, plus `1 - cos(R_TT, R_SS)`.
///
/// The original compares the map of every stage of networks of one shape: here that is a term for each stage, with a
/// `student_map` and a `tap` of the teacher. Maps are brought to one size and, by a
/// learned 1x1 convolution, to the teacher's channels. In the original, weights are 20 and 4, beside a margin loss.
/// The relation needs several images of a person in a batch.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MapSimilarity {
    /// The teacher's name in the recipe; may be left out when only one has feature maps.
    pub teacher: Option<String>,
    /// The teacher's feature map; its own default when left out.
    pub tap: Option<String>,
    /// The student's feature map, by its name: one on the way to the backbone's, which it is when left out.
    pub student_map: Option<String>,
    /// Weight of the relations beside the maps.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub relation: f64,
}

impl Kind for MapSimilarity {
    const NAME: &'static str = "map-similarity";
    const PURPOSE: &'static str = "the backbone's map points where a teacher's does (F-SKD)";
}

impl LossConfig for MapSimilarity {
    fn needs(&self) -> Needs {
        Needs {
            labels: self.relation > 0.0,
            student_map: self.student_map.clone(),
            ..Needs::map_and(self.teacher.as_ref(), self.tap.as_ref())
        }
    }

    fn about(&self) -> About {
        let memory = if self.relation > 0.0 { "b (h w)^2" } else { "b h w" };
        About { equation: "1 - cos(S, T) + r (1 - cos(R_TT, R_XY))", memory }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Loss>> {
        Ok(Box::new(Similar { pair: MapPair::new(cx)?, relation: self.relation }))
    }
}

struct Similar {
    pair: MapPair,
    relation: f64,
}

impl Loss for Similar {
    fn compute(&self, inputs: &LossInputs) -> Result<LossValue> {
        let (student, teacher) = self.pair.of(inputs)?;
        let value = apart(&student, &teacher)?;
        if self.relation == 0.0 {
            return Ok(value.into());
        }
        let (faces, others) = partners(inputs.labels()?.people(), &mut inputs.stream()?);
        if faces.is_empty() {
            return Ok(value.into());
        }
        let index = |numbers: Vec<u32>| put(&Tensor::new(numbers, &Device::Cpu)?, student.device());
        let (faces, others) = (index(faces)?, index(others)?);
        let of = |map: &Tensor, index: &Tensor| map.index_select(index, 0);
        let relation = |one: &Tensor, other: &Tensor| relation(&of(one, &faces)?, &of(other, &others)?);
        let both = relation(&teacher, &teacher)?;
        let crossed = (apart(&relation(&teacher, &student)?, &both)? + apart(&relation(&student, &teacher)?, &both)?)?;
        let term = ((crossed * 0.5)? + apart(&relation(&student, &student)?, &both)?)?;
        let details = vec![("relation".into(), LoggedScalar::scalar(&term)?)];
        Ok(LossValue { value: (value + (term * self.relation)?)?, logits: None, details })
    }
}

/// The mean over the first dimension of `1 - cos` of what is flattened.
fn apart(one: &Tensor, other: &Tensor) -> Result<Tensor> {
    let flat = |x: &Tensor| l2_normalise(&x.flatten_from(1)?);
    Ok((1.0 - (flat(one)? * flat(other)?)?.sum(1)?.mean_all()?)?)
}

/// The products of every pixel of one map with every pixel of the other, both of unit length as a whole, `[pairs,
/// pixels, pixels]`.
fn relation(one: &Tensor, other: &Tensor) -> Result<Tensor> {
    let whole = |x: &Tensor| -> Result<Tensor> {
        let (pairs, channels, height, width) = x.dims4()?;
        Ok(l2_normalise(&x.flatten_from(1)?)?.reshape((pairs, channels, height * width))?)
    };
    Ok(whole(one)?.transpose(1, 2)?.contiguous()?.matmul(&whole(other)?)?)
}

/// For each face of which the batch has another of the same person, itself and one such, drawn at random.
fn partners(people: &[Option<usize>], stream: &mut Stream) -> (Vec<u32>, Vec<u32>) {
    let (mut faces, mut others) = (Vec::new(), Vec::new());
    for (face, person) in people.iter().enumerate() {
        let fits = |other: &usize| *other != face && person.is_some() && people[*other] == *person;
        let all: Vec<usize> = (0..people.len()).filter(fits).collect();
        if !all.is_empty() {
            faces.push(face as u32);
            others.push(all[stream.random_range(0..all.len())] as u32);
        }
    }
    (faces, others)
}
