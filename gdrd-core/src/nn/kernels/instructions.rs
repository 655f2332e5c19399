//! Which instructions of the processor kernels use: the highest level that it has, unless a program or its user allows less.
//!
//! A level decides on the last bits of results. On [`Instructions::Amx`] it decides on more: a convolution or fully connected
//! layer that is large enough takes each float32 factor as the sum of two bfloat16 values, exact to about 2^-17 where float32
//! is exact to 2^-24. Below that level, float32 is float32. A program says which it wants with [`Instructions::limit_process`];
//! for a program that does not say, the user may with the environment variable `GDRD_NO_AMX`, which is read here and nowhere else.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::OnceLock;

use candle_core::{Result, bail};

/// A level of instructions; each has those of the levels before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Instructions {
    /// What every processor of the target has.
    Portable,
    /// Vectors of 8 float32 values with fused products and sums.
    Avx2,
    /// Vectors of 16 float32 values.
    Avx512,
    /// Tiles of bfloat16 values, with sums in float32.
    Amx,
}

/// What the process uses where a thread says nothing else.
static PROCESS: OnceLock<Instructions> = OnceLock::new();

thread_local! {
    static THREAD: Cell<Option<Instructions>> = const { Cell::new(None) };
}

impl Instructions {
    /// All levels, the lowest first.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Amx];

    /// The highest level that this processor has and the system lets this process use.
    pub fn detected() -> Self {
        static DETECTED: OnceLock<Instructions> = OnceLock::new();
        *DETECTED.get_or_init(detect)
    }

    /// The levels of this machine, the lowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|level| *level <= Self::detected())
    }

    /// Makes the process use at most this level wherever no [`scope`](Self::scope) says otherwise, and `GDRD_NO_AMX` is not asked.
    /// It is said before the first kernel runs.
    ///
    /// # Errors
    /// If the process uses another level already.
    pub fn limit_process(self) -> Result<()> {
        let wanted = self.min(Self::detected());
        let used = *PROCESS.get_or_init(|| wanted);
        if used != wanted {
            bail!("expected to use `{}`, found that the process uses `{}` already", wanted.name(), used.name());
        }
        Ok(())
    }

    /// Runs `f` with this level, on this thread and on those that share the work of its kernels.
    ///
    /// Only our kernels follow it: products of matrices that are left to candle have instructions of their own choice. Work that
    /// differs in its instructions wants threads of its own: one that waits for others inside `f` may take up any job of its pool.
    ///
    /// # Errors
    /// If the machine does not have the level.
    pub fn scope<T>(self, f: impl FnOnce() -> T) -> Result<T> {
        let detected = Self::detected();
        if self > detected {
            bail!("expected at most `{}`, which this machine has, found `{}`", detected.name(), self.name());
        }
        let _entered = OnThread(Some(self)).enter();
        Ok(f())
    }

    /// What the kernels of this thread use.
    pub fn now() -> Self {
        THREAD.get().unwrap_or_else(|| *PROCESS.get_or_init(Self::of_environment))
    }

    /// The name that `lock.json` and reports have: `portable`, `avx2`, `avx512` or `amx`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }

    fn of_environment() -> Self {
        let detected = Self::detected();
        if std::env::var_os("GDRD_NO_AMX").is_some() { detected.min(Self::Avx512) } else { detected }
    }
}

/// The name of the level that the kernels of this thread use.
pub fn processor() -> &'static str {
    Instructions::now().name()
}

/// What a thread has been told by [`Instructions::scope`], for threads that share its work.
#[derive(Clone, Copy)]
pub(super) struct OnThread(Option<Instructions>);

impl OnThread {
    pub(super) fn now() -> Self {
        Self(THREAD.get())
    }

    /// Tells the calling thread the same until the guard is dropped.
    pub(super) fn enter(self) -> Entered {
        Entered { before: THREAD.replace(self.0), on_this_thread: PhantomData }
    }
}

/// Brings back what the thread was told before.
#[must_use = "the instructions last as long as this value"]
pub(super) struct Entered {
    before: Option<Instructions>,
    on_this_thread: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        THREAD.set(self.before);
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Instructions {
    if is_x86_feature_detected!("avx512f") {
        return if has_tiles() && permitted() { Instructions::Amx } else { Instructions::Avx512 };
    }
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        return Instructions::Avx2;
    }
    Instructions::Portable
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Instructions {
    Instructions::Portable
}

/// Whether the processor has the tile unit, and the vectors that its factors are made with.
#[cfg(target_arch = "x86_64")]
fn has_tiles() -> bool {
    let vectors = is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512bf16");
    // Leaf 7, register EDX: AMX-BF16 is bit 22, AMX-TILE bit 24.
    let found = || std::arch::x86_64::__cpuid_count(7, 0).edx & (1 << 22 | 1 << 24);
    vectors && found() == (1 << 22 | 1 << 24)
}

/// Linux gives the registers to a process that asks.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory of this process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn permitted() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rayon::prelude::*;

    use super::super::team::{each, keep_awake};
    use super::super::testing::{on_each_level, with_threads};
    use super::*;

    /// Tests of kernels take every level of the machine. What they leave out is said where `cargo test` does not hide it.
    #[test]
    fn kernel_paths_of_this_machine() {
        let names = |here| {
            let levels = Instructions::ALL.into_iter().filter(|level| (*level <= Instructions::detected()) == here);
            levels.map(Instructions::name).collect::<Vec<_>>().join(", ")
        };
        let (tested, mut missing) = (names(true), names(false));
        assert!(tested.starts_with("portable"));
        if missing.is_empty() {
            missing = "none".into();
        }
        writeln!(
            std::io::stderr(),
            "kernel paths tested: {tested}; not tested, because this machine lacks them: {missing}"
        )
        .expect("somebody reads");
    }

    #[test]
    fn a_scope_reaches_the_threads_that_share_its_work_and_no_others() {
        let outside = Instructions::now();
        for threads in [1, 3] {
            on_each_level(|| {
                let level = Instructions::now();
                with_threads(threads, || {
                    each(50, 1, |_| assert_eq!(Instructions::now(), level));
                    let awake = keep_awake();
                    each(50, 1, |_| each(3, 1, |_| assert_eq!(Instructions::now(), level)));
                    drop(awake);
                    Instructions::Portable
                        .scope(|| each(50, 1, |_| assert_eq!(Instructions::now(), Instructions::Portable)))
                })
                .expect("every machine has it");
            });
        }
        assert_eq!(Instructions::now(), outside);
        // Work with different levels at the same time, by the same threads.
        with_threads(3, || {
            (0..40).into_par_iter().for_each(|at| {
                let level = if at % 2 == 0 { Instructions::Portable } else { Instructions::detected() };
                let work = || each(20, 1, |_| each(5, 1, |_| assert_eq!(Instructions::now(), level)));
                level.scope(work).expect("the machine has it");
            });
        });
    }

    #[test]
    fn what_the_machine_lacks_is_refused() {
        for level in Instructions::ALL.into_iter().filter(|level| *level > Instructions::detected()) {
            let refused = level.scope(|| ()).expect_err("not here").to_string();
            assert!(refused.contains(level.name()) && refused.contains(Instructions::detected().name()), "{refused}");
        }
        // All tests share the process.
        Instructions::now().limit_process().expect("what it uses already");
        assert_eq!(Instructions::Portable.limit_process().is_ok(), Instructions::now() == Instructions::Portable);
    }
}
