//! Working memory that each thread keeps, so that kernels neither ask the system for pages nor clear them every time.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Bytes of a large page, which takes one address translation where small ones take 512.
const LARGE_PAGE: usize = 2 << 20;

/// Values aligned to a cache line; in large pages, as far as they fill them and the system has them.
pub(super) struct Values {
    start: NonNull<f32>,
    len: usize,
    layout: Layout,
}

// SAFETY: the memory belongs to the value alone.
unsafe impl Send for Values {}
// SAFETY: it changes through exclusive references only.
unsafe impl Sync for Values {}

impl Values {
    /// `len` zeros.
    pub(super) fn zeros(len: usize) -> Self {
        let bytes = (4 * len).next_multiple_of(64).max(64);
        let align = if bytes < LARGE_PAGE { 64 } else { LARGE_PAGE };
        let layout = Layout::from_size_align(bytes, align).expect("fewer bytes than there are addresses");
        // SAFETY: there are bytes to allocate, and all of them are written.
        let start = unsafe {
            let Some(start) = NonNull::new(alloc(layout)) else { handle_alloc_error(layout) };
            // Pages take their size when they are touched for the first time.
            ask_for_large_pages(start.as_ptr(), bytes / LARGE_PAGE * LARGE_PAGE);
            start.as_ptr().write_bytes(0, bytes);
            start.cast()
        };
        Self { start, len, layout }
    }
}

/// Says that these bytes are better in large pages. Nothing depends on the answer.
///
/// # Safety
/// The bytes are allocated.
#[cfg(target_os = "linux")]
unsafe fn ask_for_large_pages(start: *mut u8, bytes: usize) {
    if bytes > 0 {
        // SAFETY: the caller's promise; the call changes no values.
        unsafe { libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
unsafe fn ask_for_large_pages(_: *mut u8, _: usize) {}

impl Drop for Values {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.start.as_ptr().cast(), self.layout) };
    }
}

impl Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: there are at least `len` initialised values.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Values {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

thread_local! {
    /// Lots not in use, the smallest first.
    static KEPT: RefCell<Vec<Values>> = const { RefCell::new(Vec::new()) };
}

/// Values to work with, aligned to a cache line; they go back to the thread when dropped.
pub(super) struct Lot(ManuallyDrop<Values>);

/// A lot of `len` values. What they hold is left from earlier work.
pub(super) fn take(len: usize) -> Lot {
    let kept = KEPT.with_borrow_mut(|kept| {
        // The smallest that is large enough; where none is, the largest gives way to the new one.
        let at = kept.partition_point(|values| values.layout.size() < 4 * len);
        if at < kept.len() {
            return Some(kept.remove(at));
        }
        kept.pop();
        None
    });
    Lot(ManuallyDrop::new(kept.map_or_else(
        || Values::zeros(len),
        |mut kept| {
            kept.len = len;
            kept
        },
    )))
}

impl Deref for Lot {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Lot {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

impl Drop for Lot {
    fn drop(&mut self) {
        // SAFETY: nothing uses the lot any more.
        let values = unsafe { ManuallyDrop::take(&mut self.0) };
        // A thread that ends keeps nothing.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            let at = kept.partition_point(|other| other.layout.size() < values.layout.size());
            kept.insert(at, values);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::take;

    #[test]
    fn lots_are_apart_aligned_and_kept() {
        let mut outer = take(100);
        outer.fill(1.0);
        take(50).fill(2.0);
        assert!(outer.len() == 100 && outer.iter().all(|v| *v == 1.0));
        let at = outer.as_ptr();
        assert_eq!(at.align_offset(64), 0);
        drop(outer);
        assert_eq!(take(90).as_ptr(), at);
    }
}
