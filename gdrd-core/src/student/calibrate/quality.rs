//! The quality model, in closed form.

use super::super::facts::QualityModel;

/// The false match rate that faces are rated by.
pub(super) const QUALITY_RATE: f64 = 0.01;
/// Faces of each half of the people from which on a model is fitted.
const LEAST_FACES: usize = 100;

/// A face, what is known of it, and how often it was recognised.
pub(super) struct Rated {
    pub(super) person: usize,
    pub(super) features: [f64; 5],
    pub(super) share: f64,
}

/// The model of half of the people, measured on the other half; none if either has too few faces.
pub(super) fn fit(rated: &[Rated]) -> Option<QualityModel> {
    let (fitted, measured): (Vec<&Rated>, Vec<&Rated>) = rated.iter().partition(|face| face.person % 2 == 0);
    if fitted.len() < LEAST_FACES || measured.len() < LEAST_FACES {
        return None;
    }
    let count = fitted.len() as f64;
    let mean = |of: &dyn Fn(&Rated) -> f64| fitted.iter().map(|face| of(face)).sum::<f64>() / count;
    let centre: [f64; 5] = std::array::from_fn(|at| mean(&|face| face.features[at]));
    let deviation = |at: usize| mean(&|face| (face.features[at] - centre[at]).powi(2)).sqrt();
    // A feature that is the same for all says nothing.
    let scale: [f64; 5] = std::array::from_fn(|at| Some(deviation(at)).filter(|scale| *scale > 1e-9).unwrap_or(1.0));
    let bias = mean(&|face| face.share);
    let centred = |face: &Rated| -> [f64; 5] { std::array::from_fn(|at| (face.features[at] - centre[at]) / scale[at]) };
    // (X^T X + r I) w = X^T y, by elimination.
    let mut system = [[0f64; 6]; 5];
    for face in &fitted {
        let x = centred(face);
        for (row, left) in system.iter_mut().zip(x) {
            row.iter_mut().zip(x).for_each(|(sum, right)| *sum += left * right);
            row[5] += left * (face.share - bias);
        }
    }
    (0..5).for_each(|at| system[at][at] += 1e-3 * count);
    let weights = solved(system);
    let mut model = QualityModel {
        false_match_rate: QUALITY_RATE,
        centre,
        scale,
        weights,
        bias,
        curve: Vec::new(),
        measured: measured.len(),
        calibration_error: 0.0,
        error_versus_reject: Vec::new(),
    };
    let by_sum = |faces: &[&Rated]| {
        let mut rows: Vec<(f64, f64)> = faces.iter().map(|face| (model.sum(&face.features), face.share)).collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        rows
    };
    let (fitted, measured) = (by_sum(&fitted), by_sum(&measured));
    model.curve = rising(&groups(&fitted, 20));
    let error = |(sum, share): &(f64, f64)| (model.chance(*sum) - share).abs();
    let tens = groups(&measured, 10);
    model.calibration_error = tens.iter().map(error).sum::<f64>() / tens.len() as f64;
    let missed = |rejected: f64| {
        let kept = &measured[((rejected * measured.len() as f64) as usize).min(measured.len() - 1)..];
        (rejected, 1.0 - kept.iter().map(|(_, share)| share).sum::<f64>() / kept.len() as f64)
    };
    model.error_versus_reject = [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5].map(missed).to_vec();
    Some(model)
}

/// The mean sum and share of groups of equal size; `rows` rise.
fn groups(rows: &[(f64, f64)], count: usize) -> Vec<(f64, f64)> {
    let mean = |group: &[(f64, f64)]| {
        let (sums, shares) = group.iter().fold((0.0, 0.0), |(a, b), (sum, share)| (a + sum, b + share));
        (sums / group.len() as f64, shares / group.len() as f64)
    };
    rows.chunks(rows.len().div_ceil(count).max(1)).map(mean).collect()
}

/// The nearest curve that does not fall, by pooling neighbours (isotonic regression).
fn rising(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut pools: Vec<(f64, f64, f64)> = Vec::new();
    for &(at, value) in points {
        pools.push((at, value, 1.0));
        while let [.., (a, low, n), (b, high, m)] = pools[..]
            && (low > high || a >= b)
        {
            pools.truncate(pools.len() - 2);
            pools.push(((a * n + b * m) / (n + m), (low * n + high * m) / (n + m), n + m));
        }
    }
    pools.into_iter().map(|(at, value, _)| (at, value.clamp(0.0, 1.0))).collect()
}

/// The solution of five equations, whose last column is the right side, by elimination with pivots.
fn solved(mut rows: [[f64; 6]; 5]) -> [f64; 5] {
    for at in 0..5 {
        let pivot = (at..5).max_by(|a, b| rows[*a][at].abs().total_cmp(&rows[*b][at].abs())).unwrap_or(at);
        rows.swap(at, pivot);
        let head = rows[at];
        for row in rows.iter_mut().skip(at + 1) {
            let factor = row[at] / head[at];
            row.iter_mut().zip(head).for_each(|(value, of)| *value -= factor * of);
        }
    }
    let mut found = [0.0; 5];
    for at in (0..5).rev() {
        let known: f64 = (at + 1..5).map(|other| rows[at][other] * found[other]).sum();
        found[at] = (rows[at][5] - known) / rows[at][at];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_finds_what_makes_faces_fail() {
        let face = |at: usize| {
            let x = (at * 7919 % 1000) as f64 / 1000.0;
            let noise = (at * 104_729 % 997) as f64 / 997.0 - 0.5;
            Rated { person: at, features: [x, 0.6 + noise, 1.0, 0.0, 0.0], share: (x + 0.1 * noise).clamp(0.0, 1.0) }
        };
        let rated: Vec<Rated> = (0..2000).map(face).collect();
        let model = fit(&rated).expect("a model");
        assert!(model.wrong().is_none(), "{model:?}");
        for x in [0.1, 0.5, 0.9] {
            assert!((model.score(&[x, 0.6, 1.0, 0.0, 0.0]) - x).abs() < 0.05, "{x}");
        }
        assert!(model.calibration_error < 0.03, "{}", model.calibration_error);
        let errors: Vec<f64> = model.error_versus_reject.iter().map(|(_, error)| *error).collect();
        assert!(errors.windows(2).all(|pair| pair[1] < pair[0]), "{errors:?}");
        assert!((errors[0] - 0.5).abs() < 0.02 && (errors[6] - 0.25).abs() < 0.02, "{errors:?}");
        assert!(fit(&rated[..150]).is_none());
    }

    #[test]
    fn falling_neighbours_are_pooled() {
        let found = rising(&[(0.0, 0.2), (1.0, 0.1), (2.0, 0.5), (3.0, 0.5)]);
        assert!((found[0].1 - 0.15).abs() < 1e-12 && found.windows(2).all(|pair| pair[0].0 < pair[1].0), "{found:?}");
    }

    #[test]
    fn equations_are_solved() {
        let mut rows = [[0.0; 6]; 5];
        let expected = [1.0, -2.0, 3.0, 0.5, 4.0];
        for (at, row) in rows.iter_mut().enumerate() {
            (0..5).for_each(|column| {
                row[column] = ((at * 5 + column * 3 + 1) % 7) as f64 + if at == column { 9.0 } else { 0.0 }
            });
            row[5] = (0..5).map(|column| row[column] * expected[column]).sum();
        }
        assert!(solved(rows).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9));
    }
}
