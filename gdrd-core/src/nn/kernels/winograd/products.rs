//! The products of an algorithm.

use super::super::product::Product;
use super::super::simd::{Simd, SimdKernel};
use super::axis::Step;
use super::weights::TAPS;

/// What is fetched during the products.
#[derive(Clone, Copy)]
pub(super) enum Ahead {
    Nothing,
    /// The right factors of the next one, which lie behind those of each.
    Factors,
    /// Kernels that are transformed next: a run for each tap, of as many channels as the products have.
    Kernels {
        /// The first tap's first channel.
        from: *const f32,
        /// Values from one tap to the next, and from one channel to the next.
        tap: usize,
        channel: usize,
    },
}

impl Ahead {
    /// Where it begins for the product of a step, and the bytes of it for each channel.
    #[inline(always)]
    fn of(self, (step, steps): (usize, usize), product: &Product) -> Option<(*const f32, usize)> {
        match self {
            Self::Nothing => None,
            Self::Factors => {
                Some((product.b.wrapping_add(product.depth * product.b_stride), size_of::<f32>() * product.b_stride))
            }
            Self::Kernels { from, tap, channel } => {
                // Each tap is the share of some steps.
                let parts = steps.div_ceil(TAPS * TAPS);
                let start = step / parts * tap + step % parts * product.depth * channel / parts;
                Some((from.wrapping_add(start), size_of::<f32>() * channel / parts))
            }
        }
    }
}

/// A product for each step of an algorithm.
pub(super) struct Products {
    /// That of the first matrices.
    pub(super) first: Product,
    /// Distances of neighbouring matrices: left factors, right factors and results.
    pub(super) apart: [usize; 3],
    pub(super) steps: &'static [Step],
    /// Whether the left factors are transposed.
    pub(super) transposed: bool,
    pub(super) ahead: Ahead,
}

impl SimdKernel for Products {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { first, apart, .. } = self;
        for (at, step) in self.steps.iter().enumerate() {
            // SAFETY: whoever made the kernel vouches for the matrices.
            unsafe {
                let product = Product {
                    a: first.a.add(step.left * apart[0]),
                    b: first.b.add(step.right * apart[1]),
                    c: first.c.add(step.result * apart[2]),
                    add: first.add || step.add,
                    ..first
                };
                if self.transposed {
                    product.run::<S, true>(simd);
                } else if let Some(ahead) = self.ahead.of((at, self.steps.len()), &product) {
                    product.run_ahead(simd, ahead);
                } else {
                    product.run::<S, false>(simd);
                }
            }
        }
    }
}
