//! Vectors of the width that the processor has, chosen when the program runs.
//!
//! A [`SimdKernel`] is written once over [`Simd`]; [`run`] calls the form for the instructions that the thread uses. Everything
//! below a kernel is `inline(always)`, so that it is compiled with those instructions.

mod bytes;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(super) use bytes::{ByteKernel, ByteSimd, ByteUnit};

use super::instructions::Instructions;

/// Vectors of `LANES` float32 values.
pub(super) trait Simd: Copy {
    /// One vector.
    type V: Copy;
    /// Values in a vector.
    const LANES: usize;
    /// Rows of the block of a product that is kept in registers.
    const ROWS: usize;

    /// The same value in all lanes.
    fn splat(self, value: f32) -> Self::V;
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the processor can.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger of two values, `b` where one is not a number.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller of two values, `b` where one is not a number.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// Lane `i` of `a`'s lane `i ^ by`, for `by` of 0 to 3.
    fn exchange(self, a: Self::V, by: usize) -> Self::V;
    /// `LANES` values from `from`.
    ///
    /// # Safety
    /// They may be read.
    unsafe fn load(self, from: *const f32) -> Self::V;
    /// `LANES` values to `to`.
    ///
    /// # Safety
    /// They may be written.
    unsafe fn store(self, to: *mut f32, value: Self::V);
    /// Asks for what lies at `from` to come nearer; nothing is read, and the address may be any.
    fn prefetch(self, from: *const f32);
    /// Two vectors of bfloat16 values from `LANES` pairs: the lower halves of the 32-bit words, and the upper ones.
    ///
    /// # Safety
    /// They may be read.
    unsafe fn load_halves(self, from: *const f32) -> [Self::V; 2];
    /// Transposes a square: row `i` of it lies at `from + i * stride`, and column `j` goes to `to + place(j)`.
    ///
    /// # Safety
    /// All of it may be read and written.
    unsafe fn transpose(self, from: *const f32, stride: usize, to: *mut f32, place: impl Fn(usize) -> usize);
}

/// Something to run with vectors.
pub(super) trait SimdKernel {
    /// Runs it. Implementations are `inline(always)`.
    fn run<S: Simd>(self, simd: S);
}

/// Runs `kernel` with the vectors of the thread's [`Instructions`].
pub(super) fn run(kernel: impl SimdKernel) {
    match Instructions::now() {
        // SAFETY: the processor has the instructions.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 | Instructions::Amx => unsafe { x86::with_avx512(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => unsafe { x86::with_avx2(kernel) },
        _ => kernel.run(Portable),
    }
}

/// The number of values in the vectors of the thread's [`Instructions`].
pub(super) fn lanes() -> usize {
    if Instructions::now() >= Instructions::Avx512 { 16 } else { 8 }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::transpose;

/// Eight values that the compiler maps to whatever the target has for certain (SSE2, NEON).
#[derive(Clone, Copy)]
struct Portable;

impl Simd for Portable {
    type V = [f32; 8];
    const LANES: usize = 8;
    const ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::V {
        [value; 8]
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        if cfg!(target_arch = "aarch64") {
            std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
        } else {
            std::array::from_fn(|i| a[i] * b[i] + c[i])
        }
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn exchange(self, a: Self::V, by: usize) -> Self::V {
        std::array::from_fn(|i| a[i ^ by])
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[f32; 8]>().read_unaligned() }
    }

    #[inline(always)]
    fn prefetch(self, _: *const f32) {}

    #[inline(always)]
    unsafe fn load_halves(self, from: *const f32) -> [Self::V; 2] {
        // SAFETY: the caller's promise.
        let pairs = unsafe { from.cast::<[u32; 8]>().read_unaligned() };
        [pairs.map(|pair| f32::from_bits(pair << 16)), pairs.map(|pair| f32::from_bits(pair & 0xffff_0000))]
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: Self::V) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(value) }
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, stride: usize, to: *mut f32, place: impl Fn(usize) -> usize) {
        for j in 0..8 {
            let to = to.wrapping_add(place(j));
            for i in 0..8 {
                // SAFETY: the caller's promise.
                unsafe { *to.add(i) = *from.add(i * stride + j) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::on_each_level;
    use super::*;

    struct Square<'a> {
        from: &'a [f32],
        to: &'a mut [f32],
        lanes: &'a mut usize,
    }

    impl SimdKernel for Square<'_> {
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            *self.lanes = S::LANES;
            // SAFETY: both slices have room for 16 rows of 20.
            unsafe { simd.transpose(self.from.as_ptr(), 20, self.to.as_mut_ptr(), |j| 20 * j) };
        }
    }

    #[test]
    fn squares_are_transposed() {
        on_each_level(|| {
            let from: Vec<f32> = (0..320u16).map(f32::from).collect();
            let (mut to, mut width) = (vec![0f32; 320], 0);
            run(Square { from: &from, to: &mut to, lanes: &mut width });
            assert_eq!(width, lanes());
            for i in 0..width {
                for j in 0..width {
                    assert_eq!(to[20 * j + i], from[20 * i + j], "{i} {j}");
                }
            }
        });
    }
}
