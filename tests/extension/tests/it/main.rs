//! The stranger's program, run as its user runs it: one recipe uses all of its plug-ins.

mod bench;
mod checks;
mod fine_tuning;
mod keys;
// Elsewhere signed programs that were changed do not start.
#[cfg(target_os = "linux")]
mod program;
mod whole_flow;
