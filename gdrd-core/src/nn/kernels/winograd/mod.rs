//! Convolution with 3x3 kernels and stride one by Winograd's F(4x4, 3x3): a tile of 4x4 outputs costs 36 products for
//! each pair of channels instead of 144.
//!
//! The tiles of some images are transformed into 36 matrices `[tiles, channels]`, each is multiplied with the matrix
//! of its position in the transformed kernels, and the products are transformed back. The gradient of the input is the
//! same with the kernels rotated by 180 degrees; that of the weight is the product of the transformed tiles and the transformed
//! output gradients.

mod pixels;
mod strips;
mod transform;
mod weights;

use std::mem::MaybeUninit;

use self::strips::{ReadGradient, ReadInput, TilePlaces, WriteOutput};
use self::transform::{IN, OUT, TAPS};
use self::weights::{Kernels3x3, Pack, Unpack};
use super::buffer::{Filling, Shared};
use super::convolution::{ConvWeights, Convolution};
use super::epilogue::Epilogue;
use super::instructions::Instructions;
use super::pixels::PixelWeights;
use super::product::{Product, panel_here};
use super::scratch::{self, ScratchBuffer, Values};
use super::shape::ConvShape;
use super::simd::{self, Simd, SimdKernel};
use super::team::{each, each_chunk};
use super::transpose::ImageMaps;

/// Positions in a transformed tile.
const POSITIONS: usize = IN * IN;

/// Values of transformed tiles that are made before they are used: about what a last-level cache holds.
const CHUNK: usize = 2 << 20;

/// Channels that are taken at a time on either side of a block of products.
const SIDE: usize = 64;

/// Tiles of a block of products, unless the kernels are packed for one block of tiles alone. Each block reads its kernels again: with 96
/// a student embeds 5 to 8 % faster than with 48 on an EPYC (Zen 4), and trains as fast.
const BLOCK_TILES: usize = 96;

/// Tiles up to which kernels are packed where they are used.
const FEW_TILES: usize = 128;

/// Few products for 3x3 kernels with stride one.
pub(super) struct Winograd;

impl Convolution for Winograd {
    fn name(&self) -> &'static str {
        "winograd"
    }

    fn applies(&self, shape: &ConvShape, _: Instructions) -> bool {
        let frame = Frame::forward(shape);
        let tiles = frame.strips * frame.tiles;
        (shape.kernel_h, shape.kernel_w, shape.stride, shape.groups) == (TAPS, TAPS, 1, 1)
            && shape.padding < TAPS
            && shape.inputs.min(shape.outputs) >= 16
            // Few tiles do not repay the larger kernels, and tiles that hang over the edge waste products.
            && tiles * shape.batch >= 8
            && shape.out_plane() * TAPS * TAPS >= 2 * POSITIONS * tiles
    }

    fn pack(&self, shape: &ConvShape, weight: &[f32]) -> Option<Values> {
        Some(weights::packed(shape, weight))
    }

    fn forward(
        &self,
        shape: &ConvShape,
        x: &[f32],
        weights: ConvWeights<'_>,
        epilogue: Epilogue<'_>,
        out: &mut [MaybeUninit<f32>],
    ) {
        let source = match weights {
            ConvWeights::Plain(values) => {
                KernelSource::Plain(Kernels3x3 { values, inputs: shape.inputs, adjoint: false })
            }
            ConvWeights::Packed(values) => KernelSource::Packed(values),
        };
        convolve(&Frame::forward(shape), x, (shape.inputs, shape.outputs), source, epilogue, out);
    }

    fn pack_pixels(&self, shape: &ConvShape, weight: &[f32], _: bool) -> Values {
        weights::packed(shape, weight)
    }

    fn forward_pixels(
        &self,
        shape: &ConvShape,
        x: &[f32],
        weights: PixelWeights<'_>,
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) {
        pixels::forward(shape, x, weights.values, epilogue, out);
    }

    fn input_gradient(&self, shape: &ConvShape, weight: &[f32], grad: &[f32]) -> Vec<f32> {
        let weights = Kernels3x3 { values: weight, inputs: shape.inputs, adjoint: true };
        let channels = (shape.outputs, shape.inputs);
        let (frame, source) = (Frame::backward(shape), KernelSource::Plain(weights));
        // SAFETY: all values are written.
        unsafe {
            Filling::by(shape.input_len(), |out| convolve(&frame, grad, channels, source, Epilogue::default(), out))
        }
    }

    fn weight_gradient(&self, shape: &ConvShape, x: &[f32], grad: &[f32]) -> Vec<f32> {
        let width = panel_here();
        let (frame, ConvShape { inputs, outputs, .. }) = (Frame::forward(shape), *shape);
        let strips = frame.batch * frame.strips;
        let chunk = frame.chunk(inputs + outputs);
        let wide = inputs.next_multiple_of(width);
        let mut tiles = scratch::take(TilePlaces::new(chunk * frame.tiles, wide).len());
        let mut grads = scratch::take(TilePlaces::new(chunk * frame.tiles, outputs).len());

        // Blocks of the sum; where the batch is one chunk, they live only as long as their task.
        let across = inputs.div_ceil(SIDE);
        // Narrow layers have smaller blocks, so that threads have some each.
        let tall = if outputs.div_ceil(SIDE) * across < 4 { SIDE / 4 } else { SIDE };
        let (down, block) = (outputs.div_ceil(tall), TilePlaces::new(tall, SIDE));
        let once = chunk >= strips;
        let mut sums = scratch::take(if once { 0 } else { down * across * block.len() });
        let sums_at = Shared::new(&mut sums);

        let mut out = Filling::new(outputs * inputs * TAPS * TAPS);
        let target = out.shared();
        for first in (0..strips).step_by(chunk) {
            let count = chunk.min(strips - first);
            let (tile_places, grad_places) =
                (TilePlaces::new(count * frame.tiles, wide), TilePlaces::new(count * frame.tiles, outputs));
            frame.read(x, inputs, (first, count), &mut tiles, tile_places);
            read_gradient(&frame, grad, outputs, (first, count), &mut grads, grad_places);
            each(down * across, 1, |at| {
                let (output, input) = (at / across * tall, at % across * SIDE);
                let mut here = scratch::take(if once { block.len() } else { 0 });
                // SAFETY: each block has values of its own in `sums`.
                let sum = if once { here.as_mut_ptr() } else { unsafe { sums_at.at(at * block.len()) } };
                let product = Product {
                    rows: tall.min(outputs - output),
                    panels: SIDE.min(inputs - input).div_ceil(width),
                    depth: count * frame.tiles,
                    a: grads[output..].as_ptr(),
                    a_stride: grad_places.tile,
                    b: tiles[input..].as_ptr(),
                    b_panel: width,
                    b_stride: tile_places.tile,
                    c: sum,
                    c_stride: block.tile,
                    add: first > 0,
                };
                let steps = [grad_places.position, tile_places.position, block.position];
                simd::run(Products { first: product, steps, transposed: true });
                if first + count == strips {
                    simd::run(Unpack {
                        from: sum,
                        position: block.position,
                        row: block.tile,
                        outputs: tall.min(outputs - output),
                        inputs: SIDE.min(inputs - input),
                        // SAFETY: the block's kernels lie within the output and belong to this task.
                        to: unsafe { target.at((output * inputs + input) * TAPS * TAPS) },
                        stride: inputs * TAPS * TAPS,
                    });
                }
            });
        }
        // SAFETY: the last chunk wrote every block.
        unsafe { out.finish() }
    }
}

/// Where the kernels of the products come from.
enum KernelSource<'a> {
    Plain(Kernels3x3<'a>),
    /// What [`Convolution::pack`] has made.
    Packed(&'a [f32]),
}

/// The spatial side of a convolution.
#[derive(Clone, Copy)]
struct Frame {
    batch: usize,
    height: usize,
    width: usize,
    padding: usize,
    out_height: usize,
    out_width: usize,
    /// Rows of tiles of an image.
    strips: usize,
    /// Tiles in a row.
    tiles: usize,
}

impl Frame {
    fn new(batch: usize, (height, width): (usize, usize), padding: usize, out: (usize, usize)) -> Self {
        let (out_height, out_width) = out;
        let (strips, tiles) = (out_height.div_ceil(OUT), out_width.div_ceil(OUT));
        Self { batch, height, width, padding, out_height, out_width, strips, tiles }
    }

    fn forward(shape: &ConvShape) -> Self {
        let out = (shape.out_height(), shape.out_width());
        Self::new(shape.batch, (shape.height, shape.width), shape.padding, out)
    }

    /// The convolution that leads from the output's gradient to the input's.
    fn backward(shape: &ConvShape) -> Self {
        let out = (shape.out_height(), shape.out_width());
        Self::new(shape.batch, out, TAPS - 1 - shape.padding, (shape.height, shape.width))
    }

    /// Strips of the whole batch of which each has `values` values for a tile, so that they stay within [`CHUNK`].
    fn chunk(&self, values: usize) -> usize {
        (CHUNK / (POSITIONS * values * self.tiles)).clamp(1, self.batch * self.strips)
    }

    /// Transforms the input tiles of `count` strips from `first` on.
    fn read(
        &self,
        x: &[f32],
        channels: usize,
        (first, count): (usize, usize),
        to: &mut ScratchBuffer,
        places: TilePlaces,
    ) {
        let (lanes, to) = (simd::lanes(), Shared::new(to));
        let (groups, plane) = (channels.div_ceil(lanes), self.height * self.width);
        each(count * groups, 8.min(groups), |at| {
            let (strip, channel) = (at / groups, at % groups * lanes);
            let image = (first + strip) / self.strips;
            let maps = ImageMaps {
                at: x[(image * channels + channel) * plane..].as_ptr(),
                channels: lanes.min(channels - channel),
                height: self.height,
                width: self.width,
            };
            // SAFETY: each strip and group of channels has places of its own in `to`.
            let to = unsafe { to.at(strip * self.tiles * places.tile + channel) };
            let strip = (first + strip) % self.strips;
            simd::run(ReadInput { maps, strip, tiles: self.tiles, padding: self.padding, to, places });
        });
    }
}

/// 36 products, one for each position of a tile.
struct Products {
    /// The first of them.
    first: Product,
    /// Distances of neighbouring positions in the three matrices.
    steps: [usize; 3],
    /// Whether the left factors are transposed.
    transposed: bool,
}

impl SimdKernel for Products {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for position in 0..POSITIONS {
            let [a, b, c] = self.steps.map(|step| step * position);
            // SAFETY: whoever made the kernel vouches for the matrices.
            unsafe {
                let Product { a: a0, b: b0, c: c0, .. } = self.first;
                let product = Product { a: a0.add(a), b: b0.add(b), c: c0.add(c), ..self.first };
                if self.transposed {
                    product.run::<S, true>(simd);
                } else {
                    product.run::<S, false>(simd);
                }
            }
        }
    }
}

/// Writes all of the output.
fn convolve(
    frame: &Frame,
    x: &[f32],
    (depth, outputs): (usize, usize),
    source: KernelSource<'_>,
    epilogue: Epilogue<'_>,
    out: &mut [MaybeUninit<f32>],
) {
    let (lanes, width) = (simd::lanes(), panel_here());
    let (panels, strips) = (outputs.div_ceil(width), frame.batch * frame.strips);
    let position = weights::position(depth, width);
    let panel_len = POSITIONS * position;

    // With few tiles every kernel is used once, and is packed just before that; else all are packed first.
    let once = strips * frame.tiles <= FEW_TILES && panels >= 8;
    let (block_strips, block_panels) =
        if once { (strips, 1) } else { ((BLOCK_TILES / frame.tiles).max(1), (SIDE / width).max(1)) };
    let mut buffer;
    let (packed, fresh) = match source {
        KernelSource::Packed(packed) => (packed, None),
        KernelSource::Plain(weights) if once => (&[][..], Some(weights)),
        KernelSource::Plain(weights) => {
            buffer = scratch::take(panels * panel_len);
            each_chunk(&mut buffer, panel_len, 1, |panel, to| {
                simd::run(Pack { weights, panel, to: to.as_mut_ptr() });
            });
            (&*buffer, None)
        }
    };

    let out_plane = frame.out_height * frame.out_width;
    let target = Shared::unwritten(out);
    let chunk = if once { strips } else { frame.chunk(depth) };
    let mut tiles = scratch::take(TilePlaces::new(chunk * frame.tiles, depth).len());
    for first in (0..strips).step_by(chunk) {
        let count = chunk.min(strips - first);
        let places = TilePlaces::new(count * frame.tiles, depth);
        frame.read(x, depth, (first, count), &mut tiles, places);
        let blocks = panels.div_ceil(block_panels);
        each(count.div_ceil(block_strips) * blocks, 1, |at| {
            let (strip, panel) = (at / blocks * block_strips, at % blocks * block_panels);
            let (count, panels) = (block_strips.min(count - strip), block_panels.min(panels - panel));
            let mut here = scratch::take(if fresh.is_some() { panel_len } else { 0 });
            let kernels = match fresh {
                Some(weights) => {
                    simd::run(Pack { weights, panel, to: here.as_mut_ptr() });
                    here.as_ptr()
                }
                None => packed[panel * panel_len..].as_ptr(),
            };
            let result = TilePlaces::new(count * frame.tiles, panels * width);
            let mut products = scratch::take(result.len());
            let product = Product {
                rows: count * frame.tiles,
                panels,
                depth,
                a: tiles[strip * frame.tiles * places.tile..].as_ptr(),
                a_stride: places.tile,
                b: kernels,
                b_panel: panel_len,
                b_stride: width,
                c: products.as_mut_ptr(),
                c_stride: result.tile,
                add: false,
            };
            let steps = [places.position, position, result.position];
            simd::run(Products { first: product, steps, transposed: false });
            for at in 0..count {
                let (image, row) = ((first + strip + at) / frame.strips, (first + strip + at) % frame.strips);
                for side in (0..panels * width).step_by(lanes) {
                    let channel = panel * width + side;
                    if channel >= outputs {
                        break;
                    }
                    let map = (image * outputs + channel) * out_plane;
                    simd::run(WriteOutput {
                        from: products[at * frame.tiles * result.tile + side..].as_ptr(),
                        places: result,
                        strip: row,
                        tiles: frame.tiles,
                        // SAFETY: the map lies within the output, and this strip of it belongs to this task.
                        to: unsafe { target.at(map) },
                        channels: lanes.min(outputs - channel),
                        height: frame.out_height,
                        width: frame.out_width,
                        epilogue,
                        map,
                        channel,
                    });
                }
            }
        });
    }
}

/// Transforms the output gradients of `count` strips from `first` on.
fn read_gradient(
    frame: &Frame,
    grad: &[f32],
    channels: usize,
    (first, count): (usize, usize),
    to: &mut ScratchBuffer,
    places: TilePlaces,
) {
    let (lanes, to) = (simd::lanes(), Shared::new(to));
    let (groups, plane) = (channels.div_ceil(lanes), frame.out_height * frame.out_width);
    each(count * groups, 8.min(groups), |at| {
        let (strip, channel) = (at / groups, at % groups * lanes);
        let image = (first + strip) / frame.strips;
        let maps = ImageMaps {
            at: grad[(image * channels + channel) * plane..].as_ptr(),
            channels: lanes.min(channels - channel),
            height: frame.out_height,
            width: frame.out_width,
        };
        // SAFETY: each strip and group of channels has places of its own in `to`.
        let to = unsafe { to.at(strip * frame.tiles * places.tile + channel) };
        let strip = (first + strip) % frame.strips;
        simd::run(ReadGradient { maps, strip, tiles: frame.tiles, to, places });
    });
}
