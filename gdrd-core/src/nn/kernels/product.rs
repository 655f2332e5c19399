//! Products of matrices whose factors lie just where the kernels put them: nothing is packed or copied.

use super::simd::{Simd, SimdKernel, lanes};

/// Vectors in a row of the block that is kept in registers.
pub(super) const WIDE: usize = 2;

/// Columns of a panel of the right factor.
pub(super) const fn panel<S: Simd>() -> usize {
    WIDE * S::LANES
}

/// Columns of a panel on this processor.
pub(super) fn panel_here() -> usize {
    WIDE * lanes()
}

/// `c [rows, panels * panel] = a [rows, depth] b [depth, panels * panel]`, or `+=`.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) rows: usize,
    pub(super) panels: usize,
    pub(super) depth: usize,
    /// The left factor; its element `(i, k)` lies at `i * a_stride + k`, or with `TRANSPOSED` at `i + k * a_stride`.
    pub(super) a: *const f32,
    pub(super) a_stride: usize,
    /// The right factor; panel `n` starts at `n * b_panel`, and row `k` of it `k * b_stride` further.
    pub(super) b: *const f32,
    pub(super) b_panel: usize,
    pub(super) b_stride: usize,
    /// The result, row by row.
    pub(super) c: *mut f32,
    pub(super) c_stride: usize,
    /// Whether the product is added to what is there.
    pub(super) add: bool,
}

impl Product {
    /// Computes it. The order of the sums depends on `depth` alone.
    ///
    /// # Safety
    /// The three matrices lie in memory that may be read or written.
    #[inline(always)]
    pub(super) unsafe fn run<S: Simd, const TRANSPOSED: bool>(&self, simd: S) {
        // SAFETY: the caller's promise.
        unsafe { self.blocks::<S, TRANSPOSED, false>(simd, (std::ptr::null(), 0)) }
    }

    /// As [`run`](Self::run). What a later product reads is fetched meanwhile: where it begins, and the bytes of it for each `k`, of which
    /// each block of rows takes a share.
    ///
    /// # Safety
    /// As above; that address may be any.
    #[inline(always)]
    pub(super) unsafe fn run_ahead<S: Simd>(&self, simd: S, ahead: (*const f32, usize)) {
        // SAFETY: the caller's promise.
        unsafe { self.blocks::<S, false, true>(simd, ahead) }
    }

    #[inline(always)]
    unsafe fn blocks<S: Simd, const TRANSPOSED: bool, const AHEAD: bool>(&self, simd: S, ahead: (*const f32, usize)) {
        for panel_at in 0..self.panels {
            let mut row = 0;
            while row < self.rows {
                let left = self.rows - row;
                // SAFETY: the block lies within the matrices.
                row += unsafe {
                    if S::ROWS == 8 && left >= 8 {
                        self.block::<S, TRANSPOSED, AHEAD, 8>(simd, (row, panel_at), ahead)
                    } else if S::ROWS == 6 && left >= 6 && left != 8 {
                        self.block::<S, TRANSPOSED, AHEAD, 6>(simd, (row, panel_at), ahead)
                    } else if left >= 4 {
                        self.block::<S, TRANSPOSED, AHEAD, 4>(simd, (row, panel_at), ahead)
                    } else if left >= 2 {
                        self.block::<S, TRANSPOSED, AHEAD, 2>(simd, (row, panel_at), ahead)
                    } else {
                        self.block::<S, TRANSPOSED, AHEAD, 1>(simd, (row, panel_at), ahead)
                    }
                };
            }
        }
    }

    /// `ROWS` rows of one panel; returns `ROWS`.
    #[inline(always)]
    unsafe fn block<S: Simd, const TRANSPOSED: bool, const AHEAD: bool, const ROWS: usize>(
        &self,
        simd: S,
        (row, panel_at): (usize, usize),
        (ahead, bytes): (*const f32, usize),
    ) -> usize {
        // SAFETY: the caller's promise covers all addresses of the block.
        unsafe {
            let mut a = self.a.add(row * if TRANSPOSED { 1 } else { self.a_stride });
            let mut b = self.b.add(panel_at * self.b_panel);
            let c = self.c.add(row * self.c_stride + panel_at * panel::<S>());
            let mut sums = [[simd.splat(0.0); WIDE]; ROWS];
            let share = bytes / self.rows.div_ceil(S::ROWS);
            let mut ahead = ahead.cast::<u8>().wrapping_add(row / S::ROWS * self.depth * share);
            for _ in 0..self.depth {
                if AHEAD {
                    simd.prefetch(ahead.cast());
                    ahead = ahead.wrapping_add(share);
                }
                let right = [simd.load(b), simd.load(b.add(S::LANES))];
                for i in 0..ROWS {
                    let left = simd.splat(*a.add(i * if TRANSPOSED { 1 } else { self.a_stride }));
                    for j in 0..WIDE {
                        sums[i][j] = simd.mul_add(left, right[j], sums[i][j]);
                    }
                }
                a = a.add(if TRANSPOSED { self.a_stride } else { 1 });
                b = b.add(self.b_stride);
            }
            for i in 0..ROWS {
                for j in 0..WIDE {
                    let to = c.add(i * self.c_stride + j * S::LANES);
                    let sum = if self.add { simd.add(simd.load(to), sums[i][j]) } else { sums[i][j] };
                    simd.store(to, sum);
                }
            }
        }
        ROWS
    }
}

/// A product, with the left factor as it is or transposed, to run with vectors.
pub(super) struct Multiply {
    pub(super) product: Product,
    pub(super) transposed: bool,
}

impl SimdKernel for Multiply {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // SAFETY: whoever made the kernel vouches for the matrices.
        unsafe {
            if self.transposed {
                self.product.run::<S, true>(simd);
            } else {
                self.product.run::<S, false>(simd);
            }
        }
    }
}
