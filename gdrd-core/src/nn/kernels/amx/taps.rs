//! Which pixel of the source each pixel of the target takes for each position of the kernel, along one axis and for both.

use super::super::scratch::List;
use super::super::shape::ConvShape;

/// Rows or columns.
///
/// A strip has, for each place, what the target's pixel there takes for one tap; for a tap `below` further on, what the pixel
/// `below` places further on takes. A stride needs a strip for each of its phases.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    pub(super) source: usize,
    pub(super) target: usize,
    pub(super) taps: usize,
    stride: usize,
    padding: usize,
    backward: bool,
}

impl Axis {
    pub(super) fn strips(&self) -> usize {
        if self.backward { 1 } else { self.stride.min(self.taps) }
    }

    /// Places of a strip.
    pub(super) fn places(&self) -> usize {
        self.target + if self.backward { self.taps - 1 } else { (self.taps - 1) / self.stride }
    }

    /// The strip of a tap, and how much further on its first place is.
    pub(super) fn strip(&self, tap: usize) -> (usize, usize) {
        if self.backward { (0, self.taps - 1 - tap) } else { (tap % self.stride, tap / self.stride) }
    }

    /// What is at a place of a strip; nothing beyond the source's edges, and in the gaps of a gradient.
    pub(super) fn source(&self, strip: usize, place: usize) -> Option<usize> {
        let source = if self.backward {
            let dilated = (place + self.padding).checked_sub(self.taps - 1)?;
            dilated.is_multiple_of(self.stride).then_some(dilated / self.stride)?
        } else {
            (place * self.stride + strip).checked_sub(self.padding)?
        };
        (source < self.source).then_some(source)
    }

    /// The inverse: the one strip and place where a pixel of the source is, if it is anywhere.
    pub(super) fn place(&self, source: usize) -> Option<(usize, usize)> {
        let (strip, place) = if self.backward {
            (0, (source * self.stride + self.taps - 1).checked_sub(self.padding)?)
        } else {
            ((source + self.padding) % self.stride, (source + self.padding) / self.stride)
        };
        (strip < self.strips() && place < self.places()).then_some((strip, place))
    }

    /// What the target's pixel `at` takes for a tap.
    pub(super) fn taken(&self, at: usize, tap: usize) -> Option<usize> {
        let (strip, below) = self.strip(tap);
        self.source(strip, at + below)
    }

    /// The target's pixel that takes `source` for a tap.
    pub(super) fn taker(&self, source: usize, tap: usize) -> Option<usize> {
        let (strip, below) = self.strip(tap);
        let (found, place) = self.place(source)?;
        (found == strip).then(|| place.checked_sub(below)).flatten().filter(|at| *at < self.target)
    }
}

/// Both axes, for a number of images.
#[derive(Clone, Copy)]
pub(super) struct Geometry {
    pub(super) batch: usize,
    pub(super) rows: Axis,
    pub(super) columns: Axis,
}

impl Geometry {
    /// From the input to the output.
    pub(super) fn forward(shape: &ConvShape) -> Self {
        let ConvShape { stride, padding, .. } = *shape;
        let axis = |source, target, taps| Axis { source, target, taps, stride, padding, backward: false };
        Self {
            batch: shape.batch,
            rows: axis(shape.height, shape.out_height(), shape.kernel_h),
            columns: axis(shape.width, shape.out_width(), shape.kernel_w),
        }
    }

    /// From the output's gradient to the input's.
    pub(super) fn backward(shape: &ConvShape) -> Self {
        let reversed = |axis: Axis| Axis { source: axis.target, target: axis.source, backward: true, ..axis };
        let Self { batch, rows, columns } = Self::forward(shape);
        Self { batch, rows: reversed(rows), columns: reversed(columns) }
    }

    /// Pixels of a map of the source.
    pub(super) fn source_plane(&self) -> usize {
        self.rows.source * self.columns.source
    }

    /// Pixels of a map of the target.
    pub(super) fn plane(&self) -> usize {
        self.rows.target * self.columns.target
    }

    /// Taps of a pixel.
    pub(super) fn taps(&self) -> usize {
        self.rows.taps * self.columns.taps
    }

    /// For each pixel of the source, whether any pixel of the target takes it.
    pub(super) fn used(&self) -> List<bool> {
        let used = |axis: Axis, at| (0..axis.taps).any(|tap| axis.taker(at, tap).is_some());
        let columns = List::from_iter(self.columns.source, (0..self.columns.source).map(|x| used(self.columns, x)));
        let mut both = List::new(self.source_plane());
        for y in 0..self.rows.source {
            let row = used(self.rows, y);
            both.extend(columns.iter().map(|column| row && *column));
        }
        both
    }
}

/// The pixels of a source, for each pixel of the target and each tap.
pub(super) struct Taps {
    count: usize,
    sources: List<Option<u32>>,
}

impl Taps {
    pub(super) fn new(geometry: &Geometry) -> Self {
        let Geometry { rows, columns, .. } = *geometry;
        let table = |axis: Axis| {
            let taken = (0..axis.target).flat_map(|at| (0..axis.taps).map(move |tap| axis.taken(at, tap)));
            List::from_iter(axis.target * axis.taps, taken)
        };
        let (down, across) = (table(rows), table(columns));
        let mut sources = List::new(geometry.plane() * geometry.taps());
        for down in down.chunks_exact(rows.taps) {
            for across in across.chunks_exact(columns.taps) {
                for row in down {
                    let pixel = |column: &Option<usize>| row.zip(*column).map(|(y, x)| (y * columns.source + x) as u32);
                    sources.extend(across.iter().map(pixel));
                }
            }
        }
        Self { count: geometry.taps(), sources }
    }

    /// The pixel of the source, if there is one.
    pub(super) fn source(&self, pixel: usize, tap: usize) -> Option<usize> {
        self.sources[pixel * self.count + tap].map(|at| at as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::CONVOLUTIONS;
    use super::*;

    /// The definition of a convolution, and each function the inverse of the other.
    #[test]
    fn pixels_take_what_a_convolution_takes() {
        for (x, w, stride, padding, groups) in CONVOLUTIONS {
            let shape = ConvShape::new(x, w, stride, padding, groups).expect("fits");
            let (forward, backward) = (Geometry::forward(&shape).rows, Geometry::backward(&shape).rows);
            for tap in 0..shape.kernel_h {
                for at in 0..shape.out_height() {
                    let expected = (at * stride + tap).checked_sub(padding).filter(|from| *from < shape.height);
                    assert_eq!(forward.taken(at, tap), expected);
                    if let Some(from) = expected {
                        assert_eq!(backward.taken(from, tap), Some(at));
                    }
                }
                for (axis, other) in [(forward, backward), (backward, forward)] {
                    for source in 0..axis.source {
                        assert_eq!(axis.taker(source, tap), other.taken(source, tap), "{shape:?} {source} {tap}");
                    }
                }
            }
        }
    }
}
