//! Maps whose channels lie side by side: `[image, row, column, channel]`, the form in which a network's inference keeps them.
//!
//! A pixel's channels are filled up to whole vectors with zeros, so that kernels have no remainders; a convolution with one group
//! reads a map where it lies, and what follows it is done to the vectors that it has in registers.

use super::convolution::{ConvWeights, Convolution};
use super::epilogue::Epilogue;
use super::scratch;
use super::shape::ConvShape;
use super::team::each_chunk;

/// Channels that a pixel of a map has room for; those of an image are as they are.
pub(in super::super) fn pitch(channels: usize) -> usize {
    if is_filled_up(channels) { channels.next_multiple_of(FULL) } else { channels }
}

/// Whether pixels of so many channels are whole vectors.
pub(super) fn is_filled_up(channels: usize) -> bool {
    channels > 4
}

/// Values of the widest vector.
const FULL: usize = 16;

/// Channels that what follows a convolution has numbers for: those of whole panels of the widest vectors, zeros at the end.
pub(in super::super) fn filled_up(mut values: Vec<f32>) -> Vec<f32> {
    values.resize(values.len().next_multiple_of(2 * FULL), 0.0);
    values
}

/// Values of some maps `[channels, plane]` in this form.
pub(in super::super) fn len(images: usize, channels: usize, plane: usize) -> usize {
    images * plane * pitch(channels)
}

/// Where the window of an output's pixel begins: in values from the first image on, and as line and column; all of them below zero
/// by wrapping.
#[derive(Clone, Copy, Default)]
pub(super) struct Window {
    pub(super) at: usize,
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) image: usize,
}

/// The windows of `ROWS` pixels from `row` on, of all pixels of all images, where the input's are `pitch` values each.
#[inline(always)]
pub(super) fn windows<const ROWS: usize>(shape: &ConvShape, pitch: usize, row: usize) -> [Window; ROWS] {
    let ConvShape { height, width, stride, padding, .. } = *shape;
    let (out_height, out_width) = (shape.out_height(), shape.out_width());
    let (mut image, mut y, mut x) = (row / (out_height * out_width), row / out_width % out_height, row % out_width);
    let mut windows = [Window::default(); ROWS];
    for window in &mut windows {
        let (line, column) = ((y * stride).wrapping_sub(padding), (x * stride).wrapping_sub(padding));
        let at = (image * height).wrapping_add(line).wrapping_mul(width).wrapping_add(column).wrapping_mul(pitch);
        *window = Window { at, line, column, image };
        x += 1;
        if x == out_width {
            (x, y) = (0, y + 1);
            if y == out_height {
                (y, image) = (0, image + 1);
            }
        }
    }
    windows
}

/// Kernels for maps in this form.
#[derive(Clone, Copy)]
pub(super) struct PixelWeights<'a> {
    pub(super) values: &'a [f32],
    pub(super) form: PixelForm,
}

/// How kernels lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PixelForm {
    /// As the method has packed them.
    Packed,
    /// As [`Direct`](super::direct::Direct) takes them, with `halves` as pairs of bfloat16 values.
    Panels { halves: bool },
}

/// Maps `[images, channels, plane]` in this form.
pub(in super::super) fn from_maps(x: &[f32], channels: usize, plane: usize, out: &mut [f32]) {
    let pitch = pitch(channels);
    each_chunk(out, plane * pitch, 1, |image, out| {
        let maps = &x[image * channels * plane..][..channels * plane];
        for (at, pixel) in out.chunks_exact_mut(pitch).enumerate() {
            pixel[channels..].fill(0.0);
            pixel.iter_mut().zip(maps[at..].iter().step_by(plane)).for_each(|(to, from)| *to = *from);
        }
    });
}

/// The opposite of [`from_maps`].
pub(in super::super) fn to_maps(x: &[f32], channels: usize, plane: usize, out: &mut [f32]) {
    let pitch = pitch(channels);
    each_chunk(out, channels * plane, 1, |image, out| {
        let pixels = &x[image * plane * pitch..][..plane * pitch];
        for (channel, map) in out.chunks_exact_mut(plane).enumerate() {
            map.iter_mut().zip(pixels[channel..].iter().step_by(pitch)).for_each(|(to, from)| *to = *from);
        }
    });
}

/// The mean of each channel, of maps in this form.
pub(in super::super) fn averages(x: &[f32], channels: usize, plane: usize, out: &mut [f32]) {
    let pitch = pitch(channels);
    each_chunk(out, pitch, 16, |image, out| {
        out.fill(0.0);
        for pixel in x[image * plane * pitch..][..plane * pitch].chunks_exact(pitch) {
            out.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value);
        }
        out.iter_mut().for_each(|sum| *sum /= plane as f32);
    });
}

/// A convolution by a method that has no form of its own for pixels.
pub(super) fn by_maps(
    method: &(impl Convolution + ?Sized),
    shape: &ConvShape,
    x: &[f32],
    weight: &[f32],
    epilogue: Epilogue<'_>,
    out: &mut [f32],
) {
    let mut maps = scratch::take(shape.input_len());
    to_maps(x, shape.inputs, shape.plane(), &mut maps);
    let mut added = scratch::take(epilogue.add.map_or(0, |_| shape.output_len()));
    if let Some(add) = epilogue.add {
        to_maps(add, shape.outputs, shape.out_plane(), &mut added);
    }
    let epilogue = Epilogue { add: epilogue.add.map(|_| &added[..]), ..epilogue };
    let mut result = scratch::take(shape.output_len());
    method.forward(shape, &maps, ConvWeights::Plain(weight), epilogue, super::buffer::unwritten(&mut result));
    from_maps(&result, shape.outputs, shape.out_plane(), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_go_there_and_back() {
        for (channels, plane) in [(3, 5), (4, 1), (5, 4), (16, 9), (17, 3)] {
            let maps: Vec<f32> = (0..2 * channels * plane).map(|at| at as f32).collect();
            let mut pixels = vec![f32::NAN; len(2, channels, plane)];
            from_maps(&maps, channels, plane, &mut pixels);
            assert!(pixels.chunks(pitch(channels)).all(|pixel| pixel[channels..].iter().all(|value| *value == 0.0)));
            assert_eq!(pixels[(2 * plane - 1) * pitch(channels) + 1], maps[(channels + 2) * plane - 1]);
            let mut back = vec![0f32; maps.len()];
            to_maps(&pixels, channels, plane, &mut back);
            assert_eq!(back, maps);
        }
    }
}
