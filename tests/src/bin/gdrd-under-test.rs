//! The `gdrd` command as the tests run it: gdrd-cli's own `main`, with the faults that `GDRD_FAULTS` orders.

use std::process::ExitCode;

fn main() -> ExitCode {
    gdrd_tests::faults::order();
    gdrd_cli::main_with(|_| Ok(()))
}
