//! Cosine similarity of pairs of embeddings.

use super::pairs::Pair;
use crate::error::{Error, Result};

/// Cosine similarity of every pair, in `[-1, 1]`, in the order of `pairs`.
///
/// `embeddings` is a matrix of rows of `width` values, one row for each image; rows need not have
/// unit length. Sums are taken in double precision, in the order of the row, so the result is the
/// same on every machine.
///
/// # Errors
/// If `width` is zero or does not divide the number of values, if a row (of a pair or not) holds a
/// value that is not finite or has no direction (is zero), or if a pair names a row that is absent.
pub fn cosines(embeddings: &[f32], width: usize, pairs: &[Pair]) -> Result<Vec<f64>> {
    if width == 0 || !embeddings.len().is_multiple_of(width) {
        return Err(Error::data(format!(
            "expected rows of {width} values (at least one each), found {} values",
            embeddings.len()
        )));
    }
    let rows: Vec<&[f32]> = embeddings.chunks_exact(width).collect();
    let mut lengths = Vec::with_capacity(rows.len());
    for (at, row) in rows.iter().enumerate() {
        if let Some(column) = row.iter().position(|value| !value.is_finite()) {
            return Err(Error::data(format!(
                "embedding of row {at}: expected finite values, found {} in column {column}",
                row[column]
            )));
        }
        let length = dot(row, row).sqrt();
        if length == 0.0 {
            return Err(Error::data(format!("embedding of row {at}: expected a direction, found only zeros")));
        }
        lengths.push(length);
    }
    pairs
        .iter()
        .enumerate()
        .map(|(at, pair)| match (rows.get(pair.left), rows.get(pair.right)) {
            (Some(left), Some(right)) => {
                Ok((dot(left, right) / (lengths[pair.left] * lengths[pair.right])).clamp(-1.0, 1.0))
            }
            _ => Err(Error::data(format!(
                "pair {at}: expected rows below {}, found {} and {}",
                rows.len(),
                pair.left,
                pair.right
            ))),
        })
        .collect()
}

/// Inner product of two rows of equal width.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(left: usize, right: usize) -> Pair {
        Pair { left, right, same: true, fold: 0 }
    }

    #[test]
    fn length_does_not_matter() {
        let embeddings = [3.0, 4.0, 8.0, 6.0, -3.0, -4.0];
        let scores = cosines(&embeddings, 2, &[pair(0, 1), pair(0, 2), pair(1, 1)]).expect("scores");
        assert!((scores[0] - 0.96).abs() < 1e-12, "{scores:?}");
        assert_eq!(scores[1..], [-1.0, 1.0]);
    }

    #[test]
    fn rows_without_direction_are_named() {
        let error = cosines(&[1.0, 0.0, 0.0, 0.0], 2, &[]).expect_err("zero row");
        assert!(error.to_string().contains("row 1: expected a direction"), "{error}");
        let error = cosines(&[1.0, 0.0, 1.0, f32::NAN], 2, &[]).expect_err("NaN");
        assert!(error.to_string().contains("row 1: expected finite values, found NaN in column 1"), "{error}");
    }

    #[test]
    fn shapes_are_checked() {
        assert!(cosines(&[1.0; 5], 2, &[]).is_err());
        assert!(cosines(&[1.0; 4], 0, &[]).is_err());
        let error = cosines(&[1.0; 4], 2, &[pair(0, 2)]).expect_err("row 2");
        assert_eq!(error.to_string(), "pair 0: expected rows below 2, found 0 and 2");
    }
}
