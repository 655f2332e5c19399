//! Tasks that threads share: rayon's threads, or for networks whose layers take some microseconds each, threads that stay
//! awake.
//!
//! A thread of rayon that finds no work for some microseconds falls asleep, and is awake again when such a layer is over. A few
//! faces go through dozens of them. While a thread has [`keep_awake`], others wait for its tasks without sleeping.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Mutex, MutexGuard, OnceLock, TryLockError};
use std::thread::{Builder, Thread, park, yield_now};

use rayon::prelude::*;

use super::instructions::OnThread;

/// Runs `task` for every number below `count`, with the instructions of the calling thread; the same thread takes `least` in a row.
pub(super) fn each(count: usize, least: usize, task: impl Fn(usize) + Sync) {
    if ALONE.get() {
        return (0..count).for_each(task);
    }
    let instructions = OnThread::now();
    match LED.get() {
        None => {
            let tasks = (0..count).into_par_iter().with_min_len(least);
            tasks.for_each_init(|| instructions.enter(), |_, at| task(at));
        }
        Some(team) => {
            let parts = count.div_ceil(least);
            team.share(parts, &|part| {
                let _entered = instructions.enter();
                (part * least..count.min((part + 1) * least)).for_each(&task);
            });
        }
    }
}

/// As [`each`], for tasks of which each keeps a thread busy by itself: what it shares, it does alone.
pub(in super::super) fn each_alone(count: usize, task: impl Fn(usize) + Sync) {
    each(count, 1, |at| {
        let _back = Back(ALONE.replace(true));
        task(at);
    });
}

/// Brings back whether a thread is alone.
struct Back(bool);

impl Drop for Back {
    fn drop(&mut self) {
        ALONE.set(self.0);
    }
}

/// Threads that share work here.
pub(in super::super) fn threads() -> usize {
    if ALONE.get() { 1 } else { rayon::current_num_threads() }
}

/// Runs `task` for every `len` of `values`, the last perhaps fewer, with their number; the same thread takes `least` in a row.
pub(super) fn each_chunk<T: Send>(values: &mut [T], len: usize, least: usize, task: impl Fn(usize, &mut [T]) + Sync) {
    let (count, start) = (values.len(), Start(values.as_mut_ptr()));
    each(count.div_ceil(len), least, |at| {
        let from = at * len;
        // SAFETY: the chunks are parts of `values`, and none meets another.
        task(at, unsafe { std::slice::from_raw_parts_mut(start.at(from), len.min(count - from)) });
    });
}

/// The start of values that several threads fill.
struct Start<T>(*mut T);

// SAFETY: each thread has values of its own.
unsafe impl<T: Send> Sync for Start<T> {}

impl<T> Start<T> {
    /// # Safety
    /// There are values at `offset`.
    unsafe fn at(&self, offset: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

thread_local! {
    /// Whether this thread does what it shares alone.
    static ALONE: Cell<bool> = const { Cell::new(false) };
    /// The team that waits for this thread's tasks.
    static LED: Cell<Option<&'static Team>> = const { Cell::new(None) };
}

/// While a thread has this, other threads wait for its tasks.
#[derive(Debug)]
pub struct Awake {
    team: &'static Team,
    _lead: MutexGuard<'static, Vec<Thread>>,
}

/// Keeps as many threads awake as rayon has here, less the calling one, and no more than small layers have tasks for. There are
/// none for a second thread at the same time, and where rayon has one thread only; everything works as well without.
#[must_use = "threads are awake until this is dropped"]
pub fn keep_awake() -> Option<Awake> {
    static TEAM: OnceLock<Team> = OnceLock::new();
    let helpers = (rayon::current_num_threads() - 1).min(MOST);
    if helpers == 0 || LED.get().is_some() {
        return None;
    }
    let team = TEAM.get_or_init(Team::default);
    let mut threads = match team.threads.try_lock() {
        Ok(threads) => threads,
        // What was shared when a task panicked is over.
        Err(TryLockError::Poisoned(threads)) => threads.into_inner(),
        Err(TryLockError::WouldBlock) => return None,
    };
    team.gather(helpers, &mut threads);
    LED.set(Some(team));
    Some(Awake { team, _lead: threads })
}

impl Drop for Awake {
    fn drop(&mut self) {
        LED.set(None);
        self.team.awake.store(false, SeqCst);
    }
}

/// Lets candle's own threads sleep between its operations, which they await for a millisecond otherwise, on cores that our kernels
/// want. Candle reads that from the environment (`CANDLE_BARRIER_POOL_SPIN_LIMIT`), once: a program calls this first of all. It does
/// nothing where the user has chosen, where other threads run already, or where that cannot be seen.
pub fn let_candle_sleep() {
    const LIMIT: &str = "CANDLE_BARRIER_POOL_SPIN_LIMIT";
    let alone = std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1);
    if alone && std::env::var_os(LIMIT).is_none() {
        // SAFETY: no other thread exists that could read the environment.
        unsafe { std::env::set_var(LIMIT, "100") };
    }
}

/// Helpers at most.
const MOST: usize = 15;

/// Whether a helper looks for work without giving way to other threads: some microseconds, as long as most layers take.
const SPINS: usize = 500;

/// Looks of a helper that nobody keeps awake before it falls asleep.
const LOOKS: usize = 2000;

/// Threads that help one thread at a time.
#[derive(Default, Debug)]
struct Team {
    /// All helpers; whoever has the lock leads them.
    threads: Mutex<Vec<Thread>>,
    /// Whether somebody leads.
    awake: AtomicBool,
    /// How many of the helpers, by their numbers, may help.
    helpers: AtomicUsize,
    /// The number of the work that may be entered, or zero.
    open: Apart<AtomicUsize>,
    /// Helpers that have entered.
    inside: Apart<AtomicUsize>,
    /// The first task that nobody has taken.
    next: AtomicUsize,
    work: UnsafeCell<Option<Work>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// A value with cache lines of its own.
#[derive(Default, Debug)]
#[repr(align(128))]
struct Apart<T>(T);

/// Tasks from 0 to `count`.
#[derive(Clone, Copy, Debug)]
struct Work {
    number: usize,
    count: usize,
    task: *const (dyn Fn(usize) + Sync),
}

// SAFETY: `work` is written by the leader alone, and only while nobody is inside. Helpers read it while they are: `share`,
// which keeps the task alive, does not return before they have left. All else is made for several threads.
unsafe impl Sync for Team {}
// SAFETY: as above; the pointer belongs to a call of `share`.
unsafe impl Send for Team {}

impl Team {
    /// Wakes helpers, and starts those that are missing.
    fn gather(&'static self, helpers: usize, threads: &mut Vec<Thread>) {
        self.helpers.store(helpers, SeqCst);
        self.awake.store(true, SeqCst);
        threads.iter().take(helpers).for_each(Thread::unpark);
        while threads.len() < helpers {
            let number = threads.len();
            // Without the thread the others do more.
            let Ok(thread) = Builder::new().name(format!("gdrd-{number}")).spawn(move || self.help(number)) else {
                break;
            };
            threads.push(thread.thread().clone());
        }
    }

    /// Runs tasks 0 to `count`, together with the helpers.
    fn share(&'static self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        if count < 2 {
            return (0..count).for_each(task);
        }
        // A task that shares tasks itself has no team.
        LED.set(None);
        // SAFETY: nobody is inside. The lifetime is that of this call, which no helper's use outlives.
        let work = unsafe {
            let number = (*self.work.get()).map_or(0, |work| work.number) + 1;
            let task = std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync)>(task);
            let work = Work { number, count, task };
            *self.work.get() = Some(work);
            work
        };
        self.next.store(0, Relaxed);
        self.open.0.store(work.number, SeqCst);
        self.take_part(work);
        // Who has not entered by now finds it closed; both sides write before they read.
        self.open.0.store(0, SeqCst);
        let mut looks = 0;
        while self.inside.0.load(SeqCst) > 0 {
            wait(&mut looks);
        }
        LED.set(Some(self));
        let panic = self.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Takes tasks until none is left.
    fn take_part(&self, work: Work) {
        let run = || loop {
            let at = self.next.fetch_add(1, Relaxed);
            if at >= work.count {
                return;
            }
            // SAFETY: whoever takes part is inside or the leader.
            unsafe { (*work.task)(at) };
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            *self.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(panic);
        }
    }

    /// What a helper does all its life.
    fn help(&self, helper: usize) {
        let (mut done, mut looks) = (0, 0);
        loop {
            let open = self.open.0.load(SeqCst);
            if open != 0 && open != done && helper < self.helpers.load(SeqCst) {
                self.inside.0.fetch_add(1, SeqCst);
                if self.open.0.load(SeqCst) != 0 {
                    // SAFETY: written before it was opened, and not again before this thread leaves.
                    if let Some(work) = unsafe { *self.work.get() } {
                        self.take_part(work);
                        done = work.number;
                    }
                }
                self.inside.0.fetch_sub(1, SeqCst);
                looks = 0;
            } else if looks < LOOKS || (self.awake.load(SeqCst) && helper < self.helpers.load(SeqCst)) {
                wait(&mut looks);
            } else {
                park();
                looks = 0;
            }
        }
    }
}

/// Waits a moment, and gives way to other threads after some.
fn wait(looks: &mut usize) {
    *looks += 1;
    if *looks < SPINS {
        spin_loop();
    } else {
        yield_now();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn sum(count: usize, least: usize) -> usize {
        let sum = AtomicUsize::new(0);
        each(count, least, |at| {
            sum.fetch_add(at + 1, Relaxed);
        });
        sum.into_inner()
    }

    #[test]
    fn every_task_runs_once_inside_and_outside_of_a_pool() {
        let all = || {
            let _awake = keep_awake();
            for count in [0, 1, 2, 3, 64, 1000] {
                for least in [1, 7, 100] {
                    assert_eq!(sum(count, least), count * (count + 1) / 2);
                }
            }
        };
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(all);
        }
        all();
    }

    /// Many short stretches of work, from several threads of which one leads at a time, with tasks that share tasks.
    #[test]
    fn nothing_is_lost_or_stuck() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a pool");
        pool.install(|| {
            (0..8).into_par_iter().for_each(|_| {
                for _ in 0..200 {
                    let _awake = keep_awake();
                    for count in [2, 5, 9] {
                        assert_eq!(sum(count, 1), count * (count + 1) / 2);
                    }
                    each(3, 1, |_| assert_eq!(sum(10, 2), 55));
                }
            });
        });
    }

    #[test]
    fn a_panic_of_a_task_is_the_callers() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a pool");
        pool.install(|| {
            let awake = keep_awake();
            let found = catch_unwind(|| each(50, 1, |at| assert!(at != 31, "task 31")));
            let message = found.expect_err("a panic");
            assert_eq!(message.downcast_ref::<&str>(), Some(&"task 31"));
            drop(awake);
            assert_eq!(sum(10, 1), 55);
        });
    }
}
