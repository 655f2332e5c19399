//! One-dimensional transforms, and the bilinear algorithms that they make up.

use super::super::simd::Simd;

/// Values of a tile along an axis, at most.
pub(super) const MOST: usize = 6;

/// A linear map along one axis of a tile.
pub(super) trait Axis: Send + Sync + 'static {
    /// Values that it takes, at most [`MOST`].
    const FROM: usize;
    /// Values that it gives, at most [`MOST`].
    const TO: usize;

    /// Those of `d`, of which the first [`FROM`](Self::FROM) count; of the result the first [`TO`](Self::TO) do.
    fn of<S: Simd>(s: S, d: [S::V; MOST]) -> [S::V; MOST];
}

/// A convolution of tiles by few products: the tiles and the kernels are transformed along both axes, some of the values of the one are
/// multiplied with some of the other and added up over the channels, and the sums are transformed to outputs.
pub(super) trait Algorithm: Send + Sync + 'static {
    /// `B^T`, for a tile of the input.
    type Input: Axis;
    /// `G`, for three taps.
    type Kernel: Axis;
    /// `A^T`, for the sums of products.
    type Output: Axis;

    /// Inputs from one tile to the next.
    const APART: usize;
    /// What is multiplied with what: values of a tile are left factors, those of kernels right factors.
    const STEPS: &'static [Step];
}

/// What the gradient of the kernels needs beside.
pub(super) trait Trainable: Algorithm {
    /// `A`, the adjoint of [`Output`](Algorithm::Output).
    type OutputAdjoint: Axis;
    /// `G^T`, the adjoint of [`Kernel`](Algorithm::Kernel).
    type KernelAdjoint: Axis;

    /// What is multiplied with what: values of the output's gradient are left factors, those of a tile right factors.
    const KERNEL_STEPS: &'static [Step];
}

/// A product of two matrices, of which there is one for each value of a transformed tile.
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// Which of the left factors.
    pub(super) left: usize,
    /// Which of the right factors.
    pub(super) right: usize,
    /// Which of the results.
    pub(super) result: usize,
    /// Whether another step has given that result already.
    pub(super) add: bool,
}

/// Along one axis, what the products multiply and where they are added: values below the last number.
pub(super) type Along<const COUNT: usize> = ([usize; COUNT], usize);

/// The steps of both axes, those with the same result one after the other; `ALL` is the square of `COUNT`.
pub(super) const fn steps<const COUNT: usize, const ALL: usize>(
    left: Along<COUNT>,
    right: Along<COUNT>,
    result: Along<COUNT>,
) -> [Step; ALL] {
    assert!(COUNT * COUNT == ALL, "a step for each pair");
    let mut steps = [Step { left: 0, right: 0, result: 0, add: false }; ALL];
    let (mut done, mut to) = (0, 0);
    while to < result.1 * result.1 {
        let (mut at, mut add) = (0, false);
        while at < ALL {
            let (i, j) = (at / COUNT, at % COUNT);
            if result.0[i] * result.1 + result.0[j] == to {
                let (left, right) = (left.0[i] * left.1 + left.0[j], right.0[i] * right.1 + right.0[j]);
                steps[done] = Step { left, right, result: to, add };
                (done, add) = (done + 1, true);
            }
            at += 1;
        }
        to += 1;
    }
    assert!(done == ALL, "a result for each step");
    steps
}
