//! One embedding for each person of a gallery.

use crate::embedder::Embeddings;
use crate::error::{Error, Result};

/// The mean of the embeddings of each person, brought to unit length: row `p` is that of the person `p`, whose name is `names[p]`.
///
/// # Errors
/// If a person has no embedding, or a person's embeddings cancel out.
pub(super) fn templates(embeddings: &Embeddings, people: &[u32], names: &[String]) -> Result<Embeddings> {
    let width = embeddings.width();
    let mut sums = vec![0f64; names.len() * width];
    for (row, person) in people.iter().enumerate() {
        let sum = &mut sums[*person as usize * width..][..width];
        sum.iter_mut().zip(embeddings.known(row)).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    for (person, sum) in sums.chunks_exact(width).enumerate() {
        if sum.iter().map(|value| value * value).sum::<f64>() < 1e-12 {
            return Err(Error::component(format!("the embeddings of `{}` have no mean direction", names[person])));
        }
    }
    Embeddings::from_rows(width, sums.into_iter().map(|value| value as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_have_unit_length() {
        let rows = Embeddings::from_rows(2, vec![1.0, 0.0, 0.0, 2.0, 0.0, -1.0, 0.0, 1.0]).expect("rows");
        let names = ["Ann".to_string(), "Bob".to_string()];
        let found = templates(&rows, &[0, 0, 1, 1], &names).expect_err("Bob's cancel out");
        assert_eq!(found.to_string(), "the embeddings of `Bob` have no mean direction");
        let found = templates(&rows, &[0, 0, 1, 0], &names).expect("means");
        let close = |a: &[f32], b: [f32; 2]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(close(found.known(0), [0.447_213_6, 0.894_427_2]) && close(found.known(1), [0.0, -1.0]), "{found:?}");
    }
}
