//! How embeddings lie on the sphere: alignment and uniformity (Wang and Isola, ICML 2020, arXiv 2005.10242).

use crate::embedder::Embeddings;

/// The mean squared distance of two embeddings of the same person, in `[0, 4]`: less is better. None if nobody has two faces.
///
/// # Panics
/// If there are not as many people as rows.
pub fn alignment(embeddings: &Embeddings, people: &[usize]) -> Option<f64> {
    assert_eq!(embeddings.len(), people.len(), "a person for each row");
    mean(embeddings, |left, right| people[left] == people[right], |square| square)
}

/// The logarithm of the mean of `exp(-2 d^2)` over all pairs, `d` their distance: less is better, and points that are spread evenly over a
/// sphere of many dimensions have about -4. None if there are fewer than two rows.
pub fn uniformity(embeddings: &Embeddings) -> Option<f64> {
    mean(embeddings, |_, _| true, |square| (-2.0 * square).exp()).map(f64::ln)
}

/// The mean of `value` of the squared distance over the pairs of rows that count.
fn mean(embeddings: &Embeddings, counts: impl Fn(usize, usize) -> bool, value: impl Fn(f64) -> f64) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0u64);
    for left in 0..embeddings.len() {
        for right in (left + 1..embeddings.len()).filter(|&right| counts(left, right)) {
            let differences = embeddings.known(left).iter().zip(embeddings.known(right));
            sum += value(differences.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum());
            count += 1;
        }
    }
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let rows = Embeddings::from_rows(2, vec![1.0, 0.0, 0.0, 1.0, -1.0, 0.0]).expect("rows");
        // Squared distances: 2 (first, second), 4 (first, third), 2 (second, third).
        assert!((alignment(&rows, &[0, 0, 1]).expect("a pair") - 2.0).abs() < 1e-6);
        let expected = ((2.0 * (-4f64).exp() + (-8f64).exp()) / 3.0).ln();
        assert!((uniformity(&rows).expect("pairs") - expected).abs() < 1e-6);
        assert_eq!(alignment(&rows, &[0, 1, 2]), None);
        assert_eq!(uniformity(&Embeddings::none(2)), None);
    }
}
