//! Sums over features and targets, and the linear map that they give.

use candle_core::{DType, Device, Tensor};

use super::cholesky::{BLOCK, Lower};
use crate::error::{Error, Result};
use crate::nn::kernels::linear;
use crate::teacher::symmetric_power;

/// Features at most: their Gram matrix takes two bytes a pair, 3.4 GB here.
pub const MOST_INPUTS: usize = 41_000;

/// What is added to the variances before they are inverted, as a share of their mean: directions without variance are not blown
/// up.
const FLOOR: f64 = 1e-6;

/// Rows that are multiplied at once.
const ROWS: usize = 1024;

/// Sums of products of features `[d]` and targets `[k]`, row by row.
pub struct Moments {
    inputs: usize,
    outputs: usize,
    rows: usize,
    waiting: Vec<(Tensor, Tensor)>,
    waiting_rows: usize,
    /// Near the means of features and targets, `[1, d]` and `[1, k]`: what is summed is small, and little of it is lost.
    origin: Option<(Tensor, Tensor)>,
    gram: Lower,
    /// `[k, d]`.
    cross: Tensor,
    sum_x: Vec<f64>,
    sum_y: Vec<f64>,
    squares_y: f64,
}

/// A linear map of features to targets.
#[derive(Clone, Debug)]
pub struct Solution {
    /// `[k, d]`.
    pub weight: Tensor,
    /// `[k]`.
    pub bias: Tensor,
    /// The share of the targets' variance that the map explains on the rows that it was solved on; none if targets do not vary.
    pub explained: Option<f64>,
    /// The penalty, in absolute terms.
    pub lambda: f64,
    /// Rows.
    pub rows: usize,
    /// The means of the targets.
    mean: Vec<f64>,
    /// The covariance of the predictions, `[k, k]`, row by row.
    covariance: Vec<f64>,
}

impl Moments {
    /// No rows yet, of `inputs` features and `outputs` targets.
    ///
    /// # Errors
    /// If there are none, or more features than [`MOST_INPUTS`].
    pub fn new(inputs: usize, outputs: usize, device: &Device) -> Result<Self> {
        if !(1..=MOST_INPUTS).contains(&inputs) || outputs == 0 {
            return Err(Error::component(format!(
                "a closed form has 1 to {MOST_INPUTS} features and at least one target; found {inputs} and {outputs}"
            )));
        }
        Ok(Self {
            inputs,
            outputs,
            rows: 0,
            waiting: Vec::new(),
            waiting_rows: 0,
            origin: None,
            gram: Lower::zeros(inputs, device)?,
            cross: Tensor::zeros((outputs, inputs), DType::F32, device)?,
            sum_x: vec![0.0; inputs],
            sum_y: vec![0.0; outputs],
            squares_y: 0.0,
        })
    }

    /// Bytes that the sums, and the rows that wait to be summed, take at most.
    pub fn bytes(inputs: usize, outputs: usize) -> usize {
        4 * (inputs * (inputs + BLOCK) / 2 + 2 * inputs * outputs + 3 * ROWS * inputs)
    }

    /// Seconds that the sums of `rows` rows and their solution will take, by a product that is timed.
    ///
    /// # Errors
    /// If the device fails.
    pub fn seconds(inputs: usize, rows: f64, device: &Device) -> Result<f64> {
        let wide = inputs.min(4 * BLOCK);
        let (left, right) = (Tensor::zeros((wide.min(BLOCK), ROWS), DType::F32, device)?, (wide, ROWS));
        let right = Tensor::zeros(right, DType::F32, device)?;
        let product = || -> Result<f64> {
            let since = std::time::Instant::now();
            // Reading a value waits for the device.
            linear(&left, &right)?.sum_all()?.to_scalar::<f32>()?;
            Ok(since.elapsed().as_secs_f64())
        };
        product()?;
        let rate = (left.elem_count() * wide) as f64 / product()?.max(1e-9);
        let d = inputs as f64;
        Ok((rows * d * d / 2.0 + d * d * d / 6.0) / rate)
    }

    /// Adds features `[b, d]` and their targets `[b, k]`, float32.
    ///
    /// # Errors
    /// If the shapes are others.
    pub fn add(&mut self, x: &Tensor, y: &Tensor) -> Result<()> {
        let rows = x.dims2()?.0;
        let expected = ((rows, self.inputs), (rows, self.outputs));
        if (x.dims2()?, y.dims2()?) != expected {
            return Err(Error::component(format!(
                "expected features and targets of shapes {expected:?}, found {:?} and {:?}",
                x.dims(),
                y.dims()
            )));
        }
        self.waiting.push((x.detach(), y.detach()));
        self.waiting_rows += rows;
        if self.waiting_rows >= ROWS { self.multiply() } else { Ok(()) }
    }

    /// Sums what waits.
    fn multiply(&mut self) -> Result<()> {
        if self.waiting_rows == 0 {
            return Ok(());
        }
        let (xs, ys): (Vec<Tensor>, Vec<Tensor>) = std::mem::take(&mut self.waiting).into_iter().unzip();
        self.rows += std::mem::take(&mut self.waiting_rows);
        let (x, y) = (Tensor::cat(&xs, 0)?, Tensor::cat(&ys, 0)?);
        drop((xs, ys));
        if self.origin.is_none() {
            self.origin = Some((x.mean_keepdim(0)?, y.mean_keepdim(0)?));
        }
        let Some((origin_x, origin_y)) = &self.origin else { unreachable!("made a line above") };
        let x = x.broadcast_sub(origin_x)?.t()?.contiguous()?;
        let y = y.broadcast_sub(origin_y)?.t()?.contiguous()?;
        add_to(&mut self.sum_x, &x)?;
        add_to(&mut self.sum_y, &y)?;
        for row in y.to_vec2::<f32>()? {
            self.squares_y += row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
        }
        self.cross = (&self.cross + linear(&y, &x)?)?;
        self.gram.add_products(&x, 1.0)
    }

    /// The map with the least squares and a penalty of `ridge` times the mean diagonal of the centred Gram matrix. `report` is
    /// told how many blocks of the factor are done of how many, and may end the work with an error.
    ///
    /// # Errors
    /// If there are fewer than two rows, a sum is not finite, the features do not vary, or `ridge` is too small for float32.
    pub fn solve(mut self, ridge: f64, report: &mut dyn FnMut(usize, usize) -> Result<()>) -> Result<Solution> {
        self.multiply()?;
        let Self { rows, origin, mut gram, cross, sum_x, sum_y, squares_y, .. } = self;
        let Some((origin_x, origin_y)) = origin.filter(|_| rows >= 2) else {
            return Err(Error::data(format!("a closed form needs at least 2 faces, found {rows}")));
        };
        let count = rows as f64;
        let means = |sums: &[f64]| -> Vec<f32> { sums.iter().map(|sum| (sum / count) as f32).collect() };
        let column = |sums: &[f64]| Tensor::from_vec(means(sums), (sums.len(), 1), cross.device());
        let (mean_x, mean_y) = (column(&sum_x)?, column(&sum_y)?);
        gram.add_products(&mean_x, -count)?;
        let cross = (cross - (linear(&mean_y, &mean_x)? * count)?)?;
        let squares_y = squares_y - sum_y.iter().map(|sum| sum * sum / count).sum::<f64>();
        let mean_diagonal = gram.diagonal()?.iter().sum::<f64>() / self.inputs as f64;
        if !(mean_diagonal > 0.0 && mean_diagonal.is_finite()) {
            return Err(Error::component(format!(
                "expected features that vary and are finite, found a mean variance of {}",
                mean_diagonal / count
            )));
        }
        let lambda = ridge * mean_diagonal;
        let weight = gram.factor(lambda, report)?.solve(&cross)?;
        // W' (X'X) W = W' (X'Y) - lambda W' W, without X'X, which was given up for its factor.
        let products = |right: &Tensor| -> Result<Vec<f64>> {
            Ok(linear(&weight, right)?.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
        };
        let (with_targets, with_itself) = (products(&cross)?, products(&weight)?);
        let trace = |square: &[f64]| square.iter().step_by(self.outputs + 1).sum::<f64>();
        let explained = (trace(&with_targets) + lambda * trace(&with_itself)) / squares_y;
        let pairs = with_targets.iter().zip(&with_itself);
        let covariance = pairs.map(|(targets, itself)| (targets - lambda * itself) / count).collect();
        let mean_x = (origin_x.t()? + mean_x)?;
        let mean_y = (origin_y.t()? + mean_y)?;
        let bias = (&mean_y - linear(&weight, &mean_x.t()?.contiguous()?)?)?.squeeze(1)?;
        let mean = mean_y.squeeze(1)?.to_vec1::<f32>()?.into_iter().map(f64::from).collect();
        let explained = Some(explained).filter(|share| share.is_finite() && squares_y > 0.0);
        Ok(Solution { weight, bias, explained, lambda, rows, mean, covariance })
    }
}

/// Adds the sums of the rows of `x` `[d, m]`.
fn add_to(sums: &mut [f64], x: &Tensor) -> Result<()> {
    let values = x.sum(1)?.to_vec1::<f32>()?;
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(Error::component(format!("value {at} of the features or targets: expected finite numbers"))),
        None => {
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(value));
            Ok(())
        }
    }
}

impl Solution {
    /// What the map gives for features `[b, d]`: `[b, k]`.
    ///
    /// # Errors
    /// If the shape is another.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(linear(x, &self.weight)?.broadcast_add(&self.bias)?)
    }

    /// The same map with predictions `C^-p (y - m)`, where `m` is their mean and `C` their covariance over the rows that it was
    /// solved on.
    ///
    /// # Errors
    /// If predictions do not vary.
    pub fn whitened(&self, p: f64) -> Result<Self> {
        let size = self.mean.len();
        let spread = self.covariance.iter().step_by(size + 1).sum::<f64>() / size as f64;
        if !(spread > 0.0 && spread.is_finite()) {
            return Err(Error::component(format!("predictions with a mean variance of {spread} cannot be whitened")));
        }
        let mut covariance = self.covariance.clone();
        covariance.iter_mut().step_by(size + 1).for_each(|variance| *variance += FLOOR * spread);
        let power: Vec<f32> = symmetric_power(covariance, size, -p).into_iter().map(|value| value as f32).collect();
        let power = Tensor::from_vec(power, (size, size), self.weight.device())?;
        let mean: Vec<f32> = self.mean.iter().map(|value| *value as f32).collect();
        let rest = (&self.bias - Tensor::from_vec(mean, size, self.bias.device())?)?.unsqueeze(1)?;
        let (weight, bias) = (power.matmul(&self.weight)?, power.matmul(&rest)?.squeeze(1)?);
        Ok(Self { weight, bias, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{Seed, normal};

    fn random(rows: usize, columns: usize, name: &str) -> Tensor {
        let values = normal(&mut Seed(3).stream(name, &[]), rows * columns, 1.0);
        Tensor::from_vec(values, (rows, columns), &Device::Cpu).expect("a matrix")
    }

    fn solve(x: &Tensor, y: &Tensor, ridge: f64, batch: usize) -> Result<Solution> {
        let mut moments = Moments::new(x.dim(1)?, y.dim(1)?, x.device())?;
        for from in (0..x.dim(0)?).step_by(batch) {
            let rows = batch.min(x.dim(0)? - from);
            moments.add(&x.narrow(0, from, rows)?, &y.narrow(0, from, rows)?)?;
        }
        moments.solve(ridge, &mut |_, _| Ok(()))
    }

    #[test]
    fn a_line_by_hand() {
        // x = 0, 1, 2 and y = 1, 3, 5: centred x'x = 2 and x'y = 4. With a penalty of 2 the slope is 4 / 4, and the line
        // goes through the means 1 and 3.
        let x = Tensor::new(&[[0f32], [1.0], [2.0]], &Device::Cpu).expect("x");
        let y = Tensor::new(&[[1f32], [3.0], [5.0]], &Device::Cpu).expect("y");
        let solved = solve(&x, &y, 1.0, 2).expect("solved");
        assert_eq!(solved.weight.to_vec2::<f32>().expect("weight"), [[1.0]]);
        assert_eq!(solved.bias.to_vec1::<f32>().expect("bias"), [2.0]);
        assert_eq!((solved.lambda, solved.rows), (2.0, 3));
        // Residuals -1, 0, 1 of targets -2, 0, 2.
        assert_eq!(solved.explained, Some(0.75));
    }

    #[test]
    fn large_means_and_the_batches_do_not_matter() {
        let (x, y) = (random(3000, 40, "x"), random(3000, 3, "y"));
        let y = (y + x.narrow(1, 0, 3).expect("three")).expect("y");
        let far = x.affine(0.5, 30.0).expect("far from zero");
        let near = solve(&x, &y, 0.1, 3000).expect("solved");
        let predicted = near.apply(&x).expect("predicted");
        for (x, batch) in [(&x, 96), (&far, 7), (&far, 2999)] {
            let other = solve(x, &y, 0.1, batch).and_then(|solved| solved.apply(x)).expect("predicted");
            let off = (other - &predicted).and_then(|d| d.abs()?.max_all()?.to_scalar::<f32>()).expect("a number");
            assert!(off < 2e-4, "batches of {batch}: off by {off}");
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let (x, y) = (random(1500, 700, "x"), random(1500, 5, "y"));
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            let solved = pool.install(|| solve(&x, &y, 1.0, 96)).expect("solved");
            solved.weight.flatten_all().and_then(|w| w.to_vec1::<f32>()).expect("values")
        };
        let one = on(1);
        assert!(one == on(2) && one == on(3));
    }

    #[test]
    fn whitened_predictions_have_no_mean_and_equal_variances() {
        let (x, noise) = (random(2000, 10, "x"), random(2000, 3, "noise"));
        let scale = Tensor::new(&[[8f32, 1.0, 0.2]], &Device::Cpu).expect("scale");
        let y = x.narrow(1, 0, 3).and_then(|x| (x + noise)?.broadcast_mul(&scale)? + 5.0).expect("y");
        let solved = solve(&x, &y, 0.01, 96).expect("solved").whitened(0.5).expect("whitened");
        let predicted = solved.apply(&x).expect("predicted");
        let mean = predicted.mean(0).and_then(|m| m.to_vec1::<f32>()).expect("means");
        assert!(mean.iter().all(|m| m.abs() < 1e-3), "{mean:?}");
        let covariance = predicted.t().and_then(|p| p.matmul(&predicted)? / 2000.0).and_then(|c| c.to_vec2::<f32>());
        for (row, values) in covariance.expect("a covariance").iter().enumerate() {
            for (column, value) in values.iter().enumerate() {
                let expected = if row == column { 1.0 } else { 0.0 };
                assert!((value - expected).abs() < 0.01, "{row}, {column}: {value}");
            }
        }
    }

    #[test]
    fn what_cannot_be_solved_says_why() {
        let refused = |x: &Tensor, y: &Tensor| solve(x, y, 1.0, 9).expect_err("refused").to_string();
        let (x, y) = (random(5, 3, "x"), random(5, 2, "y"));
        let one = |t: &Tensor| t.narrow(0, 0, 1).expect("a row");
        assert!(refused(&one(&x), &one(&y)).contains("at least 2 faces, found 1"));
        let flat = Tensor::ones((5, 3), DType::F32, &Device::Cpu).expect("ones");
        assert!(refused(&flat, &y).contains("expected features that vary"));
        let infinite = (&x / 0.0).expect("infinite");
        assert!(refused(&infinite, &y).contains("expected finite numbers"));
        assert!(Moments::new(MOST_INPUTS + 1, 1, &Device::Cpu).is_err());
        let mut moments = Moments::new(4, 2, &Device::Cpu).expect("sums");
        assert!(moments.add(&x, &y).expect_err("three features").to_string().contains("found [5, 3] and [5, 2]"));
    }
}
