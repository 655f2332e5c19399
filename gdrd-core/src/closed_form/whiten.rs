//! Powers of a covariance.

use crate::error::{Error, Result};

/// Sweeps of Jacobi's method at most; it needs about ten.
const SWEEPS: usize = 60;

/// Eigenvalues smaller than this share of the largest count as this share: directions without variance are not blown up.
const LEAST: f64 = 1e-6;

/// `C^-p` of a symmetric matrix `[k, k]` without negative eigenvalues (but for rounding), row by row.
///
/// # Errors
/// If a value is not finite, or the matrix is zero.
pub(super) fn inverse_power(covariance: &[f64], size: usize, p: f64) -> Result<Vec<f64>> {
    let (values, vectors) = eigen(covariance, size)?;
    let largest = values.iter().copied().fold(0.0, f64::max);
    if largest <= 0.0 {
        return Err(Error::component("predictions do not vary, so they cannot be whitened"));
    }
    let powers: Vec<f64> = values.iter().map(|value| value.max(LEAST * largest).powf(-p)).collect();
    let mut power = vec![0f64; size * size];
    for (at, &by) in powers.iter().enumerate() {
        let vector = &vectors[at * size..(at + 1) * size];
        for (row, &left) in vector.iter().enumerate() {
            for (to, right) in power[row * size..(row + 1) * size].iter_mut().zip(vector) {
                *to += by * left * right;
            }
        }
    }
    Ok(power)
}

/// The eigenvalues of a symmetric matrix and their vectors, one a row, by Jacobi's method.
fn eigen(matrix: &[f64], size: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    if matrix.iter().any(|value| !value.is_finite()) {
        return Err(Error::component("the covariance of the predictions is not finite"));
    }
    let mut a = matrix.to_vec();
    let mut vectors = vec![0f64; size * size];
    (0..size).for_each(|at| vectors[at * size + at] = 1.0);
    let total: f64 = a.iter().map(|value| value * value).sum();
    for _ in 0..SWEEPS {
        let off = |a: &[f64]| (0..size).flat_map(|i| a[i * size..i * size + i].iter()).map(|v| v * v).sum::<f64>();
        if off(&a) <= 1e-24 * total {
            break;
        }
        for p in 0..size {
            for q in p + 1..size {
                rotate(&mut a, &mut vectors, size, p, q);
            }
        }
    }
    Ok(((0..size).map(|at| a[at * size + at]).collect(), vectors))
}

/// Turns rows and columns `p` and `q` so that the value where they cross is zero.
fn rotate(a: &mut [f64], vectors: &mut [f64], size: usize, p: usize, q: usize) {
    let cross = a[p * size + q];
    if cross == 0.0 {
        return;
    }
    let theta = (a[q * size + q] - a[p * size + p]) / (2.0 * cross);
    let tangent = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let tangent = if theta == 0.0 { 1.0 } else { tangent };
    let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
    let sine = tangent * cosine;
    for k in 0..size {
        let (left, right) = (a[k * size + p], a[k * size + q]);
        a[k * size + p] = cosine * left - sine * right;
        a[k * size + q] = sine * left + cosine * right;
    }
    for values in [a, vectors] {
        let (first, second) = values.split_at_mut(q * size);
        for (left, right) in first[p * size..(p + 1) * size].iter_mut().zip(&mut second[..size]) {
            (*left, *right) = (cosine * *left - sine * *right, sine * *left + cosine * *right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_by_hand() {
        // Eigenvalues 4 and 16 along (1, 1) and (1, -1).
        let power = inverse_power(&[10.0, -6.0, -6.0, 10.0], 2, 0.5).expect("a covariance");
        let expected = [0.375, 0.125, 0.125, 0.375];
        assert!(power.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{power:?}");
    }

    #[test]
    fn half_powers_multiplied_undo_the_matrix() {
        let size = 20;
        let root: Vec<f64> = (0..size * size).map(|at| ((at * 7919) % 101) as f64 / 50.0 - 1.0).collect();
        let product = |a: &[f64], b: &[f64]| -> Vec<f64> {
            let value = |at: usize| (0..size).map(|k| a[at / size * size + k] * b[k * size + at % size]).sum();
            (0..size * size).map(value).collect()
        };
        let transposed: Vec<f64> = (0..size * size).map(|at| root[at % size * size + at / size]).collect();
        let matrix: Vec<f64> = product(&root, &transposed)
            .into_iter()
            .enumerate()
            .map(|(at, value)| value + if at % (size + 1) == 0 { 5.0 } else { 0.0 })
            .collect();
        let half = inverse_power(&matrix, size, 0.5).expect("a covariance");
        let one = product(&product(&half, &matrix), &half);
        for (at, value) in one.iter().enumerate() {
            let expected = if at % (size + 1) == 0 { 1.0 } else { 0.0 };
            assert!((value - expected).abs() < 1e-9, "{at}: {value}");
        }
    }

    #[test]
    fn what_has_no_power_is_refused() {
        assert!(inverse_power(&[0.0], 1, 0.25).is_err());
        assert!(inverse_power(&[f64::NAN], 1, 0.25).is_err());
    }
}
