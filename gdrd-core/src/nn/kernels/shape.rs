//! The sizes of a convolution.

use candle_core::{Result, bail};

/// The sizes of one two-dimensional convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ConvShape {
    /// Images.
    pub(super) batch: usize,
    /// Input channels, all groups together.
    pub(super) inputs: usize,
    /// Output channels, all groups together.
    pub(super) outputs: usize,
    /// Input rows.
    pub(super) height: usize,
    /// Input columns.
    pub(super) width: usize,
    /// Kernel rows.
    pub(super) kernel_h: usize,
    /// Kernel columns.
    pub(super) kernel_w: usize,
    /// Distance of neighbouring windows, both ways.
    pub(super) stride: usize,
    /// Zeros put around the input, on each side.
    pub(super) padding: usize,
    /// Independent groups of channels.
    pub(super) groups: usize,
}

impl ConvShape {
    /// The sizes from those of the tensors `[b, c, h, w]` and `[o, c / groups, kh, kw]`.
    ///
    /// # Errors
    /// If they do not fit each other.
    pub(super) fn new(
        x: (usize, usize, usize, usize),
        weight: (usize, usize, usize, usize),
        stride: usize,
        padding: usize,
        groups: usize,
    ) -> Result<Self> {
        let (batch, inputs, height, width) = x;
        let (outputs, group_inputs, kernel_h, kernel_w) = weight;
        if groups == 0 || stride == 0 || inputs != group_inputs * groups || outputs % groups != 0 {
            bail!("convolution: input {x:?} and weight {weight:?} do not fit with {groups} groups and stride {stride}");
        }
        if kernel_h == 0 || kernel_w == 0 || height + 2 * padding < kernel_h || width + 2 * padding < kernel_w {
            bail!("convolution: weight {weight:?} is larger than input {x:?} with padding {padding}");
        }
        Ok(Self { batch, inputs, outputs, height, width, kernel_h, kernel_w, stride, padding, groups })
    }

    /// A fully connected layer, `x [b, c]` and `weight [o, c]`, as a convolution of maps of one pixel.
    ///
    /// # Errors
    /// If they do not fit each other.
    pub(super) fn linear((batch, inputs): (usize, usize), (outputs, depth): (usize, usize)) -> Result<Self> {
        Self::new((batch, inputs, 1, 1), (outputs, depth, 1, 1), 1, 0, 1)
    }

    /// Output rows.
    pub(super) fn out_height(&self) -> usize {
        (self.height + 2 * self.padding - self.kernel_h) / self.stride + 1
    }

    /// Output columns.
    pub(super) fn out_width(&self) -> usize {
        (self.width + 2 * self.padding - self.kernel_w) / self.stride + 1
    }

    /// Values in one output map.
    pub(super) fn out_plane(&self) -> usize {
        self.out_height() * self.out_width()
    }

    /// Values in one input map.
    pub(super) fn plane(&self) -> usize {
        self.height * self.width
    }

    /// Values in one kernel.
    pub(super) fn taps(&self) -> usize {
        self.kernel_h * self.kernel_w
    }

    /// Input channels of one group.
    pub(super) fn group_inputs(&self) -> usize {
        self.inputs / self.groups
    }

    /// Output channels of one group.
    pub(super) fn group_outputs(&self) -> usize {
        self.outputs / self.groups
    }

    /// Values in the input.
    pub(super) fn input_len(&self) -> usize {
        self.batch * self.inputs * self.plane()
    }

    /// Values in the output.
    pub(super) fn output_len(&self) -> usize {
        self.batch * self.outputs * self.out_plane()
    }

    /// The columns `begin..end` of the output whose input column `at * stride + tap - padding` exists, and the same
    /// for rows: `len` is the input's extent and `out` the output's.
    pub(super) fn inside(&self, tap: usize, len: usize, out: usize) -> (usize, usize) {
        let begin = self.padding.saturating_sub(tap).div_ceil(self.stride).min(out);
        let end = if len + self.padding > tap { (len + self.padding - tap).div_ceil(self.stride).min(out) } else { 0 };
        (begin, end.max(begin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_is_what_the_definition_says() {
        for (len, kernel, stride, padding) in [(16, 3, 1, 1), (7, 3, 2, 1), (5, 5, 1, 2), (4, 3, 1, 3), (9, 1, 2, 0)] {
            let shape = ConvShape::new((1, 1, len, len), (1, 1, kernel, kernel), stride, padding, 1).expect("fits");
            let out = shape.out_width();
            for tap in 0..kernel {
                let (begin, end) = shape.inside(tap, len, out);
                for at in 0..out {
                    let exists = (at * stride + tap).checked_sub(padding).is_some_and(|i| i < len);
                    assert_eq!((begin..end).contains(&at), exists, "{shape:?}, tap {tap}, at {at}");
                }
            }
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        assert!(ConvShape::new((1, 3, 8, 8), (4, 2, 3, 3), 1, 1, 1).is_err());
        assert!(ConvShape::new((1, 3, 2, 2), (4, 3, 5, 5), 1, 1, 1).is_err());
    }
}
