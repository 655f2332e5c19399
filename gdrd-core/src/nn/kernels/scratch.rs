//! Working memory that each thread keeps, so that kernels neither ask the system for pages nor clear them every time.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Values aligned to a cache line.
pub(super) struct Values {
    lines: Vec<Line>,
    len: usize,
}

impl Values {
    /// `len` zeros.
    pub(super) fn zeros(len: usize) -> Self {
        Self { lines: vec![Line([0.0; 16]); len.div_ceil(16)], len }
    }
}

thread_local! {
    /// Lots not in use, the smallest first.
    static KEPT: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Values to work with, aligned to a cache line; they go back to the thread when dropped.
pub(super) struct Lot(Values);

/// A lot of `len` values. What they hold is left from earlier work.
pub(super) fn take(len: usize) -> Lot {
    let needed = len.div_ceil(16);
    let kept = KEPT.with_borrow_mut(|kept| {
        // The smallest that is large enough; where none is, the largest gives way to the new one.
        let at = kept.partition_point(|lot| lot.len() < needed);
        if at < kept.len() {
            return Some(kept.remove(at));
        }
        kept.pop();
        None
    });
    Lot(kept.map_or_else(|| Values::zeros(len), |lines| Values { lines, len }))
}

impl Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: a line is sixteen float32 values without gaps, so the lines are at least `len` initialised values.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Values {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
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
        let lines = std::mem::take(&mut self.0.lines);
        // A thread that ends keeps nothing.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            let at = kept.partition_point(|lot| lot.len() < lines.len());
            kept.insert(at, lines);
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
