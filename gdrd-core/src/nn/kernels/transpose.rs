//! Maps stored channel by channel, transposed so that channels lie side by side, and back.

use super::simd::Simd;

/// Some rows of one image, all columns, some channels.
#[derive(Clone, Copy)]
pub(super) struct ImageMaps {
    /// The first map's first value.
    pub(super) at: *const f32,
    /// Channels to take; at most one vector.
    pub(super) channels: usize,
    /// Rows of a map.
    pub(super) height: usize,
    /// Columns of a map.
    pub(super) width: usize,
}

/// Reads `rows` rows from `first` on into `to [rows, pitch]`, a vector every `step` values, `left` columns to the right, with zeros where
/// there is no value.
///
/// # Safety
/// The maps may be read and `to` written.
#[inline(always)]
pub(super) unsafe fn read_rows<S: Simd>(
    simd: S,
    maps: &ImageMaps,
    (first, rows): (isize, usize),
    (left, pitch): (usize, usize),
    to: *mut f32,
    step: usize,
) {
    let lanes = S::LANES;
    let ImageMaps { at, channels, height, width } = *maps;
    let begin = (-first).clamp(0, rows as isize) as usize;
    let end = (height as isize - first).clamp(begin as isize, rows as isize) as usize;
    let zero = simd.splat(0.0);
    // SAFETY: all indices are below `rows * pitch` vectors in `to`, and within the maps' rows in `at`.
    unsafe {
        for row in 0..rows {
            let inside = begin <= row && row < end;
            let (stop, resume) = if inside { (left, left + width) } else { (pitch, pitch) };
            for column in 0..stop {
                simd.store(to.add((row * pitch + column) * step), zero);
            }
            for column in resume..pitch {
                simd.store(to.add((row * pitch + column) * step), zero);
            }
        }
        if begin == end {
            return;
        }
        let plane = height * width;
        let from = at.add((first + begin as isize) as usize * width);
        let span = (end - begin) * width;
        if channels < lanes || span < lanes {
            for at in 0..span {
                let to = to.add(((begin + at / width) * pitch + left + at % width) * step);
                for lane in 0..lanes {
                    *to.add(lane) = if lane < channels { *from.add(lane * plane + at) } else { 0.0 };
                }
            }
            return;
        }
        let mut done = 0;
        while done < span {
            // The last square may overlap the one before.
            let start = done.min(span - lanes);
            let (mut row, mut column) = (begin + start / width, start % width);
            let mut places = [0usize; 16];
            for place in &mut places[..lanes] {
                *place = (row * pitch + left + column) * step;
                column += 1;
                if column == width {
                    (row, column) = (row + 1, 0);
                }
            }
            simd.transpose(from.add(start), plane, to, |j| places[j]);
            done = start + lanes;
        }
    }
}

/// Writes `span` values of each of `channels` maps, `plane` apart from `to` on, from vectors of channels that lie
/// `stride` values apart.
///
/// # Safety
/// The vectors may be read and the maps written.
#[inline(always)]
pub(super) unsafe fn write_span<S: Simd>(
    simd: S,
    (from, stride): (*const f32, usize),
    to: *mut f32,
    plane: usize,
    channels: usize,
    span: usize,
) {
    let lanes = S::LANES;
    // SAFETY: the caller's promise covers all of the span.
    unsafe {
        if channels < lanes || span < lanes {
            for lane in 0..channels {
                for at in 0..span {
                    *to.add(lane * plane + at) = *from.add(at * stride + lane);
                }
            }
            return;
        }
        let mut done = 0;
        while done < span {
            // The last square may overlap the one before.
            let start = done.min(span - lanes);
            simd.transpose(from.add(start * stride), stride, to.add(start), |j| j * plane);
            done = start + lanes;
        }
    }
}
