//! Convolution with 3x3 kernels by fewer products than the definition has. For stride one Winograd's F(4x4, 3x3), where a tile of 4x4
//! outputs costs 36 products for each pair of channels instead of 144, or F(2x2, 3x3), where one of 2x2 costs 16 instead of 36; for
//! stride two tiles of 2x2 outputs, which cost 25 instead of 36.
//!
//! The tiles of some images are transformed into matrices `[tiles, channels]`, one for each value of a tile; each is multiplied with the
//! matrix of its place in the transformed kernels, and the products are transformed back. The gradient of the input is a convolution of
//! the same kind with the kernels rotated by 180 degrees; that of the weight is the product of the transformed tiles and the transformed
//! output gradients.

mod axis;
mod frame;
mod pixels;
mod products;
mod stride_one;
mod stride_one_small;
mod stride_two;
mod strips;
mod weights;

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::RangeInclusive;

use self::axis::{Algorithm, Axis, Trainable};
use self::frame::Frame;
use self::products::{Ahead, Products};
use self::stride_one::StrideOne;
use self::stride_one_small::StrideOneSmall;
use self::stride_two::{StrideTwo, StrideTwoBack};
use self::strips::{TilePlaces, WriteTiles};
use self::weights::{Kernels3x3, Pack, TAPS, Unpack};
use super::buffer::{Filling, Shared};
use super::convolution::{ConvWeights, Convolution};
use super::epilogue::Epilogue;
use super::instructions::Instructions;
use super::pixels::PixelWeights;
use super::product::{Product, panel_here};
use super::scratch::{self, Values};
use super::shape::ConvShape;
use super::simd;
use super::team::{each, each_chunk};

/// Values of transformed tiles that are made before they are used: about what a last-level cache holds.
const CHUNK: usize = 2 << 20;

/// Channels that are taken at a time on either side of a block of products.
const SIDE: usize = 64;

/// Tiles of a block of products, unless the kernels are packed for one block of tiles alone. Each block reads its kernels again: with 96
/// a student embeds 5 to 8 % faster than with 48 on an EPYC (Zen 4), and trains as fast.
const BLOCK_TILES: usize = 96;

/// Values of transformed kernels up to which a layer holds them for inference: they come from a cache. Larger ones would come from
/// memory, which takes longer than to transform them for a block of tiles.
const HELD: usize = 1 << 20;

/// Tiles up to which kernels are packed where they are used.
const FEW_TILES: usize = 128;

/// Few products for 3x3 kernels with stride one.
pub(super) struct Winograd;

/// Few products for them where there are too few tiles for [`Winograd`].
pub(super) struct WinogradSmall;

/// Few products for 3x3 kernels with stride two.
pub(super) struct WinogradStrided;

/// A convolution by one algorithm, the gradient of its input by another, and where they pay.
trait Pair: Sync {
    type Forward: Trainable;
    type Backward: Algorithm;

    const NAME: &'static str;
    const STRIDE: usize;
    const PADDING: RangeInclusive<usize>;
    /// Tiles of a batch, at least: few do not repay the larger kernels.
    const LEAST: usize;
    /// Products beside the definition's, at most: tiles that hang over the edge waste some.
    const SHARE: f64;
}

impl Pair for Winograd {
    type Forward = StrideOne;
    type Backward = StrideOne;

    const NAME: &'static str = "winograd";
    const STRIDE: usize = 1;
    const PADDING: RangeInclusive<usize> = 0..=2;
    const LEAST: usize = 8;
    const SHARE: f64 = 1.0 / 2.0;
}

impl Pair for WinogradSmall {
    type Forward = StrideOneSmall;
    type Backward = StrideOneSmall;

    const NAME: &'static str = "winograd-small";
    const STRIDE: usize = 1;
    const PADDING: RangeInclusive<usize> = 0..=2;
    const LEAST: usize = 16;
    const SHARE: f64 = 2.0 / 3.0;
}

impl Pair for WinogradStrided {
    type Forward = StrideTwo;
    type Backward = StrideTwoBack;

    const NAME: &'static str = "winograd-strided";
    const STRIDE: usize = 2;
    const PADDING: RangeInclusive<usize> = 1..=1;
    const LEAST: usize = 64;
    const SHARE: f64 = 4.0 / 5.0;
}

impl<P: Pair> Convolution for P {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn applies(&self, shape: &ConvShape, _: Instructions) -> bool {
        let tiles = tiles_of::<P::Forward>(shape);
        let products = (tiles * P::Forward::STEPS.len()) as f64;
        (shape.kernel_h, shape.kernel_w, shape.stride, shape.groups) == (TAPS, TAPS, P::STRIDE, 1)
            && P::PADDING.contains(&shape.padding)
            && shape.inputs.min(shape.outputs) >= 16
            && tiles * shape.batch >= P::LEAST
            && products <= P::SHARE * (shape.out_plane() * TAPS * TAPS) as f64
    }

    fn pack(&self, shape: &ConvShape, weight: &[f32]) -> Option<Values> {
        Some(weights::packed::<P::Forward>(shape, weight))
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
        let (frame, channels) = (Frame::forward::<P::Forward>(shape), (shape.inputs, shape.outputs));
        convolve::<P::Forward>(&frame, x, channels, source, epilogue, out);
    }

    fn reads_panels(&self, shape: &ConvShape) -> bool {
        let tiles = shape.batch * tiles_of::<P::Forward>(shape);
        tiles <= BLOCK_TILES && <P::Forward as Algorithm>::Kernel::TO.pow(2) * shape.inputs * shape.outputs > HELD
    }

    fn pack_pixels(&self, shape: &ConvShape, weight: &[f32]) -> Values {
        weights::packed::<P::Forward>(shape, weight)
    }

    fn forward_pixels(
        &self,
        shape: &ConvShape,
        x: &[f32],
        weights: PixelWeights<'_>,
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) {
        pixels::forward::<P::Forward>(shape, x, weights, epilogue, out);
    }

    fn input_gradient(&self, shape: &ConvShape, weight: &[f32], grad: &[f32]) -> Vec<f32> {
        self.input_gradient_with(shape, weight, grad, Epilogue::default())
    }

    fn input_gradient_with(&self, shape: &ConvShape, weight: &[f32], grad: &[f32], epilogue: Epilogue<'_>) -> Vec<f32> {
        let weights = Kernels3x3 { values: weight, inputs: shape.inputs, adjoint: true };
        let channels = (shape.outputs, shape.inputs);
        let (frame, source) = (Frame::backward::<P::Backward>(shape), KernelSource::Plain(weights));
        let write = |out: &mut [_]| convolve::<P::Backward>(&frame, grad, channels, source, epilogue, out);
        // SAFETY: all values are written.
        unsafe { Filling::by(shape.input_len(), write) }
    }

    fn weight_gradient(&self, shape: &ConvShape, x: &[f32], grad: &[f32]) -> Vec<f32> {
        weight_gradient::<P::Forward>(shape, x, grad)
    }
}

/// Tiles of an image.
fn tiles_of<A: Algorithm>(shape: &ConvShape) -> usize {
    shape.out_height().div_ceil(A::Output::TO) * shape.out_width().div_ceil(A::Output::TO)
}

fn weight_gradient<A: Trainable>(shape: &ConvShape, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let width = panel_here();
    let (frame, ConvShape { inputs, outputs, .. }) = (Frame::forward::<A>(shape), *shape);
    let strips = frame.batch * frame.strips;
    let chunk = frame.chunk(A::Input::TO.pow(2) * inputs + A::OutputAdjoint::TO.pow(2) * outputs);
    let wide = inputs.next_multiple_of(width);
    let mut tiles = scratch::take(TilePlaces::new(chunk * frame.tiles(), wide).len(A::Input::TO));
    let mut grads = scratch::take(TilePlaces::new(chunk * frame.tiles(), outputs).len(A::OutputAdjoint::TO));

    // Blocks of the sum; where the batch is one chunk, they live only as long as their task.
    let across = inputs.div_ceil(SIDE);
    // Narrow layers have smaller blocks, so that threads have some each.
    let tall = if outputs.div_ceil(SIDE) * across < 4 { SIDE / 4 } else { SIDE };
    let (down, block) = (outputs.div_ceil(tall), TilePlaces::new(tall, SIDE));
    let block_len = block.len(A::KernelAdjoint::FROM);
    let once = chunk >= strips;
    let mut sums = scratch::take(if once { 0 } else { down * across * block_len });
    let sums_at = Shared::new(&mut sums);

    let mut out = Filling::new(outputs * inputs * TAPS * TAPS);
    let target = out.shared();
    for first in (0..strips).step_by(chunk) {
        let count = chunk.min(strips - first);
        let (tile_places, grad_places) =
            (TilePlaces::new(count * frame.tiles(), wide), TilePlaces::new(count * frame.tiles(), outputs));
        frame.read::<A>(x, inputs, (first, count), &mut tiles, tile_places);
        frame.read_gradient::<A::OutputAdjoint>(grad, outputs, (first, count), &mut grads, grad_places);
        each(down * across, 1, |at| {
            let (output, input) = (at / across * tall, at % across * SIDE);
            let mut here = scratch::take(if once { block_len } else { 0 });
            // SAFETY: each block has values of its own in `sums`.
            let sum = if once { here.as_mut_ptr() } else { unsafe { sums_at.at(at * block_len) } };
            let product = Product {
                rows: tall.min(outputs - output),
                panels: SIDE.min(inputs - input).div_ceil(width),
                depth: count * frame.tiles(),
                a: grads[output..].as_ptr(),
                a_stride: grad_places.tile,
                b: tiles[input..].as_ptr(),
                b_panel: width,
                b_stride: tile_places.tile,
                c: sum,
                c_stride: block.tile,
                add: first > 0,
            };
            let apart = [grad_places.position, tile_places.position, block.position];
            simd::run(Products {
                first: product,
                apart,
                steps: A::KERNEL_STEPS,
                transposed: true,
                ahead: Ahead::Nothing,
            });
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
                    transform: PhantomData::<A::KernelAdjoint>,
                });
            }
        });
    }
    // SAFETY: the last chunk wrote every block.
    unsafe { out.finish() }
}

/// Where the kernels of the products come from.
enum KernelSource<'a> {
    Plain(Kernels3x3<'a>),
    /// What [`Convolution::pack`] has made.
    Packed(&'a [f32]),
}

/// Writes all of the output.
fn convolve<A: Algorithm>(
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
    let panel_len = weights::panel_len::<A>(depth, width);

    // With few tiles every kernel is used once, and is packed just before that; else all are packed first.
    let once = strips * frame.tiles() <= FEW_TILES && panels >= 8;
    let (block_strips, block_panels) =
        if once { (strips, 1) } else { ((BLOCK_TILES / frame.tiles()).max(1), (SIDE / width).max(1)) };
    let mut buffer;
    let (packed, fresh) = match source {
        KernelSource::Packed(packed) => (packed, None),
        KernelSource::Plain(weights) if once => (&[][..], Some(weights)),
        KernelSource::Plain(weights) => {
            buffer = scratch::take(panels * panel_len);
            each_chunk(&mut buffer, panel_len, 1, |panel, to| {
                simd::run(Pack { weights, panel, to: to.as_mut_ptr(), transform: PhantomData::<A::Kernel> });
            });
            (&*buffer, None)
        }
    };

    let out_plane = frame.out_height * frame.out_width;
    let target = Shared::unwritten(out);
    // Chunks are made of whole blocks, so that threads have as much to do as each other.
    let blocks = (frame.chunk(A::Input::TO.pow(2) * depth) / block_strips).max(1);
    let chunk = if once { strips } else { strips.min(blocks * block_strips) };
    let mut tiles = scratch::take(TilePlaces::new(chunk * frame.tiles(), depth).len(A::Input::TO));
    for first in (0..strips).step_by(chunk) {
        let count = chunk.min(strips - first);
        let places = TilePlaces::new(count * frame.tiles(), depth);
        frame.read::<A>(x, depth, (first, count), &mut tiles, places);
        let blocks = panels.div_ceil(block_panels);
        each(count.div_ceil(block_strips) * blocks, 1, |at| {
            let (strip, panel) = (at / blocks * block_strips, at % blocks * block_panels);
            let (count, panels) = (block_strips.min(count - strip), block_panels.min(panels - panel));
            let mut here = scratch::take(if fresh.is_some() { panel_len } else { 0 });
            let kernels = match fresh {
                Some(weights) => {
                    simd::run(Pack { weights, panel, to: here.as_mut_ptr(), transform: PhantomData::<A::Kernel> });
                    here.as_ptr()
                }
                None => packed[panel * panel_len..].as_ptr(),
            };
            let result = TilePlaces::new(count * frame.tiles(), panels * width);
            let mut products = scratch::take(result.len(A::Output::FROM));
            let product = Product {
                rows: count * frame.tiles(),
                panels,
                depth,
                a: tiles[strip * frame.tiles() * places.tile..].as_ptr(),
                a_stride: places.tile,
                b: kernels,
                b_panel: panel_len,
                b_stride: width,
                c: products.as_mut_ptr(),
                c_stride: result.tile,
                add: false,
            };
            let apart = [places.position, position, result.position];
            simd::run(Products { first: product, apart, steps: A::STEPS, transposed: false, ahead: Ahead::Nothing });
            for at in 0..count {
                let (image, row) = ((first + strip + at) / frame.strips, (first + strip + at) % frame.strips);
                for side in (0..panels * width).step_by(lanes) {
                    let channel = panel * width + side;
                    if channel >= outputs {
                        break;
                    }
                    let map = (image * outputs + channel) * out_plane;
                    simd::run(WriteTiles {
                        from: products[at * frame.tiles() * result.tile + side..].as_ptr(),
                        places: result,
                        first: row * frame.rows * A::Output::TO,
                        rows: frame.rows,
                        tiles: frame.across,
                        // SAFETY: the map lies within the output, and this strip of it belongs to this task.
                        to: unsafe { target.at(map) },
                        channels: lanes.min(outputs - channel),
                        height: frame.out_height,
                        width: frame.out_width,
                        epilogue,
                        map,
                        channel,
                        transform: PhantomData::<A::Output>,
                    });
                }
            }
        });
    }
}
