//! t-SNE of a few hundred points, exact: every pair counts (van der Maaten and Hinton, JMLR 9, 2008).

use crate::embedder::Embeddings;
use crate::seed::{Seed, normal};

/// The most points: time grows with their square.
const MOST: usize = 1000;
/// Steps in all.
const STEPS: usize = 750;
/// Steps at first in which attraction is exaggerated.
const EARLY: usize = 250;
/// The factor of that exaggeration.
const EXAGGERATION: f64 = 12.0;
/// How many neighbours a point has, about; fewer where there are few points.
const PERPLEXITY: f64 = 30.0;

/// Where each embedding lies in the plane, by its squared Euclidean distances to the others; the middle is (0, 0). The seed is fixed and
/// one thread computes, so equal embeddings give equal points.
///
/// # Panics
/// If there are more than 1,000 rows.
pub fn tsne(embeddings: &Embeddings) -> Vec<(f64, f64)> {
    let count = embeddings.len();
    assert!(count <= MOST, "at most {MOST} points");
    if count < 4 {
        return (0..count).map(|at| (at as f64, 0.0)).collect();
    }
    let wanted = affinities(embeddings, PERPLEXITY.min((count - 1) as f64 / 3.0));
    let mut stream = Seed(7).stream("t-SNE", &[]);
    let mut points: Vec<f64> = normal(&mut stream, 2 * count, 1e-2).into_iter().map(f64::from).collect();
    let (mut speed, mut gains) = (vec![0.0; 2 * count], vec![1.0; 2 * count]);
    let rate = (count as f64 / EXAGGERATION / 4.0).max(50.0);
    for step in 0..STEPS {
        let (factor, momentum) = if step < EARLY { (EXAGGERATION, 0.5) } else { (1.0, 0.8) };
        let slope = gradient(&wanted, &points, factor);
        for at in 0..2 * count {
            let same_way = (slope[at] > 0.0) == (speed[at] > 0.0);
            gains[at] = if same_way { (gains[at] * 0.8f64).max(0.01) } else { gains[at] + 0.2 };
            speed[at] = momentum * speed[at] - rate * gains[at] * slope[at];
            points[at] += speed[at];
        }
        for axis in 0..2 {
            let middle = points.iter().skip(axis).step_by(2).sum::<f64>() / count as f64;
            points.iter_mut().skip(axis).step_by(2).for_each(|value| *value -= middle);
        }
    }
    points.chunks_exact(2).map(|point| (point[0], point[1])).collect()
}

/// The symmetric affinities `p_ij`, `[count, count]`, whose sum is one.
fn affinities(embeddings: &Embeddings, perplexity: f64) -> Vec<f64> {
    let count = embeddings.len();
    let square = |i: usize, j: usize| -> f64 {
        let (a, b) = (embeddings.known(i), embeddings.known(j));
        a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
    };
    let mut all = vec![0.0; count * count];
    for i in 0..count {
        let squares: Vec<f64> = (0..count).map(|j| square(i, j)).collect();
        let nearest = (0..count).filter(|&j| j != i).map(|j| squares[j]).fold(f64::INFINITY, f64::min);
        let (mut low, mut high, mut beta) = (0.0, f64::INFINITY, 1.0);
        let mut row = vec![0.0; count];
        // The precision at which the entropy is that of `perplexity` equal neighbours, by bisection.
        for _ in 0..64 {
            for (j, value) in row.iter_mut().enumerate() {
                *value = if j == i { 0.0 } else { (-beta * (squares[j] - nearest)).exp() };
            }
            let sum: f64 = row.iter().sum();
            row.iter_mut().for_each(|value| *value /= sum);
            let entropy: f64 = row.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
            if entropy > perplexity.ln() {
                (low, beta) = (beta, if high.is_finite() { (beta + high) / 2.0 } else { beta * 2.0 });
            } else {
                (high, beta) = (beta, (beta + low) / 2.0);
            }
        }
        for (j, value) in row.into_iter().enumerate() {
            all[i * count + j] += value / (2 * count) as f64;
            all[j * count + i] += value / (2 * count) as f64;
        }
    }
    all
}

/// The gradient of the divergence by every coordinate, attraction multiplied by `factor`.
fn gradient(wanted: &[f64], points: &[f64], factor: f64) -> Vec<f64> {
    let count = points.len() / 2;
    let mut near = vec![0.0; count * count];
    let mut sum = 0.0;
    for i in 0..count {
        for j in 0..i {
            let (dx, dy) = (points[2 * i] - points[2 * j], points[2 * i + 1] - points[2 * j + 1]);
            let value = 1.0 / (1.0 + dx * dx + dy * dy);
            (near[i * count + j], near[j * count + i]) = (value, value);
            sum += 2.0 * value;
        }
    }
    let mut slope = vec![0.0; points.len()];
    for i in 0..count {
        for j in (0..count).filter(|&j| j != i) {
            let at = i * count + j;
            let pull = 4.0 * (factor * wanted[at] - near[at] / sum) * near[at];
            slope[2 * i] += pull * (points[2 * i] - points[2 * j]);
            slope[2 * i + 1] += pull * (points[2 * i + 1] - points[2 * j + 1]);
        }
    }
    slope
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three people with eight faces each, near an axis of their own.
    fn three_people() -> Embeddings {
        let noise = normal(&mut Seed(1).stream("noise", &[]), 24 * 5, 0.1);
        let value = |at: usize| noise[at] + f32::from(u8::from(at % 5 == at / 40));
        Embeddings::from_rows(5, (0..120).map(value).collect()).expect("rows")
    }

    #[test]
    fn people_stay_together_and_points_repeat() {
        let points = tsne(&three_people());
        let repeated = tsne(&three_people());
        assert_eq!(points, repeated);
        assert!(points.iter().all(|(x, y)| x.is_finite() && y.is_finite()));
        let square = |a: usize, b: usize| (points[a].0 - points[b].0).powi(2) + (points[a].1 - points[b].1).powi(2);
        for at in 0..24 {
            let nearest = (0..24).filter(|&other| other != at).min_by(|&a, &b| square(at, a).total_cmp(&square(at, b)));
            assert_eq!(nearest.expect("others") / 8, at / 8, "point {at}");
        }
    }

    #[test]
    fn affinities_have_the_entropy_that_is_asked_for() {
        let all = affinities(&three_people(), 5.0);
        assert!((all.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        // The gradient is that of the divergence: compare with differences.
        let points: Vec<f64> = (0..48).map(|at| f64::from(at * 7 % 11) / 3.0).collect();
        let divergence = |points: &[f64]| {
            let near = |i: usize, j: usize| {
                1.0 / (1.0 + (points[2 * i] - points[2 * j]).powi(2) + (points[2 * i + 1] - points[2 * j + 1]).powi(2))
            };
            let pairs = || (0..24).flat_map(|i| (0..24).map(move |j| (i, j))).filter(|(i, j)| i != j);
            let sum: f64 = pairs().map(|(i, j)| near(i, j)).sum();
            pairs().map(|(i, j)| all[24 * i + j] * (all[24 * i + j] / (near(i, j) / sum)).max(1e-300).ln()).sum::<f64>()
        };
        let slope = gradient(&all, &points, 1.0);
        for at in [0, 13, 47] {
            let moved = |by: f64| {
                let mut moved = points.clone();
                moved[at] += by;
                divergence(&moved)
            };
            let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((slope[at] - expected).abs() < 1e-6 * expected.abs().max(1.0), "{at}: {} {expected}", slope[at]);
        }
    }
}
