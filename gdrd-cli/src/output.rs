//! Lines on standard output.

use std::fmt;
use std::io::Write;

/// Writes a line. A reader who has gone, as `head` has after its lines, wants no more, and is no error.
pub(crate) fn line(text: fmt::Arguments) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// [`println!`] that a closed pipe does not turn into a panic.
macro_rules! say {
    ($($text:tt)*) => { $crate::output::line(format_args!($($text)*)) };
}
