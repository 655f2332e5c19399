//! Mean and covariance of embeddings, and powers of the covariance.

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};

/// A linear map after the subtraction of a mean: `(x - mean) C^-power`.
pub(super) struct Whitening {
    /// `[1, width]`.
    mean: Tensor,
    /// `C^-power`, `[width, width]`.
    matrix: Tensor,
}

/// Rows that are multiplied at a time.
const ROWS: usize = 1024;

/// What is added to the covariance's eigenvalues, as a share of their mean, so that a direction without variance is not blown up.
const FLOOR: f64 = 1e-3;

impl Whitening {
    /// From the mean and the covariance C of `rows` (row by row, each of `width` values); `power` is 0 for the mean alone, and 0.5
    /// where all directions get the same variance.
    ///
    /// # Errors
    /// If there are fewer than two rows, or they are all equal.
    pub(super) fn of(rows: &[f32], width: usize, power: f64, device: &Device) -> Result<Self> {
        let count = rows.len() / width;
        let mut mean = vec![0f64; width];
        for row in rows.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        mean.iter_mut().for_each(|sum| *sum /= count as f64);
        let mut covariance = vec![0f64; width * width];
        for chunk in rows.chunks(ROWS * width) {
            let centred: Vec<f32> =
                chunk.iter().enumerate().map(|(at, value)| (f64::from(*value) - mean[at % width]) as f32).collect();
            let centred = Tensor::from_vec(centred, (chunk.len() / width, width), &Device::Cpu)?;
            let product = centred.t()?.matmul(&centred)?.flatten_all()?.to_vec1::<f32>()?;
            covariance.iter_mut().zip(product).for_each(|(sum, value)| *sum += f64::from(value));
        }
        covariance.iter_mut().for_each(|sum| *sum /= count as f64);
        let spread = (0..width).map(|at| covariance[at * (width + 1)]).sum::<f64>() / width as f64;
        if count < 2 || spread.is_nan() || spread <= 0.0 {
            return Err(Error::data(format!("{count} embeddings without variance cannot be whitened")));
        }
        (0..width).for_each(|at| covariance[at * (width + 1)] += FLOOR * spread);
        // In units of the mean eigenvalue: the scale of the result does not matter, its range does.
        covariance.iter_mut().for_each(|value| *value /= spread);
        let tensor = |values: Vec<f64>, shape: (usize, usize)| -> Result<Tensor> {
            Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(DType::F32)?.to_device(device)?)
        };
        let matrix = symmetric_power(covariance, width, -power);
        Ok(Self { mean: tensor(mean, (1, width))?, matrix: tensor(matrix, (width, width))? })
    }

    /// The map of `x`, `[batch, width]`.
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.broadcast_sub(&self.mean)?.matmul(&self.matrix)?)
    }
}

/// A power of a symmetric matrix with positive eigenvalues, `[width, width]`, by Jacobi's rotations.
pub(crate) fn symmetric_power(mut a: Vec<f64>, width: usize, power: f64) -> Vec<f64> {
    // Rows of `v` become the eigenvectors.
    let mut v = vec![0f64; width * width];
    (0..width).for_each(|at| v[at * (width + 1)] = 1.0);
    // Convergence is quadratic: five to ten sweeps are usual.
    for _ in 0..50 {
        let off: f64 = (0..width * width).filter(|at| at / width != at % width).map(|at| a[at] * a[at]).sum();
        let all: f64 = a.iter().map(|value| value * value).sum();
        if off <= 1e-26 * all {
            break;
        }
        for p in 0..width {
            for q in p + 1..width {
                let (app, aqq, apq) = (a[p * width + p], a[q * width + q], a[p * width + q]);
                if apq.abs() <= 1e-300 {
                    continue;
                }
                // The rotation by the smaller angle that makes a_pq zero (Golub and Van Loan, section 8.5).
                let tau = (aqq - app) / (2.0 * apq);
                let t = tau.signum() / (tau.abs() + (1.0 + tau * tau).sqrt());
                let c = 1.0 / (1.0 + t * t).sqrt();
                let s = t * c;
                rotate_rows(&mut a, width, (p, q), (c, s));
                for row in a.chunks_exact_mut(width) {
                    (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
                }
                rotate_rows(&mut v, width, (p, q), (c, s));
            }
        }
    }
    let mut result = vec![0f64; width * width];
    for (at, vector) in v.chunks_exact(width).enumerate() {
        let factor = a[at * (width + 1)].max(f64::MIN_POSITIVE).powf(power);
        for (row, left) in result.chunks_exact_mut(width).zip(vector) {
            row.iter_mut().zip(vector).for_each(|(value, right)| *value += factor * left * right);
        }
    }
    result
}

/// The rows p and q (p below q) become `c p - s q` and `s p + c q`.
fn rotate_rows(a: &mut [f64], width: usize, (p, q): (usize, usize), (c, s): (f64, f64)) {
    let (upper, lower) = a.split_at_mut(q * width);
    for (p, q) in upper[p * width..(p + 1) * width].iter_mut().zip(&mut lower[..width]) {
        (*p, *q) = (c * *p - s * *q, s * *p + c * *q);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{Seed, normal};

    /// Rows of three values whose covariance is far from a multiple of the identity.
    fn rows() -> Vec<f32> {
        let drawn = normal(&mut Seed(7).stream("rows", &[]), 3 * 3000, 1.0);
        drawn.chunks_exact(3).flat_map(|z| [4.0 * z[0] + 2.0, z[0] + z[1] - 1.0, 0.3 * z[2] + 0.5 * z[1]]).collect()
    }

    fn mean_and_covariance(rows: &[f32]) -> ([f64; 3], [[f64; 3]; 3]) {
        let count = rows.len() as f64 / 3.0;
        let each = || rows.chunks_exact(3).map(|row| [0, 1, 2].map(|at| f64::from(row[at])));
        let mean = [0, 1, 2].map(|at| each().map(|row| row[at]).sum::<f64>() / count);
        let pair = |a: usize, b: usize| each().map(|row| (row[a] - mean[a]) * (row[b] - mean[b])).sum::<f64>() / count;
        (mean, [0, 1, 2].map(|a| [0, 1, 2].map(|b| pair(a, b))))
    }

    fn whitened(power: f64) -> Vec<f32> {
        let whitening = Whitening::of(&rows(), 3, power, &Device::Cpu).expect("a map");
        let x = Tensor::from_vec(rows(), (3000, 3), &Device::Cpu).expect("rows");
        whitening.apply(&x).and_then(|y| Ok(y.flatten_all()?.to_vec1()?)).expect("rows")
    }

    #[test]
    fn whole_whitening_makes_all_directions_alike() {
        let (mean, covariance) = mean_and_covariance(&whitened(0.5));
        assert!(mean.iter().all(|value| value.abs() < 1e-4), "{mean:?}");
        let scale = covariance[0][0];
        for (a, row) in covariance.iter().enumerate() {
            for (b, value) in row.iter().enumerate() {
                let expected = if a == b { scale } else { 0.0 };
                // The floor, a thousandth of the mean eigenvalue, leaves the smallest direction (an eightieth of it) a little short.
                assert!((value - expected).abs() < 0.1 * scale, "{covariance:?}");
            }
        }
    }

    #[test]
    fn no_power_removes_the_mean_alone_and_half_the_power_twice_is_the_power() {
        let (mean, covariance) = mean_and_covariance(&whitened(0.0));
        let before = mean_and_covariance(&rows()).1;
        assert!(mean.iter().all(|value| value.abs() < 1e-4), "{mean:?}");
        assert!((covariance[0][1] - before[0][1]).abs() < 1e-3 * before[0][0], "{covariance:?}");
        let matrix = vec![4.0, 1.0, 0.5, 1.0, 3.0, 0.2, 0.5, 0.2, 2.0];
        let quarter = symmetric_power(matrix.clone(), 3, -0.25);
        let product = |a: &[f64], b: &[f64]| -> Vec<f64> {
            (0..9).map(|at| (0..3).map(|k| a[at / 3 * 3 + k] * b[k * 3 + at % 3]).sum()).collect()
        };
        let half = product(&quarter, &quarter);
        let inverse = product(&half, &half);
        let identity = product(&inverse, &matrix);
        for (at, value) in identity.iter().enumerate() {
            assert!((value - if at % 4 == 0 { 1.0 } else { 0.0 }).abs() < 1e-12, "{identity:?}");
        }
    }

    #[test]
    fn equal_rows_are_refused() {
        assert!(Whitening::of(&[1.0, 2.0, 1.0, 2.0], 2, 0.25, &Device::Cpu).is_err());
        assert!(Whitening::of(&[1.0, 2.0], 2, 0.25, &Device::Cpu).is_err());
    }
}
