//! What is said: results on standard output, talk on standard error.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::sync::{Mutex, PoisonError};

use gdrd_core::error::{Error, Result};

/// Why a result could not be written, if one could not.
static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

/// Writes a line of a result. Whether that worked is the business of [`finish`].
pub(crate) fn line(text: fmt::Arguments) {
    note(io::stdout().write_all(format!("{}\n", shown(&text.to_string())).as_bytes()));
}

/// Writes a line of talk. Nobody may be listening, and a run does not end for that.
pub(crate) fn talk(text: fmt::Arguments) {
    let _ = io::stderr().write_all(format!("{}\n", shown(&text.to_string())).as_bytes());
}

/// The text with every character written out that a terminal would obey: names and messages come out of files of others. Ends of lines
/// and tabs stay. It is written out as JSON does, since the text may be some.
fn shown(text: &str) -> Cow<'_, str> {
    let is_obeyed = |letter: char| letter.is_control() && letter != '\n' && letter != '\t';
    if !text.contains(is_obeyed) {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match is_obeyed(letter) {
            true => plain += &format!("\\u{:04x}", u32::from(letter)),
            false => plain.push(letter),
        }
    }
    plain.into()
}

/// Says where results went: on standard output, unless the results themselves are there or in another stream.
pub(crate) fn went_to(out: &std::path::Path, text: fmt::Arguments) {
    match gdrd_core::files::is_stream(out) {
        true => talk(text),
        false => line(text),
    }
}

/// Takes note of a failed write. A reader who has gone, as `head` has after its lines, wants no more, and is no error.
pub(crate) fn note(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        FAILED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Brings the results to where they go.
///
/// # Errors
/// If a part of them could not be written, now or before.
pub(crate) fn finish() -> Result<()> {
    note(io::stdout().flush());
    match FAILED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) => Err(Error::io("standard output", error)),
        None => Ok(()),
    }
}

/// [`println!`] for results; a closed pipe does not turn it into a panic.
macro_rules! say {
    ($($text:tt)*) => { $crate::output::line(format_args!($($text)*)) };
}

/// [`eprintln!`] that nothing turns into a panic.
macro_rules! talk {
    ($($text:tt)*) => { $crate::output::talk(format_args!($($text)*)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        assert_eq!(shown("a\u{1b}[31mb\r\u{0}\u{9b}c\n\td"), "a\\u001b[31mb\\u000d\\u0000\\u009bc\n\td");
        assert!(matches!(shown("a name, an \u{e9}\n"), Cow::Borrowed(_)));
    }
}
