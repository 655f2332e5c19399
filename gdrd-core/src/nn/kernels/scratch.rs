//! Working memory that each thread keeps, so that kernels neither ask the system for pages nor clear them every time.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

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
    /// Buffers not in use, the smallest first.
    static KEPT: RefCell<Vec<Values>> = const { RefCell::new(Vec::new()) };
}

/// Values to work with, aligned to a cache line; they go back to the thread when dropped.
pub(in super::super) struct ScratchBuffer(ManuallyDrop<Values>);

/// A buffer of `len` values. What it holds is left from earlier work.
pub(in super::super) fn take(len: usize) -> ScratchBuffer {
    let kept = KEPT.with_borrow_mut(|kept| {
        // The smallest that is large enough; where none is, the largest gives way to the new one.
        let at = kept.partition_point(|values| values.layout.size() < 4 * len);
        if at < kept.len() {
            return Some(kept.remove(at));
        }
        kept.pop();
        None
    });
    let mut values = kept.unwrap_or_else(|| Values::zeros(len));
    values.len = len;
    ScratchBuffer(ManuallyDrop::new(values))
}

impl Deref for ScratchBuffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for ScratchBuffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

impl Drop for ScratchBuffer {
    fn drop(&mut self) {
        // SAFETY: nothing uses the buffer any more.
        let values = unsafe { ManuallyDrop::take(&mut self.0) };
        // A thread that ends keeps nothing.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            let at = kept.partition_point(|other| other.layout.size() < values.layout.size());
            kept.insert(at, values);
        });
    }
}

/// A list in such memory, of a length that is known beforehand.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "tiles alone use it"))]
pub(super) struct List<T> {
    buffer: ScratchBuffer,
    len: usize,
    room: usize,
    values: PhantomData<T>,
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "tiles alone use it"))]
impl<T: Copy> List<T> {
    /// Room for `room` values.
    pub(super) fn new(room: usize) -> Self {
        const { assert!(align_of::<T>() <= 64) };
        Self { buffer: take((room * size_of::<T>()).div_ceil(4)), len: 0, room, values: PhantomData }
    }

    /// The values of an iterator, which are at most `room`.
    pub(super) fn from_iter(room: usize, values: impl Iterator<Item = T>) -> Self {
        let mut list = Self::new(room);
        list.extend(values);
        list
    }

    pub(super) fn push(&mut self, value: T) {
        assert!(self.len < self.room, "a list of {} values is full", self.room);
        // SAFETY: there is room for it, aligned to a cache line and so for every value.
        unsafe { self.buffer.as_mut_ptr().cast::<T>().add(self.len).write(value) };
        self.len += 1;
    }

    pub(super) fn extend(&mut self, values: impl Iterator<Item = T>) {
        values.for_each(|value| self.push(value));
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` values were written.
        unsafe { std::slice::from_raw_parts(self.buffer.as_ptr().cast(), self.len) }
    }
}

/// Values for longer than a kernel runs, which any thread may give back; whoever takes as many again has the same memory. What they
/// hold is left from earlier work.
pub(super) struct Pooled(ManuallyDrop<Values>);

/// Bytes that nobody uses and that stay for later, at most: the maps of a training step.
const POOLED: usize = 4 << 30;

/// Values not in use, the longest unused first.
static POOL: Mutex<Vec<Values>> = Mutex::new(Vec::new());

impl Pooled {
    /// `len` values.
    pub(super) fn take(len: usize) -> Self {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        let found = pool.iter().rposition(|values| values.len == len).map(|at| pool.remove(at));
        drop(pool);
        Self(ManuallyDrop::new(found.unwrap_or_else(|| Values::zeros(len))))
    }
}

impl Deref for Pooled {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        // SAFETY: it is taken out once, here.
        let values = unsafe { ManuallyDrop::take(&mut self.0) };
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        pool.push(values);
        let mut bytes: usize = pool.iter().map(|values| 4 * values.len).sum();
        while bytes > POOLED && !pool.is_empty() {
            bytes -= 4 * pool.remove(0).len;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{List, take};

    #[test]
    fn buffers_are_apart_aligned_and_kept() {
        let mut outer = take(100);
        outer.fill(1.0);
        take(50).fill(2.0);
        assert!(outer.len() == 100 && outer.iter().all(|v| *v == 1.0));
        let at = outer.as_ptr();
        assert_eq!(at.align_offset(64), 0);
        drop(outer);
        assert_eq!(take(90).as_ptr(), at);
    }

    #[test]
    fn lists_hold_what_was_pushed() {
        let mut list = List::from_iter(5, (0..3u64).map(|at| (at, Some(at as u8))));
        list.push((9, None));
        assert_eq!(*list, [(0, Some(0)), (1, Some(1)), (2, Some(2)), (9, None)]);
        list.clear();
        assert!(list.is_empty());
    }
}
