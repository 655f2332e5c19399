//! Which pixel of the source each pixel of the target takes for each position of the kernel.

use super::super::shape::ConvShape;

/// The pixels of a source, for each pixel of the target and each tap.
pub(super) struct Taps {
    pub(super) batch: usize,
    /// Pixels of a map of the source, and of the target.
    pub(super) source_plane: usize,
    pub(super) plane: usize,
    /// Taps of a pixel.
    pub(super) count: usize,
    sources: Vec<Option<u32>>,
}

impl Taps {
    /// From the input to the output.
    pub(super) fn forward(shape: &ConvShape) -> Self {
        let target = (shape.out_height(), shape.out_width());
        Self::new(shape, target, (shape.height, shape.width), |at, tap| {
            (at * shape.stride + tap).checked_sub(shape.padding)
        })
    }

    /// From the output's gradient to the input's.
    pub(super) fn backward(shape: &ConvShape) -> Self {
        let source = (shape.out_height(), shape.out_width());
        Self::new(shape, (shape.height, shape.width), source, |at, tap| {
            let from = (at + shape.padding).checked_sub(tap)?;
            from.is_multiple_of(shape.stride).then_some(from / shape.stride)
        })
    }

    /// `source(at, tap)` is a row or column of the source, which may lie outside.
    fn new(
        shape: &ConvShape,
        (height, width): (usize, usize),
        (source_height, source_width): (usize, usize),
        source: impl Fn(usize, usize) -> Option<usize>,
    ) -> Self {
        let inside = |at: usize, tap: usize, len: usize| source(at, tap).filter(|from| *from < len);
        let columns: Vec<_> =
            (0..width).map(|x| (0..shape.kernel_w).map(|kx| inside(x, kx, source_width)).collect::<Vec<_>>()).collect();
        let (plane, count) = (height * width, shape.taps());
        let mut sources = Vec::with_capacity(plane * count);
        for y in 0..height {
            let rows: Vec<_> = (0..shape.kernel_h).map(|ky| inside(y, ky, source_height)).collect();
            for columns in &columns {
                for row in &rows {
                    let pixel = |column: &Option<usize>| row.zip(*column).map(|(y, x)| (y * source_width + x) as u32);
                    sources.extend(columns.iter().map(pixel));
                }
            }
        }
        Self { batch: shape.batch, source_plane: source_height * source_width, plane, count, sources }
    }

    /// For each pixel of the source, whether any pixel of the target takes it.
    pub(super) fn used(&self) -> Vec<bool> {
        let mut used = vec![false; self.source_plane];
        for at in self.sources.iter().flatten() {
            used[*at as usize] = true;
        }
        used
    }

    /// The pixel of the source, if there is one.
    pub(super) fn source(&self, pixel: usize, tap: usize) -> Option<usize> {
        self.sources[pixel * self.count + tap].map(|at| at as usize)
    }
}
