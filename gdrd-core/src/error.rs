//! One error type, sorted by who can act on it.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;

/// Result with gdrd's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Who can act on an [`Error`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The recipe or a `--set` is wrong: edit it.
    Recipe,
    /// An image, a folder or a list of pairs is wrong: mend the data.
    Data,
    /// A weight file does not fit its network.
    Weights,
    /// A file on the Hugging Face Hub cannot be had: mend the address, the access or the network.
    Hub,
    /// A plug-in (teacher, loss, student ...) could not do what was asked of it.
    Component,
    /// The tensor library or the device failed.
    Device,
    /// The file system failed.
    Io,
    /// The user stopped the run.
    Stopped,
}

/// An error of gdrd: what went wrong, where, and what caused it.
///
/// `Display` prints the places from the outermost to the innermost and then the message, on one
/// line unless the message itself has several.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    places: Vec<String>,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, places: Vec::new(), message: message.into(), source: None }
    }

    /// A mistake in a recipe.
    pub fn recipe(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Recipe, message)
    }

    /// A mistake in a dataset.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// A weight file that does not fit.
    pub fn weights(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Weights, message)
    }

    /// A file on the Hub that cannot be had.
    pub fn hub(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Hub, message)
    }

    /// A plug-in that cannot do what was asked.
    pub fn component(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Component, message)
    }

    /// A failed file operation on `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::io_without_place(source).at(format!("`{}`", path.as_ref().display()))
    }

    /// A failed file operation, where whoever called says on which file.
    pub fn io_without_place(source: std::io::Error) -> Self {
        let message = io_reason(&source);
        Self { kind: ErrorKind::Io, places: Vec::new(), message, source: Some(Box::new(source)) }
    }

    /// Who can act on this error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same error, with the place where it happened put in front.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.places.push(place.into());
        self
    }
}

/// What a failed file operation says to people; the system's own words where there are none better.
pub(crate) fn io_reason(error: &std::io::Error) -> String {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::NotFound => "no such file or folder".into(),
        Io::IsADirectory => "a folder, expected a file".into(),
        Io::NotADirectory => "expected a folder, found a file here or above".into(),
        Io::InvalidData => "expected text in UTF-8, found other bytes".into(),
        // A partial file's own name, which tempfile puts behind the reason, says nothing to anybody.
        _ => error.to_string().split(" at path \"").next().unwrap_or_default().to_string(),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in self.places.iter().rev() {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as &(dyn std::error::Error + 'static))
    }
}

impl From<candle_core::Error> for Error {
    fn from(source: candle_core::Error) -> Self {
        // A candle error may carry a backtrace of many lines; the first line says what happened.
        let text = source.to_string();
        let message = text.lines().next().unwrap_or_default().to_string();
        Self { kind: ErrorKind::Device, places: Vec::new(), message, source: Some(Box::new(source)) }
    }
}

/// Adds the place of an error to a result.
///
/// ```
/// use gdrd_core::error::{Context, Error};
///
/// let result: Result<(), Error> = Err(Error::data("not an image"));
/// let error = result.at(|| "faces/Ann/1.jpg".to_string()).expect_err("an error");
/// assert_eq!(error.to_string(), "faces/Ann/1.jpg: not an image");
/// ```
pub trait Context<T> {
    /// Puts `place` in front of the error, if there is one.
    fn at(self, place: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn at(self, place: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.into().at(place()))
    }
}

/// A mistake that a configuration finds in itself: which key, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key inside the configuration's own table.
    pub key: &'static str,
    /// What was expected and what was found.
    pub message: String,
}

impl Problem {
    /// A problem at `key`.
    pub fn new(key: &'static str, message: impl Into<String>) -> Self {
        Self { key, message: message.into() }
    }

    /// A problem at `key` if `good` is false.
    pub fn unless(good: bool, key: &'static str, message: impl FnOnce() -> String) -> Option<Self> {
        (!good).then(|| Self::new(key, message()))
    }

    /// A problem at `key` if `value` is not in `range`, or is no number.
    pub fn within<T: PartialOrd + fmt::Display>(key: &'static str, value: T, range: RangeInclusive<T>) -> Option<Self> {
        let message = || match &value > range.end() {
            true => format!("expected at most {}, found {value}", range.end()),
            false => format!("expected at least {}, found {value}", range.start()),
        };
        Self::unless(range.contains(&value), key, message)
    }

    /// A problem at `key` if one of `values` is not in `range`, or is no number.
    pub fn all_within<T: PartialOrd + fmt::Display + Copy>(
        key: &'static str,
        values: &[T],
        range: RangeInclusive<T>,
    ) -> Option<Self> {
        let outside = values.iter().find(|value| !range.contains(value))?;
        Self::within(key, *outside, range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_no_room_for_what_is_no_number() {
        assert_eq!(Problem::within("size", 4, 4..=8), None);
        let problem = Problem::within("size", 9, 4..=8).expect("too large");
        assert_eq!((problem.key, problem.message.as_str()), ("size", "expected at most 8, found 9"));
        assert!(Problem::within("rate", f64::NAN, 0.0..=1.0).is_some());
    }

    #[test]
    fn places_read_from_the_outside_in() {
        let error = Error::data("not an image").at("face 3").at("dataset `train`");
        assert_eq!(error.to_string(), "dataset `train`: face 3: not an image");
        assert_eq!(error.kind(), ErrorKind::Data);
    }
}
