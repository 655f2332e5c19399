//! Winograd's method where channels lie side by side already: tiles are transformed as they are read and written, with nothing to
//! transpose.

use std::marker::PhantomData;
use std::ops::Range;

use super::super::buffer::Shared;
use super::super::epilogue::Epilogue;
use super::super::pixels::{PixelForm, PixelWeights, pitch};
use super::super::product::{Product, panel_here};
use super::super::scratch;
use super::super::shape::ConvShape;
use super::super::simd::{self, Simd, SimdKernel};
use super::super::team::each;
use super::axis::{Algorithm, Axis, MOST};
use super::frame::Frame;
use super::products::{Ahead, Products};
use super::strips::TilePlaces;
use super::weights::PackPanel;
use super::{BLOCK_TILES, CHUNK, SIDE, weights};

/// Tiles up to which all are one block, and each task has one panel.
const ONE_BLOCK: usize = 48;

/// Values of packed kernels up to which they lie in a core's cache from one call to the next.
const NEAR: usize = 1 << 18;

/// Values of kernels that a task transforms at a time, at least: a part of a core's cache.
const TRANSFORMED: usize = 1 << 16;

/// Writes all of the output.
pub(super) fn forward<A: Algorithm>(
    shape: &ConvShape,
    x: &[f32],
    weights: PixelWeights<'_>,
    epilogue: Epilogue<'_>,
    out: &mut [f32],
) {
    let (frame, depth) = (Frame::forward::<A>(shape), shape.inputs);
    let (lanes, width) = (simd::lanes(), panel_here());
    let (panels, strips, groups) =
        (shape.outputs.div_ceil(width), frame.batch * frame.strips, depth.div_ceil(simd::lanes()));
    let panel_len = weights::panel_len::<A>(depth, width);
    let few = weights.form != PixelForm::Packed || strips * frame.tiles() <= ONE_BLOCK;
    let block_strips = if few { strips } else { (BLOCK_TILES / frame.tiles()).max(1) };
    let block_panels = if few { 1 } else { (SIDE / width).max(1) };
    // Each chunk reads all kernels again, and is made of whole blocks.
    let (of_kernel, of_tile) = (A::Kernel::TO.pow(2), A::Input::TO.pow(2));
    // Channels whose kernels are transformed at a time, by the task that uses them: the products are read and written once for each.
    let products = 2 * of_kernel * strips * frame.tiles() * width;
    let at_once = (products.max(TRANSFORMED) / (of_kernel * width)).clamp(1, depth);
    let values = (of_kernel * depth * shape.outputs / 4).clamp(CHUNK / 8, CHUNK);
    let whole = (values / (of_tile * depth * frame.tiles())).max(1).next_multiple_of(block_strips);
    let chunk = if few { strips } else { whole.min(strips) };
    let far = of_kernel * depth * shape.outputs > NEAR;
    let target = Shared::new(out);
    let mut tiles = scratch::take(TilePlaces::new(chunk * frame.tiles(), depth).len(A::Input::TO));
    for first in (0..strips).step_by(chunk) {
        let count = chunk.min(strips - first);
        let places = TilePlaces::new(count * frame.tiles(), depth);
        let to = Shared::new(&mut tiles);
        each(count * groups, 8.min(groups), |at| {
            let (strip, channel) = (at / groups, at % groups * lanes);
            let (image, row) = ((first + strip) / frame.strips, (first + strip) % frame.strips);
            simd::run(ReadPixels {
                x: x[image * shape.plane() * pitch(depth) + channel..].as_ptr(),
                pitch: pitch(depth),
                frame,
                strip: row,
                // SAFETY: each strip and group of channels has places of its own in `to`.
                to: unsafe { to.at(strip * frame.tiles() * places.tile + channel) },
                places,
                apart: A::APART,
                transform: PhantomData::<A::Input>,
            });
        });
        let blocks = panels.div_ceil(block_panels);
        each(count.div_ceil(block_strips) * blocks, 1, |at| {
            let (strip, panel) = (at / blocks * block_strips, at % blocks * block_panels);
            let (count, panels) = (block_strips.min(count - strip), block_panels.min(panels - panel));
            let result = TilePlaces::new(count * frame.tiles(), panels * width);
            let mut products = scratch::take(result.len(A::Output::FROM));
            let to = products.as_mut_ptr();
            let multiply = |channels: Range<usize>, kernels: *const f32, ahead| {
                let first = Product {
                    rows: count * frame.tiles(),
                    panels,
                    depth: channels.len(),
                    a: tiles[strip * frame.tiles() * places.tile + channels.start..].as_ptr(),
                    a_stride: places.tile,
                    b: kernels,
                    b_panel: panel_len,
                    b_stride: width,
                    c: to,
                    c_stride: result.tile,
                    add: channels.start > 0,
                };
                let apart = [places.position, weights::position(channels.len(), width), result.position];
                simd::run(Products { first, apart, steps: A::STEPS, transposed: false, ahead });
            };
            match weights.form {
                PixelForm::Packed => {
                    let ahead = if far { Ahead::Factors } else { Ahead::Nothing };
                    multiply(0..depth, weights.values[panel * panel_len..].as_ptr(), ahead);
                }
                PixelForm::Panels { halves } => {
                    let row = if halves { lanes } else { width };
                    let mut kernels = scratch::take(weights::panel_len::<A>(at_once, width));
                    for start in (0..depth).step_by(at_once) {
                        let channels = start..depth.min(start + at_once);
                        let from = weights.values[(panel * shape.taps() * depth + start) * row..].as_ptr();
                        simd::run(PackPanel {
                            from,
                            halves,
                            inputs: depth,
                            channels: channels.len(),
                            to: kernels.as_mut_ptr(),
                            transform: PhantomData::<A::Kernel>,
                        });
                        let from = from.wrapping_add(channels.len() * row);
                        let ahead = Ahead::Kernels { from, tap: depth * row, channel: row };
                        multiply(channels, kernels.as_ptr(), ahead);
                    }
                }
            }
            let pitch = pitch(shape.outputs);
            for at in 0..count {
                let (image, row) = ((first + strip + at) / frame.strips, (first + strip + at) % frame.strips);
                for channel in (panel * width..pitch.min((panel + panels) * width)).step_by(lanes) {
                    simd::run(WritePixels {
                        from: products[at * frame.tiles() * result.tile + channel - panel * width..].as_ptr(),
                        places: result,
                        frame,
                        strip: row,
                        // SAFETY: the pixels lie within the output, and these channels of them belong to this task.
                        to: unsafe { target.at(0) },
                        first: image * shape.out_plane(),
                        pitch,
                        epilogue,
                        channel,
                        transform: PhantomData::<A::Output>,
                    });
                }
            }
        });
    }
}

/// Reads the tiles of one strip, for as many channels as a vector has lanes, and writes them transformed.
struct ReadPixels<X> {
    /// The image's first pixel; the next is `pitch` further.
    x: *const f32,
    pitch: usize,
    frame: Frame,
    strip: usize,
    to: *mut f32,
    places: TilePlaces,
    /// Pixels from one tile to the next, both ways.
    apart: usize,
    transform: PhantomData<X>,
}

impl<X: Axis> SimdKernel for ReadPixels<X> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Frame { height, width, before, rows, across, .. } = self.frame;
        let (lanes, columns) = (S::LANES, (across - 1) * self.apart + X::FROM);
        let mut buffer = scratch::take(X::TO * columns * lanes);
        let mid = buffer.as_mut_ptr();
        let zero = simd.splat(0.0);
        for row in 0..rows {
            let top = (self.strip * rows + row) * self.apart;
            // Lines of the tiles that there are.
            let lines = before.saturating_sub(top)..(height + before).saturating_sub(top).min(X::FROM);
            // SAFETY: `buffer` has room for `X::TO * columns` vectors; whoever made the kernel vouches for the rest.
            unsafe {
                for column in 0..columns {
                    let mut d = [zero; MOST];
                    if (before..width + before).contains(&column) {
                        let from = self.x.add((column - before) * self.pitch);
                        for i in 0..X::FROM {
                            if lines.contains(&i) {
                                d[i] = simd.load(from.add((top + i - before) * width * self.pitch));
                            }
                        }
                    }
                    let v = X::of(simd, d);
                    for i in 0..X::TO {
                        simd.store(mid.add((i * columns + column) * lanes), v[i]);
                    }
                }
                for tile in 0..across {
                    for i in 0..X::TO {
                        let mut d = [zero; MOST];
                        for j in 0..X::FROM {
                            d[j] = simd.load(mid.add((i * columns + tile * self.apart + j) * lanes));
                        }
                        let v = X::of(simd, d);
                        let at = (row * across + tile) * self.places.tile + i * X::TO * self.places.position;
                        for j in 0..X::TO {
                            simd.store(self.to.add(at + j * self.places.position), v[j]);
                        }
                    }
                }
            }
        }
    }
}

/// Transforms the products of one strip back and writes the outputs that exist, with what follows them.
struct WritePixels<'a, X> {
    /// The first tile's products for these channels.
    from: *const f32,
    places: TilePlaces,
    frame: Frame,
    strip: usize,
    to: *mut f32,
    /// The image's first pixel in the output; the next is `pitch` values further.
    first: usize,
    pitch: usize,
    epilogue: Epilogue<'a>,
    channel: usize,
    transform: PhantomData<X>,
}

impl<X: Axis> SimdKernel for WritePixels<'_, X> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Frame { out_height, out_width, rows, across, .. } = self.frame;
        let zero = simd.splat(0.0);
        for tile in 0..rows * across {
            let (top, left) = ((self.strip * rows + tile / across) * X::TO, tile % across * X::TO);
            let mut mid = [[zero; MOST]; MOST];
            // SAFETY: whoever made the kernel vouches for the products and the output.
            unsafe {
                for i in 0..X::FROM {
                    let from = self.from.add(tile * self.places.tile + i * X::FROM * self.places.position);
                    let mut m = [zero; MOST];
                    for j in 0..X::FROM {
                        m[j] = simd.load(from.add(j * self.places.position));
                    }
                    let y = X::of(simd, m);
                    for j in 0..X::TO {
                        mid[j][i] = y[j];
                    }
                }
                for j in 0..X::TO.min(out_width - left) {
                    let y = X::of(simd, mid[j]);
                    for i in 0..X::TO.min(out_height.saturating_sub(top)) {
                        let at = (self.first + (top + i) * out_width + left + j) * self.pitch + self.channel;
                        simd.store(self.to.add(at), self.epilogue.of(simd, y[i], at, self.channel));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::direct;
    use super::super::super::pixels::{from_maps, len};
    use super::super::super::testing::{assert_close, flat, on_each_level, random, with_threads};
    use super::super::stride_one::StrideOne;
    use super::super::stride_one_small::StrideOneSmall;
    use super::super::stride_two::StrideTwo;
    use super::*;

    /// Kernels that are transformed by the tasks that use them, in parts, give what packed ones give.
    fn transformed_where_they_are_used<A: Algorithm>(images: usize, size: usize, stride: usize) {
        let (inputs, outputs) = (130, 70);
        let shape = ConvShape::new((images, inputs, size, size), (outputs, inputs, 3, 3), stride, 1, 1).expect("fits");
        let weight = flat(&random(outputs * inputs * 9, 1).expect("weight"));
        // Only the upper halves of the bits, so that both forms of panels hold them.
        let weight: Vec<f32> = weight.iter().map(|value| f32::from_bits(value.to_bits() & 0xffff_0000)).collect();
        let maps = flat(&random((images, inputs, size, size), 2).expect("maps"));
        let mut x = vec![f32::NAN; len(images, inputs, shape.plane())];
        from_maps(&maps, inputs, shape.plane(), &mut x);
        on_each_level(|| {
            let run = |values: &[f32], form, threads| {
                with_threads(threads, || {
                    let mut out = vec![f32::NAN; len(images, outputs, shape.out_plane())];
                    forward::<A>(&shape, &x, PixelWeights { values, form }, Epilogue::default(), &mut out);
                    out
                })
            };
            let expected = run(&weights::packed::<A>(&shape, &weight), PixelForm::Packed, 2);
            for halves in [false, true] {
                let (panels, form) = (direct::panels(&shape, &weight, halves), PixelForm::Panels { halves });
                let found = run(&panels, form, 1);
                assert!(found == run(&panels, form, 3));
                assert_close(&[found], std::slice::from_ref(&expected), 2e-5);
            }
        });
    }

    #[test]
    fn kernels_are_transformed_where_they_are_used() {
        transformed_where_they_are_used::<StrideOne>(8, 4, 1);
        transformed_where_they_are_used::<StrideOne>(3, 9, 1);
        transformed_where_they_are_used::<StrideOneSmall>(5, 4, 1);
        transformed_where_they_are_used::<StrideTwo>(3, 9, 2);
    }
}
