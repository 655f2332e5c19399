//! The `gdrd` command as the tests run it: the same two lines as gdrd-cli's own `main`.

use std::process::ExitCode;

fn main() -> ExitCode {
    gdrd_cli::main_with(|_| Ok(()))
}
