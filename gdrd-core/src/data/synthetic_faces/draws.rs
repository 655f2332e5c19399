//! Random parameters, drawn in a fixed order from one ChaCha8 stream.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The random numbers of one identity or one nuisance.
pub(super) struct Draws(ChaCha8Rng);

impl Draws {
    /// Stream `stream` of the seed: streams of one seed are independent of each other.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// Uniform in `[low, high)`.
    pub(super) fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.0.random::<f32>()
    }

    /// Bell-shaped in `[low, high)`: the mean of three uniform values.
    pub(super) fn bell(&mut self, low: f32, high: f32) -> f32 {
        let sum: f32 = (0..3).map(|_| self.0.random::<f32>()).sum();
        low + (high - low) * sum / 3.0
    }

    /// True with this probability.
    pub(super) fn chance(&mut self, probability: f32) -> bool {
        self.0.random::<f32>() < probability
    }

    /// An index into `weights`, drawn in proportion to them.
    pub(super) fn index(&mut self, weights: &[f32]) -> usize {
        let mut left = self.0.random::<f32>() * weights.iter().sum::<f32>();
        for (at, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return at;
            }
        }
        weights.len() - 1
    }

    /// A seed for a texture.
    pub(super) fn seed(&mut self) -> u32 {
        self.0.random()
    }
}
