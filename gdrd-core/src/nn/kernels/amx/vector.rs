//! Vectors of float32 values and their bfloat16 parts.

use std::arch::x86_64::*;

pub(super) use super::super::simd::transpose;

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
    let upper = interleave(round([a, b]));
    let even = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(upper));
    let odd = _mm512_castsi512_ps(_mm512_and_si512(upper, _mm512_set1_epi32(-1 << 16)));
    [upper, interleave(round([_mm512_sub_ps(a, even), _mm512_sub_ps(b, odd)]))]
}

/// Each of the first 16 words beside that which stands 16 words further.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn interleave(words: __m512i) -> __m512i {
    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let places = _mm512_or_si512(lanes, _mm512_slli_epi32::<16>(_mm512_add_epi32(lanes, _mm512_set1_epi32(16))));
    _mm512_permutexvar_epi16(places, words)
}

/// A mask of the first `count` of 16 lanes.
#[inline]
pub(super) fn first(count: usize) -> u16 {
    if count >= 16 { u16::MAX } else { (1 << count) - 1 }
}
