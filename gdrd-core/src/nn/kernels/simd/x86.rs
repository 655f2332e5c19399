//! Vectors of x86 processors.

use std::arch::x86_64::*;

use super::{Simd, SimdKernel};

#[target_feature(enable = "avx512f")]
pub(super) fn with_avx512(kernel: impl SimdKernel) {
    kernel.run(Avx512);
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn with_avx2(kernel: impl SimdKernel) {
    kernel.run(Avx2);
}

/// The columns of a square of 16 rows.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in super::super) fn transpose(rows: [__m512; 16]) -> [__m512; 16] {
    let zero = _mm512_setzero_ps();
    let mut pairs = [zero; 16];
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    // `quads[4 g + c]` has, in its 128-bit part `q`, column `4 q + c` of the rows `4 g..4 g + 4`.
    let mut quads = [zero; 16];
    for g in 0..4 {
        for half in 0..2 {
            let (a, b) = (_mm512_castps_pd(pairs[4 * g + half]), _mm512_castps_pd(pairs[4 * g + 2 + half]));
            quads[4 * g + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            quads[4 * g + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    }
    let mut columns = [zero; 16];
    for c in 0..4 {
        let even = _mm512_shuffle_f32x4::<0x88>(quads[c], quads[4 + c]);
        let odd = _mm512_shuffle_f32x4::<0xdd>(quads[c], quads[4 + c]);
        let even2 = _mm512_shuffle_f32x4::<0x88>(quads[8 + c], quads[12 + c]);
        let odd2 = _mm512_shuffle_f32x4::<0xdd>(quads[8 + c], quads[12 + c]);
        columns[c] = _mm512_shuffle_f32x4::<0x88>(even, even2);
        columns[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd, odd2);
        columns[8 + c] = _mm512_shuffle_f32x4::<0xdd>(even, even2);
        columns[12 + c] = _mm512_shuffle_f32x4::<0xdd>(odd, odd2);
    }
    columns
}

/// Exists only within functions that have the instructions.
#[derive(Clone, Copy)]
pub(super) struct Avx512;

/// Exists only within functions that have the instructions.
#[derive(Clone, Copy)]
pub(super) struct Avx2;

impl Simd for Avx512 {
    type V = __m512;
    const LANES: usize = 16;
    const ROWS: usize = 8;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: `self` exists only where the instructions do.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        // SAFETY: as above; no address is wrong.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_halves(self, from: *const f32) -> [__m512; 2] {
        // SAFETY: as above, and the caller's promise.
        unsafe {
            let pairs = _mm512_loadu_si512(from.cast());
            let upper = _mm512_and_si512(pairs, _mm512_set1_epi32(-0x1_0000));
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(upper)]
        }
    }

    #[inline(always)]
    fn exchange(self, a: __m512, by: usize) -> __m512 {
        // SAFETY: as above.
        unsafe {
            match by {
                0 => a,
                1 => _mm512_permute_ps::<0b10_11_00_01>(a),
                2 => _mm512_permute_ps::<0b01_00_11_10>(a),
                _ => _mm512_permute_ps::<0b00_01_10_11>(a),
            }
        }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: as above, and the caller's promise.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: __m512) {
        // SAFETY: as above, and the caller's promise.
        unsafe { _mm512_storeu_ps(to, value) }
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, stride: usize, to: *mut f32, place: impl Fn(usize) -> usize) {
        // SAFETY: as above, and the caller's promise.
        unsafe {
            let mut rows = [_mm512_setzero_ps(); 16];
            for i in 0..16 {
                rows[i] = _mm512_loadu_ps(from.add(i * stride));
            }
            for (j, column) in transpose(rows).into_iter().enumerate() {
                _mm512_storeu_ps(to.add(place(j)), column);
            }
        }
    }
}

impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    const ROWS: usize = 6;

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        // SAFETY: `self` exists only where the instructions do.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        // SAFETY: as above; no address is wrong.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_halves(self, from: *const f32) -> [__m256; 2] {
        // SAFETY: as above, and the caller's promise.
        unsafe {
            let pairs = _mm256_loadu_si256(from.cast());
            let upper = _mm256_and_si256(pairs, _mm256_set1_epi32(-0x1_0000));
            [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(upper)]
        }
    }

    #[inline(always)]
    fn exchange(self, a: __m256, by: usize) -> __m256 {
        // SAFETY: as above.
        unsafe {
            match by {
                0 => a,
                1 => _mm256_permute_ps::<0b10_11_00_01>(a),
                2 => _mm256_permute_ps::<0b01_00_11_10>(a),
                _ => _mm256_permute_ps::<0b00_01_10_11>(a),
            }
        }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        // SAFETY: as above, and the caller's promise.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: __m256) {
        // SAFETY: as above, and the caller's promise.
        unsafe { _mm256_storeu_ps(to, value) }
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, stride: usize, to: *mut f32, place: impl Fn(usize) -> usize) {
        // SAFETY: as above, and the caller's promise.
        unsafe {
            let mut pairs = [_mm256_setzero_ps(); 8];
            for i in 0..4 {
                let (a, b) =
                    (_mm256_loadu_ps(from.add(2 * i * stride)), _mm256_loadu_ps(from.add((2 * i + 1) * stride)));
                pairs[2 * i] = _mm256_unpacklo_ps(a, b);
                pairs[2 * i + 1] = _mm256_unpackhi_ps(a, b);
            }
            // `quads[4 g + c]` has, in its 128-bit part `q`, column `4 q + c` of the rows `4 g..4 g + 4`.
            let mut quads = [_mm256_setzero_ps(); 8];
            for g in 0..2 {
                for half in 0..2 {
                    let (a, b) = (_mm256_castps_pd(pairs[4 * g + half]), _mm256_castps_pd(pairs[4 * g + 2 + half]));
                    quads[4 * g + 2 * half] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
                    quads[4 * g + 2 * half + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
                }
            }
            for c in 0..4 {
                let (low, high) = (quads[c], quads[4 + c]);
                _mm256_storeu_ps(to.add(place(c)), _mm256_permute2f128_ps::<0x20>(low, high));
                _mm256_storeu_ps(to.add(place(4 + c)), _mm256_permute2f128_ps::<0x31>(low, high));
            }
        }
    }
}
