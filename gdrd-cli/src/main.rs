//! The `gdrd` command, without plug-ins beyond gdrd's own.

use std::process::ExitCode;

/// Training frees and takes large buffers at every step; the system's allocator gives them back to the kernel in between.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    gdrd_cli::main_with(|_| Ok(()))
}
