//! Relations of two, three and four faces.

use candle_core::{D, Tensor};

use crate::error::Result;
use crate::loss::{root, smooth_l1, squared_distances};

/// `x` with rows of unit length; a row of zeros stays one, and its gradient small.
fn unit(x: &Tensor) -> Result<Tensor> {
    let length = x.sqr()?.sum_keepdim(D::Minus1)?.affine(1.0, 1e-12)?.sqrt()?;
    Ok(x.broadcast_div(&length)?)
}

/// The Euclidean distances of all pairs of rows over their mean, `[batch, batch]`.
fn distances(x: &Tensor) -> Result<Tensor> {
    let batch = x.dim(0)?;
    let distances = root(&squared_distances(x, x)?)?;
    // The batch's own zeros are no pairs.
    let mean = (distances.sum_all()? / (batch * (batch - 1)).max(1) as f64)?;
    Ok(distances.broadcast_div(&(mean + 1e-12)?)?)
}

/// Differences of all pairs of rows, unit length, `[batch, batch, width]`: at (i, j) from row i to row j.
fn directions(x: &Tensor) -> Result<Tensor> {
    unit(&x.unsqueeze(0)?.broadcast_sub(&x.unsqueeze(1)?)?)
}

/// The cosines of the angles at i between j and k, `[batch, batch, batch]`.
fn angles(x: &Tensor) -> Result<Tensor> {
    let directions = directions(x)?;
    Ok(directions.matmul(&directions.transpose(1, 2)?)?)
}

/// Smooth L1 between the student's distances and the teacher's.
pub(super) fn distance_term(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    Ok(smooth_l1(&(distances(student)? - distances(teacher)?)?, 1.0)?.mean_all()?)
}

/// Smooth L1 between the student's angles and the teacher's.
pub(super) fn angle_term(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    Ok(smooth_l1(&(angles(student)? - angles(teacher)?)?, 1.0)?.mean_all()?)
}

/// Smooth L1 between the student's and the teacher's cosines of the direction from a to b and that from c to d, for
/// index tensors `[a, b, c, d]` of equal length.
pub(super) fn quadruple_term(student: &Tensor, teacher: &Tensor, four: &[Tensor; 4]) -> Result<Tensor> {
    let cosines = |x: &Tensor| -> Result<Tensor> {
        let row = |at: usize| x.index_select(&four[at], 0);
        Ok((unit(&(row(1)? - row(0)?)?)? * unit(&(row(3)? - row(2)?)?)?)?.sum(D::Minus1)?)
    };
    Ok(smooth_l1(&(cosines(student)? - cosines(teacher)?)?, 1.0)?.mean_all()?)
}
