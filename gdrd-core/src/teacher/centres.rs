//! The classifier that a teacher's embeddings imply: one centre for each identity of the training set.

use candle_core::{Device, Tensor};

use super::Stored;
use crate::data::Dataset;
use crate::error::{Error, Result};

/// The mean of the unit-length embeddings of each identity, itself brought to unit length, `[people, width]`. Faces of people
/// whom nobody knows do not count.
///
/// The cosine of an embedding with the centres is the teacher's identity logit, up to a scale. The paper needs logits of
/// T_d over the classes of the training set (L_kd) and does not say where they come from; this is our reading.
///
/// # Errors
/// If the dataset has no identities, or an identity's embeddings cancel out.
pub fn class_centres(embeddings: &Stored, dataset: &dyn Dataset, device: &Device) -> Result<Tensor> {
    let people = dataset.people().len();
    if people == 0 {
        return Err(Error::data("class centres need a dataset with identities"));
    }
    let width: usize = embeddings.shape().iter().product();
    let mut centres = vec![0f64; people * width];
    let mut row = vec![0f32; width];
    for index in 0..dataset.len() {
        let Some(person) = dataset.person(index) else { continue };
        embeddings.copy(index, &mut row);
        let length = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(1e-12);
        let centre = &mut centres[person * width..][..width];
        centre.iter_mut().zip(&row).for_each(|(sum, v)| *sum += f64::from(*v) / length);
    }
    for (identity, centre) in centres.chunks_exact_mut(width).enumerate() {
        let length = centre.iter().map(|v| v * v).sum::<f64>().sqrt();
        if length < 1e-9 {
            return Err(Error::data(format!(
                "the embeddings of `{}` have no mean direction",
                dataset.people()[identity]
            )));
        }
        centre.iter_mut().for_each(|v| *v /= length);
    }
    let values: Vec<f32> = centres.into_iter().map(|v| v as f32).collect();
    Ok(Tensor::from_vec(values, (people, width), device)?)
}
