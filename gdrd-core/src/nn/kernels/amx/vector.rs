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
