//! Ctrl-C: the first asks the run to write a checkpoint and stop, the second ends the program.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use gdrd_core::observe::Flow;
use gdrd_core::run::RunFolder;

static ASKED: AtomicU32 = AtomicU32::new(0);
static LISTENING: OnceLock<()> = OnceLock::new();
/// Whether whoever works has been told.
static SEEN: AtomicBool = AtomicBool::new(false);
/// Whether optimiser steps are under way, whose work a checkpoint saves.
static IN_STEPS: AtomicBool = AtomicBool::new(false);
/// The run that is under way.
static RUN: Mutex<Option<RunFolder>> = Mutex::new(None);

/// How long work that saves nothing may go on before it is cut off: until it has been told, and after that. Files are written
/// completely or not at all, so that nothing is lost but the time since the newest checkpoint.
const PATIENCE: [Duration; 2] = [Duration::from_millis(1500), Duration::from_secs(5)];

/// Begins to listen.
pub(crate) fn listen() {
    LISTENING.get_or_init(|| {
        let heard = || {
            if ASKED.fetch_add(1, Ordering::SeqCst) > 0 {
                exit();
            }
            talk!("\nstopping after this step; press Ctrl-C again to stop at once");
            // Without this thread the run still stops where it asks.
            let _ = std::thread::Builder::new().spawn(cut_off);
        };
        let ignored = hangup::is_ignored();
        // Without a handler Ctrl-C ends the program as it always does, and the run can still be resumed.
        let _ = ctrlc::set_handler(heard);
        if ignored {
            hangup::ignore();
        }
    });
}

/// SIGHUP, which `ctrlc` takes with the others: whoever started the program with `nohup` wants it to outlive the terminal.
#[cfg(unix)]
#[expect(unsafe_code, reason = "no library asks what happens to a signal, or sets it back, without")]
mod hangup {
    pub(super) fn is_ignored() -> bool {
        // SAFETY: a `sigaction` of zeros is one, and with no new action the call only writes the present one there.
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGHUP, std::ptr::null(), &mut now) == 0 && now.sa_sigaction == libc::SIG_IGN
        }
    }

    pub(super) fn ignore() {
        // SAFETY: the disposition is one of the two that the system itself provides; no code of ours runs.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
    }
}

#[cfg(not(unix))]
mod hangup {
    pub(super) fn is_ignored() -> bool {
        false
    }

    pub(super) fn ignore() {}
}

/// What the user wants. Who asks is expected to obey.
pub(crate) fn wish() -> Flow {
    match ASKED.load(Ordering::SeqCst) {
        0 => Flow::Continue,
        _ => {
            SEEN.store(true, Ordering::SeqCst);
            Flow::Stop
        }
    }
}

/// Takes note of whether optimiser steps are under way.
pub(crate) fn in_steps(yes: bool) {
    IN_STEPS.store(yes, Ordering::SeqCst);
}

/// Takes note of the run that is under way.
pub(crate) fn in_run(folder: &Path) {
    *RUN.lock().unwrap_or_else(PoisonError::into_inner) = Some(RunFolder::new(folder));
}

/// Ends the program if work that saves nothing (datasets, teachers, downloads) does not end by itself.
fn cut_off() {
    let mut since = Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(50));
        if IN_STEPS.load(Ordering::SeqCst) {
            since = Instant::now();
        }
        if since.elapsed() > PATIENCE[usize::from(SEEN.load(Ordering::SeqCst))] {
            talk!("error: stopped by the user");
            hint();
            exit();
        }
    }
}

/// Says how to go on with the run that was stopped, if there is one to go on with.
pub(crate) fn hint() {
    // Before the recipe is in the folder there is nothing to go on with.
    if let Some(folder) = RUN.lock().unwrap_or_else(PoisonError::into_inner).as_ref().filter(|run| run.is_begun()) {
        talk!("hint: `gdrd resume {}` goes on from here", folder.path().display());
    }
}

#[expect(clippy::exit, reason = "the user wants to stop, and what works cannot be told")]
fn exit() -> ! {
    std::process::exit(130)
}
