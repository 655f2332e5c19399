//! Ctrl-C: the first asks the run to write a checkpoint and stop, the second ends the program.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

static ASKED: AtomicU32 = AtomicU32::new(0);
static LISTENING: OnceLock<()> = OnceLock::new();

/// Begins to listen.
pub(crate) fn listen() {
    LISTENING.get_or_init(|| {
        let heard = || {
            if ASKED.fetch_add(1, Ordering::SeqCst) > 0 {
                #[expect(clippy::exit, reason = "the user asked twice")]
                std::process::exit(130);
            }
            eprintln!("\nstopping after this step; press Ctrl-C again to stop at once");
        };
        // Without a handler Ctrl-C ends the program as it always does, and the run can still be resumed.
        let _ = ctrlc::set_handler(heard);
    });
}

/// Whether the user wants to stop.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::SeqCst) > 0
}
