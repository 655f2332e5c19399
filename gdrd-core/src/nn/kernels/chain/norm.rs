//! What follows a convolution's map, computed wherever it is needed.

use super::super::norm::{squares_around, sum};
use super::super::scratch::Pooled;
use super::super::simd::{Simd, SimdKernel};

/// The kind of an activation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bend {
    Identity,
    Relu,
    Relu6,
    PRelu,
}

/// Number, mean, and sum of squares around the mean.
#[derive(Clone, Copy, Default)]
pub(super) struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Adds some values. In pieces as they come, so that a large mean costs no precision.
    #[inline(always)]
    pub(super) fn add(&mut self, values: &[f32]) {
        let mean = sum(values) / values.len() as f32;
        let squares = f64::from(squares_around(values, mean));
        self.merge(Self { count: values.len() as f64, mean: f64::from(mean), squares });
    }

    fn merge(&mut self, other: Self) {
        let total = self.count + other.count;
        if total > 0.0 {
            let step = other.mean - self.mean;
            self.mean += step * other.count / total;
            self.squares += other.squares + step * step * self.count * other.count / total;
            self.count = total;
        }
    }
}

/// A convolution's map and its normalisation.
pub(super) struct Normal {
    pub(super) map: Pooled,
    pub(super) mean: Vec<f32>,
    pub(super) var: Vec<f32>,
    /// `1 / sqrt(var + eps)`.
    pub(super) inverse: Vec<f32>,
    pub(super) scale: Vec<f32>,
    pub(super) shift: Vec<f32>,
}

impl Normal {
    /// That of a map whose moments are known image by image.
    pub(super) fn new(map: Pooled, moments: &[Moments], gamma: &[f32], beta: &[f32], eps: f64) -> Self {
        let channels = gamma.len();
        let of_channel = |channel: usize| {
            let mut all = Moments::default();
            moments[channel..].iter().step_by(channels).for_each(|one| all.merge(*one));
            (all.mean as f32, if all.count > 0.0 { (all.squares / all.count) as f32 } else { 0.0 })
        };
        let (mean, var): (Vec<f32>, Vec<f32>) = (0..channels).map(of_channel).unzip();
        let inverse: Vec<f32> = var.iter().map(|var| (1.0 / (f64::from(*var) + eps).sqrt()) as f32).collect();
        let scale: Vec<f32> = gamma.iter().zip(&inverse).map(|(gamma, inverse)| gamma * inverse).collect();
        let shift = beta.iter().zip(&mean).zip(&scale).map(|((beta, mean), scale)| beta - mean * scale).collect();
        Self { map, mean, var, inverse, scale, shift }
    }
}

/// The input of a layer, `[b, channels, plane]`: values as they are, or what follows a convolution's map.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) values: &'a [f32],
    pub(super) channels: usize,
    pub(super) plane: usize,
    pub(super) normal: Option<&'a Normal>,
    pub(super) bend: Bend,
    pub(super) slopes: Option<&'a [f32]>,
}

impl Source<'_> {
    /// Writes as many values of a channel of an image as there is room for, from `start` on.
    #[inline(always)]
    pub(super) fn write(&self, image: usize, channel: usize, start: usize, out: &mut [f32]) {
        let values = &self.values[(image * self.channels + channel) * self.plane + start..][..out.len()];
        let Some(normal) = self.normal else { return out.copy_from_slice(values) };
        let (scale, shift) = (normal.scale[channel], normal.shift[channel]);
        match self.bend {
            Bend::Identity => apply(values, out, |v| v * scale + shift),
            Bend::Relu => apply(values, out, |v| (v * scale + shift).max(0.0)),
            Bend::Relu6 => apply(values, out, |v| (v * scale + shift).max(0.0).min(6.0)),
            Bend::PRelu => {
                let slope = self.slopes.map_or(0.0, |slopes| slopes[channel]);
                apply(values, out, |v| {
                    let y = v * scale + shift;
                    if y > 0.0 { y } else { slope * y }
                });
            }
        }
    }
}

#[inline(always)]
fn apply(values: &[f32], out: &mut [f32], of: impl Fn(f32) -> f32) {
    out.iter_mut().zip(values).for_each(|(out, value)| *out = of(*value));
}

/// Writes the output of an image: what follows its last map, and perhaps a summand.
pub(super) struct WriteOutput<'a> {
    pub(super) source: Source<'a>,
    pub(super) image: usize,
    pub(super) add: Option<&'a [f32]>,
    pub(super) out: &'a mut [f32],
}

impl SimdKernel for WriteOutput<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { source, image, add, out } = self;
        for (channel, out) in out.chunks_exact_mut(source.plane).enumerate() {
            source.write(image, channel, 0, out);
            if let Some(add) = add {
                let add = &add[channel * source.plane..];
                out.iter_mut().zip(add).for_each(|(out, add)| *out += add);
            }
        }
    }
}

/// Sums over a map of the gradient `g` of what follows it, after the activation's own gradient: of `g`, of `g (z - mean)`, and of
/// what a PReLU's slope is multiplied with.
pub(super) type Sums = [f64; 3];

/// The gradient of what follows a convolution's map, from which the map's own is computed.
#[derive(Clone, Copy)]
pub(super) struct Gradient<'a> {
    /// What follows the map.
    pub(super) after: Source<'a>,
    pub(super) normal: &'a Normal,
    /// What is subtracted from each gradient of a channel, and the factor of `z - mean`; none before the sums are known.
    pub(super) of_batch: Option<&'a [(f32, f32)]>,
}

impl Gradient<'_> {
    /// Adds to `sums` those of gradients that belong to a channel of an image, from `start` on.
    #[inline(always)]
    pub(super) fn sum(&self, image: usize, channel: usize, start: usize, gradient: &[f32], sums: &mut Sums) {
        let z = self.map(image, channel, start, gradient.len());
        let slope = self.slope(channel);
        match self.after.bend {
            Bend::Identity => self.sums::<false>(channel, z, gradient, sums, |_, g| g),
            Bend::Relu => self.sums::<false>(channel, z, gradient, sums, |y, g| if y > 0.0 { g } else { 0.0 }),
            Bend::Relu6 => {
                self.sums::<false>(channel, z, gradient, sums, |y, g| if y > 0.0 && y < 6.0 { g } else { 0.0 });
            }
            Bend::PRelu => self.sums::<true>(channel, z, gradient, sums, |y, g| if y > 0.0 { g } else { slope * g }),
        }
    }

    #[inline(always)]
    fn sums<const SLOPED: bool>(
        &self,
        channel: usize,
        z: &[f32],
        gradient: &[f32],
        sums: &mut Sums,
        masked: impl Fn(f32, f32) -> f32,
    ) {
        const LANES: usize = 16;
        let (scale, shift, mean) = (self.normal.scale[channel], self.normal.shift[channel], self.normal.mean[channel]);
        let mut lanes = [[0f32; LANES]; 3];
        let mut add = |lane: usize, z: f32, g: f32| {
            let y = z * scale + shift;
            let m = masked(y, g);
            lanes[0][lane] += m;
            lanes[1][lane] += m * (z - mean);
            if SLOPED {
                lanes[2][lane] += y.min(0.0) * g;
            }
        };
        let ((zs, z_rest), (gs, g_rest)) = (z.as_chunks::<LANES>(), gradient.as_chunks::<LANES>());
        for (z, g) in zs.iter().zip(gs) {
            for lane in 0..LANES {
                add(lane, z[lane], g[lane]);
            }
        }
        for (lane, (z, g)) in z_rest.iter().zip(g_rest).enumerate() {
            add(lane, *z, *g);
        }
        sums.iter_mut().zip(lanes).for_each(|(sum, lanes)| *sum += f64::from(lanes.iter().sum::<f32>()));
    }

    /// Writes the gradient of the map from that of what follows it, for a channel of an image from `start` on.
    #[inline(always)]
    pub(super) fn write(&self, image: usize, channel: usize, start: usize, gradient: &[f32], out: &mut [f32]) {
        let z = self.map(image, channel, start, gradient.len());
        let slope = self.slope(channel);
        match self.after.bend {
            Bend::Identity => self.each(channel, z, gradient, out, |_, g| g),
            Bend::Relu => self.each(channel, z, gradient, out, |y, g| if y > 0.0 { g } else { 0.0 }),
            Bend::Relu6 => self.each(channel, z, gradient, out, |y, g| if y > 0.0 && y < 6.0 { g } else { 0.0 }),
            Bend::PRelu => self.each(channel, z, gradient, out, |y, g| if y > 0.0 { g } else { slope * g }),
        }
    }

    #[inline(always)]
    fn each(&self, channel: usize, z: &[f32], gradient: &[f32], out: &mut [f32], masked: impl Fn(f32, f32) -> f32) {
        let (scale, shift, mean) = (self.normal.scale[channel], self.normal.shift[channel], self.normal.mean[channel]);
        let (centre, slope) = self.of_batch.map_or((0.0, 0.0), |of_batch| of_batch[channel]);
        for ((out, z), g) in out.iter_mut().zip(z).zip(gradient) {
            *out = scale * ((masked(z * scale + shift, *g) - centre) - (z - mean) * slope);
        }
    }

    fn map(&self, image: usize, channel: usize, start: usize, len: usize) -> &[f32] {
        &self.after.values[(image * self.after.channels + channel) * self.after.plane + start..][..len]
    }

    fn slope(&self, channel: usize) -> f32 {
        self.after.slopes.map_or(0.0, |slopes| slopes[channel])
    }
}
