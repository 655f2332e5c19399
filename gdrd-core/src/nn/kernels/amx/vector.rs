//! Vectors of float32 values and their bfloat16 parts.

use std::arch::x86_64::*;

/// The two parts of 32 values, in their order: each value is about the sum of its parts.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn split([a, b]: [__m512; 2]) -> [__m512i; 2] {
    let upper = round([a, b]);
    let low = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(upper)));
    let high = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(upper)));
    [upper, round([_mm512_sub_ps(a, _mm512_castsi512_ps(low)), _mm512_sub_ps(b, _mm512_castsi512_ps(high))])]
}

/// 32 values as bfloat16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn round([a, b]: [__m512; 2]) -> __m512i {
    let rounded = _mm512_cvtne2ps_pbh(b, a);
    // SAFETY: both are 64 bytes without structure.
    unsafe { std::mem::transmute(rounded) }
}

/// The two parts of 16 pairs of values, each pair side by side.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn split_pairs(a: __m512, b: __m512) -> [__m512i; 2] {
    split([a, b]).map(|parts| {
        let low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(parts));
        let high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(parts));
        _mm512_or_si512(low, _mm512_slli_epi32::<16>(high))
    })
}

/// A mask of the first `count` of 16 lanes.
#[inline]
pub(super) fn first(count: usize) -> u16 {
    if count >= 16 { u16::MAX } else { (1 << count) - 1 }
}

/// The columns of a square of 16 rows.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose(rows: [__m512; 16]) -> [__m512; 16] {
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
