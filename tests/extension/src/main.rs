//! gdrd with a stranger's plug-ins. This is all that such a program needs.

use std::process::ExitCode;

fn main() -> ExitCode {
    gdrd_cli::main_with(gdrd_extension_example::register)
}
