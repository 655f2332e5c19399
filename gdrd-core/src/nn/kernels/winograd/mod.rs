//! Convolution with 3x3 kernels and stride one by Winograd's F(4x4, 3x3): a tile of 4x4 outputs costs 36 products for
//! each pair of channels instead of 144.
//!
//! The tiles of some images are transformed into 36 matrices `[tiles, channels]`, each is multiplied with the matrix
//! of its position in the transformed kernels, and the products are transformed back. The gradient of the input is the
//! same with the kernels turned; that of the weight is the product of the transformed tiles and the transformed
//! output gradients.

mod strips;
mod transform;
mod weights;

use std::mem::MaybeUninit;

use self::strips::{Places, ReadGradient, ReadInput, WriteOutput};
use self::transform::{IN, OUT, TAPS};
use self::weights::{Pack, Unpack, Weights};
use super::buffer::{Filling, Shared};
use super::conv::Kernels;
use super::product::{Product, panel_here};
use super::scratch::{self, Lot, Values};
use super::shape::ConvShape;
use super::simd::{self, Kernel, Simd};
use super::tail::Tail;
use super::team::{each, each_chunk};
use super::turn::Maps;

/// Positions in a transformed tile.
const POSITIONS: usize = IN * IN;

/// Values of transformed tiles that are made before they are used: about what a last-level cache holds.
const CHUNK: usize = 2 << 20;

/// Channels that are taken at a time on either side of a block of products.
const SIDE: usize = 64;

/// Tiles of a block of products, unless the kernels are packed for one block of tiles alone.
const BLOCK_TILES: usize = 48;

/// Tiles up to which kernels are packed where they are used.
const FEW_TILES: usize = 128;

/// Whether the method applies and pays.
pub(super) fn applies(shape: &ConvShape) -> bool {
    let frame = Frame::forward(shape);
    let tiles = frame.strips * frame.tiles;
    (shape.kernel_h, shape.kernel_w, shape.stride, shape.groups) == (TAPS, TAPS, 1, 1)
        && shape.padding < TAPS
        && shape.inputs.min(shape.outputs) >= 16
        // Few tiles do not repay the larger kernels, and tiles that hang over the edge waste products.
        && tiles * shape.batch >= 8
        && shape.out_plane() * TAPS * TAPS >= 2 * POSITIONS * tiles
}

/// The kernels in the form of the products, for [`Kernels::Packed`].
pub(super) fn pack(shape: &ConvShape, weight: &[f32]) -> Values {
    let weights = Weights { values: weight, inputs: shape.inputs, adjoint: false };
    let width = panel_here();
    let panel_len = POSITIONS * weights::position(shape.inputs, width);
    let mut packed = Values::zeros(shape.outputs.div_ceil(width) * panel_len);
    for (panel, to) in packed.chunks_exact_mut(panel_len).enumerate() {
        simd::run(Pack { weights, panel, to: to.as_mut_ptr() });
    }
    packed
}

/// Writes all of `y [b, o, oh, ow]`.
pub(super) fn forward(
    shape: &ConvShape,
    x: &[f32],
    kernels: Kernels<'_>,
    tail: Tail<'_>,
    out: &mut [MaybeUninit<f32>],
) {
    let source = match kernels {
        Kernels::Plain(values) => Source::Weights(Weights { values, inputs: shape.inputs, adjoint: false }),
        Kernels::Packed(values) => Source::Packed(values),
    };
    convolve(&Frame::forward(shape), x, (shape.inputs, shape.outputs), source, tail, out);
}

/// The gradient of the input, `[b, c, h, w]`.
pub(super) fn input_gradient(shape: &ConvShape, weight: &[f32], grad: &[f32]) -> Vec<f32> {
    let weights = Weights { values: weight, inputs: shape.inputs, adjoint: true };
    let channels = (shape.outputs, shape.inputs);
    let (frame, source) = (Frame::backward(shape), Source::Weights(weights));
    // SAFETY: all values are written.
    unsafe { Filling::by(shape.input_len(), |out| convolve(&frame, grad, channels, source, Tail::default(), out)) }
}

/// Where the kernels of the products come from.
enum Source<'a> {
    Weights(Weights<'a>),
    /// What [`pack`] has made.
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
    fn read(&self, x: &[f32], channels: usize, (first, count): (usize, usize), to: &mut Lot, places: Places) {
        let (lanes, to) = (simd::lanes(), Shared::new(to));
        let (groups, plane) = (channels.div_ceil(lanes), self.height * self.width);
        each(count * groups, 8.min(groups), |at| {
            let (strip, channel) = (at / groups, at % groups * lanes);
            let image = (first + strip) / self.strips;
            let maps = Maps {
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

impl Kernel for Products {
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
    source: Source<'_>,
    tail: Tail<'_>,
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
    let mut lot;
    let (packed, fresh) = match source {
        Source::Packed(packed) => (packed, None),
        Source::Weights(weights) if once => (&[][..], Some(weights)),
        Source::Weights(weights) => {
            lot = scratch::take(panels * panel_len);
            each_chunk(&mut lot, panel_len, 1, |panel, to| {
                simd::run(Pack { weights, panel, to: to.as_mut_ptr() });
            });
            (&*lot, None)
        }
    };

    let out_plane = frame.out_height * frame.out_width;
    let target = Shared::unwritten(out);
    let chunk = if once { strips } else { frame.chunk(depth) };
    let mut tiles = scratch::take(Places::new(chunk * frame.tiles, depth).len());
    for first in (0..strips).step_by(chunk) {
        let count = chunk.min(strips - first);
        let places = Places::new(count * frame.tiles, depth);
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
            let result = Places::new(count * frame.tiles, panels * width);
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
                        tail,
                        map,
                        channel,
                    });
                }
            }
        });
    }
}

/// The gradient of the weight, `[o, c, 3, 3]`.
pub(super) fn weight_gradient(shape: &ConvShape, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let width = panel_here();
    let (frame, ConvShape { inputs, outputs, .. }) = (Frame::forward(shape), *shape);
    let strips = frame.batch * frame.strips;
    let chunk = frame.chunk(inputs + outputs);
    let wide = inputs.next_multiple_of(width);
    let mut tiles = scratch::take(Places::new(chunk * frame.tiles, wide).len());
    let mut grads = scratch::take(Places::new(chunk * frame.tiles, outputs).len());

    // Blocks of the sum; where the batch is one chunk, they live only as long as their task.
    let (down, across) = (outputs.div_ceil(SIDE), inputs.div_ceil(SIDE));
    let block = Places::new(SIDE, SIDE);
    let once = chunk >= strips;
    let mut sums = scratch::take(if once { 0 } else { down * across * block.len() });
    let sums_at = Shared::new(&mut sums);

    let mut out = Filling::new(outputs * inputs * TAPS * TAPS);
    let target = out.shared();
    for first in (0..strips).step_by(chunk) {
        let count = chunk.min(strips - first);
        let (tile_places, grad_places) =
            (Places::new(count * frame.tiles, wide), Places::new(count * frame.tiles, outputs));
        frame.read(x, inputs, (first, count), &mut tiles, tile_places);
        read_gradient(&frame, grad, outputs, (first, count), &mut grads, grad_places);
        each(down * across, 1, |at| {
            let (output, input) = (at / across * SIDE, at % across * SIDE);
            let mut here = scratch::take(if once { block.len() } else { 0 });
            // SAFETY: each block has values of its own in `sums`.
            let sum = if once { here.as_mut_ptr() } else { unsafe { sums_at.at(at * block.len()) } };
            let product = Product {
                rows: SIDE.min(outputs - output),
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
                    outputs: SIDE.min(outputs - output),
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

/// Transforms the output gradients of `count` strips from `first` on.
fn read_gradient(
    frame: &Frame,
    grad: &[f32],
    channels: usize,
    (first, count): (usize, usize),
    to: &mut Lot,
    places: Places,
) {
    let (lanes, to) = (simd::lanes(), Shared::new(to));
    let (groups, plane) = (channels.div_ceil(lanes), frame.out_height * frame.out_width);
    each(count * groups, 8.min(groups), |at| {
        let (strip, channel) = (at / groups, at % groups * lanes);
        let image = (first + strip) / frame.strips;
        let maps = Maps {
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
