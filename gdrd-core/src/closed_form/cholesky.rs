//! The Cholesky factor of a large matrix, block by block.

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::nn::kernels::linear;

/// Rows and columns of a block.
pub(super) const BLOCK: usize = 512;

/// The lower half of a symmetric matrix `[d, d]`: of each block of rows the columns up to and with the diagonal's block.
pub(super) struct Lower {
    pub(super) panels: Vec<Tensor>,
    pub(super) size: usize,
}

impl Lower {
    /// Zeros.
    pub(super) fn zeros(size: usize, device: &Device) -> Result<Self> {
        let panel = |(from, rows)| Ok(Tensor::zeros((rows, from + rows), DType::F32, device)?);
        Ok(Self { panels: blocks(size).map(panel).collect::<Result<_>>()?, size })
    }

    /// Adds `factor * x x'` for `x` `[d, m]`.
    pub(super) fn add_products(&mut self, x: &Tensor, factor: f64) -> Result<()> {
        for (panel, (from, rows)) in self.panels.iter_mut().zip(blocks(self.size)) {
            let product = linear(&x.narrow(0, from, rows)?, &x.narrow(0, 0, from + rows)?)?;
            *panel = if factor == 1.0 { (&*panel + product)? } else { (&*panel + (product * factor)?)? };
        }
        Ok(())
    }

    /// The diagonal.
    pub(super) fn diagonal(&self) -> Result<Vec<f64>> {
        let mut all = Vec::with_capacity(self.size);
        for (panel, (from, rows)) in self.panels.iter().zip(blocks(self.size)) {
            let block = panel.narrow(1, from, rows)?.to_vec2::<f32>()?;
            all.extend(block.iter().enumerate().map(|(at, row)| f64::from(row[at])));
        }
        Ok(all)
    }

    /// The Cholesky factor of the matrix with `plus` added to its diagonal. The matrix is given up, panel by panel, so that no
    /// second one is held.
    ///
    /// # Errors
    /// If it is not positive definite in float32, or `report` (blocks done, blocks in all) says so.
    pub(super) fn factor(self, plus: f64, report: &mut dyn FnMut(usize, usize) -> Result<()>) -> Result<Factor> {
        let Self { panels, size } = self;
        let count = panels.len();
        let mut done: Vec<Row> = Vec::with_capacity(count);
        for (panel, (from, rows)) in panels.into_iter().zip(blocks(size)) {
            report(done.len(), count)?;
            let mut left: Option<Tensor> = None;
            for (above, (column, width)) in done.iter().zip(blocks(size)) {
                let block = panel.narrow(1, column, width)?.contiguous()?;
                let block = match (&left, &above.left) {
                    (Some(left), Some(right)) => (block - linear(left, right)?)?,
                    _ => block,
                };
                // S L^-T, since the block above is lower triangular.
                let block = linear(&block, &above.inverse)?;
                left = Some(match left {
                    Some(left) => Tensor::cat(&[left, block], 1)?,
                    None => block,
                });
            }
            let mut block = panel.narrow(1, from, rows)?.contiguous()?;
            if let Some(left) = &left {
                block = (block - linear(left, left)?)?;
            }
            let inverse = inverse_of_factor(&block, plus)?;
            done.push(Row { left, inverse });
        }
        report(count, count)?;
        Ok(Factor { rows: done, size })
    }
}

/// Where each block begins, and its rows.
fn blocks(size: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..size).step_by(BLOCK).map(move |from| (from, BLOCK.min(size - from)))
}

/// A block of rows of a Cholesky factor.
struct Row {
    /// What stands before the diagonal's block.
    left: Option<Tensor>,
    /// The inverse of the diagonal's block, lower triangular.
    inverse: Tensor,
}

/// The lower triangular `L` with `L L'` the matrix.
pub(super) struct Factor {
    rows: Vec<Row>,
    size: usize,
}

impl Factor {
    /// `right (L L')^-1` for `right` `[k, d]`.
    pub(super) fn solve(&self, right: &Tensor) -> Result<Tensor> {
        let mut forward: Option<Tensor> = None;
        for (row, (from, width)) in self.rows.iter().zip(blocks(self.size)) {
            let mut block = right.narrow(1, from, width)?.contiguous()?;
            if let (Some(solved), Some(left)) = (&forward, &row.left) {
                block = (block - linear(solved, left)?)?;
            }
            let block = linear(&block, &row.inverse)?;
            forward = Some(match forward {
                Some(solved) => Tensor::cat(&[solved, block], 1)?,
                None => block,
            });
        }
        let mut rest = forward.ok_or_else(|| Error::component("expected at least one feature, found none"))?;
        let mut found = Vec::with_capacity(self.rows.len());
        let places: Vec<(usize, usize)> = blocks(self.size).collect();
        for (row, &(from, width)) in self.rows.iter().zip(&places).rev() {
            let block = rest.narrow(1, from, width)?.contiguous()?.matmul(&row.inverse)?;
            if let Some(left) = &row.left {
                rest = (rest.narrow(1, 0, from)?.contiguous()? - block.matmul(left)?)?;
            }
            found.push(block);
        }
        found.reverse();
        Ok(Tensor::cat(&found, 1)?)
    }
}

/// The inverse of the Cholesky factor of a block with `plus` added to its diagonal, in float64.
fn inverse_of_factor(block: &Tensor, plus: f64) -> Result<Tensor> {
    let size = block.dim(0)?;
    let values = block.flatten_all()?.to_vec1::<f32>()?;
    let mut factor: Vec<f64> = values.into_iter().map(f64::from).collect();
    for row in 0..size {
        for column in 0..=row {
            let (before, here) = factor.split_at(row * size);
            let (left, up) = match column == row {
                true => (&here[..column], &here[..column]),
                false => (&here[..column], &before[column * size..column * size + column]),
            };
            let sum = dot(left, up);
            let value = factor[row * size + column] - sum;
            factor[row * size + column] = if column < row {
                value / factor[column * size + column]
            } else {
                let value = value + plus;
                if !(value > 0.0 && value.is_finite()) {
                    return Err(Error::component(format!(
                        "the features' Gram matrix with its ridge is not positive definite in float32 (pivot {value:e}); \
                         expected a larger `ridge`, and features that are finite"
                    )));
                }
                value.sqrt()
            };
        }
    }
    let mut inverse = vec![0f64; size * size];
    for row in 0..size {
        let (done, here) = inverse.split_at_mut(row * size);
        let here = &mut here[..size];
        for at in 0..row {
            let by = -factor[row * size + at];
            for (to, from) in here[..=at].iter_mut().zip(&done[at * size..]) {
                *to += by * from;
            }
        }
        here[row] = 1.0;
        let pivot = factor[row * size + row];
        here[..=row].iter_mut().for_each(|value| *value /= pivot);
    }
    let inverse: Vec<f32> = inverse.into_iter().map(|value| value as f32).collect();
    Ok(Tensor::from_vec(inverse, (size, size), block.device())?)
}

/// The inner product, in eight sums side by side.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0f64; 8];
    let (a_parts, b_parts) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a_parts.remainder().iter().zip(b_parts.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_parts.zip(b_parts) {
        for at in 0..8 {
            sums[at] += a[at] * b[at];
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix over several blocks, and what it is multiplied by.
    fn system(size: usize) -> (Lower, Tensor, Tensor) {
        let x = Tensor::randn(0f32, 1.0, (size, size + 7), &Device::Cpu).expect("random");
        let mut matrix = Lower::zeros(size, &Device::Cpu).expect("zeros");
        matrix.add_products(&x, 1.0).expect("products");
        let whole = x.matmul(&x.t().expect("t")).expect("product");
        (matrix, whole, Tensor::randn(0f32, 1.0, (3, size), &Device::Cpu).expect("random"))
    }

    #[test]
    fn what_is_solved_solves() {
        for size in [1, 5, BLOCK, BLOCK + 1, 2 * BLOCK + 77] {
            let (matrix, whole, right) = system(size);
            let plus = size as f64;
            let solved =
                matrix.factor(plus, &mut |_, _| Ok(())).and_then(|factor| factor.solve(&right)).expect("solved");
            let back = (solved.matmul(&whole).expect("product") + (&solved * plus).expect("scaled")).expect("sum");
            let off = (back - &right).and_then(|d| d.abs()?.max_all()?.to_scalar::<f32>()).expect("a number");
            assert!(off < 1e-3, "{size}: off by {off}");
        }
    }

    #[test]
    fn what_is_not_positive_definite_is_refused() {
        let matrix = Lower::zeros(600, &Device::Cpu).expect("zeros");
        let text = matrix.factor(0.0, &mut |_, _| Ok(())).err().expect("singular").to_string();
        assert!(text.contains("expected a larger `ridge`"), "{text}");
    }
}
