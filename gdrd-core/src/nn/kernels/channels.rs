//! Maps of one channel: what normalisation and activations with parameters per channel go over.

use std::ops::Range;

use candle_core::{Result, Shape, Tensor, bail};

use super::team::each;

/// Values of one image that a thread should at least take at a time, so that it reads whole pages.
const BLOCK: usize = 1 << 10;

/// A tensor `[b, c, h, w]` or `[b, c]` as maps of channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Channels {
    /// Images.
    pub(super) batch: usize,
    /// Channels.
    pub(super) count: usize,
    /// Values in one map: `h * w`, or one.
    pub(super) plane: usize,
    rank: usize,
}

impl Channels {
    /// The channels of `x`; `parameters` must have one value per channel.
    ///
    /// # Errors
    /// If they do not, naming `operation`.
    pub(super) fn new(operation: &str, x: &Shape, parameters: &[&Shape]) -> Result<Self> {
        let (batch, count, plane) = match x.dims() {
            [b, c] => (*b, *c, 1),
            [b, c, h, w] => (*b, *c, h * w),
            found => bail!("{operation}: expected [b, c] or [b, c, h, w], found {found:?}"),
        };
        for parameter in parameters {
            if parameter.dims() != [count] {
                bail!("{operation}: expected one value for each of {count} channels, found {:?}", parameter.dims());
            }
        }
        Ok(Self { batch, count, plane, rank: x.rank() })
    }

    /// A parameter `[c]` as it is broadcast against the tensor.
    pub(super) fn broadcastable(&self, parameter: &Tensor) -> Result<Tensor> {
        if self.rank == 4 { parameter.reshape((1, self.count, 1, 1)) } else { parameter.reshape((1, self.count)) }
    }

    /// Where the maps of `channel` start.
    pub(super) fn planes(&self, channel: usize) -> impl Iterator<Item = usize> + use<> {
        let Self { batch, count, plane, .. } = *self;
        (0..batch).map(move |image| (image * count + channel) * plane)
    }

    /// Calls `visit` with ranges of channels, in parallel; each channel is in one of them.
    pub(super) fn for_each_block(&self, visit: impl Fn(Range<usize>) + Sync) {
        let step = (BLOCK / self.plane.max(1)).clamp(1, self.count.max(1));
        each(self.count.div_ceil(step), 1, |block| {
            visit(block * step..((block + 1) * step).min(self.count));
        });
    }

    /// Calls `visit(channel, start, len)` for every map, in parallel.
    pub(super) fn for_each_plane(&self, visit: impl Fn(usize, usize, usize) + Sync) {
        let min = ((1 << 13) / self.plane.max(1)).max(1);
        each(self.batch * self.count, min, |at| {
            visit(at % self.count, at * self.plane, self.plane);
        });
    }
}
