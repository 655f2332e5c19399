//! Strips: some rows of one image, for as many channels as a vector has lanes, between maps and matrices.

use super::super::scratch;
use super::super::simd::{Kernel, Simd};
use super::super::tail::Tail;
use super::super::turn::{Maps, read_rows, write_span};
use super::Plan;

/// The windows of one strip, for as many channels as a vector has lanes.
pub(super) struct ReadWindows {
    pub(super) maps: Maps,
    pub(super) plan: Plan,
    /// The first output row.
    pub(super) row: usize,
    pub(super) to: *mut f32,
}

impl Kernel for ReadWindows {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (lanes, Plan { shape, rows, .. }) = (S::LANES, self.plan);
        let first = (self.row * shape.stride) as isize - shape.padding as isize;
        let (count, pitch) = ((rows - 1) * shape.stride + shape.kernel_h, shape.width + 2 * shape.padding);
        let mut lot = scratch::take(count * pitch * lanes);
        // SAFETY: `lot` has room for the rows; whoever made the kernel vouches for the rest.
        unsafe {
            read_rows(simd, &self.maps, (first, count), (shape.padding, pitch), lot.as_mut_ptr(), lanes);
            let mut to = self.to;
            for y in 0..rows {
                for x in 0..shape.out_width() {
                    let from = lot.as_ptr().add((y * pitch + x) * shape.stride * lanes);
                    for ky in 0..shape.kernel_h {
                        for kx in 0..shape.kernel_w {
                            let value = simd.load(from.add((ky * pitch + kx) * lanes));
                            simd.store(to.add((ky * shape.kernel_w + kx) * self.plan.channels), value);
                        }
                    }
                    to = to.add(self.plan.window);
                }
            }
        }
    }
}

/// The output gradients of one strip, for as many channels as a vector has lanes.
pub(super) struct ReadGradients {
    pub(super) maps: Maps,
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) to: *mut f32,
    pub(super) step: usize,
}

impl Kernel for ReadGradients {
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
    pub(super) tail: Tail<'a>,
    /// The first pixel's place in the output, and its channel.
    pub(super) start: usize,
    pub(super) channel: usize,
}

impl Kernel for WriteSpan<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // SAFETY: whoever made the kernel vouches for the memory.
        unsafe {
            write_span(simd, (self.from, self.stride), self.to, self.plane, self.channels, self.span);
            self.tail.apply(self.to, self.start, self.channel, (self.channels, self.plane), self.span);
        }
    }
}

/// Adds the windows' gradients of one image where they came from, for as many channels as a vector has lanes.
pub(super) struct Fold {
    pub(super) from: *const f32,
    pub(super) plan: Plan,
    pub(super) channels: usize,
    pub(super) to: *mut f32,
}

impl Kernel for Fold {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (lanes, Plan { shape, .. }) = (S::LANES, self.plan);
        let (height, width) = (shape.out_height(), shape.out_width());
        let mut lot = scratch::take(shape.plane() * lanes);
        lot.fill(0.0);
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
                        let from = self.from.add((y * width + x) * self.plan.window + tap * self.plan.channels);
                        let to = lot.as_mut_ptr().add(pixel * lanes);
                        simd.store(to, simd.add(simd.load(to), simd.load(from)));
                    }
                }
            }
        }
        // SAFETY: `lot` has the whole map; whoever made the kernel vouches for the rest.
        unsafe { write_span(simd, (lot.as_ptr(), lanes), self.to, shape.plane(), self.channels, shape.plane()) };
    }
}
