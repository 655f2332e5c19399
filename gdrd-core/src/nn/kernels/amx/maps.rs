//! Products to maps.

use std::arch::x86_64::*;

use super::super::buffer::Shared;
use super::super::tail::{Activation, Tail};
use super::vector::{first, transpose};

/// Where the values of at most 16 rows of a product go: a map for each column.
pub(super) struct Target<'a> {
    pub(super) to: Shared,
    /// The place of each row's value in the output, for column 0.
    pub(super) places: &'a [usize],
    /// Distance of the maps of neighbouring columns.
    pub(super) plane: usize,
    /// The first column and the number of all of them.
    pub(super) column: usize,
    pub(super) columns: usize,
    pub(super) tail: Tail<'a>,
}

impl Target<'_> {
    /// Writes 16 columns of rows that lie `row` values apart, and what follows them.
    ///
    /// # Safety
    /// The rows may be read, and nobody else touches the places meanwhile.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn write(&self, from: *const f32, row: usize) {
        let rows = self.places.len();
        let mut values = [_mm512_setzero_ps(); 16];
        for (at, values) in values.iter_mut().enumerate().take(rows) {
            // SAFETY: the caller's promise.
            *values = unsafe { _mm512_loadu_ps(from.add(at * row)) };
        }
        let mask = first(rows);
        let start = self.places[0];
        let offsets: [i32; 16] = std::array::from_fn(|at| self.places.get(at).map_or(0, |p| *p as i32 - start as i32));
        let in_line = offsets.iter().take(rows).enumerate().all(|(at, offset)| *offset == at as i32);
        // SAFETY: 64 bytes on either side.
        let offsets: __m512i = unsafe { std::mem::transmute(offsets) };
        let count = 16.min(self.columns - self.column);
        for (at, value) in transpose(values).into_iter().enumerate().take(count) {
            let column = self.column + at;
            let place = start + column * self.plane;
            let add = self.tail.add.map(|add| {
                let from = add[place..].as_ptr();
                // SAFETY: `add` has as many values as the output; the mask leaves out rows that do not exist.
                unsafe {
                    if in_line {
                        _mm512_maskz_loadu_ps(mask, from)
                    } else {
                        _mm512_mask_i32gather_ps::<4>(_mm512_setzero_ps(), mask, offsets, from)
                    }
                }
            });
            let value = finish(&self.tail, value, add, column);
            // SAFETY: the caller's promise.
            unsafe {
                let to = self.to.at(place);
                if in_line {
                    _mm512_mask_storeu_ps(to, mask, value);
                } else {
                    _mm512_mask_i32scatter_ps::<4>(to, mask, offsets, value);
                }
            }
        }
    }
}

/// What [`Tail::apply_to`] does, for a vector.
#[inline]
#[target_feature(enable = "avx512f")]
fn finish(tail: &Tail<'_>, value: __m512, add: Option<__m512>, column: usize) -> __m512 {
    let mut value = value;
    if let Some((scales, shifts)) = tail.scale_shift {
        let scaled = _mm512_mul_ps(_mm512_set1_ps(scales[column]), value);
        value = _mm512_add_ps(scaled, _mm512_set1_ps(shifts[column]));
    }
    if let Some(add) = add {
        value = _mm512_add_ps(value, add);
    }
    let zero = _mm512_setzero_ps();
    // `max` and `min` give their second argument where one is not a number.
    match tail.activation {
        Activation::Identity => value,
        Activation::Relu => _mm512_max_ps(value, zero),
        Activation::Relu6 => _mm512_min_ps(_mm512_set1_ps(6.0), _mm512_max_ps(zero, value)),
        Activation::PRelu(slopes) => {
            let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(value, zero);
            _mm512_mask_mul_ps(value, !positive, value, _mm512_set1_ps(slopes[column]))
        }
    }
}
