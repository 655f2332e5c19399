//! Strips: some rows of one image, for as many channels as a vector has lanes, between maps and matrices.

use super::super::epilogue::Epilogue;
use super::super::scratch;
use super::super::simd::{Simd, SimdKernel};
use super::super::transpose::{ImageMaps, read_rows, write_span};
use super::layout::WindowLayout;

/// The windows of one strip, for as many channels as a vector has lanes.
pub(super) struct ReadWindows {
    pub(super) maps: ImageMaps,
    pub(super) layout: WindowLayout,
    /// The first output row.
    pub(super) row: usize,
    pub(super) to: *mut f32,
}

impl SimdKernel for ReadWindows {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (lanes, WindowLayout { shape, rows, .. }) = (S::LANES, self.layout);
        let first = (self.row * shape.stride) as isize - shape.padding as isize;
        let (count, pitch) = ((rows - 1) * shape.stride + shape.kernel_h, shape.width + 2 * shape.padding);
        let mut buffer = scratch::take(count * pitch * lanes);
        // SAFETY: `buffer` has room for the rows; whoever made the kernel vouches for the rest.
        unsafe {
            read_rows(simd, &self.maps, (first, count), (shape.padding, pitch), buffer.as_mut_ptr(), lanes);
            let mut to = self.to;
            for y in 0..rows {
                for x in 0..shape.out_width() {
                    let from = buffer.as_ptr().add((y * pitch + x) * shape.stride * lanes);
                    for ky in 0..shape.kernel_h {
                        for kx in 0..shape.kernel_w {
                            let value = simd.load(from.add((ky * pitch + kx) * lanes));
                            simd.store(to.add((ky * shape.kernel_w + kx) * self.layout.channels), value);
                        }
                    }
                    to = to.add(self.layout.window);
                }
            }
        }
    }
}

/// The output gradients of one strip, for as many channels as a vector has lanes.
pub(super) struct ReadGradients {
    pub(super) maps: ImageMaps,
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) to: *mut f32,
    pub(super) step: usize,
}

impl SimdKernel for ReadGradients {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let width = self.maps.width;
        // SAFETY: whoever made the kernel vouches for the memory.
        unsafe { read_rows(simd, &self.maps, (self.row as isize, self.rows), (0, width), self.to, self.step) };
    }
}

/// Pixels from the products to the maps, with what follows them.
pub(super) struct WriteSpan<'a> {
    pub(super) from: *const f32,
    pub(super) stride: usize,
    pub(super) to: *mut f32,
    pub(super) plane: usize,
    pub(super) channels: usize,
    pub(super) span: usize,
    pub(super) epilogue: Epilogue<'a>,
    /// The first pixel's place in the output, and its channel.
    pub(super) start: usize,
    pub(super) channel: usize,
}

impl SimdKernel for WriteSpan<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // SAFETY: whoever made the kernel vouches for the memory.
        unsafe {
            write_span(simd, (self.from, self.stride), self.to, self.plane, self.channels, self.span);
            self.epilogue.apply(self.to, self.start, self.channel, (self.channels, self.plane), self.span);
        }
    }
}

/// Adds the windows' gradients of one image where they came from, for as many channels as a vector has lanes.
pub(super) struct Fold {
    pub(super) from: *const f32,
    pub(super) layout: WindowLayout,
    pub(super) channels: usize,
    pub(super) to: *mut f32,
}

impl SimdKernel for Fold {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (lanes, WindowLayout { shape, .. }) = (S::LANES, self.layout);
        let (height, width) = (shape.out_height(), shape.out_width());
        let mut buffer = scratch::take(shape.plane() * lanes);
        buffer.fill(0.0);
        for tap in 0..shape.taps() {
            let (ky, kx) = (tap / shape.kernel_w, tap % shape.kernel_w);
            let (top, bottom) = shape.inside(ky, shape.height, height);
            let (left, right) = shape.inside(kx, shape.width, width);
            for y in top..bottom {
                for x in left..right {
                    let pixel =
                        (y * shape.stride + ky - shape.padding) * shape.width + x * shape.stride + kx - shape.padding;
                    // SAFETY: `inside` keeps the pixel within the map; whoever made the kernel vouches for the rest.
                    unsafe {
                        let from = self.from.add((y * width + x) * self.layout.window + tap * self.layout.channels);
                        let to = buffer.as_mut_ptr().add(pixel * lanes);
                        simd.store(to, simd.add(simd.load(to), simd.load(from)));
                    }
                }
            }
        }
        // SAFETY: `buffer` has the whole map; whoever made the kernel vouches for the rest.
        unsafe { write_span(simd, (buffer.as_ptr(), lanes), self.to, shape.plane(), self.channels, shape.plane()) };
    }
}
