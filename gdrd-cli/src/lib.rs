//! The `gdrd` command as a function, for programs that add plug-ins of their own.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     gdrd_cli::main_with(|registry| {
//!         // registry.losses.register::<MyLoss>()?;
//!         let _ = registry;
//!         Ok(())
//!     })
//! }
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this crate is the one that talks to people")]

use std::error::Error as _;
use std::process::ExitCode;

use clap::Parser;
use gdrd_core::error::{Error, ErrorKind, Result};
use gdrd_core::nn::kernels::let_candle_sleep;
use gdrd_core::registry::Registry;

#[macro_use]
mod output;

mod args;
mod commands;
mod photograph;
mod progress;
#[cfg(feature = "serve")]
mod serve;
mod stop;

/// Runs the command line of this process. `extend` adds plug-ins to the built-in ones.
///
/// Exit codes: 0 good, 1 the run failed, 2 the command line or the recipe is wrong, 130 stopped by the user.
pub fn main_with(extend: impl FnOnce(&mut Registry) -> Result<()> + Send) -> ExitCode {
    let_candle_sleep();
    // Everything runs on a thread of the pool that the kernels share their work on: handing each kernel over from a thread
    // outside costs two switches of context. The graph of a deep network is walked recursively, so threads get the stack of
    // a main thread. An error without a source means that there is a pool already.
    if let Err(error) = check_threads() {
        return end(Err(error));
    }
    if let Err(error) = rayon::ThreadPoolBuilder::new().stack_size(STACK).build_global()
        && error.source().is_some()
    {
        return end(Err(Error::new(ErrorKind::Io, format!("the system starts no threads for this program: {error}"))));
    }
    rayon::join(|| run(extend), || ()).0
}

/// Refuses a number of threads that the pool would pass over without a word, or that no machine bears.
fn check_threads() -> Result<()> {
    const NAME: &str = "RAYON_NUM_THREADS";
    let Some(asked) = std::env::var_os(NAME).filter(|asked| !asked.is_empty()) else { return Ok(()) };
    match asked.to_str().and_then(|text| text.parse::<usize>().ok()) {
        Some(0..=1024) => Ok(()),
        _ => Err(Error::recipe(format!(
            "the environment variable {NAME}: expected 1 to 1024 threads, or 0 for one a core, found `{}`",
            asked.display()
        ))),
    }
}

/// Bytes of stack for each thread.
const STACK: usize = 8 << 20;

fn run(extend: impl FnOnce(&mut Registry) -> Result<()>) -> ExitCode {
    let arguments = match args::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            // A failed write to a closed terminal leaves nobody to tell.
            let _ = error.print();
            return ExitCode::from(2);
        }
        Err(help) => {
            output::note(help.print());
            return end(output::finish());
        }
    };
    let registry = registry().and_then(|mut registry| extend(&mut registry).map(|()| registry));
    end(registry
        .and_then(|registry| commands::run(arguments, &std::sync::Arc::new(registry)))
        .and_then(|()| output::finish()))
}

/// Says an error; the exit code.
fn end(done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = error.to_string();
            // Diagnostics of a recipe come with their own heading.
            talk!("{}{text}", if text.starts_with("error:") { "" } else { "error: " });
            ExitCode::from(code(&error))
        }
    }
}

fn registry() -> Result<Registry> {
    let mut registry = Registry::with_core()?;
    gdrd_teachers::register(&mut registry)?;
    gdrd_student::register(&mut registry)?;
    Ok(registry)
}

fn code(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::Recipe => 2,
        ErrorKind::Stopped => 130,
        _ => 1,
    }
}
