//! The `gdrd` command, without plug-ins beyond gdrd's own.

use std::process::ExitCode;

fn main() -> ExitCode {
    gdrd_cli::main_with(|_| Ok(()))
}
