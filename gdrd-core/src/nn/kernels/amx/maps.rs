//! Products to maps.

use std::arch::x86_64::*;

use super::super::buffer::Shared;
use super::super::epilogue::{Epilogue, EpilogueActivation};
use super::vector::{first, transpose};

/// Where at most 16 values of one column go, relative to the column's maps.
pub(super) struct ColumnPlaces {
    start: usize,
    /// Those that go anywhere.
    mask: u16,
    /// Whether all do, and lie side by side.
    in_line: bool,
    offsets: [i32; 16],
}

impl ColumnPlaces {
    /// From the places one by one.
    pub(super) fn new(places: impl Iterator<Item = Option<usize>>) -> Self {
        let (mut start, mut count, mut mask, mut offsets) = (0, 0, 0, [0; 16]);
        for place in places {
            if let Some(place) = place {
                if mask == 0 {
                    start = place;
                }
                offsets[count] = place as i32 - start as i32;
                mask |= 1 << count;
            }
            count += 1;
        }
        let in_line = mask == first(count) && (0..count).all(|at| offsets[at] == at as i32);
        Self { start, mask, in_line, offsets }
    }
}

/// The maps of an output, one for each column of a product.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) to: Shared,
    /// Values of a map.
    pub(super) plane: usize,
    pub(super) columns: usize,
    pub(super) epilogue: Epilogue<'a>,
}

impl Target<'_> {
    /// Writes columns `column..column + 16` of rows that lie `row` values apart, and what follows them.
    ///
    /// # Safety
    /// There is a row for each place, and nobody else touches the places meanwhile.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn write(&self, from: *const f32, row: usize, column: usize, places: &ColumnPlaces) {
        let mut values = [_mm512_setzero_ps(); 16];
        let mask = places.mask;
        for (at, values) in values.iter_mut().enumerate() {
            if mask >> at & 1 == 1 {
                // SAFETY: the caller's promise.
                *values = unsafe { _mm512_loadu_ps(from.add(at * row)) };
            }
        }
        // SAFETY: 64 bytes on either side.
        let offsets: __m512i = unsafe { std::mem::transmute(places.offsets) };
        for (at, value) in transpose(values).into_iter().enumerate().take(self.columns.saturating_sub(column)) {
            let place = places.start + (column + at) * self.plane;
            let add = self.epilogue.add.map(|add| {
                let from = add[place..].as_ptr();
                // SAFETY: `add` has as many values as the output; the mask leaves out rows that do not exist.
                unsafe {
                    if places.in_line {
                        _mm512_maskz_loadu_ps(mask, from)
                    } else {
                        _mm512_mask_i32gather_ps::<4>(_mm512_setzero_ps(), mask, offsets, from)
                    }
                }
            });
            let value = finish(&self.epilogue, value, add, column + at);
            // SAFETY: the caller's promise.
            unsafe {
                let to = self.to.at(place);
                if places.in_line {
                    _mm512_mask_storeu_ps(to, mask, value);
                } else {
                    _mm512_mask_i32scatter_ps::<4>(to, mask, offsets, value);
                }
            }
        }
    }
}

/// What [`Epilogue::apply_to`] does, for a vector.
#[inline]
#[target_feature(enable = "avx512f")]
fn finish(epilogue: &Epilogue<'_>, value: __m512, add: Option<__m512>, column: usize) -> __m512 {
    let mut value = value;
    if let Some((scales, shifts)) = epilogue.scale_shift {
        let scaled = _mm512_mul_ps(_mm512_set1_ps(scales[column]), value);
        value = _mm512_add_ps(scaled, _mm512_set1_ps(shifts[column]));
    }
    if let Some(add) = add {
        value = _mm512_add_ps(value, add);
    }
    let zero = _mm512_setzero_ps();
    // `max` and `min` give their second argument where one is not a number.
    match epilogue.activation {
        EpilogueActivation::Identity => value,
        EpilogueActivation::Relu => _mm512_max_ps(value, zero),
        EpilogueActivation::Relu6 => _mm512_min_ps(_mm512_set1_ps(6.0), _mm512_max_ps(zero, value)),
        EpilogueActivation::PRelu(slopes) => {
            let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(value, zero);
            _mm512_mask_mul_ps(value, !positive, value, _mm512_set1_ps(slopes[column]))
        }
    }
}
