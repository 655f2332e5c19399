//! Threads that do not fall asleep between the layers of a network.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Keeps rayon's threads looking for work until it is dropped.
///
/// A thread that finds none for some microseconds falls asleep, and is woken too late for layers that take no longer than
/// that: the pass of a single face has dozens of them.
#[derive(Debug)]
pub struct Awake(Arc<AtomicBool>);

/// Keeps rayon's threads awake, other than the calling one.
#[must_use = "threads are awake until this is dropped"]
pub fn keep_awake() -> Awake {
    let over = Arc::new(AtomicBool::new(false));
    let caller = rayon::current_thread_index();
    if rayon::current_num_threads() > usize::from(caller.is_some()) {
        let over = Arc::clone(&over);
        rayon::spawn_broadcast(move |context| {
            while Some(context.index()) != caller && !over.load(Ordering::Acquire) {
                if rayon::yield_now() != Some(rayon::Yield::Executed) {
                    std::thread::yield_now();
                }
            }
        });
    }
    Awake(over)
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::keep_awake;

    #[test]
    fn work_goes_on_inside_and_outside_of_the_pool() {
        let sum = || {
            let _awake = keep_awake();
            (0..10).map(|_| (0..1000u64).into_par_iter().sum::<u64>()).sum::<u64>()
        };
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            assert_eq!(pool.install(sum), 4_995_000);
        }
        assert_eq!(sum(), 4_995_000);
    }
}
