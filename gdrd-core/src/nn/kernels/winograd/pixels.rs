//! Winograd's method where channels lie side by side already: tiles are transformed as they are read and written, with nothing to
//! transpose.

use std::marker::PhantomData;

use super::super::buffer::Shared;
use super::super::epilogue::Epilogue;
use super::super::pixels::pitch;
use super::super::product::{Product, panel_here};
use super::super::scratch;
use super::super::shape::ConvShape;
use super::super::simd::{self, Simd, SimdKernel};
use super::super::team::each;
use super::axis::{Algorithm, Axis, MOST};
use super::frame::Frame;
use super::strips::TilePlaces;
use super::{BLOCK_TILES, CHUNK, Products, SIDE, weights};

/// Tiles up to which all are one block, and each task has one panel.
const ONE_BLOCK: usize = 48;

/// Writes all of the output for kernels that [`Convolution::pack`](super::Convolution::pack) has packed.
pub(super) fn forward<A: Algorithm>(
    shape: &ConvShape,
    x: &[f32],
    packed: &[f32],
    epilogue: Epilogue<'_>,
    out: &mut [f32],
) {
    let (frame, depth) = (Frame::forward::<A>(shape), shape.inputs);
    let (lanes, width) = (simd::lanes(), panel_here());
    let (panels, strips, groups) =
        (shape.outputs.div_ceil(width), frame.batch * frame.strips, depth.div_ceil(simd::lanes()));
    let position = weights::position(depth, width);
    let panel_len = weights::panel_len::<A>(depth, width);
    let few = strips * frame.tiles() <= ONE_BLOCK;
    let block_strips = if few { strips } else { (BLOCK_TILES / frame.tiles()).max(1) };
    let block_panels = if few { 1 } else { (SIDE / width).max(1) };
    // Each chunk reads all kernels again, and is made of whole blocks.
    let (of_kernel, of_tile) = (A::Kernel::TO.pow(2), A::Input::TO.pow(2));
    let values = (of_kernel * depth * shape.outputs / 4).clamp(CHUNK / 8, CHUNK);
    let whole = (values / (of_tile * depth * frame.tiles())).max(1).next_multiple_of(block_strips);
    let chunk = if few { strips } else { whole.min(strips) };
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
            let product = Product {
                rows: count * frame.tiles(),
                panels,
                depth,
                a: tiles[strip * frame.tiles() * places.tile..].as_ptr(),
                a_stride: places.tile,
                b: packed[panel * panel_len..].as_ptr(),
                b_panel: panel_len,
                b_stride: width,
                c: products.as_mut_ptr(),
                c_stride: result.tile,
                add: false,
            };
            let apart = [places.position, position, result.position];
            simd::run(Products { first: product, apart, steps: A::STEPS, transposed: false });
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
