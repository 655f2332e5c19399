//! One seed for a run, and named streams of random numbers from it.
//!
//! A stream is a function of (seed, name, numbers), never of what ran before. So nothing about
//! randomness has to be saved for a run to go on exactly where it was.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::context::BuildContext;
use crate::nn::Init;

/// A stream of random numbers.
pub type Stream = ChaCha8Rng;

/// The seed of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// The stream called `name`; `numbers` tell streams of one name apart (an epoch, a sample).
    pub fn stream(self, name: &str, numbers: &[u64]) -> Stream {
        let mut hash = Sha256::new();
        hash.update(self.0.to_le_bytes());
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        for number in numbers {
            hash.update(number.to_le_bytes());
        }
        ChaCha8Rng::from_seed(hash.finalize().into())
    }

    /// The values of the new parameter `name`.
    pub fn draw(self, name: &str, count: usize, init: Init) -> Vec<f32> {
        match init {
            Init::Constant(value) => vec![value; count],
            Init::Normal { std } => normal(&mut self.stream(&format!("init/{name}"), &[]), count, std),
            Init::Uniform { bound } => {
                let mut stream = self.stream(&format!("init/{name}"), &[]);
                (0..count).map(|_| stream.random_range(-bound..=bound)).collect()
            }
        }
    }
}

impl BuildContext<'_> {
    /// The run's seed, for streams of random numbers. Whoever asks for it is another part with every seed.
    pub fn seed(&self) -> Seed {
        Seed(self.seed_number())
    }
}

/// `count` values from the normal distribution with mean zero (Box and Muller's transform).
pub fn normal(stream: &mut Stream, count: usize, std: f32) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let radius = (-2.0 * (1.0 - stream.random::<f64>()).ln()).sqrt() * f64::from(std);
        let angle = std::f64::consts::TAU * stream.random::<f64>();
        values.push((radius * angle.cos()) as f32);
        values.push((radius * angle.sin()) as f32);
    }
    values.truncate(count);
    values
}

/// The numbers `0..count` in random order.
pub fn shuffled(stream: &mut Stream, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, stream.random_range(0..=last));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_name_and_number_and_repeat() {
        let first = |name: &str, n: u64| Seed(7).stream(name, &[n]).random::<u64>();
        assert_eq!(first("a", 1), first("a", 1));
        assert_ne!(first("a", 1), first("a", 2));
        assert_ne!(first("a", 1), first("b", 1));
    }

    #[test]
    fn normal_values_have_the_asked_spread() {
        let values = normal(&mut Seed(7).stream("test", &[]), 20_001, 2.0);
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32;
        assert!(mean.abs() < 0.05 && (var.sqrt() - 2.0).abs() < 0.05, "{mean} {var}");
    }

    #[test]
    fn shuffling_keeps_every_number() {
        let mut order = shuffled(&mut Seed(7).stream("test", &[]), 100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
