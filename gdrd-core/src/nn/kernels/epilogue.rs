//! What follows a convolution in the same pass over its output.

use super::simd::Simd;

/// A factor, a shift, an addition and an activation, in this order.
#[derive(Clone, Copy, Default)]
pub(super) struct Epilogue<'a> {
    /// A factor and a summand for each channel.
    pub(super) scale_shift: Option<(&'a [f32], &'a [f32])>,
    /// Added; as many values as the output has.
    pub(super) add: Option<&'a [f32]>,
    /// Where this is not positive, nothing is added: for gradients that come through a ReLU. Only over maps of channels.
    pub(super) mask: Option<&'a [f32]>,
    pub(super) activation: EpilogueActivation<'a>,
}

/// The activation at the end of a layer.
#[derive(Clone, Copy, Debug, Default)]
pub enum EpilogueActivation<'a> {
    /// None.
    #[default]
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x` where it is positive, and a multiple of it elsewhere; one factor for each channel.
    PRelu(&'a [f32]),
}

impl Epilogue<'_> {
    /// Whether it changes nothing.
    pub(super) fn is_nothing(&self) -> bool {
        self.scale_shift.is_none() && self.add.is_none() && matches!(self.activation, EpilogueActivation::Identity)
    }

    /// Applies it to the channels from `channel` on of some pixels, whose places in the output `to` are `at` and the multiples of
    /// `pitch` after it; there are numbers for as many channels as vectors have.
    ///
    /// # Safety
    /// The values may be read and written, and the numbers read.
    #[inline(always)]
    pub(super) unsafe fn over<S: Simd>(
        &self,
        simd: S,
        to: *mut f32,
        (at, pitch, pixels): (usize, usize, usize),
        channel: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            for pixel in 0..pixels {
                let at = at + pixel * pitch;
                simd.store(to.add(at), self.of(simd, simd.load(to.add(at)), at, channel));
            }
        }
    }

    /// Applies it to the channels from `channel` on of a pixel, whose place in the output is `at`; there are numbers for as many
    /// channels as vectors have.
    ///
    /// # Safety
    /// The numbers and what is added may be read.
    #[inline(always)]
    pub(super) unsafe fn of<S: Simd>(&self, simd: S, mut value: S::V, at: usize, channel: usize) -> S::V {
        debug_assert!(self.mask.is_none(), "masks are for maps of channels");
        // SAFETY: the caller's promise.
        unsafe {
            if let Some((scale, shift)) = self.scale_shift {
                let scaled = simd.mul(simd.load(scale.as_ptr().add(channel)), value);
                value = simd.add(scaled, simd.load(shift.as_ptr().add(channel)));
            }
            if let Some(add) = self.add {
                value = simd.add(value, simd.load(add.as_ptr().add(at)));
            }
            let zero = simd.splat(0.0);
            match self.activation {
                EpilogueActivation::Identity => value,
                EpilogueActivation::Relu => simd.max(value, zero),
                EpilogueActivation::Relu6 => simd.min(simd.splat(6.0), simd.max(zero, value)),
                EpilogueActivation::PRelu(slopes) => {
                    let (above, below) = (simd.max(zero, value), simd.min(zero, value));
                    simd.add(above, simd.mul(simd.load(slopes.as_ptr().add(channel)), below))
                }
            }
        }
    }

    /// Applies it to `span` values of each of some maps that lie `plane` apart from `to` on; `at` is the place of the first
    /// value in the output, and `channel` its channel.
    ///
    /// # Safety
    /// The values may be read and written.
    #[inline(always)]
    pub(super) unsafe fn apply(
        &self,
        to: *mut f32,
        at: usize,
        channel: usize,
        (channels, plane): (usize, usize),
        span: usize,
    ) {
        if self.is_nothing() {
            return;
        }
        for lane in 0..channels {
            // SAFETY: the caller's promise.
            let values = unsafe { std::slice::from_raw_parts_mut(to.add(lane * plane), span) };
            self.apply_to(values, at + lane * plane, channel + lane);
        }
    }

    /// Applies it to values of one channel that stand in the output from `at` on.
    #[inline(always)]
    pub(super) fn apply_to(&self, values: &mut [f32], at: usize, channel: usize) {
        let [add, mask] = [self.add, self.mask].map(|all| all.map(|all| &all[at..at + values.len()]));
        match self.activation {
            EpilogueActivation::Identity => self.each(values, (add, mask), channel, |v| v),
            EpilogueActivation::Relu => self.each(values, (add, mask), channel, |v| if v > 0.0 { v } else { 0.0 }),
            EpilogueActivation::Relu6 => self.each(values, (add, mask), channel, |v| v.clamp(0.0, 6.0)),
            EpilogueActivation::PRelu(slopes) => {
                let slope = slopes[channel];
                self.each(values, (add, mask), channel, |v| if v > 0.0 { v } else { slope * v });
            }
        }
    }

    #[inline(always)]
    fn each(
        &self,
        values: &mut [f32],
        (add, mask): (Option<&[f32]>, Option<&[f32]>),
        channel: usize,
        bend: impl Fn(f32) -> f32,
    ) {
        let (scale, shift) = self.scale_shift.map_or((1.0, 0.0), |(scales, shifts)| (scales[channel], shifts[channel]));
        match (add, mask) {
            (None, _) => values.iter_mut().for_each(|v| *v = bend(scale * *v + shift)),
            (Some(add), None) => values.iter_mut().zip(add).for_each(|(v, add)| *v = bend(scale * *v + shift + add)),
            (Some(add), Some(mask)) => {
                for ((v, add), mask) in values.iter_mut().zip(add).zip(mask) {
                    *v = bend(scale * *v + shift + if *mask > 0.0 { *add } else { 0.0 });
                }
            }
        }
    }
}
