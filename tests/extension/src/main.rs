//! gdrd with one more teacher and one more loss. This is all that a program with plug-ins of its own needs.

use std::process::ExitCode;

mod colour_histogram;
mod huber;

fn main() -> ExitCode {
    gdrd_cli::main_with(|registry| {
        registry.teachers.register::<colour_histogram::ColourHistogram>()?;
        registry.losses.register::<huber::Huber>()
    })
}
